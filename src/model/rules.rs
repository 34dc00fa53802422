//! What decides which service a request is for and who may see what.

use std::time::Duration;

use super::{Networks, Router};

/// What the configuration says of every request, as of one generation.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Unlike that of any other rules of this process, so that what was worked out under them can
    /// be kept for as long as they hold.
    pub id: u64,
    /// From host and path to a service, by its place in the table.
    pub router: Router<usize>,
    /// Whose clients may see a color before it is active.
    pub internal: Networks,
    /// Whose word on the client's address we take.
    pub trusted_proxies: Networks,
    /// Whether answers to the public tell color and generation too.
    pub public_headers: bool,
    /// Whether the public's trace context is kept: W3C Trace Context.
    pub keeps_trace: bool,
    /// How long an upstream may take to the head of its answer.
    pub response_timeout: Duration,
    /// What holds for the requests of each service, by its place in the table.
    pub services: Vec<ServiceRules>,
}

/// What holds for the requests of one service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ServiceRules {
    /// Bytes of a request's body; `None` for as many as there are.
    pub body_max: Option<u64>,
    /// How long a tunnel may be without a byte, if not as long as all others.
    pub tunnel_timeout: Option<Duration>,
}
