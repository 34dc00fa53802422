//! Wire types and client of Flipgate's admin API.

#[cfg(feature = "clap")]
mod arguments;
mod client;
pub mod wire;

#[cfg(feature = "clap")]
pub use self::arguments::{CallerArguments, TokenFileError};
pub use self::client::{Call, CallError, Caller, EventLines, Target};
