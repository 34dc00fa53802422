//! The gauges of services, pools and endpoints at a scrape.

use super::exposition::Family;
use crate::model::{Color, ServiceName};

/// A limit that a request hit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitHit {
    /// Requests in flight of the process.
    InFlight,
    /// Requests in flight of the service.
    ServiceInFlight,
    /// The request rate of a client.
    ClientRate,
    /// The queue.
    Queue,
    /// The time in the queue.
    QueueTime,
    /// Connections to endpoints of the process.
    Descriptors,
}

/// The gauges of a service.
#[derive(Clone, Debug)]
pub struct ServiceGauges {
    /// The service.
    pub service: ServiceName,
    /// Its active color. `None` if it is no longer configured.
    pub active: Option<Color>,
    /// The candidate of a gradual promotion, and its share of the clients in percent.
    pub share: Option<(Color, u8)>,
    /// Requests that wait, if it is held.
    pub held: Option<usize>,
    /// Whether it is in maintenance.
    pub is_in_maintenance: bool,
    /// Blue and green, in this order.
    pub pools: [PoolGauges; 2],
}

/// The gauges of a pool.
#[derive(Clone, Debug, Default)]
pub struct PoolGauges {
    /// The version that runs there, if it was set.
    pub version: Option<String>,
    /// Requests in flight.
    pub in_flight: usize,
    /// The queue.
    pub queued: usize,
    /// Retries that the budget allows.
    pub retries_left: u32,
    /// Whether panic mode is on.
    pub is_panicking: bool,
    /// Whether it ever had a request.
    pub was_used: bool,
    /// Its endpoints.
    pub endpoints: Vec<EndpointGauges>,
}

/// The gauges of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointGauges {
    /// Its address.
    pub endpoint: String,
    /// Whether it is healthy.
    pub is_up: bool,
    /// Whether it is ejected.
    pub is_ejected: bool,
    /// Whether it ever was.
    pub was_ejected: bool,
    /// Whether a connection was ever opened for a request.
    pub was_used: bool,
    /// Requests in flight.
    pub in_flight: usize,
    /// Open connections.
    pub connections: usize,
}

/// Writes all gauges of services.
pub(super) fn write(services: &[ServiceGauges], text: &mut String) {
    let mut in_flight = Family::gauge("in_flight", "Requests inside a color now");
    let mut active = Family::gauge("active", "1 for the color that answers the public");
    let mut info =
        Family::gauge("pool_info", "1 for each pool that has endpoints, with its version");
    let mut shared = Family::gauge(
        "share_percent",
        "The share of clients of a color that is promoted gradually, in percent",
    );
    let mut queued = Family::gauge("queued", "Requests that wait in the queue for an endpoint");
    let mut retry_budget = Family::gauge("retry_budget", "Retries that the budget still allows");
    let mut panicking = Family::gauge(
        "panicking",
        "1 while so few endpoints are healthy that all of them are used",
    );
    let mut up = Family::gauge("endpoint_up", "1 for endpoints that pass their health checks");
    let mut ejected =
        Family::gauge("endpoint_ejected", "1 for endpoints that are ejected after failed requests");
    let mut with_endpoint =
        Family::gauge("endpoint_in_flight", "Requests in flight to an endpoint");
    let mut connections = Family::gauge("endpoint_connections", "Open connections to an endpoint");
    let mut held = Family::gauge("held_requests", "Requests that wait while their service is held");
    let mut maintenance = Family::gauge("maintenance", "1 for a service in maintenance");
    for gauges in services {
        let ServiceGauges {
            service,
            active: answering,
            share,
            held: waiting,
            is_in_maintenance,
            pools,
        } = gauges;
        let service = ("service", service.as_str());
        if let Some(waiting) = waiting {
            held.add(&[service], waiting);
        }
        if *is_in_maintenance {
            maintenance.add(&[service], 1);
        }
        for (color, pool) in Color::BOTH.into_iter().zip(pools) {
            let PoolGauges { in_flight: inside, retries_left, is_panicking, endpoints, .. } = pool;
            let of_pool = [("color", color.as_str()), service];
            in_flight.add(&of_pool, inside);
            if !endpoints.is_empty() {
                let version = ("version", pool.version.as_deref().unwrap_or_default());
                info.add(&[of_pool[0], service, version], 1);
            }
            if let Some(answering) = answering {
                active.add(&of_pool, u8::from(color == *answering));
            }
            if let Some((_, percent)) = share.filter(|it| it.0 == color) {
                shared.add(&of_pool, percent);
            }
            // A pool without a request has no more gauges.
            if pool.was_used {
                queued.add(&of_pool, pool.queued);
                retry_budget.add(&of_pool, retries_left);
            }
            if pool.was_used || *is_panicking {
                panicking.add(&of_pool, u8::from(*is_panicking));
            }
            for it in endpoints {
                let of_endpoint = [of_pool[0], ("endpoint", &*it.endpoint), service];
                up.add(&of_endpoint, u8::from(it.is_up));
                if it.was_ejected {
                    ejected.add(&of_endpoint, u8::from(it.is_ejected));
                }
                if it.was_used {
                    with_endpoint.add(&of_endpoint, it.in_flight);
                    connections.add(&of_endpoint, it.connections);
                }
            }
        }
    }
    let families = [
        in_flight,
        active,
        info,
        shared,
        queued,
        retry_budget,
        panicking,
        up,
        ejected,
        with_endpoint,
        connections,
        held,
        maintenance,
    ];
    for family in families {
        family.write(text);
    }
}

// === impl LimitHit ===

impl LimitHit {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::InFlight,
        Self::ServiceInFlight,
        Self::ClientRate,
        Self::Queue,
        Self::QueueTime,
        Self::Descriptors,
    ];

    /// The name in metrics and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::ServiceInFlight => "service_in_flight",
            Self::ClientRate => "client_rate",
            Self::Queue => "queue",
            Self::QueueTime => "queue_timeout",
            Self::Descriptors => "descriptors",
        }
    }
}
