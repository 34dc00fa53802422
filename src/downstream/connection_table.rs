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
    next: Cell<u64>,
    clock: Rc<Clock>,
    /// Connections to close for others, the first one first.
    queue: RefCell<VecDeque<IdleCandidate>>,
    /// The same of one client, and when they were looked for.
    of_client: RefCell<ClientEntries>,
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
    is_fair: bool,
    since: Tick,
    number: u64,
    key: usize,
}

#[derive(Default)]
struct ClientEntries {
    client: Option<(IpAddr, Tick)>,
    /// Whether none was found then: not to be looked for again with each connection of a flood.
    had_none: bool,
    queue: VecDeque<IdleCandidate>,
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
    pub(super) fn new(patience: &Timeouts) -> Self {
        let clock = Rc::new(Clock::new(patience));
        Self {
            connections: RefCell::default(),
            next: Cell::new(0),
            clock,
            queue: RefCell::default(),
            of_client: RefCell::default(),
            warm: Rc::default(),
        }
    }

    pub(super) fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    pub(super) fn enter(
        self: &Rc<Self>,
        connection: &Rc<ClientConnection<M>>,
    ) -> ConnectionRegistration<M> {
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = ConnectionEntry { number, connection: Rc::clone(connection) };
        let key = self.connections.borrow_mut().insert(entry);
        ConnectionRegistration { connection_table: Rc::clone(self), key }
    }

    /// Calls on whoever has waited for too long. Nobody is gone when this returns: a task that is cut
    /// is dropped in its own turn.
    pub(super) fn look(&self, now: Instant) {
        self.clock.step_to(now);
        // Others may have become idle, and some of those that were have not been since.
        self.queue.borrow_mut().clear();
        let tick = self.clock.tick();
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            if let Some(wait) = connection.look(tick) {
                connection.cut(wait);
            }
        }
    }

    /// Asks everybody to close after what they are doing.
    pub(super) fn close(&self) {
        for (_, ConnectionEntry { connection, .. }) in self.connections.borrow().iter() {
            connection.close();
        }
    }

    /// Closes a connection that is idle: of the clients that have more than `share` connections first, and
    /// of these the one that has been idle longest, to within half a second. False if there is none.
    pub(super) fn evict(&self, per_client: &PerClientLimit, share: usize) -> bool {
        if self.evict_one(&mut self.queue.borrow_mut()) {
            return true;
        }
        let unfair = per_client.beyond(share);
        let queue = self.idle(|connection| {
            let is_fair = unfair.is_empty() || !unfair.contains(&client_of(connection));
            Some(is_fair)
        });
        self.queue.replace(queue);
        self.evict_one(&mut self.queue.borrow_mut())
    }

    /// Closes the connection of a client that has been idle longest; with `keeps_recent`, if that is at least
    /// a second: one that has just been used most likely will be again. False if there is none.
    pub(super) fn evict_of(&self, address: IpAddr, keeps_recent: bool) -> bool {
        let wanted = (one_client(address), self.clock.tick());
        let mut known = self.of_client.borrow_mut();
        // What is idle for a second changes with each step, and what is idle at all at any time.
        let may_have_more = !keeps_recent && !known.had_none && known.queue.is_empty();
        if known.client != Some(wanted) || may_have_more {
            known.client = Some(wanted);
            known.queue = self.idle(|it| (client_of(it) == wanted.0).then_some(true));
            if keeps_recent {
                known.queue.retain(|it| self.clock.is_a_second_after(it.since));
            }
            known.had_none = known.queue.is_empty();
        }
        self.evict_one(&mut known.queue)
    }

    /// Closes the first connection of the queue that is idle still.
    fn evict_one(&self, queue: &mut VecDeque<IdleCandidate>) -> bool {
        let connections = self.connections.borrow();
        while let Some(IdleCandidate { since, number, key, .. }) = queue.pop_front() {
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
    fn idle(
        &self,
        is_wanted: impl Fn(&ClientConnection<M>) -> Option<bool>,
    ) -> VecDeque<IdleCandidate> {
        let connections = self.connections.borrow();
        let mut idle: Vec<_> = connections
            .iter()
            .filter_map(|(key, ConnectionEntry { number, connection })| {
                let since = connection.idle_since()?;
                Some(IdleCandidate { is_fair: is_wanted(connection)?, since, number: *number, key })
            })
            .collect();
        idle.sort_unstable();
        idle.into()
    }

    /// Since when the connection that has been idle longest has been so.
    pub(super) fn longest_idle(&self) -> Option<Instant> {
        // What is closed next is known already while places are taken one after the other.
        if let Some(first) = self.queue.borrow().front() {
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
    pub(super) fn stay_warm(&self) -> Option<WarmPermit> {
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
        let place = connection_table.enter(&connection);
        (connection, place)
    }

    fn pass(connection_table: &ConnectionTable<()>, seconds: u64) {
        connection_table.clock.set(connection_table.clock.now() + Duration::from_secs(seconds));
    }

    #[test]
    fn the_connection_that_has_been_idle_longest_is_closed_first_and_a_busy_one_never() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let all: Vec<_> = (0..4).map(|_| connection(&connection_table, "192.0.2.1")).collect();
        // In another order than that in which they came.
        for place in [2, 0, 1] {
            all[place].0.begin(Timeout::Request);
            pass(&connection_table, 1);
        }
        all[3].0.begin(Timeout::Body);
        assert_eq!(
            connection_table.longest_idle(),
            Some(connection_table.clock.now() - Duration::from_secs(3))
        );
        let evicted = || all.iter().map(|it| it.0.is_evicted()).collect::<Vec<_>>();
        assert!(connection_table.evict(&per_client, 100));
        assert_eq!(evicted(), [false, false, true, false]);
        // One that is used meanwhile has been idle for a shorter time.
        all[0].0.begin(Timeout::Request);
        assert!(connection_table.evict(&per_client, 100));
        assert_eq!(evicted(), [false, true, true, false]);
        assert!(connection_table.evict(&per_client, 100), "it is idle, though not for long");
        assert!(!connection_table.evict(&per_client, 100), "nobody is left but one that is busy");
        assert_eq!(evicted(), [true, true, true, false]);
    }

    #[test]
    fn a_client_with_more_than_its_share_loses_its_own_first() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let mut standing = Vec::new();
        let mut all = Vec::new();
        for address in ["192.0.2.1", "192.0.2.9", "192.0.2.9", "192.0.2.9"] {
            standing.push(per_client.join(address.parse().expect("an address")));
            all.push(connection(&connection_table, address));
            all[all.len() - 1].0.begin(Timeout::Request);
            pass(&connection_table, 1);
        }
        let evicted = || all.iter().map(|it| it.0.is_evicted()).collect::<Vec<_>>();
        assert!(connection_table.evict(&per_client, 2));
        assert_eq!(evicted(), [false, true, false, false]);
    }

    #[test]
    fn a_client_at_its_limit_loses_only_what_has_been_idle_for_a_second() {
        let connection_table = connection_table();
        let old = connection(&connection_table, "192.0.2.1");
        old.0.begin(Timeout::Request);
        let other = connection(&connection_table, "192.0.2.2");
        other.0.begin(Timeout::Request);
        let address = "192.0.2.1".parse().expect("an address");
        assert!(!connection_table.evict_of(address, true), "it has just been used");
        pass(&connection_table, 2);
        let fresh = connection(&connection_table, "192.0.2.1");
        fresh.0.begin(Timeout::Request);
        assert!(connection_table.evict_of(address, true) && old.0.is_evicted());
        assert!(!connection_table.evict_of(address, true));
        assert!(!fresh.0.is_evicted() && !other.0.is_evicted());
        assert!(
            connection_table.evict_of(address, false) && fresh.0.is_evicted(),
            "a share is no limit"
        );
        assert!(!connection_table.evict_of(address, false) && !other.0.is_evicted());
    }

    #[test]
    fn a_stream_is_no_connection_to_be_closed() {
        let (connection_table, per_client) =
            (connection_table(), Arc::new(PerClientLimit::new(100, Networks::default())));
        let (own, _place) = connection(&connection_table, "192.0.2.1");
        own.begin(Timeout::Sound);
        let stream = ClientConnection::new_stream(
            Rc::clone(own.peer()),
            Rc::clone(connection_table.clock()),
        );
        stream.begin(Timeout::Linger);
        let stream = Rc::new(stream);
        let _stream_place = connection_table.enter(&stream);
        assert!(
            !connection_table.evict(&per_client, 0) && connection_table.longest_idle().is_none()
        );
    }
}
