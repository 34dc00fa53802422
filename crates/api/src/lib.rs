//! Wire types and client of Flipgate's admin API.

mod client;
pub mod wire;

pub use self::client::{Call, CallError, Caller, EventLines, Target};
