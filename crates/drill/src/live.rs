//! Counters for the progress line, which the threads of the load update.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::record::{Outcome, Request};

/// Counters of the requests that have ended.
#[derive(Debug, Default)]
pub(super) struct LiveCounters {
    /// Requests that have ended.
    pub(super) done: AtomicU64,
    /// Requests that failed.
    pub(super) failed: AtomicU64,
}

// === impl LiveCounters ===

impl LiveCounters {
    /// Counts a request that has ended.
    pub(super) fn count(&self, request: &Request) {
        self.done.fetch_add(1, Relaxed);
        if request.outcome != Outcome::Complete {
            self.failed.fetch_add(1, Relaxed);
        }
    }
}
