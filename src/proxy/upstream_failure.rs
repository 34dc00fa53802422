//! Why an exchange has no answer from an upstream.

use super::error::ProxyError;

/// Why there is no answer to relay.
pub(super) enum UpstreamFailure {
    /// The client is told.
    Refused(ProxyError),
    /// The upstream has closed before it said a word.
    Closed,
    /// The request is better off at another endpoint.
    Late,
    /// There is nobody to be told.
    Left,
}
