//! The open connections of one worker, checked for expired timeouts twice a second.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::IpAddr,
    rc::Rc,
    time::Instant,
};

use slab::Slab;

use super::{
    clock::{Clock, Tick},
    connection::ClientConnection,
    per_client::PerClientLimit,
    timeout::Timeouts,
};
use crate::model::client_key;

/// The open connections of one worker.
pub(super) struct ConnectionTable<M> {
    connections: RefCell<Slab<ConnectionEntry<M>>>,
    /// The number of the next connection.
    next_number: Cell<u64>,
    clock: Rc<Clock>,
    /// Idle connections that can be closed for new ones, the next one first.
    candidates: RefCell<VecDeque<IdleCandidate>>,
    /// The same for one client, and when the list was made.
    client_candidates: RefCell<ClientCandidates>,
    /// How many connections keep the buffers of their last request.
    warm: Rc<Cell<usize>>,
}

struct ConnectionEntry<M> {
    /// Counts up in the order of registration.
    number: u64,
    connection: Rc<ClientConnection<M>>,
}

/// A connection that was idle when the list was made.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct IdleCandidate {
    /// Whether its client has no more than its fair share of connections.
    within_share: bool,
    since: Tick,
    number: u64,
    key: usize,
}

#[derive(Default)]
struct ClientCandidates {
    client: Option<(IpAddr, Tick)>,
    /// Whether the list was empty when made, so that a flood of connections does not rebuild it each time.
    was_empty: bool,
    candidates: VecDeque<IdleCandidate>,
}

/// Keeps a connection in the table until dropped.
pub(super) struct ConnectionRegistration<M> {
    connection_table: Rc<ConnectionTable<M>>,
    key: usize,
}

/// Permission to keep the buffers of the last request; released when dropped.
pub(super) struct WarmPermit(Rc<Cell<usize>>);

/// How many connections of a worker may keep the buffers of their last request: few send the next request at once, and
/// the others would hold memory for nothing.
const WARM_MAX: usize = 256;

// === impl ConnectionTable ===

impl<M> ConnectionTable<M> {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let clock = Rc::new(Clock::new(timeouts));
        Self {
            connections: RefCell::default(),
            next_number: Cell::new(0),
            clock,
            candidates: RefCell::default(),
            client_candidates: RefCell::default(),
            warm: Rc::default(),
        }
    }

    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    pub(super) fn register(
        self: &Rc<Self>,
        connection: &Rc<ClientConnection<M>>,
    ) -> ConnectionRegistration<M> {
        let number = self.next_number.get();
        self.next_number.set(number + 1);
        let entry = ConnectionEntry { number, connection: Rc::clone(connection) };
        let key = self.connections.borrow_mut().insert(entry);
        ConnectionRegistration { connection_table: Rc::clone(self), key }
    }

    /// Handles expired timeouts of all connections. A connection that is cut is still in the table when this returns:
    /// its task is dropped later, by the runtime.
    pub(super) fn check_timeouts(&self, now: Instant) {
        self.clock.step_to(now);
        // Connections may have become idle or busy since the list was made.
        self.candidates.borrow_mut().clear();
        let tick = self.clock.tick();
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            if let Some(timeout) = connection.check_timeouts(tick) {
                connection.cut(timeout);
            }
        }
    }

    /// Wakes the tasks of all connections and streams.
    pub(super) fn wake_all(&self) {
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            connection.wake();
        }
    }

    /// Asks all connections to close after their exchange in progress.
    pub(super) fn close_all(&self) {
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            connection.close();
        }
    }

    /// Closes an idle connection: first of the clients that have more than `share` connections, and of these the
    /// longest idle one, to within half a second. False if there is none.
    pub(super) fn evict(&self, per_client: &PerClientLimit, share: usize) -> bool {
        if self.evict_one(&mut self.candidates.borrow_mut()) {
            return true;
        }
        let over_share = per_client.clients_over(share);
        let candidates = self.idle_candidates(|connection| {
            let within_share =
                over_share.is_empty() || !over_share.contains(&client_of(connection));
            Some(within_share)
        });
        self.candidates.replace(candidates);
        self.evict_one(&mut self.candidates.borrow_mut())
    }

    /// Closes the longest idle connection of a client. With `keeps_recent`, only if it has been idle for at least a
    /// second, because a connection that has just been used will probably be used again. False if there is none.
    pub(super) fn evict_idle_of(&self, address: IpAddr, keeps_recent: bool) -> bool {
        let key = (client_key(address), self.clock.tick());
        let mut cached = self.client_candidates.borrow_mut();
        // Which connections have been idle for a second changes with each step; which are idle at all, at any time.
        let may_have_more = !keeps_recent && !cached.was_empty && cached.candidates.is_empty();
        if cached.client != Some(key) || may_have_more {
            cached.client = Some(key);
            cached.candidates = self.idle_candidates(|it| (client_of(it) == key.0).then_some(true));
            if keeps_recent {
                cached.candidates.retain(|it| self.clock.is_a_second_after(it.since));
            }
            cached.was_empty = cached.candidates.is_empty();
        }
        self.evict_one(&mut cached.candidates)
    }

    /// Closes the first listed connection that is still idle.
    fn evict_one(&self, candidates: &mut VecDeque<IdleCandidate>) -> bool {
        let connections = self.connections.borrow();
        while let Some(IdleCandidate { since, number, key, .. }) = candidates.pop_front() {
            if let Some(entry) = connections.get(key)
                && entry.number == number
                && entry.connection.idle_since() == Some(since)
            {
                entry.connection.evict();
                return true;
            }
        }
        false
    }

    /// The idle connections for which `within_share` is not `None`, the next one to close first.
    fn idle_candidates(
        &self,
        is_within_share: impl Fn(&ClientConnection<M>) -> Option<bool>,
    ) -> VecDeque<IdleCandidate> {
        let connections = self.connections.borrow();
        let mut idle_candidates: Vec<_> = connections
            .iter()
            .filter_map(|(key, ConnectionEntry { number, connection })| {
                let since = connection.idle_since()?;
                Some(IdleCandidate {
                    within_share: is_within_share(connection)?,
                    since,
                    number: *number,
                    key,
                })
            })
            .collect();
        idle_candidates.sort_unstable();
        idle_candidates.into()
    }

    /// Since when the longest idle connection has been idle.
    pub(super) fn longest_idle_since(&self) -> Option<Instant> {
        // While connections are closed one after another, the next one is already known.
        if let Some(first) = self.candidates.borrow().front() {
            return Some(self.clock.time_of(first.since));
        }
        let connections = self.connections.borrow();
        let since = connections.iter().filter_map(|(_, it)| it.connection.idle_since()).min();
        since.map(|it| self.clock.time_of(it))
    }

    pub(super) fn len(&self) -> usize {
        self.connections.borrow().len()
    }
}

fn client_of<M>(connection: &ClientConnection<M>) -> IpAddr {
    client_key(connection.peer().address())
}

// === impl ConnectionRegistration ===

impl<M> ConnectionRegistration<M> {
    /// Permission to keep the buffers of the last request, unless enough connections have it.
    pub(super) fn try_keep_warm(&self) -> Option<WarmPermit> {
        let warm = &self.connection_table.warm;
        (warm.get() < WARM_MAX).then(|| {
            warm.set(warm.get() + 1);
            WarmPermit(Rc::clone(warm))
        })
    }
}

impl Drop for WarmPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<M> Drop for ConnectionRegistration<M> {
    fn drop(&mut self) {
        // Removed first, so that the table is not borrowed while the connection is dropped.
        let left = self.connection_table.connections.borrow_mut().try_remove(self.key);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        downstream::{
            Listener, ListenerContext, Timeout,
            peer::{Peer, PeerIdentity},
        },
        model::Networks,
    };

    const LIMIT: Duration = Duration::from_secs(60);

    fn connection_table() -> Rc<ConnectionTable<()>> {
        Rc::new(ConnectionTable::new(&Timeouts {
            handshake: LIMIT,
            head: LIMIT,
            keep_alive: LIMIT,
            stall: LIMIT,
            upstream: LIMIT,
            request: None,
            tunnel: LIMIT,
        }))
    }

    fn connection(
        connection_table: &Rc<ConnectionTable<()>>,
        address: &str,
    ) -> (Rc<ClientConnection<()>>, ConnectionRegistration<()>) {
        let address = SocketAddr::new(address.parse().expect("an address"), 1);
        let listener_context = ListenerContext::unbound(Listener::plain(address));
        let peer = Rc::new(Peer::new(PeerIdentity::Known(address), listener_context, None));
        let connection = Rc::new(ClientConnection::new(peer, Rc::clone(connection_table.clock())));
        let registration = connection_table.register(&connection);
        (connection, registration)
    }

    fn pass(connection_table: &ConnectionTable<()>, seconds: u64) {
        connection_table.clock.set(connection_table.clock.now() + Duration::from_secs(seconds));
    }

    #[test]
    fn the_longest_idle_connection_closes_first_and_a_busy_one_never() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let all: Vec<_> = (0..4).map(|_| connection(&connection_table, "192.0.2.1")).collect();
        // Not in the order of registration.
        for registration in [2, 0, 1] {
            all[registration].0.arm(Timeout::Idle);
            pass(&connection_table, 1);
        }
        all[3].0.arm(Timeout::RequestBody);
        assert_eq!(
            connection_table.longest_idle_since(),
            Some(connection_table.clock.now() - Duration::from_secs(3))
        );
        let evicted = || all.iter().map(|it| it.0.is_evicted()).collect::<Vec<_>>();
        assert!(connection_table.evict(&per_client, 100));
        assert_eq!(evicted(), [false, false, true, false]);
        // A connection that is used again has been idle for a shorter time.
        all[0].0.arm(Timeout::Idle);
        assert!(connection_table.evict(&per_client, 100));
        assert_eq!(evicted(), [false, true, true, false]);
        assert!(connection_table.evict(&per_client, 100), "idle for a short time");
        assert!(!connection_table.evict(&per_client, 100), "only a busy connection is left");
        assert_eq!(evicted(), [true, true, true, false]);
    }

    #[test]
    fn a_client_over_its_share_loses_its_idle_connections_first() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let mut permits = Vec::new();
        let mut all = Vec::new();
        for address in ["192.0.2.1", "192.0.2.9", "192.0.2.9", "192.0.2.9"] {
            permits.push(per_client.acquire(address.parse().expect("an address")));
            all.push(connection(&connection_table, address));
            all[all.len() - 1].0.arm(Timeout::Idle);
            pass(&connection_table, 1);
        }
        let evicted = || all.iter().map(|it| it.0.is_evicted()).collect::<Vec<_>>();
        assert!(connection_table.evict(&per_client, 2));
        assert_eq!(evicted(), [false, true, false, false]);
    }

    #[test]
    fn a_client_at_its_limit_loses_only_connections_idle_for_a_second() {
        let connection_table = connection_table();
        let old = connection(&connection_table, "192.0.2.1");
        old.0.arm(Timeout::Idle);
        let other = connection(&connection_table, "192.0.2.2");
        other.0.arm(Timeout::Idle);
        let address = "192.0.2.1".parse().expect("an address");
        assert!(!connection_table.evict_idle_of(address, true), "it was just used");
        pass(&connection_table, 2);
        let fresh = connection(&connection_table, "192.0.2.1");
        fresh.0.arm(Timeout::Idle);
        assert!(connection_table.evict_idle_of(address, true) && old.0.is_evicted());
        assert!(!connection_table.evict_idle_of(address, true));
        assert!(!fresh.0.is_evicted() && !other.0.is_evicted());
        assert!(
            connection_table.evict_idle_of(address, false) && fresh.0.is_evicted(),
            "a fair share does not keep recently used connections"
        );
        assert!(!connection_table.evict_idle_of(address, false) && !other.0.is_evicted());
    }

    #[test]
    fn an_http2_stream_is_never_evicted() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let (parent, _registration) = connection(&connection_table, "192.0.2.1");
        parent.arm(Timeout::Http2KeepAlive);
        let stream = ClientConnection::new_stream(
            Rc::clone(parent.peer()),
            Rc::clone(connection_table.clock()),
        );
        stream.arm(Timeout::Linger);
        let stream = Rc::new(stream);
        let _stream_registration = connection_table.register(&stream);
        assert!(
            !connection_table.evict(&per_client, 0)
                && connection_table.longest_idle_since().is_none()
        );
    }
}
