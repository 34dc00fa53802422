//! One worker's connections to endpoints.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{connect::ConnectError, member::Member, pool::Pool};
use crate::{
    metrics::Counted,
    net::{Buffers, Socket},
};

/// The connections of one worker that wait for a request.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    buffers: Rc<Buffers>,
    /// By the member's address, which its `Weak` beside it keeps from being used again. The last one
    /// put back is the first one taken, so that few stay hot and the others age out.
    idle: RefCell<HashMap<*const Member, Waiting, BuildHasherDefault<AddressHasher>>>,
}

/// How connections are opened and kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How long opening one may take.
    pub connect: Duration,
    /// How long one may wait for the next request. Best below the application's own limit, so that
    /// we close first.
    pub idle: Duration,
    /// How many of a worker may wait at one endpoint.
    pub idle_max: usize,
}

/// Mixes one address. Nobody outside can choose it, so that no more is needed, and it is asked for
/// twice in every request.
#[derive(Debug, Default)]
struct AddressHasher(u64);

#[derive(Debug)]
struct Waiting {
    member: Weak<Member>,
    connections: Vec<(Connection, Instant)>,
}

/// A connection that is ready for one request. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// Whether it carried a request before: the other end may be about to close it.
    pub is_reused: bool,
    _open: Counted,
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

// === impl Connections ===

impl Connections {
    /// No connections yet; what they read goes through `buffers`.
    #[must_use]
    pub fn new(limits: Limits, buffers: Rc<Buffers>) -> Self {
        Self { limits, buffers, idle: RefCell::default() }
    }

    /// A connection that waited for a request and is still open, as far as is known here, if there
    /// is one.
    #[must_use]
    pub fn waiting(&self, member: &Arc<Member>) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle.get_mut(&Arc::as_ptr(member))?;
        std::iter::from_fn(|| waiting.connections.pop())
            .map(|(connection, _)| connection)
            // One that speaks without having been asked is not believed.
            .find(|it| it.socket.is_quiet())
    }

    /// A new connection. Must be called on a worker's runtime. Nothing is left behind when the
    /// future is dropped.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which is counted already.
    pub async fn open(&self, pool: &Pool, member: &Member) -> Result<Connection, ConnectError> {
        match member.connect(self.limits.connect).await {
            Ok(stream) => {
                let socket = Socket::new(stream, &self.buffers);
                let open = Counted::new(&pool.metrics().connections);
                Ok(Connection { socket, is_reused: false, _open: open })
            }
            Err(error) => {
                pool.metrics().connect_error(error.reason.as_str());
                Err(error)
            }
        }
    }

    /// Keeps a connection whose answer has been read to its end for the next request, or closes it
    /// if enough are waiting.
    pub fn put_back(&self, member: &Arc<Member>, mut connection: Connection, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let waiting = idle
            .entry(Arc::as_ptr(member))
            .or_insert_with(|| Waiting { member: Arc::downgrade(member), connections: Vec::new() });
        if waiting.connections.len() < self.limits.idle_max {
            connection.is_reused = true;
            waiting.connections.push((connection, now));
        }
    }

    /// Closes what waited too long, what the other end has closed, and what belongs to members
    /// that are in no pool any more.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, waiting| {
            if waiting.member.strong_count() == 0 {
                return false;
            }
            waiting.connections.retain(|(connection, since)| {
                let is_fresh = now.saturating_duration_since(*since) < self.limits.idle;
                is_fresh && connection.socket.is_quiet()
            });
            !waiting.connections.is_empty()
        });
    }
}
