//! A connection to an endpoint, as one request uses it.

use super::sessions::{OpenSession, StreamLease};
use crate::net::HttpStream;

/// A connection that is ready for one request. Dropping it closes it.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// The connection, or one HTTP/2 stream of a shared connection.
    pub stream: HttpStream,
    /// Whether it has carried a request before: the endpoint may be about to close it.
    pub is_reused: bool,
    /// Whether the next request on it may be another client's.
    pub(super) is_shared: bool,
    pub(super) kind: ConnectionKind,
}

/// Whether the request has the connection to itself.
#[derive(Debug)]
pub(super) enum ConnectionKind {
    /// An HTTP/1 connection, which counts towards the limits.
    Exclusive(#[expect(dead_code, reason = "held for its drop")] OpenSession),
    /// A stream of a shared HTTP/2 connection.
    Shared(StreamLease),
}

// === impl UpstreamConnection ===

impl UpstreamConnection {
    pub(super) fn new(stream: HttpStream, kind: ConnectionKind, is_shared: bool) -> Self {
        Self { stream, is_reused: false, is_shared, kind }
    }

    /// Keeps other requests off the shared connection: the endpoint does not respond on it.
    pub fn retire(&self) {
        if let ConnectionKind::Shared(lease) = &self.kind {
            lease.retire();
        }
    }

    pub(super) fn is_reusable(&mut self) -> bool {
        match &mut self.stream {
            HttpStream::Socket(it) => it.is_reusable(),
            HttpStream::Stream(_) => false,
        }
    }

    /// Like [`Self::is_reusable`], with a system call.
    pub(super) fn check_reusable(&mut self) -> bool {
        match &mut self.stream {
            HttpStream::Socket(it) => it.check_reusable(),
            HttpStream::Stream(_) => false,
        }
    }
}
