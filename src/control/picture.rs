//! The whole picture, of one moment.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use crate::{
    metrics::{ShownEndpoint, ShownPool},
    model::{Color, Endpoint, Generation, Health, Role, Rules, ServiceName, Source, Version},
    store::{ServiceTruth, Truth},
    switch::{Drain, Switch},
    upstream::{Condition, Member, Pool},
};

/// Services, colors, roles, endpoints and who is inside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Picture {
    /// Of which generation this is.
    pub generation: Generation,
    /// All configured services.
    pub services: BTreeMap<ServiceName, ServicePicture>,
}

/// One service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServicePicture {
    /// The color that answers.
    pub active: Color,
    /// The color that a rollback would make active.
    pub previous: Option<Color>,
    /// Whether its entry in the state file could not be read: it answers nobody then.
    pub is_damaged: bool,
    /// The pool named blue.
    pub blue: PoolPicture,
    /// The pool named green.
    pub green: PoolPicture,
}

/// One pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolPicture {
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
    /// Its endpoints; of a name that was resolved, one for each address.
    pub endpoints: Vec<EndpointPicture>,
}

/// One endpoint.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointPicture {
    /// Where it is, as it was written.
    pub address: Endpoint,
    /// If that is a name, which of its addresses.
    pub resolved: Option<SocketAddr>,
    /// Its share beside the others'.
    pub weight: u16,
    /// How it is doing.
    pub condition: Condition,
    /// Requests that are with it.
    pub in_flight: usize,
    /// Connections to it.
    pub connections: usize,
}

// === impl Picture ===

impl Picture {
    /// What the switch shows. `truth` must be of the switch's generation.
    pub(super) fn of(switch: &Switch<Arc<Rules>, Pool>, truth: &Truth) -> Self {
        let (generation, services) = switch.look(|table| {
            let pools = |it: &crate::switch::Service<Pool>| {
                Color::BOTH.map(|color| Arc::clone(it.side(color).pool()))
            };
            let services: Vec<_> = table
                .services()
                .iter()
                .map(|it| (it.name().clone(), it.active(), pools(it)))
                .collect();
            (table.generation(), services)
        });
        let services = services
            .into_iter()
            .map(|(name, active, [blue, green])| {
                let known = truth.services.get(&name);
                let is_damaged = truth.damaged.contains_key(&name);
                let pool = |it: &Pool| {
                    let picture = PoolPicture::of(switch, it, active, known);
                    if is_damaged { PoolPicture { role: Role::Empty, ..picture } } else { picture }
                };
                let picture = ServicePicture {
                    active,
                    previous: known.and_then(|it| it.previous),
                    is_damaged,
                    blue: pool(&blue),
                    green: pool(&green),
                };
                (name, picture)
            })
            .collect();
        Self { generation, services }
    }
}

impl ServicePicture {
    /// The pool of a color.
    #[must_use]
    pub fn pool(&self, color: Color) -> &PoolPicture {
        match color {
            Color::Blue => &self.blue,
            Color::Green => &self.green,
        }
    }
}

impl PoolPicture {
    fn of(
        switch: &Switch<Arc<Rules>, Pool>,
        pool: &Pool,
        active: Color,
        truth: Option<&ServiceTruth>,
    ) -> Self {
        let (service, color) = (pool.service(), pool.color());
        let inside = switch.inside(service, color);
        let is_draining = switch.drains(service, color).iter().any(Drain::was_active);
        let truth = truth.map(|it| it.pool(color));
        let role = if color == active {
            Role::Active
        } else if is_draining {
            Role::Draining
        } else if pool.members().is_empty() {
            Role::Empty
        } else if truth.is_some_and(|it| it.served) {
            Role::Standby
        } else {
            Role::Preview
        };
        Self {
            role,
            version: pool.spec().version.clone(),
            source: match truth.is_some_and(|it| it.runtime.is_some()) {
                true => Source::Runtime,
                false => Source::File,
            },
            in_flight: inside.current + inside.retired,
            queued: pool.queued(),
            retries_left: pool.retries_left(Instant::now()),
            is_panicking: pool.is_panicking(),
            endpoints: pool.members().iter().map(|it| EndpointPicture::of(it)).collect(),
        }
    }

    /// The same for a scrape.
    pub(super) fn shown(&self) -> ShownPool {
        let Self { in_flight, queued, retries_left, is_panicking, endpoints, .. } = self;
        let (in_flight, queued, retries_left) = (*in_flight, *queued, *retries_left);
        let endpoints = endpoints.iter().map(EndpointPicture::shown).collect();
        ShownPool { in_flight, queued, retries_left, is_panicking: *is_panicking, endpoints }
    }
}

impl EndpointPicture {
    fn of(member: &Member) -> Self {
        Self {
            address: member.endpoint().clone(),
            resolved: member.resolved(),
            weight: member.weight(),
            condition: member.condition(),
            in_flight: member.in_flight(),
            connections: member.connections(),
        }
    }

    fn shown(&self) -> ShownEndpoint {
        let Self { address, resolved, condition, in_flight, connections, .. } = self;
        ShownEndpoint {
            endpoint: match resolved {
                Some(resolved) => format!("{address} {resolved}"),
                None => address.to_string(),
            },
            is_up: condition.health == Health::Up,
            is_ejected: condition.ejected.is_some(),
            in_flight: *in_flight,
            connections: *connections,
        }
    }
}
