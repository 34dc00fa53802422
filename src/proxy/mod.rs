//! The path of one exchange: admit, pick, forward, relay.
//!
//! Policy (which service, which color, for whom) is decided by pure functions on a borrowed view of
//! the request; headers are rewritten by pure functions on a header map; every failure becomes an
//! answer in one table ([`Refusal`]). What is asynchronous is short, and holds a claim from the
//! moment that it knows a pool to the last byte of the answer.

mod address;
mod body;
mod cookies;
mod exchange;
mod forwarded;
mod glance;
mod headers;
mod refusal;
mod view;
mod worker;

pub use self::{
    body::{RequestBody, ResponseBody},
    refusal::Refusal,
    view::{RequestView, Wish, admit},
    worker::{Proxy, Shared},
};
