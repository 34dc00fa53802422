//! The number of connections and requests of each client address, on all workers together.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::model::{Networks, client_key};

/// Limits the open connections of each client address. Used when a connection opens and closes, not by requests.
#[derive(Debug)]
pub struct PerClientLimit {
    max: usize,
    /// At the limit: whether recently used connections are kept, and a new one is refused.
    keeps_recently_used: bool,
    /// Addresses that stand for many clients, such as proxies. They have no limit.
    exempt: Networks,
    open: Mutex<ClientTable>,
}

/// The clients with open connections or requests.
#[derive(Debug, Default)]
struct ClientTable {
    all: HashMap<IpAddr, ClientUsage>,
    /// Clients without a connection that may have requests in flight: their endpoints still work on them. They still
    /// count, or a client could reconnect to get more requests than its share.
    disconnected: VecDeque<IpAddr>,
}

/// What one client has open.
#[derive(Debug)]
struct ClientUsage {
    connections: usize,
    /// Whether it is listed in `disconnected`.
    is_in_disconnected: bool,
    load: Arc<ClientLoad>,
}

/// The requests in flight of one client address, including tunnels.
#[derive(Debug)]
pub struct ClientLoad {
    address: IpAddr,
    /// Whether the address stands for many clients, or is not known yet, so that its counts say nothing about one
    /// client.
    is_shared: bool,
    requests: AtomicUsize,
    /// Those of them without their client, which has disconnected.
    abandoned: AtomicUsize,
}

/// Counts a request in flight until dropped.
// Not `Clone`: the request would be counted once and uncounted twice.
#[derive(Debug)]
pub struct RequestCount {
    load: Arc<ClientLoad>,
    is_abandoned: bool,
}

/// The maximum of requests in flight of a client that has disconnected.
const ABANDONED_MAX: usize = 100;

/// The same for an address that stands for many clients.
const ABANDONED_SHARED_MAX: usize = 1000;

/// How many disconnected clients are checked when a connection closes.
const PRUNE_BATCH: usize = 8;

/// A connection counted for its client until dropped.
#[derive(Debug)]
pub(super) struct ClientPermit {
    per_client: Arc<PerClientLimit>,
    load: Arc<ClientLoad>,
}

// === impl PerClientLimit ===

impl PerClientLimit {
    /// A limit of `max` connections per address, except for addresses in `exempt`.
    #[must_use]
    pub fn new(max: usize, exempt: Networks) -> Self {
        Self { max, keeps_recently_used: true, exempt, open: Mutex::default() }
    }

    /// Like [`Self::new`], but `max` is a fair share and not a configured limit: at the limit, any idle connection of
    /// the address is closed for a new one.
    #[must_use]
    pub fn fair_share(max: usize, exempt: Networks) -> Self {
        Self { keeps_recently_used: false, ..Self::new(max, exempt) }
    }

    /// At the limit: whether recently used connections are kept, and a new one is refused.
    pub(super) fn keeps_recently_used(&self) -> bool {
        self.keeps_recently_used
    }

    /// Counts a connection, unless its address is at the limit.
    pub(super) fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<ClientPermit> {
        let max = if self.exempt.contains(address.to_canonical()) { usize::MAX } else { self.max };
        self.acquire_below(max, address)
    }

    /// Counts a connection that replaces another one of its address, which is about to close.
    pub(super) fn acquire_replacing(self: &Arc<Self>, address: IpAddr) -> Option<ClientPermit> {
        self.acquire_below(usize::MAX, address)
    }

    fn acquire_below(self: &Arc<Self>, max: usize, address: IpAddr) -> Option<ClientPermit> {
        let is_shared = self.exempt.contains(address.to_canonical());
        let address = client_key(address);
        let mut clients = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = clients.all.entry(address).or_insert_with(|| ClientUsage {
            connections: 0,
            is_in_disconnected: false,
            load: ClientLoad::of(address, is_shared),
        });
        if open.connections >= max {
            return None;
        }
        open.connections += 1;
        Some(ClientPermit { per_client: Arc::clone(self), load: Arc::clone(&open.load) })
    }

    /// The clients with more than `share` connections, as [`client_key`] names them. Exempt clients are left out.
    pub(super) fn clients_over(&self, share: usize) -> HashSet<IpAddr> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let many = open.all.iter().filter(|(_, it)| it.connections > share && !it.load.is_shared);
        many.map(|(address, _)| *address).collect()
    }
}

// === impl ClientTable ===

impl ClientTable {
    /// Uncounts a connection.
    fn release(&mut self, address: IpAddr) {
        let Some(open) = self.all.get_mut(&address) else { return };
        open.connections -= 1;
        if open.connections == 0 && !std::mem::replace(&mut open.is_in_disconnected, true) {
            self.disconnected.push_back(address);
        }
    }

    /// Removes clients that have nothing open from `disconnected`. It checks a few at a time, so that the time to close
    /// a connection does not grow with their number.
    fn prune(&mut self) {
        for _ in 0..PRUNE_BATCH {
            let Some(address) = self.disconnected.pop_front() else { return };
            let Some(open) = self.all.get_mut(&address) else { continue };
            if open.connections > 0 {
                open.is_in_disconnected = false;
            } else if open.load.requests.load(Relaxed) == 0 {
                self.all.remove(&address);
            } else {
                self.disconnected.push_back(address);
            }
        }
    }
}

// === impl ClientLoad ===

impl ClientLoad {
    /// The load of a client that is not known yet.
    pub(super) fn unknown() -> Arc<Self> {
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Self::of(address, true)
    }

    fn of(address: IpAddr, is_shared: bool) -> Arc<Self> {
        let (requests, abandoned) = Default::default();
        Arc::new(Self { address, is_shared, requests, abandoned })
    }

    /// Counts a request.
    #[must_use]
    pub fn count_request(self: &Arc<Self>) -> RequestCount {
        self.requests.fetch_add(1, Relaxed);
        RequestCount { load: Arc::clone(self), is_abandoned: false }
    }
}

// === impl RequestCount ===

impl RequestCount {
    /// The requests in flight of the client, including this one; 0 if its address stands for many clients.
    #[must_use]
    pub fn client_requests(&self) -> usize {
        if self.load.is_shared { 0 } else { self.load.requests.load(Relaxed) }
    }

    /// Counts the request as abandoned by its client. False if the maximum of such requests is reached.
    pub fn mark_abandoned(&mut self) -> bool {
        let max = if self.load.is_shared { ABANDONED_SHARED_MAX } else { ABANDONED_MAX };
        let one_more = |it: usize| (it < max).then_some(it + 1);
        let is_counted = self.load.abandoned.fetch_update(Relaxed, Relaxed, one_more).is_ok();
        self.is_abandoned |= is_counted;
        is_counted
    }
}

impl Drop for RequestCount {
    fn drop(&mut self) {
        if self.is_abandoned {
            self.load.abandoned.fetch_sub(1, Relaxed);
        }
        self.load.requests.fetch_sub(1, Relaxed);
    }
}

// === impl ClientPermit ===

impl ClientPermit {
    /// The load of its client.
    pub(super) fn load(&self) -> &Arc<ClientLoad> {
        &self.load
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        let mut clients = self.per_client.open.lock().unwrap_or_else(PoisonError::into_inner);
        clients.release(self.load.address);
        clients.prune();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_gets_its_permits_back() {
        let per_client = Arc::new(PerClientLimit::new(2, Networks::default()));
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|it| it.parse().expect("an address"));
        let permits = [per_client.acquire(one), per_client.acquire(one)];
        assert!(permits.iter().all(Option::is_some) && per_client.acquire(one).is_none());
        assert!(per_client.acquire(other).is_some(), "another address has its own limit");
        drop(permits);
        assert!(per_client.acquire(one).is_some());
        assert!(
            per_client.open.lock().expect("not poisoned").all.is_empty(),
            "clients without connections are removed"
        );
    }

    #[test]
    fn the_requests_of_a_client_are_counted_over_all_its_connections() {
        let exempt = ["192.0.2.0/24".parse().expect("a network")].into_iter().collect();
        let per_client = Arc::new(PerClientLimit::new(9, exempt));
        let acquire =
            |it: &str| per_client.acquire(it.parse().expect("an address")).expect("a permit");
        let (one, two) = (acquire("198.51.100.1"), acquire("198.51.100.1"));
        let mut requests = vec![
            one.load().count_request(),
            two.load().count_request(),
            one.load().count_request(),
        ];
        assert_eq!(requests[0].client_requests(), 3);
        assert_eq!(acquire("198.51.100.2").load().count_request().client_requests(), 1);
        let proxy = acquire("192.0.2.1");
        assert_eq!(
            proxy.load().count_request().client_requests(),
            0,
            "an exempt address stands for many clients"
        );
        requests.truncate(1);
        assert_eq!(requests[0].client_requests(), 1, "finished requests do not count");
    }

    /// A client that disconnected and reconnected for each request had an unlimited number of requests, as long as its
    /// endpoints were waited for.
    #[test]
    fn requests_still_count_after_their_client_has_disconnected() {
        let per_client = Arc::new(PerClientLimit::new(9, Networks::default()));
        let acquire =
            || per_client.acquire("192.0.2.1".parse().expect("an address")).expect("a permit");
        let mut requests = Vec::new();
        for count in 1..=3 {
            let permit = acquire();
            requests.push(permit.load().count_request());
            assert_eq!(requests[0].client_requests(), count);
        }
        drop(requests);
        drop(acquire());
        let clients = per_client.open.lock().expect("not poisoned");
        assert!(clients.all.is_empty() && clients.disconnected.is_empty(), "everything is removed");
    }

    #[test]
    fn abandoned_requests_of_a_client_are_limited() {
        let per_client = Arc::new(PerClientLimit::new(9, Networks::default()));
        let permit =
            per_client.acquire("192.0.2.1".parse().expect("an address")).expect("a permit");
        let mut waiting = Vec::new();
        for _ in 0..ABANDONED_MAX {
            waiting.push(permit.load().count_request());
            assert!(waiting.last_mut().expect("not empty").mark_abandoned());
        }
        let mut more = permit.load().count_request();
        assert!(!more.mark_abandoned());
        waiting.pop();
        assert!(more.mark_abandoned(), "one request has finished");
    }

    #[test]
    fn an_exempt_address_has_no_limit_and_no_share() {
        let exempt = ["192.0.2.0/24".parse().expect("a network")].into_iter().collect();
        let per_client = Arc::new(PerClientLimit::new(1, exempt));
        let [proxy, client] =
            ["192.0.2.1", "198.51.100.1"].map(|it| it.parse().expect("an address"));
        let _open = [
            per_client.acquire(proxy),
            per_client.acquire(proxy),
            per_client.acquire(proxy),
            per_client.acquire(client),
        ]
        .map(|it| it.expect("a permit"));
        assert!(per_client.acquire(client).is_none());
        let _more =
            per_client.acquire_replacing(client).expect("replaces a connection that closes");
        assert_eq!(per_client.clients_over(1), [client].into());
        assert!(per_client.clients_over(2).is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_client() {
        let per_client = Arc::new(PerClientLimit::new(1, Networks::default()));
        let acquire = |it: &str| per_client.acquire(it.parse().expect("an address"));
        let _one = acquire("2001:db8::1").expect("a permit");
        assert!(acquire("2001:db8::2").is_none() && acquire("2001:db8:0:1::1").is_some());
    }
}
