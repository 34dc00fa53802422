//! A pool: the endpoints of one color of a service.

mod choice;
mod ejection;
mod names;
mod rescue;
mod retries;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;

use self::ejection::EjectionTimes;
pub use self::{
    choice::{PickRequest, PickResult},
    rescue::Rescuer,
};
use super::{
    admission::Admission,
    alerts::PoolAlert,
    budget::RetryBudget,
    connect::ConnectError,
    connect_config::ConnectConfig,
    endpoint_health::{HealthFailure, Tier},
    endpoint_state::EndpointState,
    pool_context::PoolContext,
    queue::{QueueTicket, RequestQueue},
    tap::Tap,
};
use crate::{
    metrics::{LimitHit, PoolMetrics},
    model::{Color, EndpointAddress, Policy, PoolSpec, ServiceName, VersionId, WeightedEndpoint},
    tls::FileError,
};

/// One color of one service: its endpoints, shared by all workers.
#[derive(Debug)]
pub struct Pool {
    service: ServiceName,
    color: Color,
    spec: PoolSpec,
    policy: Arc<Policy>,
    admission: Arc<Admission>,
    connect_config: Arc<ConnectConfig>,
    /// Replaced when the addresses of a name change.
    endpoint_set: ArcSwap<EndpointSet>,
    /// In panic mode the worst tier that gets requests; 0 otherwise.
    panic_tier: AtomicU8,
    ejection_times: EjectionTimes,
    /// Counts up with each pool that replaces another.
    revision: u64,
    rescuer: Rescuer,
    /// If the policy has a version signal.
    version_id: Option<VersionId>,
    shared: Arc<PoolShared>,
    metrics: Arc<PoolMetrics>,
    /// Of this pool alone: a pool that replaces it has another one.
    tap: Arc<Tap>,
}

/// The endpoints.
#[derive(Debug)]
struct EndpointSet {
    endpoints: Box<[Arc<EndpointState>]>,
    /// Whether all have the same weight.
    is_even: bool,
}

/// What a pool shares with the pools that replace it.
#[derive(Debug)]
struct PoolShared {
    queue: Arc<RequestQueue>,
    budget: RetryBudget,
    round_robin: AtomicUsize,
    /// The revision of the newest of these pools.
    last_revision: AtomicU64,
    /// Held while the endpoints of a pool are replaced and while one is ejected: both read all of them first.
    change_lock: Mutex<()>,
    context: PoolContext,
    alert: Arc<PoolAlert>,
}

// === impl Pool ===

impl Pool {
    /// A pool without connections. Names are resolved when first needed, and then by calls of [`Pool::resolve`].
    #[must_use]
    pub fn new(
        service: ServiceName,
        color: Color,
        spec: PoolSpec,
        policy: Arc<Policy>,
        admission: Arc<Admission>,
        context: PoolContext,
        metrics: Arc<PoolMetrics>,
    ) -> Self {
        let connect_config = Arc::new(ConnectConfig::new(&spec.link, &spec.endpoints, &context));
        let shared = Arc::new(PoolShared {
            queue: Arc::default(),
            budget: RetryBudget::new(&policy.retry),
            round_robin: AtomicUsize::new(0),
            last_revision: AtomicU64::new(0),
            change_lock: Mutex::default(),
            alert: Arc::new(PoolAlert::new(&context.alerts, service.clone(), color)),
            context,
        });
        let endpoint =
            |it: &WeightedEndpoint| Arc::new(shared.new_endpoint(it, None, &connect_config));
        let endpoint_set = EndpointSet::new(spec.endpoints.iter().map(endpoint).collect());
        let endpoint_set = ArcSwap::from_pointee(endpoint_set);
        let version_id = version_id(&service, color, &spec, &policy);
        Self {
            service,
            color,
            spec,
            policy,
            admission,
            connect_config,
            endpoint_set,
            panic_tier: AtomicU8::new(0),
            ejection_times: EjectionTimes::new(),
            revision: 0,
            rescuer: Rescuer::default(),
            version_id,
            shared,
            metrics,
            tap: Arc::default(),
        }
    }

    /// A pool with another specification that replaces this one. An endpoint in both keeps its state and its
    /// connections.
    #[must_use]
    pub fn with_spec(
        &self,
        spec: PoolSpec,
        policy: Arc<Policy>,
        admission: Arc<Admission>,
    ) -> Self {
        let has_same_link = self.spec.link == spec.link;
        let connect_config = ConnectConfig::new(&spec.link, &spec.endpoints, &self.shared.context);
        let connect_config = Arc::new(connect_config);
        let known = self.endpoints();
        let mut endpoints = Vec::new();
        for weighted in &spec.endpoints {
            let before = endpoints.len();
            let is_kept =
                |it: &&Arc<EndpointState>| has_same_link && *it.configured() == weighted.endpoint;
            for endpoint in known.iter().filter(is_kept) {
                endpoint.set_weight(weighted.weight);
                endpoints.push(Arc::clone(endpoint));
            }
            if endpoints.len() == before {
                endpoints.push(Arc::new(self.shared.new_endpoint(weighted, None, &connect_config)));
            }
        }
        let endpoint_set = ArcSwap::from_pointee(EndpointSet::new(endpoints.into()));
        let (service, color) = (self.service.clone(), self.color);
        let (shared, metrics) = (Arc::clone(&self.shared), Arc::clone(&self.metrics));
        let version_id = version_id(&service, color, &spec, &policy);
        let pool = Self {
            service,
            color,
            spec,
            policy,
            admission,
            connect_config,
            endpoint_set,
            panic_tier: AtomicU8::new(0),
            ejection_times: EjectionTimes::new(),
            revision: shared.last_revision.fetch_add(1, Relaxed) + 1,
            rescuer: Rescuer::default(),
            version_id,
            shared,
            metrics,
            tap: Arc::default(),
        };
        pool.update_panic();
        pool
    }

    /// Whether the pool has this specification and policy.
    #[must_use]
    pub fn matches(&self, spec: &PoolSpec, policy: &Policy) -> bool {
        self.spec == *spec && *self.policy == *policy
    }

    /// The service of the pool.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The color of the pool.
    #[must_use]
    pub fn color(&self) -> Color {
        self.color
    }

    /// Its specification.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// Its settings for load balancing, health and limits.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The limits of its service.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The id of its version, if the policy has a version signal.
    #[must_use]
    pub fn version_id(&self) -> Option<VersionId> {
        self.version_id
    }

    /// Its endpoints; for a resolved name, one for each address.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Arc<EndpointState>> {
        self.endpoint_set.load().endpoints.to_vec()
    }

    /// Its metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PoolMetrics> {
        &self.metrics
    }

    /// Copies its requests while a gate compares two versions.
    #[must_use]
    pub fn tap(&self) -> &Arc<Tap> {
        &self.tap
    }

    /// Whether an endpoint is up: it passes its health checks or was not checked yet, and is not ejected.
    #[must_use]
    pub fn has_endpoint_up(&self) -> bool {
        self.endpoint_set.load().endpoints.iter().any(|it| it.tier() <= Tier::Unchecked)
    }

    /// Requests that wait for a permit.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.shared.queue.len()
    }

    /// Whether too few endpoints are healthy, so that unhealthy ones are used too.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.panic_tier().is_some()
    }

    fn panic_tier(&self) -> Option<Tier> {
        Some(self.panic_tier.load(Relaxed)).filter(|it| *it != 0).map(Tier::of)
    }

    /// Reads the TLS files again, if they have changed. Returns whether any had.
    ///
    /// # Errors
    ///
    /// The first unusable file; the files in use stay.
    pub fn reload_tls(&self) -> Result<bool, FileError> {
        let mut changed = false;
        // Endpoints that were added at different times may have different connectors.
        for endpoint in self.endpoints() {
            if let Some(connector) = &endpoint.connect_config().tls {
                changed |= connector.refresh()?;
            }
        }
        Ok(changed)
    }

    /// Gives the endpoints with this name one state per address, and keeps the states of known addresses. Returns
    /// whether anything changed.
    pub fn resolve(&self, host: &str, addresses: &[IpAddr]) -> bool {
        let _change_lock = self.shared.change_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.endpoints();
        let mut endpoints = Vec::new();
        let mut has_changed = false;
        for weighted in &self.spec.endpoints {
            let current = || known.iter().filter(|it| *it.configured() == weighted.endpoint);
            let port = match &weighted.endpoint.address {
                EndpointAddress::Name { host: its, port } if **its == *host => *port,
                _ => {
                    endpoints.extend(current().cloned());
                    continue;
                }
            };
            for address in addresses.iter().map(|it| SocketAddr::new(*it, port)) {
                let is_kept = current().find(|it| it.resolved() == Some(address));
                has_changed |= is_kept.is_none();
                endpoints.push(is_kept.cloned().unwrap_or_else(|| {
                    Arc::new(self.shared.new_endpoint(
                        weighted,
                        Some(address),
                        &self.connect_config,
                    ))
                }));
            }
            has_changed |= current().count() != addresses.len();
        }
        if has_changed {
            self.endpoint_set.store(Arc::new(EndpointSet::new(endpoints.into())));
            self.ejection_times.unblock();
            self.update_panic();
            self.shared.queue.notify_front();
        }
        has_changed
    }

    /// Queues a request of this worker for a permit, unless the queue is full.
    #[must_use]
    pub fn enqueue(&self, worker_id: usize) -> Option<QueueTicket> {
        self.shared.queue.enqueue(self.policy.limits.queue, worker_id, self.revision)
    }

    /// Whether the front of the queue waits for a pool that this one replaced, or that replaced this one.
    #[must_use]
    pub fn is_queue_of_other_pool(&self) -> bool {
        self.shared.queue.is_front_of_other_pool(self.revision)
    }

    /// Whether there is an endpoint with passing health checks besides `endpoint` and `tried`, ejected or not.
    #[must_use]
    pub fn has_alternative(
        &self,
        tried: &[Arc<EndpointState>],
        endpoint: &Arc<EndpointState>,
    ) -> bool {
        self.endpoint_set.load().endpoints.iter().any(|it| {
            let was_tried = || tried.iter().any(|other| Arc::ptr_eq(it, other));
            it.tier() <= Tier::Ejected && !Arc::ptr_eq(it, endpoint) && !was_tried()
        })
    }

    /// Whether there is only one service.
    #[must_use]
    pub fn is_only_service(&self) -> bool {
        self.shared.context.services.load(Relaxed) <= 1
    }

    /// Records the result of a health check.
    pub fn record_check(&self, endpoint: &EndpointState, found: Result<(), HealthFailure>) {
        let (before, was_ejected) = (endpoint.tier(), endpoint.is_ejected());
        endpoint.update_health(|it| it.record_check(found, &self.policy.health));
        if was_ejected && !endpoint.is_ejected() {
            self.ejection_times.unblock();
        }
        self.update_panic();
        if endpoint.tier() < before {
            self.shared.queue.notify_front();
        }
    }

    /// Records that a request could not connect.
    pub(super) fn record_connect_failure(&self, endpoint: &EndpointState, error: &ConnectError) {
        let Some(failure) = error.failure() else { return };
        endpoint.record_connect_failure(failure, self.policy.health.fall);
        self.update_panic();
    }

    /// Records a successful request.
    pub fn record_success(&self, endpoint: &EndpointState) {
        endpoint.record_success();
    }

    /// Counts a request that reached a limit.
    pub fn record_limit(&self, limit: LimitHit) {
        self.metrics.limited(limit);
        self.shared.alert.raise();
    }

    /// The next change alerts again. Call it before reading the changes.
    pub fn clear_alert(&self) {
        self.shared.alert.clear();
    }
}

fn version_id(
    service: &ServiceName,
    color: Color,
    spec: &PoolSpec,
    policy: &Policy,
) -> Option<VersionId> {
    policy.version_signal.is_some().then(|| VersionId::of(service, color, spec))
}

// === impl PoolShared ===

impl PoolShared {
    fn new_endpoint(
        &self,
        weighted: &WeightedEndpoint,
        address: Option<SocketAddr>,
        connect_config: &Arc<ConnectConfig>,
    ) -> EndpointState {
        let (connect_config, queue, alert) =
            (Arc::clone(connect_config), Arc::clone(&self.queue), Arc::clone(&self.alert));
        EndpointState::new(weighted, address, connect_config, queue, alert)
    }
}

// === impl EndpointSet ===

impl EndpointSet {
    fn new(endpoints: Box<[Arc<EndpointState>]>) -> Self {
        let is_even = endpoints.windows(2).all(|it| it[0].weight() == it[1].weight());
        Self { endpoints, is_even }
    }
}

#[cfg(test)]
mod tests;
