//! A group of endpoints of one version, and what is known of them together.

mod choice;
mod ejection;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::ArcSwap;

pub use self::choice::{PickRequest, PickResult};
use self::ejection::EjectionTimes;
use super::{
    admission::Admission,
    alerts::PoolAlert,
    budget::RetryBudget,
    connect::ConnectError,
    endpoint_health::{HealthFailure, Tier},
    endpoint_state::{ConnectConfig, EndpointState},
    pool_context::PoolContext,
    queue::{QueueTicket, RequestQueue},
};
use crate::{
    metrics::{LimitHit, PoolMetrics},
    model::{Color, EndpointAddress, Policy, PoolSpec, ServiceName, WeightedEndpoint},
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
    link: Arc<ConnectConfig>,
    /// Replaced when a name gets other addresses.
    roster: ArcSwap<EndpointSet>,
    /// Who has to help since too few are well: the byte of the worst standing; 0 for nobody.
    helpers: AtomicU8,
    turns: EjectionTimes,
    /// Which one it is of those that have followed each other.
    number: u64,
    common: Arc<PoolShared>,
    metrics: Arc<PoolMetrics>,
}

/// The members.
#[derive(Debug)]
struct EndpointSet {
    members: Box<[Arc<EndpointState>]>,
    /// Whether all have the same weight.
    is_even: bool,
}

/// What a pool hands on to the one that it is changed into.
#[derive(Debug)]
struct PoolShared {
    queue: Arc<RequestQueue>,
    budget: RetryBudget,
    turn: AtomicUsize,
    /// The number of the last of these pools.
    last: AtomicU64,
    /// Held while the members of a pool are replaced, and while one is being left out: both look at
    /// all of them first.
    changing: Mutex<()>,
    parts: PoolContext,
    bell: Arc<PoolAlert>,
}

// === impl Pool ===

impl Pool {
    /// A pool with no connections yet. Names are resolved when they are first needed, and from then on
    /// by whoever calls [`Pool::resolve`].
    #[must_use]
    pub fn new(
        service: ServiceName,
        color: Color,
        spec: PoolSpec,
        policy: Arc<Policy>,
        admission: Arc<Admission>,
        parts: PoolContext,
        metrics: Arc<PoolMetrics>,
    ) -> Self {
        let link = Arc::new(ConnectConfig::new(&spec.link, &spec.endpoints, &parts));
        let common = Arc::new(PoolShared {
            queue: Arc::default(),
            budget: RetryBudget::new(&policy.retry),
            turn: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            changing: Mutex::default(),
            bell: Arc::new(PoolAlert::new(&parts.alerts, service.clone(), color)),
            parts,
        });
        let member = |it: &WeightedEndpoint| Arc::new(common.member(it, None, &link));
        let roster = EndpointSet::new(spec.endpoints.iter().map(member).collect());
        let roster = ArcSwap::from_pointee(roster);
        Self {
            service,
            color,
            spec,
            policy,
            admission,
            link,
            roster,
            helpers: AtomicU8::new(0),
            turns: EjectionTimes::new(),
            number: 0,
            common,
            metrics,
        }
    }

    /// This pool made of something else. An endpoint that is in both stays the same member, with
    /// its connections and what is known of it.
    #[must_use]
    pub fn changed(&self, spec: PoolSpec, policy: Arc<Policy>, admission: Arc<Admission>) -> Self {
        let is_linked_alike = self.spec.link == spec.link;
        let link = ConnectConfig::new(&spec.link, &spec.endpoints, &self.common.parts);
        let link = Arc::new(link);
        let known = self.members();
        let mut members = Vec::new();
        for endpoint in &spec.endpoints {
            let before = members.len();
            let stays =
                |it: &&Arc<EndpointState>| is_linked_alike && *it.endpoint() == endpoint.endpoint;
            for member in known.iter().filter(stays) {
                member.set_weight(endpoint.weight);
                members.push(Arc::clone(member));
            }
            if members.len() == before {
                members.push(Arc::new(self.common.member(endpoint, None, &link)));
            }
        }
        let roster = ArcSwap::from_pointee(EndpointSet::new(members.into()));
        let (service, color) = (self.service.clone(), self.color);
        let (common, metrics) = (Arc::clone(&self.common), Arc::clone(&self.metrics));
        let pool = Self {
            service,
            color,
            spec,
            policy,
            admission,
            link,
            roster,
            helpers: AtomicU8::new(0),
            turns: EjectionTimes::new(),
            number: common.last.fetch_add(1, Relaxed) + 1,
            common,
            metrics,
        };
        pool.assess();
        pool
    }

    /// Whether it is made of the same and treated in the same way.
    #[must_use]
    pub fn is_of(&self, spec: &PoolSpec, policy: &Policy) -> bool {
        self.spec == *spec && *self.policy == *policy
    }

    /// The service that this is a pool of.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The pool's name.
    #[must_use]
    pub fn color(&self) -> Color {
        self.color
    }

    /// What it is made of.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// How its requests are spread and its endpoints looked after.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// How much its service takes on.
    #[must_use]
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Its endpoints; of a name that was resolved, one for each address.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<EndpointState>> {
        self.roster.load().members.to_vec()
    }

    /// Its series.
    #[must_use]
    pub fn metrics(&self) -> &Arc<PoolMetrics> {
        &self.metrics
    }

    /// Requests that wait for a place.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.common.queue.len()
    }

    /// Requests that may be tried again now.
    #[must_use]
    pub fn retries_left(&self, now: Instant) -> u32 {
        self.common.budget.left(&self.policy.retry, now)
    }

    /// Whether so few are left that those are used again who answer badly.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.helpers().is_some()
    }

    fn helpers(&self) -> Option<Tier> {
        Some(self.helpers.load(Relaxed)).filter(|it| *it != 0).map(Tier::of)
    }

    /// Reads the files that its TLS needs again, if they have changed. Returns whether they had.
    ///
    /// # Errors
    ///
    /// The first that cannot be used; what was in force stays.
    pub fn refresh_tls(&self) -> Result<bool, FileError> {
        let mut changed = false;
        // Members that joined at different times may have different ones.
        for member in self.members() {
            if let Some(connector) = &member.link().tls {
                changed |= connector.refresh()?;
            }
        }
        Ok(changed)
    }

    /// Gives the endpoints of this name a member for each address. Members whose address stays are kept.
    /// Returns whether anything has changed.
    pub fn resolve(&self, host: &str, addresses: &[IpAddr]) -> bool {
        let _changing = self.common.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.members();
        let mut members = Vec::new();
        let mut has_changed = false;
        for endpoint in &self.spec.endpoints {
            let of_it = || known.iter().filter(|it| *it.endpoint() == endpoint.endpoint);
            let port = match &endpoint.endpoint.place {
                EndpointAddress::Name { host: its, port } if **its == *host => *port,
                _ => {
                    members.extend(of_it().cloned());
                    continue;
                }
            };
            for address in addresses.iter().map(|it| SocketAddr::new(*it, port)) {
                let stays = of_it().find(|it| it.resolved() == Some(address));
                has_changed |= stays.is_none();
                members.push(stays.cloned().unwrap_or_else(|| {
                    Arc::new(self.common.member(endpoint, Some(address), &self.link))
                }));
            }
            has_changed |= of_it().count() != addresses.len();
        }
        if has_changed {
            self.roster.store(Arc::new(EndpointSet::new(members.into())));
            self.turns.reopen();
            self.assess();
            self.common.queue.call();
        }
        has_changed
    }

    /// Takes a place in the line for a seat, for somebody of this worker, unless it is as long as it may
    /// be.
    #[must_use]
    pub fn queue(&self, owner: usize) -> Option<QueueTicket> {
        self.common.queue.join(self.policy.limits.queue, owner, self.number)
    }

    /// Whether those in the line came to a pool that this one has followed, or that has followed it.
    #[must_use]
    pub fn is_line_of_others(&self) -> bool {
        self.common.queue.is_front_of_other_pool(self.number)
    }

    /// Whether there is somebody whose checks are good besides this member and those that were tried; also
    /// one who is left out.
    #[must_use]
    pub fn has_other(&self, tried: &[Arc<EndpointState>], member: &Arc<EndpointState>) -> bool {
        self.roster.load().members.iter().any(|it| {
            let was_asked = || tried.iter().any(|other| Arc::ptr_eq(it, other));
            it.standing() <= Tier::Ejected && !Arc::ptr_eq(it, member) && !was_asked()
        })
    }

    /// Whether there is no service but that of this pool.
    #[must_use]
    pub fn is_of_only_service(&self) -> bool {
        self.common.parts.services.load(Relaxed) <= 1
    }

    /// Notes that a request has come.
    pub fn deposit(&self) {
        self.common.budget.deposit(&self.policy.retry);
    }

    /// One more try for a request, if there is one left.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        self.common.budget.withdraw(&self.policy.retry, now)
    }

    /// Notes what a look at a member has found.
    pub fn checked(&self, member: &EndpointState, found: Result<(), HealthFailure>) {
        let before = member.standing();
        member.learn(|it| it.checked(found, &self.policy.health));
        self.assess();
        if member.standing() < before {
            self.common.queue.call();
        }
    }

    /// Notes that a request could not open a connection.
    pub(super) fn missed(&self, member: &EndpointState, error: &ConnectError) {
        let Some(failure) = error.failure() else { return };
        member.missed(failure, self.policy.health.fall);
        self.assess();
    }

    /// Notes that a request came to something.
    pub fn succeeded(&self, member: &EndpointState) {
        member.succeeded();
    }

    /// Counts a request that met a limit.
    pub fn limited(&self, limit: LimitHit) {
        self.metrics.limited(limit);
        self.common.bell.ring();
    }

    /// What there is to tell of this pool from now on is alerted again. To be called before looking at what
    /// there is.
    pub fn heard(&self) {
        self.common.bell.heard();
    }
}

// === impl PoolShared ===

impl PoolShared {
    fn member(
        &self,
        endpoint: &WeightedEndpoint,
        address: Option<SocketAddr>,
        link: &Arc<ConnectConfig>,
    ) -> EndpointState {
        let (link, queue, bell) =
            (Arc::clone(link), Arc::clone(&self.queue), Arc::clone(&self.bell));
        EndpointState::new(endpoint, address, link, queue, bell)
    }
}

// === impl EndpointSet ===

impl EndpointSet {
    fn new(members: Box<[Arc<EndpointState>]>) -> Self {
        let is_even = members.windows(2).all(|it| it[0].weight() == it[1].weight());
        Self { members, is_even }
    }
}

#[cfg(test)]
mod tests;
