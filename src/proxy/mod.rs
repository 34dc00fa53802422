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
mod body_pipe;
#[cfg(any(test, fuzzing))]
pub mod checks;
mod cookies;
mod direct_client;
mod error;
mod exchange;
mod forward;
mod forwarded_chain;
mod forwarding;
mod handler;
mod headers;
mod interim;
mod local_reply;
mod log_limiter;
mod logged;
mod max_forwards;
mod peer_cache;
mod previews;
mod queueing;
mod received;
mod relay;
mod request_claim;
mod request_record;
mod request_traits;
mod response;
mod retries;
#[cfg(test)]
mod samples;
mod tunnel;
mod upload;
mod upstream_failure;
mod via;
mod view;
mod worker;

pub use self::{
    direct_client::DirectClient,
    error::ProxyError,
    forwarding::{Forwarding, Via},
    headers::is_never_a_trailer,
    peer_cache::PeerCache,
    tunnel::Tunnel,
    via::{LoopMark, is_marked},
    view::{RequestView, RequestedColor, admit},
    worker::{Proxy, ProxyContext},
};
