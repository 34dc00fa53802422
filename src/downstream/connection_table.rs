//! The open connections of one worker, looked over twice a second for those that stand still.

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
use crate::model::one_client;

/// The open connections of one worker.
pub(super) struct ConnectionTable<M> {
    connections: RefCell<Slab<ConnectionEntry<M>>>,
    /// The number of the next connection.
    next_number: Cell<u64>,
    clock: Rc<Clock>,
    /// Connections to close for others, the first one first.
    candidates: RefCell<VecDeque<IdleCandidate>>,
    /// The same of one client, and when they were looked for.
    client_candidates: RefCell<ClientCandidates>,
    /// Connections that keep what they needed for their last request.
    warm: Rc<Cell<usize>>,
}

struct ConnectionEntry<M> {
    /// In the order in which they came.
    number: u64,
    connection: Rc<ClientConnection<M>>,
}

/// A connection that was idle when it was looked for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct IdleCandidate {
    /// Whether its client has fewer connections than would be unfair.
    within_share: bool,
    since: Tick,
    number: u64,
    key: usize,
}

#[derive(Default)]
struct ClientCandidates {
    client: Option<(IpAddr, Tick)>,
    /// Whether none was found then: not to be looked for again with each connection of a flood.
    was_empty: bool,
    candidates: VecDeque<IdleCandidate>,
}

/// A connection's place; given back when this is dropped.
pub(super) struct ConnectionRegistration<M> {
    connection_table: Rc<ConnectionTable<M>>,
    key: usize,
}

/// Leave to keep what was needed for the last request; given back when this is dropped.
pub(super) struct WarmPermit(Rc<Cell<usize>>);

/// Connections of a worker that may keep what they needed for their last request: those that ask again
/// at once are few, and all others would hold memory for nothing.
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

    /// Calls on whoever has waited for too long. Nobody is gone when this returns: a task that is cut
    /// is dropped in its own turn.
    pub(super) fn check_timeouts(&self, now: Instant) {
        self.clock.step_to(now);
        // Others may have become idle, and some of those that were have not been since.
        self.candidates.borrow_mut().clear();
        let tick = self.clock.tick();
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            if let Some(timeout) = connection.check_timeouts(tick) {
                connection.cut(timeout);
            }
        }
    }

    /// Asks everybody to close after what they are doing.
    pub(super) fn close_all(&self) {
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            connection.close();
        }
    }

    /// Closes a connection that is idle: of the clients that have more than `share` connections first, and
    /// of these the one that has been idle longest, to within half a second. False if there is none.
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

    /// Closes the connection of a client that has been idle longest; with `keeps_recent`, if that is at least
    /// a second: one that has just been used most likely will be again. False if there is none.
    pub(super) fn evict_idle_of(&self, address: IpAddr, keeps_recent: bool) -> bool {
        let key = (one_client(address), self.clock.tick());
        let mut cached = self.client_candidates.borrow_mut();
        // What is idle for a second changes with each step, and what is idle at all at any time.
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

    /// Closes the first connection of the queue that is idle still.
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

    /// The idle connections that are looked for, the first one to close first.
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

    /// Since when the connection that has been idle longest has been so.
    pub(super) fn longest_idle_since(&self) -> Option<Instant> {
        // What is closed next is known already while places are taken one after the other.
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
    one_client(connection.peer().address())
}

// === impl ConnectionRegistration ===

impl<M> ConnectionRegistration<M> {
    /// Leave to keep what was needed for the last request, unless enough others have it.
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
        // Taken out first, so that what its drop sets off finds the roster free.
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
        // In another order than that in which they came.
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
        // One that is used meanwhile has been idle for a shorter time.
        all[0].0.arm(Timeout::Idle);
        assert!(connection_table.evict(&per_client, 100));
        assert_eq!(evicted(), [false, true, true, false]);
        assert!(connection_table.evict(&per_client, 100), "it is idle, though not for long");
        assert!(!connection_table.evict(&per_client, 100), "nobody is left but one that is busy");
        assert_eq!(evicted(), [true, true, true, false]);
    }

    #[test]
    fn a_client_over_its_share_loses_its_idle_connections_first() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let mut standing = Vec::new();
        let mut all = Vec::new();
        for address in ["192.0.2.1", "192.0.2.9", "192.0.2.9", "192.0.2.9"] {
            standing.push(per_client.acquire(address.parse().expect("an address")));
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
        assert!(!connection_table.evict_idle_of(address, true), "it has just been used");
        pass(&connection_table, 2);
        let fresh = connection(&connection_table, "192.0.2.1");
        fresh.0.arm(Timeout::Idle);
        assert!(connection_table.evict_idle_of(address, true) && old.0.is_evicted());
        assert!(!connection_table.evict_idle_of(address, true));
        assert!(!fresh.0.is_evicted() && !other.0.is_evicted());
        assert!(
            connection_table.evict_idle_of(address, false) && fresh.0.is_evicted(),
            "a share is no limit"
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
