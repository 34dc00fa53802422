//! What is counted of a request, once.

use std::time::Instant;

use crate::metrics::PoolMetrics;

/// When a request came, and how it was answered.
#[derive(Debug)]
pub(super) struct Tally {
    started: Instant,
    status: Status,
}

#[derive(Clone, Copy, Debug)]
enum Status {
    /// There is no answer yet.
    Open,
    /// The answer has this code.
    Answered(u16),
    Counted,
}

/// A client that closed its connection before it had an answer; a number that nginx made common.
const CLIENT_LEFT: u16 = 499;

// === impl Tally ===

impl Tally {
    /// Of a request that begins now.
    pub(super) fn begin() -> Self {
        Self { started: Instant::now(), status: Status::Open }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Notes the code of the answer. A later one replaces it: of an answer that nothing was written of,
    /// the client gets an error in its place.
    pub(super) fn answer(&mut self, code: u16) {
        self.status = Status::Answered(code);
    }

    /// Counts the request. Does nothing after the first call. A request without an answer is counted as
    /// one whose client has left, also if it was cut.
    pub(super) fn count(&mut self, metrics: &PoolMetrics) {
        let code = match std::mem::replace(&mut self.status, Status::Counted) {
            Status::Open => CLIENT_LEFT,
            Status::Answered(code) => code,
            Status::Counted => return,
        };
        metrics.count(code);
        metrics.duration.observe(self.started.elapsed().as_secs_f64());
    }
}
