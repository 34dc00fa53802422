//! What a scrape shows of services, pools and endpoints as they are at that moment.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGaugeVec;

use crate::model::{Color, ServiceName};

/// A limit that a request met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LimitHit {
    /// Requests of the whole process.
    InFlight,
    /// Requests of the service.
    ServiceInFlight,
    /// Requests a second of its client.
    ClientRate,
    /// Requests that wait for a place at an endpoint.
    Queue,
    /// The time that they may wait.
    QueueTime,
    /// Connections to endpoints that this process may have.
    Descriptors,
}

/// What one service looks like at a scrape.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The service.
    pub service: ServiceName,
    /// Its active color.
    pub active: Color,
    /// Blue and green, in this order.
    pub pools: [ShownPool; 2],
}

/// What one pool looks like at a scrape.
#[derive(Clone, Debug, Default)]
pub struct ShownPool {
    /// Requests inside.
    pub in_flight: usize,
    /// Requests that wait for a place at an endpoint.
    pub queued: usize,
    /// Requests that may be tried again now.
    pub retries_left: u32,
    /// Whether so few endpoints are left that those are used that answer badly.
    pub is_panicking: bool,
    /// Its endpoints.
    pub endpoints: Vec<ShownEndpoint>,
}

/// What one endpoint looks like at a scrape.
#[derive(Clone, Debug)]
pub struct ShownEndpoint {
    /// Where it is.
    pub endpoint: String,
    /// Whether it answers as it should.
    pub is_up: bool,
    /// Whether it is left out for a while.
    pub is_ejected: bool,
    /// Requests that are with it.
    pub in_flight: usize,
    /// Connections to it.
    pub connections: usize,
}

/// The series that are made anew at each scrape, so that those of endpoints that are gone go too.
#[derive(Clone, Debug)]
pub(super) struct Resilience {
    queued: IntGaugeVec,
    retry_budget: IntGaugeVec,
    panicking: IntGaugeVec,
    up: IntGaugeVec,
    ejected: IntGaugeVec,
    in_flight: IntGaugeVec,
    connections: IntGaugeVec,
    /// Held while they are.
    showing: Arc<Mutex<()>>,
}

// === impl Resilience ===

impl Resilience {
    /// `gauges` makes and registers a series from its name, its help and its labels.
    pub(super) fn new(
        gauges: impl Fn(&'static str, &'static str, &[&str]) -> Result<IntGaugeVec, prometheus::Error>,
    ) -> Result<Self, prometheus::Error> {
        let of_pool = ["service", "color"];
        let of_endpoint = ["service", "color", "endpoint"];
        Ok(Self {
            queued: gauges("queued", "Requests that wait for a place at an endpoint", &of_pool)?,
            retry_budget: gauges("retry_budget", "Retries by option that are left", &of_pool)?,
            panicking: gauges(
                "panicking",
                "1 while so few endpoints are left that those are used that answer badly",
                &of_pool,
            )?,
            up: gauges("endpoint_up", "1 for endpoints whose checks are good", &of_endpoint)?,
            ejected: gauges(
                "endpoint_ejected",
                "1 for endpoints that are left out for a while",
                &of_endpoint,
            )?,
            in_flight: gauges(
                "endpoint_in_flight",
                "Requests that are with an endpoint",
                &of_endpoint,
            )?,
            connections: gauges(
                "endpoint_connections",
                "Open connections to an endpoint",
                &of_endpoint,
            )?,
            showing: Arc::default(),
        })
    }

    /// Forgets everything, so that it can be shown anew. Others wait until that is done.
    pub(super) fn begin(&self) -> MutexGuard<'_, ()> {
        let showing = self.showing.lock().unwrap_or_else(PoisonError::into_inner);
        self.reset();
        showing
    }

    fn reset(&self) {
        let Self { queued, retry_budget, panicking, up, ejected, in_flight, connections, .. } =
            self;
        for series in [queued, retry_budget, panicking, up, ejected, in_flight, connections] {
            series.reset();
        }
    }

    pub(super) fn show(&self, labels: &[&str; 2], pool: &ShownPool) {
        self.queued.with_label_values(labels).set(number(pool.queued));
        self.retry_budget.with_label_values(labels).set(pool.retries_left.into());
        self.panicking.with_label_values(labels).set(pool.is_panicking.into());
        for it in &pool.endpoints {
            let labels = [labels[0], labels[1], &it.endpoint];
            self.up.with_label_values(&labels).set(it.is_up.into());
            self.ejected.with_label_values(&labels).set(it.is_ejected.into());
            self.in_flight.with_label_values(&labels).set(number(it.in_flight));
            self.connections.with_label_values(&labels).set(number(it.connections));
        }
    }
}

pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
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

    /// A word for metrics and events.
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
