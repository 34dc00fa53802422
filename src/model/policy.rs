//! The policy of a service: load balancing, health, retries and limits.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::{AssetFallback, ErrorPages, StatusSet, StreamPolicies, VersionSignal};

/// The policy of a service: load balancing, health, retries and limits.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// Load balancing.
    pub balance: Balance,
    /// Health checks.
    pub health: HealthCheck,
    /// Ejection of endpoints with failing requests.
    pub ejection: Ejection,
    /// Retries.
    pub retry: Retry,
    /// Limits.
    pub limits: ServiceLimits,
    /// Timeouts.
    pub timeouts: ServiceTimeouts,
    /// What a drain waits for, and what it ends.
    pub drain: DrainPolicy,
    /// Pages for errors of Flipgate.
    pub error_pages: Option<Arc<ErrorPages>>,
    /// How pages learn that another version has become active.
    pub version_signal: Option<VersionSignal>,
    /// Which missing assets are asked of the other color.
    pub assets: Option<AssetFallback>,
}

/// What a drain waits for besides requests with a client that waits for the response, and which streams it ends.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DrainPolicy {
    /// What happens to a request after its client has disconnected.
    pub abandoned: AbandonedRequests,
    /// Which streams are ended after a flip, and when.
    pub streams: StreamPolicies,
}

/// What happens to a request if its client disconnects before it has the whole response.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AbandonedRequests {
    /// It ends at once, even if the endpoint still works on it.
    #[default]
    Cut,
    /// If the endpoint has the whole request, it ends with the response, which is discarded.
    Wait,
}

/// Timeouts of one service. `None`: as for all services.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ServiceTimeouts {
    /// Opening a connection to an endpoint, with TLS.
    pub connect: Option<Duration>,
    /// From the last byte of a request to the head of its response.
    pub response: Option<Duration>,
    /// Without a byte of the response body, after its first one.
    pub stall: Option<Duration>,
    /// The whole exchange. `Some(None)`: no limit.
    pub request: Option<Option<Duration>>,
}

/// Load balancing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Balance {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// How long a recovered endpoint gets less than its share; `None` for no slow start.
    pub slow_start: Option<Duration>,
    /// Panic threshold: if fewer percent of the endpoints are healthy, unhealthy ones are used too.
    pub panic: u8,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// The less loaded of two drawn at random.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// The same endpoint for the same key, as long as it is usable.
    Hash(HashKey),
}

/// The key that requests for the same endpoint share.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashKey {
    /// A header field, by its name in lower case.
    Header(Box<str>),
    /// A cookie, by its name.
    Cookie(Box<str>),
    /// The client's address.
    Address,
}

/// How endpoints are health-checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    /// The path of the request; without one, opening a connection is enough.
    pub path: Option<Box<str>>,
    /// The `Host` of the request; without one, the endpoint's.
    pub host: Option<Box<str>>,
    /// The time between two checks of an endpoint, while its health does not change.
    pub interval: Duration,
    /// The timeout of one check.
    pub timeout: Duration,
    /// Consecutive successes that mark an endpoint healthy.
    pub rise: u32,
    /// Consecutive failures that mark an endpoint unhealthy.
    pub fall: u32,
    /// The expected statuses.
    pub statuses: StatusSet,
    /// Text that the body must contain within its first 64 KiB.
    pub body: Option<Box<str>>,
}

/// When an endpoint is ejected because of failed requests.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// Consecutive failures before an ejection; `None` for never.
    pub failures: Option<NonZeroU32>,
    /// Response statuses that are failures, besides missing responses.
    pub statuses: StatusSet,
    /// The time of the first ejection; the n-th one lasts n times as long.
    pub base_duration: Duration,
    /// The maximum time of an ejection.
    pub duration_max: Duration,
    /// The maximum share of ejected endpoints of a pool, in percent; at least one of two or more.
    pub share: u8,
}

/// What is retried at another endpoint. A request that no endpoint can have processed is always retried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Response statuses that are retried if another endpoint is left.
    pub statuses: StatusSet,
    /// Also retry after a second connection, a new one, has closed without a response, and after invalid responses.
    pub on_closed: bool,
    /// How long an endpoint may take to the response head before another endpoint is tried, if there is one.
    pub try_timeout: Option<Duration>,
    /// Endpoints that one request is tried at.
    pub tries: usize,
    /// The retry budget, in percent of the requests.
    pub budget: u8,
    /// The minimum retry budget, in retries per second.
    pub budget_min: u8,
}

/// The limits of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceLimits {
    /// Requests in flight of the service, both colors together, without tunnels.
    pub in_flight: Option<usize>,
    /// Requests per second of one client address.
    pub client_rate: Option<RateLimit>,
    /// Requests in flight of one endpoint.
    pub endpoint_requests: Option<usize>,
    /// Connections to one endpoint, including idle ones.
    pub endpoint_connections: Option<usize>,
    /// Requests that wait for a permit of an endpoint.
    pub queue: usize,
    /// How long they wait.
    pub queue_timeout: Duration,
}

/// A rate limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimit {
    /// Requests per second on average.
    pub per_second: NonZeroU32,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

// === impl Policy ===

impl Policy {
    /// Whether requests may have to wait for a permit of an endpoint.
    #[must_use]
    pub fn limits_endpoints(&self) -> bool {
        self.limits.endpoint_requests.is_some() || self.limits.endpoint_connections.is_some()
    }
}

impl Default for Balance {
    fn default() -> Self {
        Self { algorithm: Algorithm::LeastRequest, slow_start: None, panic: 50 }
    }
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: None,
            host: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            statuses: statuses("200-399"),
            body: None,
        }
    }
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            failures: NonZeroU32::new(5),
            statuses: statuses("502-504"),
            base_duration: Duration::from_secs(30),
            duration_max: Duration::from_secs(300),
            share: 50,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            statuses: StatusSet::default(),
            on_closed: false,
            try_timeout: None,
            tries: 3,
            budget: 20,
            budget_min: 3,
        }
    }
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            in_flight: None,
            client_rate: None,
            endpoint_requests: None,
            endpoint_connections: None,
            queue: 100,
            queue_timeout: Duration::from_secs(1),
        }
    }
}

fn statuses(text: &str) -> StatusSet {
    text.parse().expect("codes of RFC 9110")
}
