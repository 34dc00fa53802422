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
    pub public_marks: bool,
    /// How long an upstream may take to the head of its answer.
    pub response_patience: Duration,
}
