//! The steps of a gradual promotion, as a call asks for them.

use std::time::Duration;

use crate::continuity::ShareSecret;

/// The steps of a gradual promotion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ShareSteps {
    /// Shares of clients in percent, each larger than the one before; the last one is 100. The first one may be 0, for those
    /// who go first.
    pub percents: Vec<u8>,
    /// How long a step lasts at least.
    pub step_for: Duration,
    /// Whether internal clients and holders of the token go to the candidate, whatever the share.
    pub has_first: bool,
    /// Decides which clients move first. It must be random. A promotion in progress keeps its own.
    pub secret: ShareSecret,
}
