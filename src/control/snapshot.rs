//! The whole picture, of one moment.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use super::shared::Applied;

use crate::{
    metrics::{EndpointGauges, PoolGauges, ServiceGauges},
    model::{Color, Endpoint, Generation, Health, Role, Rules, ServiceName, Source, Version},
    store::{Revision, ServiceState},
    switch::{Drain, Switch},
    upstream::{EndpointHealth, EndpointState, Pool, ServicePools},
};

/// Services, colors, roles, endpoints and who is inside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StatusSnapshot {
    /// Of which generation this is.
    pub generation: Generation,
    /// Of which revision of the state.
    pub revision: Revision,
    /// All configured services, or those that were asked for.
    pub services: BTreeMap<ServiceName, ServiceSnapshot>,
}

/// One service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceSnapshot {
    /// The color that answers.
    pub active: Color,
    /// The color that a rollback would make active.
    pub previous: Option<Color>,
    /// Whether its entry in the state file could not be read: it answers nobody then.
    pub is_damaged: bool,
    /// The pool named blue.
    pub blue: PoolSnapshot,
    /// The pool named green.
    pub green: PoolSnapshot,
}

/// One pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolSnapshot {
    /// What the color is now.
    pub role: Role,
    /// What runs there.
    pub version: Option<Version>,
    /// Where version and endpoints come from.
    pub source: Source,
    /// Requests inside, wherever they were admitted.
    pub in_flight: usize,
    /// Requests of these that wait for a place at an endpoint.
    pub queued: usize,
    /// Requests that may be tried again now, for what the service has chosen.
    pub retries_left: u32,
    /// Whether so few endpoints are well that those are used too that answer badly.
    pub is_panicking: bool,
    /// Whether a request ever came to it.
    pub was_used: bool,
    /// Its endpoints; of a name that was resolved, one for each address.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// One endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSnapshot {
    /// Where it is, as it was written.
    pub address: Endpoint,
    /// If that is a name, which of its addresses.
    pub resolved: Option<SocketAddr>,
    /// Its share beside the others'.
    pub weight: u16,
    /// How it is doing.
    pub condition: EndpointHealth,
    /// Requests that are with it.
    pub in_flight: usize,
    /// Connections to it.
    pub connections: usize,
    /// Whether a connection to it was ever opened for a request.
    pub was_used: bool,
    /// Whether it was ever left out for a while.
    pub was_ejected: bool,
}

// === impl StatusSnapshot ===

impl StatusSnapshot {
    /// What was applied at one moment, with what is inside now, of these services.
    pub(super) fn of<'a>(
        switch: &Switch<Arc<Rules>, Pool>,
        applied: &Applied,
        services: impl Iterator<Item = &'a ServiceName>,
    ) -> Self {
        let state = &applied.state;
        let picture = |name: &ServiceName, pools: &ServicePools| {
            let known = state.services.get(name).map(|it| &**it);
            let is_damaged = state.damaged.contains_key(name);
            let pool = |it: &Pool| {
                let picture = PoolSnapshot::of(switch, it, pools.active, known);
                if is_damaged { PoolSnapshot { role: Role::Empty, ..picture } } else { picture }
            };
            ServiceSnapshot {
                active: pools.active,
                previous: known.and_then(|it| it.previous),
                is_damaged,
                blue: pool(&pools.blue),
                green: pool(&pools.green),
            }
        };
        let pools = services.filter_map(|it| Some((it, applied.pools.get(it)?)));
        let services = pools.map(|(name, pools)| (name.clone(), picture(name, pools))).collect();
        Self { generation: state.generation, revision: state.revision, services }
    }
}

impl ServiceSnapshot {
    /// The same for a scrape.
    pub(super) fn shown(&self, service: ServiceName) -> ServiceGauges {
        ServiceGauges {
            service,
            active: Some(self.active),
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

/// A removed service for a scrape: what is still inside.
pub(super) fn shown_removed(
    switch: &Switch<Arc<Rules>, Pool>,
    service: ServiceName,
) -> ServiceGauges {
    let pools = Color::BOTH.map(|color| {
        let inside = switch.in_flight(&service, color);
        PoolGauges { in_flight: inside.current + inside.retired, ..PoolGauges::default() }
    });
    ServiceGauges { service, active: None, pools }
}

impl PoolSnapshot {
    fn of(
        switch: &Switch<Arc<Rules>, Pool>,
        pool: &Pool,
        active: Color,
        state: Option<&ServiceState>,
    ) -> Self {
        let (service, color) = (pool.service(), pool.color());
        let inside = switch.in_flight(service, color);
        let is_draining = switch.drains(service, color).iter().any(Drain::was_active);
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
        Self {
            role,
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

    /// The same for a scrape.
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
            endpoints,
        } = self;
        let version = version.as_ref().map(ToString::to_string);
        let (in_flight, queued, retries_left) = (*in_flight, *queued, *retries_left);
        let endpoints = endpoints.iter().map(EndpointSnapshot::shown).collect();
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
            condition: member.health_details(),
            in_flight: member.in_flight(),
            connections: member.connections(),
            was_used: member.was_connected(),
            was_ejected: member.was_ejected(),
        }
    }

    fn shown(&self) -> EndpointGauges {
        let Self { address, resolved, condition, in_flight, connections, .. } = self;
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
