//! Wire types and client of the admin API of Flipgate, a blue/green reverse proxy.
//!
//! Use this crate to script Flipgate from Rust: promote a color, wait until the other one is drained, follow
//! the events. It does not depend on the proxy. `GET /v1/openapi.json` of a running Flipgate describes the same
//! API for other languages.
//!
//! ```no_run
//! use std::{collections::BTreeMap, time::Duration};
//!
//! use flipgate_api::{
//!     Call, CallError, Caller,
//!     wire::{PromoteRequest, Status},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let caller = Caller { target: "unix:/run/flipgate.sock".parse()?, token: None };
//! let status = caller.status().await?;
//! println!("generation {}, web is {}", status.generation, status.services["web"].active);
//!
//! let request = PromoteRequest {
//!     services: BTreeMap::from([("web".to_owned(), "green".to_owned())]),
//!     reason: Some("release 8.0".to_owned()),
//!     ..PromoteRequest::default()
//! };
//! // Fails with 412 if another change was applied since the status.
//! let call = Call::promote(&request).if_generation(status.generation);
//! match caller.call::<Status>(call).await {
//!     Ok(status) => println!("web is {}", status.services["web"].active),
//!     Err(CallError::Refused { status, problem }) => println!("refused with {status}: {problem:?}"),
//!     Err(error) => return Err(error.into()),
//! }
//!
//! let drain = caller.drain("web", Some("blue"), Duration::from_secs(60)).await?;
//! if drain.drained {
//!     println!("it is safe to stop blue");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! - `clap`: the options `--admin` and `--token-file` as [clap](https://docs.rs/clap) arguments
//!   (`CallerArguments`).
//! - `terminal`: writing to standard output that may be closed.
//! - `openapi`: schemas of the wire types for [utoipa](https://docs.rs/utoipa).

#[cfg(feature = "clap")]
mod arguments;
mod calls;
mod client;
mod gate_text;
#[cfg(feature = "terminal")]
pub mod terminal;
mod text;
pub mod wire;

#[cfg(feature = "clap")]
pub use self::arguments::{CallerArguments, OutputArguments, OutputForm, TokenFileError};
pub use self::{
    calls::GATES_MAX,
    client::{Call, CallError, Caller, EventLines, Target},
    gate_text::gate_text,
    text::{escape, is_deceptive},
};
