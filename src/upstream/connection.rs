//! A connection to an endpoint, as one request has it.

use super::sessions::{OpenSession, StreamLease};
use crate::net::HttpStream;

/// A connection that is ready for one request. Dropping it closes it.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// The connection itself, or a stream of one that others use too.
    pub stream: HttpStream,
    /// Whether it carried a request before: the other end may be about to close it.
    pub is_reused: bool,
    /// Whether the next request on it may be of another client.
    pub(super) is_shared: bool,
    pub(super) kind: ConnectionKind,
}

/// What a request has for itself.
#[derive(Debug)]
pub(super) enum ConnectionKind {
    /// A connection, which is counted.
    Exclusive(#[expect(dead_code, reason = "it is held for what its drop does")] OpenSession),
    /// A part of one.
    Shared(StreamLease),
}

// === impl UpstreamConnection ===

impl UpstreamConnection {
    pub(super) fn new(stream: HttpStream, kind: ConnectionKind, is_shared: bool) -> Self {
        Self { stream, is_reused: false, is_shared, kind }
    }

    /// Has nobody else use what this one runs over: it does not answer.
    pub fn retire(&self) {
        if let ConnectionKind::Shared(lease) = &self.kind {
            lease.distrust();
        }
    }

    pub(super) fn is_reusable(&mut self) -> bool {
        match &mut self.stream {
            HttpStream::Socket(it) => it.is_quiet(),
            HttpStream::Stream(_) => false,
        }
    }

    /// The same, by asking the system.
    pub(super) fn check_reusable(&mut self) -> bool {
        match &mut self.stream {
            HttpStream::Socket(it) => it.is_quiet_now(),
            HttpStream::Stream(_) => false,
        }
    }
}
