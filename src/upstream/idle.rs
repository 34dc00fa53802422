//! The idle connections of one worker, by endpoint.

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

/// By the address of the [`EndpointState`]; the `Weak` keeps it from being reused. Connections are reused last in,
/// first out, so that few stay in use and the others time out.
#[derive(Debug, Default)]
pub(super) struct IdleConnections(
    pub(super) HashMap<*const EndpointState, IdleConnection, BuildHasherDefault<AddressHasher>>,
);

/// Hashes one pointer. Clients cannot choose it, so a fast hash is enough; each request does this twice.
#[derive(Debug, Default)]
pub(super) struct AddressHasher(u64);

#[derive(Debug)]
pub(super) struct IdleConnection {
    pub(super) endpoint: Weak<EndpointState>,
    pub(super) connections: Vec<(UpstreamConnection, Instant)>,
    pub(super) sessions: Vec<Http2Session>,
    /// Held while a request opens a session for all.
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
        // Fibonacci hashing spreads multiples of the alignment.
        let mixed = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl IdleConnections ===

impl IdleConnections {
    /// Closes an idle connection, if there is one.
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
    /// Releases an idle connection or session if the front of the queue is a request of another worker. Returns whether
    /// it did.
    pub(super) fn release_idle(&mut self, endpoint: &EndpointState, worker_id: usize) -> bool {
        let session = self.sessions.iter().position(|it| it.in_use() == 0);
        // Checked last: a worker without idle connections must not take the request away from others.
        let has_any = !self.connections.is_empty() || session.is_some();
        let releases = has_any && endpoint.take_request_of_others(worker_id);
        if releases && self.connections.pop().is_none() {
            session.into_iter().for_each(|it| self.sessions.remove(it).retire());
        }
        releases
    }

    /// Like [`Self::release_idle`], or retires a session with requests. For now and then only: until its last request
    /// ends, no worker can use the session.
    pub(super) fn release_requested(&mut self, endpoint: &EndpointState, worker_id: usize) {
        let is_released = self.release_idle(endpoint, worker_id);
        if !is_released && !self.sessions.is_empty() && endpoint.take_request_of_others(worker_id) {
            self.sessions.iter().take(1).for_each(Http2Session::retire);
        }
    }

    /// A stream of the first session with capacity.
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
