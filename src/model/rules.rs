//! The rules for requests: routing, audiences and timeouts.

use std::time::Duration;

use super::{Networks, Router};

/// The configuration that applies to every request of one generation.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Unique in the process, so that results derived from the rules can be cached as long as these apply.
    pub id: u64,
    /// From host and path to the index of a service in the table.
    pub router: Router<usize>,
    /// Networks of clients that may see a color before it is active.
    pub internal: Networks,
    /// Proxies that are trusted for the client's address.
    pub trusted_proxies: Networks,
    /// Whether responses to the public have color and generation too.
    pub public_headers: bool,
    /// Whether the trace context of public requests is kept (W3C Trace Context).
    pub keeps_trace: bool,
    /// How long an upstream may take to the head of its response.
    pub response_timeout: Duration,
    /// The rules of each service, by its index in the table.
    pub services: Vec<ServiceRules>,
}

/// The rules for the requests of one service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ServiceRules {
    /// The maximum of bytes of a request body; `None` for no limit.
    pub body_max: Option<u64>,
    /// The idle timeout of tunnels; `None` for the default.
    pub tunnel_timeout: Option<Duration>,
}
