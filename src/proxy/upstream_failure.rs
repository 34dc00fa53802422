//! Why an exchange has no response of an upstream.

use super::error::ProxyError;

/// Why there is no response to relay.
pub(super) enum UpstreamFailure {
    /// The client gets this error.
    Error(ProxyError),
    /// The upstream closed the connection without a byte.
    Closed,
    /// The request is retried at another endpoint.
    RetryElsewhere,
    /// The client has left.
    ClientLeft,
}
