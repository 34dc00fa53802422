//! The state of one endpoint: its health, its requests and its connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use Ordering::{Relaxed, SeqCst};

use super::{
    alerts::PoolAlert,
    connect_config::ConnectConfig,
    endpoint_health::{EndpointHealth, FailureKind, HealthFailure, HealthState, Tier},
    queue::RequestQueue,
};
use crate::model::{Endpoint, EndpointAddress, Health, Protocol, WeightedEndpoint};

/// An endpoint that requests are sent to; for a name with several addresses, one of them. It is kept when other
/// endpoints of its pool change.
#[derive(Debug)]
pub struct EndpointState {
    endpoint: Endpoint,
    /// For a resolved name, its address.
    address: Option<SocketAddr>,
    /// The hash of the address, which is the same in every process: rendezvous hashing combines it with keys.
    pub(super) hash_seed: u64,
    weight: AtomicU16,
    connect_config: Arc<ConnectConfig>,
    /// The protocol that ALPN selected first.
    negotiated: OnceLock<Protocol>,
    in_flight: AtomicUsize,
    /// Connections of all workers, including those being opened.
    open: AtomicUsize,
    /// Whether a connection was ever opened for a request.
    has_been_connected: AtomicBool,
    /// Whether a request found the endpoint at its connection limit.
    has_connection_waiter: AtomicBool,
    /// The tier that follows from `state`.
    tier: AtomicU8,
    /// Whether it is ejected, as in `state`.
    is_ejected: AtomicBool,
    /// Consecutive failed requests.
    failures: AtomicU32,
    /// Whether the last connect attempts failed.
    has_connect_failure: AtomicBool,
    state: Mutex<HealthState>,
    /// Since when it gets requests again, in milliseconds after `created`; 0 if it always did.
    recovered_at: AtomicU64,
    created: Instant,
    /// The requests that wait for a permit of its pool.
    queue: Arc<RequestQueue>,
    /// Whether a check is due because requests found it down.
    needs_check: AtomicBool,
    /// Raised when there are changes to report.
    alert: Arc<PoolAlert>,
}

/// Counts a request at its endpoint until dropped.
// Not `Clone`: the request would be counted twice.
#[derive(Debug)]
pub struct RequestPermit(Arc<EndpointState>);

/// Counts a connection at its endpoint until dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit(Arc<EndpointState>);

/// The smallest part of its weight that a recovered endpoint gets, in thousandths.
const SHARE_MIN: u64 = 100;
const SHARE_FULL: u64 = 1000;

// === impl EndpointState ===

impl EndpointState {
    pub(super) fn new(
        spec: &WeightedEndpoint,
        address: Option<SocketAddr>,
        connect_config: Arc<ConnectConfig>,
        queue: Arc<RequestQueue>,
        alert: Arc<PoolAlert>,
    ) -> Self {
        let name = match address {
            Some(address) => address.to_string(),
            None => spec.endpoint.to_string(),
        };
        let state = HealthState::unknown();
        Self {
            endpoint: spec.endpoint.clone(),
            address,
            hash_seed: xxhash_rust::xxh3::xxh3_64(name.as_bytes()),
            weight: AtomicU16::new(spec.weight),
            connect_config,
            negotiated: OnceLock::new(),
            in_flight: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            has_been_connected: AtomicBool::new(false),
            has_connection_waiter: AtomicBool::new(false),
            tier: AtomicU8::new(state.tier() as u8),
            is_ejected: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            has_connect_failure: AtomicBool::new(false),
            state: Mutex::new(state),
            recovered_at: AtomicU64::new(0),
            created: Instant::now(),
            queue,
            needs_check: AtomicBool::new(false),
            alert,
        }
    }

    pub(super) fn connect_config(&self) -> &ConnectConfig {
        &self.connect_config
    }

    /// Whether its connections carry concurrent requests; `None` if that is not known yet.
    pub(super) fn is_multiplexed(&self) -> Option<bool> {
        let protocol = match (self.connect_config.protocol, self.endpoint.is_tls) {
            (Some(protocol), _) => Some(protocol),
            (None, false) => Some(Protocol::Http1),
            (None, true) => self.negotiated.get().copied(),
        };
        protocol.map(|it| it == Protocol::H2)
    }

    pub(super) fn set_negotiated(&self, protocol: Protocol) {
        // The first result stays; each connection uses its own.
        let _ = self.negotiated.set(protocol);
    }

    /// The endpoint as configured.
    #[must_use]
    pub fn configured(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its address, if known: a name may not be resolved yet.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.endpoint.address {
            EndpointAddress::Address(address) => Some(*address),
            EndpointAddress::Name { .. } => self.address,
            EndpointAddress::Unix(_) => None,
        }
    }

    /// For a resolved name, the address of this endpoint.
    #[must_use]
    pub fn resolved(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Its configured weight.
    #[must_use]
    pub fn weight(&self) -> u16 {
        self.weight.load(Relaxed)
    }

    pub(super) fn set_weight(&self, weight: u16) {
        self.weight.store(weight, Relaxed);
    }

    /// Its weight in thousandths, less during a slow start.
    pub(super) fn effective_weight(&self, slow_start: Option<Duration>, now: Instant) -> u64 {
        let weight = u64::from(self.weight());
        let whole = weight * SHARE_FULL;
        let (Some(time), recovered_at @ 1..) = (slow_start, self.recovered_at.load(Relaxed)) else {
            return whole;
        };
        let back = now.saturating_duration_since(self.created);
        let back = back.saturating_sub(Duration::from_millis(recovered_at));
        if back >= time {
            // Later calls need not compare times, unless it recovers again.
            let _ = self.recovered_at.compare_exchange(recovered_at, 0, Relaxed, Relaxed);
            return whole;
        }
        let part = back.as_millis() * u128::from(SHARE_FULL) / time.as_millis().max(1);
        weight * u64::try_from(part).unwrap_or(SHARE_FULL).max(SHARE_MIN)
    }

    /// Whether it may be in a slow start.
    pub(super) fn is_in_slow_start(&self) -> bool {
        self.recovered_at.load(Relaxed) != 0
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Whether a connection was ever opened for a request.
    #[must_use]
    pub fn was_connected(&self) -> bool {
        self.has_been_connected.load(Relaxed)
    }

    /// Whether it was ever ejected because of failed requests.
    #[must_use]
    pub fn was_ejected(&self) -> bool {
        self.state().was_ejected()
    }

    /// Its health, with times and reasons.
    #[must_use]
    pub fn health_details(&self) -> EndpointHealth {
        self.state().details()
    }

    /// Its health after each change since the last call, in order.
    #[must_use]
    pub fn take_changes(&self) -> Vec<EndpointHealth> {
        self.state().take_changes()
    }

    /// The result of its health checks.
    #[must_use]
    pub fn health(&self) -> Health {
        self.state().details().health
    }

    /// Whether it accepts no connections, as far as known.
    #[must_use]
    pub fn refuses_connections(&self) -> bool {
        self.tier() >= Tier::Refusing
    }

    /// Whether it does not respond at all, so that open connections may hang.
    #[must_use]
    pub fn is_unresponsive(&self) -> bool {
        self.tier() == Tier::Unresponsive
    }

    pub(super) fn tier(&self) -> Tier {
        Tier::of(self.tier.load(Relaxed))
    }

    /// Whether it is ejected.
    pub(super) fn is_ejected(&self) -> bool {
        self.is_ejected.load(Relaxed)
    }

    /// Whether requests found it down since the last call, so that a check is due.
    #[must_use]
    pub fn take_check_request(&self) -> bool {
        self.needs_check.swap(false, SeqCst)
    }

    /// Whether it should be checked more often.
    #[must_use]
    pub fn needs_frequent_checks(&self) -> bool {
        self.state().needs_frequent_checks()
    }

    /// The failure, if it is down and was never up, like an application that is starting.
    #[must_use]
    pub fn startup_failure(&self) -> Option<FailureKind> {
        self.state().startup_failure()
    }

    /// Whether the last check contradicts its health.
    #[must_use]
    pub fn is_transitioning(&self) -> bool {
        self.state().is_transitioning()
    }

    /// Changes its health, and updates what follows from it.
    pub(super) fn update_health<T>(&self, change: impl FnOnce(&mut HealthState) -> T) -> T {
        let mut state = self.state();
        let before = state.tier();
        let changed = change(&mut state);
        let after = state.tier();
        if state.has_changes() {
            self.alert.raise();
        }
        self.tier.store(after as u8, Relaxed);
        self.is_ejected.store(state.is_ejected(), Relaxed);
        if after == Tier::Healthy && before != Tier::Healthy {
            self.failures.store(0, Relaxed);
            let back = self.created.elapsed().as_millis().max(1);
            self.recovered_at.store(u64::try_from(back).unwrap_or(u64::MAX), Relaxed);
        }
        changed
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a successful request.
    pub(super) fn record_success(&self) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Records a failed request, and returns the number of consecutive failures.
    pub(super) fn record_failure(&self) -> u32 {
        self.failures.fetch_add(1, Relaxed).saturating_add(1)
    }

    pub(super) fn reset_failures(&self) {
        self.failures.store(0, Relaxed);
    }

    /// Records that a connection could be opened.
    pub(super) fn record_connect_success(&self) {
        if self.has_connect_failure.load(Relaxed) {
            self.has_connect_failure.store(false, Relaxed);
            self.update_health(HealthState::record_connect_success);
        }
    }

    /// Records that a request could not connect.
    pub(super) fn record_connect_failure(&self, failure: HealthFailure, fall: u32) {
        self.has_connect_failure.store(true, Relaxed);
        if self.update_health(|it| it.record_connect_failure(failure, fall)) {
            self.needs_check.store(true, SeqCst);
            self.alert.raise();
        }
    }

    /// Counts a request, whatever the limit.
    #[must_use]
    pub(super) fn acquire(self: &Arc<Self>) -> RequestPermit {
        self.in_flight.fetch_add(1, Relaxed);
        RequestPermit(Arc::clone(self))
    }

    /// Counts a request, unless `max` is reached.
    pub(super) fn try_acquire(self: &Arc<Self>, max: Option<usize>) -> Option<RequestPermit> {
        let Some(max) = max else { return Some(self.acquire()) };
        let one_more = |it: usize| (it < max).then_some(it + 1);
        self.in_flight.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(RequestPermit(Arc::clone(self)))
    }

    /// Whether one more request is within the limit.
    pub(super) fn has_capacity(&self, max: Option<usize>) -> bool {
        max.is_none_or(|max| self.in_flight.load(SeqCst) < max)
    }

    /// Whether one more connection is within the limit.
    pub(super) fn has_connection_capacity(&self, max: Option<usize>) -> bool {
        let has_connection_capacity = max.is_none_or(|max| self.open.load(SeqCst) < max);
        if !has_connection_capacity && !self.has_connection_waiter.load(Relaxed) {
            self.has_connection_waiter.store(true, Relaxed);
        }
        has_connection_capacity
    }

    /// Counts a connection, unless `max` is reached.
    pub(super) fn try_acquire_connection(
        self: &Arc<Self>,
        max: Option<usize>,
    ) -> Option<ConnectionPermit> {
        let max = max.unwrap_or(usize::MAX);
        let one_more = |it: usize| (it < max).then_some(it + 1);
        self.open.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        self.has_been_connected.store(true, Relaxed);
        Some(ConnectionPermit(Arc::clone(self)))
    }

    /// Whether the front of the queue is a request of another worker that needs a connection. True once each time that
    /// the connection limit was reached.
    pub(super) fn take_request_of_others(&self, worker_id: usize) -> bool {
        self.has_connection_waiter.load(Relaxed)
            && self.queue.is_front_of_other_worker(worker_id)
            && self.has_connection_waiter.swap(false, Relaxed)
    }
}

// === impl RequestPermit ===

impl RequestPermit {
    /// The endpoint that the permit is for.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<EndpointState> {
        &self.0
    }
}

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, SeqCst);
        self.0.queue.notify_front();
    }
}

// === impl ConnectionPermit ===

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
        self.0.queue.notify_front();
    }
}
