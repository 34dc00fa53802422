//! The path of one exchange: admit, pick, forward, relay.
//!
//! Policy (which service, which color, for whom) is decided by pure functions on a borrowed view of
//! the request; heads are rewritten by pure functions, from the bytes that were read straight into
//! those that are sent; every failure becomes an answer in one table ([`ProxyError`]). What is
//! asynchronous is short, and holds a claim from the moment that it knows a pool to the last byte of
//! the answer.

mod abandoned;
mod address;
mod admitted;
mod affinity;
mod answer;
mod ask;
#[cfg(any(test, fuzzing))]
pub mod checks;
mod cookies;
mod exchange;
mod failure;
mod flow;
mod forward;
mod forwarded;
mod forwarding;
mod handler;
mod headers;
mod hold;
mod hops;
mod interim;
mod line;
mod loops;
mod memory;
mod own_answer;
mod previews;
mod received;
mod refusal;
mod relay;
mod retries;
mod said;
#[cfg(test)]
mod samples;
mod stranger;
mod tally;
mod tunnel;
mod upload;
mod view;
mod worker;

pub use self::{
    forwarding::{Forwarding, Via},
    headers::is_never_a_trailer,
    loops::{LoopMark, is_marked},
    memory::PeerCache,
    refusal::ProxyError,
    stranger::DirectClient,
    tunnel::Tunnel,
    view::{RequestView, RequestedColor, admit},
    worker::{Proxy, ProxyContext},
};
