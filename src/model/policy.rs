//! How the requests of a service are spread over its endpoints, and how those are looked after.

use std::{num::NonZeroU32, time::Duration};

use super::StatusSet;

/// How the requests of a service are spread over its endpoints, how those are looked after, and how
/// much of them there may be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Policy {
    /// The choice among endpoints.
    pub balance: Balance,
    /// What is known of them before a request finds out.
    pub health: HealthCheck,
    /// What requests find out.
    pub ejection: Ejection,
    /// What is tried again.
    pub retry: Retry,
    /// How much there may be at once.
    pub limits: ServiceLimits,
    /// How long it may take.
    pub timeouts: ServiceTimeouts,
    /// What a drain waits for.
    pub drain: DrainPolicy,
}

/// What a drain waits for, besides requests whose clients wait for the answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DrainPolicy {
    /// What becomes of a request whose client has left.
    pub abandoned: AbandonedRequests,
}

/// What becomes of a request whose client has left before it had the whole answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum AbandonedRequests {
    /// It ends at once, whatever its endpoint still does for it.
    #[default]
    Cut,
    /// If its endpoint has the whole request, it ends with the answer, which is thrown away.
    Wait,
}

/// How long parts of an exchange may take with the upstreams of one service. `None` for as long as with all
/// others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ServiceTimeouts {
    /// Opening a connection to an endpoint.
    pub connect: Option<Duration>,
    /// From the request's last byte to the head of its response.
    pub response: Option<Duration>,
    /// Without a byte of the response's body, once it has begun.
    pub stall: Option<Duration>,
    /// The whole exchange. Within, `None` is for as long as it takes.
    pub request: Option<Option<Duration>>,
}

/// The choice among endpoints.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Balance {
    /// Who is chosen.
    pub algorithm: Algorithm,
    /// How long an endpoint that has just come up gets less than its share; `None` for no time.
    pub slow_start: Option<Duration>,
    /// If fewer than so many percent are left, also those are used that answer badly.
    pub panic: u8,
}

/// Who is chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Algorithm {
    /// The less busy of two drawn at random.
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// The same for the same key, for as long as it is there.
    Hash(HashKey),
}

/// What requests that shall go to the same endpoint have in common.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashKey {
    /// A header, by its name in lower case.
    Header(Box<str>),
    /// A cookie, by its name.
    Cookie(Box<str>),
    /// The client's address.
    Address,
}

/// How endpoints are looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    /// What is asked for; without it, that a connection can be opened is enough.
    pub path: Option<Box<str>>,
    /// The `Host` of the question; without it the endpoint's own.
    pub host: Option<Box<str>>,
    /// The time between two looks at an endpoint that is as it was.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How many good ones in a row bring an endpoint up again.
    pub rise: u32,
    /// How many bad ones in a row take it down.
    pub fall: u32,
    /// Which statuses are good.
    pub statuses: StatusSet,
    /// What a good answer's body contains, within its first 64 KiB.
    pub body: Option<Box<str>>,
}

/// When an endpoint is left out for a while for what requests got of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// After so many failures in a row; `None` for never.
    pub failures: Option<NonZeroU32>,
    /// Answers that are failures, besides those that never came.
    pub statuses: StatusSet,
    /// For how long, times how often it was before.
    pub base_duration: Duration,
    /// But never for longer.
    pub duration_max: Duration,
    /// How many percent of a pool may be left out at once; of two or more always one.
    pub share: u8,
}

/// What is tried again at another endpoint. What cannot have happened always is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Answers that are not passed on while there is somebody else to ask.
    pub statuses: StatusSet,
    /// Also a second request on a fresh connection that was closed without an answer, and answers that are
    /// not HTTP.
    pub on_closed: bool,
    /// How long an endpoint may take to the head of its answer while there is somebody else to ask.
    pub try_timeout: Option<Duration>,
    /// Endpoints that one request is tried at.
    pub tries: usize,
    /// Retries, in percent of the requests.
    pub budget: u8,
    /// Retries a second that are always there.
    pub budget_min: u8,
}

/// How much there may be at once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceLimits {
    /// Requests of the service, both colors together; tunnels are not counted.
    pub in_flight: Option<usize>,
    /// Requests a second of one client address.
    pub client_rate: Option<RateLimit>,
    /// Requests that are with one endpoint.
    pub endpoint_requests: Option<usize>,
    /// Connections to one endpoint, those that wait for a request too.
    pub endpoint_connections: Option<usize>,
    /// Requests that wait for a place at an endpoint.
    pub queue: usize,
    /// How long they do.
    pub queue_timeout: Duration,
}

/// How much may come in a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimit {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

// === impl Policy ===

impl Policy {
    /// Whether requests may have to wait for a place at an endpoint.
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
