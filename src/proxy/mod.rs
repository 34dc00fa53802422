//! The path of one exchange: admit, pick an endpoint, forward, relay.
//!
//! Policy (which service, which color, for which audience) is decided by pure functions on a borrowed view of the
//! request. Heads are rewritten by pure functions, from the bytes that were read into the bytes that are sent. Every
//! failure becomes a response in one table ([`ProxyError`]). The asynchronous code is short, and holds a claim from the
//! choice of a pool to the last byte of the response.

mod abandoned;
mod address;
mod admitted;
mod affinity;
mod assets;
mod body_borders;
mod body_pipe;
#[cfg(any(test, fuzzing))]
pub mod checks;
mod continued;
mod cookies;
mod copies;
mod detached;
mod direct_client;
mod error;
mod error_page;
mod exchange;
mod forward;
mod forwarded_chain;
mod forwarding;
mod handler;
mod headers;
mod holding;
mod intake;
mod interim;
mod local_reply;
mod log_limiter;
mod logged;
mod max_forwards;
mod peer_cache;
mod pinning;
mod previews;
mod queueing;
mod received;
mod relay;
mod request_claim;
mod request_record;
mod request_traits;
mod rescue;
mod response;
mod retries;
#[cfg(test)]
mod samples;
mod second_round;
mod shares;
mod signal;
mod steering;
mod stream_refusal;
mod stream_schedule;
mod tunnel;
mod upload;
mod upstream_failure;
mod upstream_response;
mod via;
mod view;
mod worker;

pub use self::{
    detached::Detached,
    direct_client::DirectClient,
    error::ProxyError,
    error_page::PAGE_STATUSES,
    forwarding::{Forwarding, Via},
    headers::is_never_a_trailer,
    peer_cache::PeerCache,
    signal::EventStream,
    tunnel::Tunnel,
    via::{LoopMark, is_marked},
    view::{RequestView, RequestedColor, admit},
    worker::{Proxy, ProxyContext},
};
