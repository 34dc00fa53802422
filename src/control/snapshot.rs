//! A snapshot of all services at one moment.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    holds::{Holds, PinsSnapshot, SideRequests, timestamp},
    intake_terms::hold_snapshot,
    shared::Applied,
};

use crate::{
    continuity::{FirstToken, HoldSnapshot, Maintenance},
    metrics::{EndpointGauges, PoolGauges, ServiceGauges},
    model::{Color, Endpoint, Generation, Health, Role, RolloutId, ServiceName, Source, Version},
    store::{Revision, ServiceState, ShareEnd, ShareState},
    switch::Ledger,
    upstream::{EndpointHealth, EndpointState, Pool, ServicePools, ServiceSwitch},
};

/// Services, colors, roles, endpoints and requests in flight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusSnapshot {
    /// The generation.
    pub generation: Generation,
    /// The revision of the state.
    pub revision: Revision,
    /// All configured services, or those that were requested.
    pub services: BTreeMap<ServiceName, ServiceSnapshot>,
}

/// One service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceSnapshot {
    /// The active color.
    pub active: Color,
    /// The color that a rollback would make active.
    pub previous: Option<Color>,
    /// Whether its entry in the state file is damaged: it refuses all requests then.
    pub is_damaged: bool,
    /// When the watch of the active color ends, while there is one.
    pub watch: Option<Timestamp>,
    /// When the last promotion is taken back unless it is confirmed.
    pub confirm_by: Option<Timestamp>,
    /// The gradual promotion in progress.
    pub share: Option<ShareSnapshot>,
    /// How the last gradual promotion was taken back, while nothing has replaced it.
    pub share_end: Option<ShareEnd>,
    /// The rollout in progress.
    pub rollout: Option<RolloutId>,
    /// Its hold, while requests wait.
    pub hold: Option<HoldSnapshot>,
    /// Its maintenance.
    pub maintenance: Option<Arc<Maintenance>>,
    /// The pool named blue.
    pub blue: PoolSnapshot,
    /// The pool named green.
    pub green: PoolSnapshot,
}

/// A gradual promotion in progress.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShareSnapshot {
    /// The candidate.
    pub color: Color,
    /// Its share of the clients, in percent.
    pub percent: u8,
    /// All shares, in percent.
    pub steps: Vec<u8>,
    /// The place of the current one, from 0.
    pub step: usize,
    /// When the current step is over, if the watch has a verdict then.
    pub until: Timestamp,
    /// The token of those who go first, if they do.
    pub first_token: Option<FirstToken>,
}

/// One pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolSnapshot {
    /// The role of its color.
    pub role: Role,
    /// The version that runs there.
    pub version: Option<Version>,
    /// Where version and endpoints were set.
    pub source: Source,
    /// Requests in flight.
    pub in_flight: usize,
    /// Queued requests among these.
    pub queued: usize,
    /// Retries that the budget allows now.
    pub retries_left: u32,
    /// Whether panic mode is on: too few endpoints are usable, so unhealthy ones get requests.
    pub is_panicking: bool,
    /// Whether it ever had a request.
    pub was_used: bool,
    /// Whether its endpoints may be stopped; `None` for the active color, and for one that was never active.
    pub is_safe_to_stop: Option<bool>,
    /// What else may still need it.
    pub holds: Holds,
    /// The pins that hold it.
    pub pins: Option<PinsSnapshot>,
    /// Its approvals that are valid.
    pub approvals: Vec<ApprovalSnapshot>,
    /// Its endpoints; a resolved name has one for each address.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// The approval of a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ApprovalSnapshot {
    /// The caller.
    pub by: Arc<str>,
    /// When it was given.
    pub at: Timestamp,
    /// When it expires, if the gate is configured.
    pub until: Option<Timestamp>,
}

/// One endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSnapshot {
    /// Its address as configured.
    pub address: Endpoint,
    /// The address that the name was resolved to.
    pub resolved: Option<SocketAddr>,
    /// Its weight.
    pub weight: u16,
    /// Its health.
    pub health: EndpointHealth,
    /// Requests in flight.
    pub in_flight: usize,
    /// Open connections.
    pub connections: usize,
    /// Whether a connection was ever opened for a request.
    pub was_used: bool,
    /// Whether it was ever ejected.
    pub was_ejected: bool,
}

// === impl StatusSnapshot ===

impl StatusSnapshot {
    /// A snapshot of these services of an applied state, with the current requests in flight.
    pub(super) fn of<'a>(
        switch: &ServiceSwitch,
        ledger: &Ledger<Instant>,
        applied: &Applied,
        services: impl Iterator<Item = &'a ServiceName>,
    ) -> Self {
        let state = &applied.state;
        let running = state.rollouts.iter().filter(|(_, it)| it.is_running());
        let rollouts: HashMap<&ServiceName, &RolloutId> =
            running.flat_map(|(id, it)| it.services.iter().map(move |it| (it, id))).collect();
        let picture = |name: &ServiceName, pools: &ServicePools| {
            let known = state.services.get(name).map(|it| &**it);
            let is_damaged = state.damaged.contains_key(name);
            let settings = applied.catalog.services().get(name);
            let gate = settings.and_then(|it| it.gate.approval.as_ref());
            let expires = gate.map(|it| it.expires);
            let pool = |it: &Pool| {
                let approvals = known.map(|state| approvals(state, it.color(), expires));
                let approvals = approvals.unwrap_or_default();
                let picture = PoolSnapshot::of(switch, ledger, it, pools.active, known);
                let picture = PoolSnapshot { approvals, ..picture };
                if is_damaged { PoolSnapshot { role: Role::Empty, ..picture } } else { picture }
            };
            ServiceSnapshot {
                active: pools.active,
                previous: known.and_then(|it| it.previous),
                is_damaged,
                watch: known.and_then(|it| it.watch.as_ref()).map(|it| timestamp(it.until)),
                confirm_by: known
                    .and_then(|it| it.confirmation.as_ref())
                    .map(|it| timestamp(it.until)),
                share: known.and_then(|it| it.share.as_ref()).map(ShareSnapshot::of),
                share_end: known.and_then(|it| it.share_end.clone()),
                rollout: rollouts.get(name).map(|it| RolloutId::clone(it)),
                hold: hold_snapshot(switch, name),
                maintenance: state.maintenance.get(name).cloned(),
                blue: pool(&pools.blue),
                green: pool(&pools.green),
            }
        };
        let pools = services.filter_map(|it| Some((it, applied.pools.get(it)?)));
        let services = pools.map(|(name, pools)| (name.clone(), picture(name, pools))).collect();
        Self { generation: state.generation, revision: state.changes(), services }
    }
}

impl ShareSnapshot {
    fn of(share: &ShareState) -> Self {
        Self {
            color: share.color,
            percent: share.percent(),
            steps: share.steps.clone(),
            step: share.step,
            until: timestamp(share.until),
            first_token: share.has_first.then(|| share.secret.first_token()),
        }
    }
}

impl ServiceSnapshot {
    /// The gauges of a scrape.
    pub(super) fn gauges(&self, service: ServiceName) -> ServiceGauges {
        ServiceGauges {
            service,
            active: Some(self.active),
            share: self.share.as_ref().map(|it| (it.color, it.percent)),
            held: self.hold.as_ref().map(|it| it.waiting),
            is_in_maintenance: self.maintenance.is_some(),
            pools: [self.blue.shown(), self.green.shown()],
        }
    }

    /// The pool of a color.
    #[must_use]
    pub fn pool(&self, color: Color) -> &PoolSnapshot {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }
}

/// The approvals of a pool that have not expired.
fn approvals(
    state: &ServiceState,
    color: Color,
    expires: Option<Duration>,
) -> Vec<ApprovalSnapshot> {
    let now = Timestamp::now();
    let of_pool = state.approvals.iter().filter(|it| it.color == color);
    let snapshots = of_pool.map(|it| {
        let at = timestamp(it.at.saturating_mul(1000));
        let until = expires.and_then(|it| at.checked_add(it).ok());
        ApprovalSnapshot { by: Arc::clone(&it.by), at, until }
    });
    snapshots.filter(|it| it.until.is_none_or(|it| it > now)).collect()
}

/// The gauges of a removed service: its requests in flight.
pub(super) fn removed_gauges(switch: &ServiceSwitch, service: ServiceName) -> ServiceGauges {
    let pools = Color::BOTH.map(|color| {
        let inside = switch.in_flight(&service, color);
        PoolGauges { in_flight: inside.current + inside.retired, ..PoolGauges::default() }
    });
    ServiceGauges {
        service,
        active: None,
        share: None,
        held: None,
        is_in_maintenance: false,
        pools,
    }
}

impl PoolSnapshot {
    fn of(
        switch: &ServiceSwitch,
        ledger: &Ledger<Instant>,
        pool: &Pool,
        active: Color,
        state: Option<&ServiceState>,
    ) -> Self {
        let (service, color) = (pool.service(), pool.color());
        let inside = switch.in_flight(service, color);
        let pins = PinsSnapshot::of(switch, service, color);
        let is_draining = pins.is_some()
            || switch.drains(service, color).iter().any(|it| it.was_active() || it.had_pins());
        let holds = state.map(|it| Holds::of(it, color)).unwrap_or_default();
        let holds = holds.with_pins(pins);
        // A color that was never active has no old requests that one could wait for.
        let holds = match color != active && state.is_some_and(|it| it.pool(color).served) {
            true => holds.with(SideRequests::of(switch, ledger, service, color)),
            false => holds,
        };
        let state = state.map(|it| it.pool(color));
        let role = if color == active {
            Role::Active
        } else if is_draining {
            Role::Draining
        } else if pool.endpoints().is_empty() {
            Role::Empty
        } else if state.is_some_and(|it| it.served) {
            Role::Standby
        } else {
            Role::Preview
        };
        let is_safe_to_stop = match role {
            Role::Draining => Some(false),
            Role::Standby => Some(holds.by.is_empty()),
            Role::Active | Role::Preview | Role::Empty => None,
        };
        Self {
            role,
            is_safe_to_stop,
            holds,
            pins,
            approvals: Vec::new(),
            version: pool.spec().version.clone(),
            source: match state.is_some_and(|it| it.runtime.is_some()) {
                true => Source::Runtime,
                false => Source::File,
            },
            in_flight: inside.current + inside.retired,
            queued: pool.queued(),
            retries_left: pool.retries_left(Instant::now()),
            is_panicking: pool.is_panicking(),
            was_used: pool.metrics().was_used(),
            endpoints: pool.endpoints().iter().map(|it| EndpointSnapshot::of(it)).collect(),
        }
    }

    /// The gauges of a scrape.
    pub(super) fn shown(&self) -> PoolGauges {
        let Self {
            role: _,
            version,
            source: _,
            in_flight,
            queued,
            retries_left,
            is_panicking,
            was_used,
            is_safe_to_stop: _,
            holds: _,
            pins: _,
            approvals: _,
            endpoints,
        } = self;
        let version = version.as_ref().map(ToString::to_string);
        let (in_flight, queued, retries_left) = (*in_flight, *queued, *retries_left);
        let endpoints = endpoints.iter().map(EndpointSnapshot::gauges).collect();
        let (is_panicking, was_used) = (*is_panicking, *was_used);
        PoolGauges { version, in_flight, queued, retries_left, is_panicking, was_used, endpoints }
    }
}

impl EndpointSnapshot {
    fn of(member: &EndpointState) -> Self {
        Self {
            address: member.configured().clone(),
            resolved: member.resolved(),
            weight: member.weight(),
            health: member.health_details(),
            in_flight: member.in_flight(),
            connections: member.connections(),
            was_used: member.was_connected(),
            was_ejected: member.was_ejected(),
        }
    }

    fn gauges(&self) -> EndpointGauges {
        let Self { address, resolved, health: condition, in_flight, connections, .. } = self;
        EndpointGauges {
            endpoint: match resolved {
                Some(resolved) => format!("{address} {resolved}"),
                None => address.to_string(),
            },
            is_up: condition.health == Health::Up,
            is_ejected: condition.ejected.is_some(),
            was_ejected: self.was_ejected,
            was_used: self.was_used,
            in_flight: *in_flight,
            connections: *connections,
        }
    }
}
