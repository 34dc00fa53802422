//! The state of a pool.

use std::sync::Arc;

use crate::model::{Generation, PoolSpec};

/// The state of a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolState {
    /// The pool in the configuration file when this was written.
    pub file: PoolSpec,
    /// The endpoints that a call set at run time. Removed when the file's entry changes.
    pub runtime: Option<PoolSpec>,
    /// Whether the pool has been active since its endpoints were set.
    pub served: bool,
    /// Whether a gradual promotion has given the pool a share of the clients since its endpoints were set.
    pub shared: bool,
    /// The authenticated caller that set the endpoints; `None` for the file and for callers without a token.
    pub set_by: Option<Arc<str>>,
    /// Pins of earlier generations are void: another pool had the color then, or was rolled back.
    pub pins_since: Generation,
    /// When another color became active, in milliseconds of Unix time; `None` while it is active, and if it never was.
    pub retired_at: Option<u64>,
}

// === impl PoolState ===

impl PoolState {
    /// A pool of the configuration file that was never active.
    #[must_use]
    pub fn new(file: PoolSpec) -> Self {
        Self {
            file,
            runtime: None,
            served: false,
            shared: false,
            set_by: None,
            pins_since: Generation(0),
            retired_at: None,
        }
    }

    /// The pool's current endpoints and version.
    #[must_use]
    pub fn spec(&self) -> &PoolSpec {
        self.runtime.as_ref().unwrap_or(&self.file)
    }
}
