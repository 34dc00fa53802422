//! The connections of one worker that wait for a request, by the endpoint that they lead to.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{Arc, Weak},
    time::Instant,
};

use tokio::sync::Semaphore;

use super::{
    connection::{ConnectionKind, UpstreamConnection},
    endpoint_state::EndpointState,
    sessions::Http2Session,
};
use crate::net::HttpStream;

/// By the member's address, which its `Weak` beside it keeps from being used again. The last one
/// put back is the first one taken, so that few stay hot and the others age out.
#[derive(Debug, Default)]
pub(super) struct IdleConnections(
    pub(super) HashMap<*const EndpointState, IdleConnection, BuildHasherDefault<AddressHasher>>,
);

/// Mixes one address. Nobody outside can choose it, so that no more is needed, and it is asked for
/// twice in every request.
#[derive(Debug, Default)]
pub(super) struct AddressHasher(u64);

#[derive(Debug)]
pub(super) struct IdleConnection {
    pub(super) endpoint: Weak<EndpointState>,
    pub(super) connections: Vec<(UpstreamConnection, Instant)>,
    pub(super) sessions: Vec<Http2Session>,
    /// Held by whoever opens a session for everybody.
    pub(super) opening: Arc<Semaphore>,
}

// === impl AddressHasher ===

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // Fibonacci hashing: the golden ratio spreads what is a multiple of the alignment.
        let mixed = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl IdleConnections ===

impl IdleConnections {
    /// Closes a connection that waits for a request, if there is one.
    pub(super) fn close_one(&mut self) {
        self.0.values_mut().find_map(|it| it.connections.pop());
    }

    pub(super) fn get_mut(
        &mut self,
        endpoint: &*const EndpointState,
    ) -> Option<&mut IdleConnection> {
        self.0.get_mut(endpoint)
    }

    pub(super) fn entry(&mut self, endpoint: &Arc<EndpointState>) -> &mut IdleConnection {
        self.0.entry(Arc::as_ptr(endpoint)).or_insert_with(|| IdleConnection {
            endpoint: Arc::downgrade(endpoint),
            connections: Vec::new(),
            sessions: Vec::new(),
            opening: Arc::new(Semaphore::new(1)),
        })
    }
}

// === impl IdleConnection ===

impl IdleConnection {
    /// Gives up one connection that carries nothing if somebody of another worker is the next who wants one of
    /// this member. Returns whether it did.
    pub(super) fn release_idle(&mut self, endpoint: &EndpointState, worker_id: usize) -> bool {
        let session = self.sessions.iter().position(|it| it.in_use() == 0);
        // Asked last: who has nothing to give up does not take the question away from those who have.
        let has_any = !self.connections.is_empty() || session.is_some();
        let releases = has_any && endpoint.take_request_of_others(worker_id);
        if releases && self.connections.pop().is_none() {
            session.into_iter().for_each(|it| self.sessions.remove(it).retire());
        }
        releases
    }

    /// The same, or has a session end when its requests are over. Only from time to time: until its last request
    /// is over, nobody can use the session.
    pub(super) fn release_requested(&mut self, endpoint: &EndpointState, worker_id: usize) {
        let is_released = self.release_idle(endpoint, worker_id);
        if !is_released && !self.sessions.is_empty() && endpoint.take_request_of_others(worker_id) {
            self.sessions.iter().take(1).for_each(Http2Session::retire);
        }
    }

    /// A stream of the first session that has room for one.
    pub(super) fn stream(&mut self, is_for_tunnel: bool) -> Option<UpstreamConnection> {
        self.sessions.retain(|it| !it.is_closed());
        let mut fit = self.sessions.iter_mut().filter(|it| !is_for_tunnel || it.supports_tunnels());
        let (stream, lease) = fit.find_map(Http2Session::stream)?;
        let stream = HttpStream::Stream(Box::new(stream));
        let mut connection = UpstreamConnection::new(stream, ConnectionKind::Shared(lease), true);
        connection.is_reused = true;
        Some(connection)
    }
}
