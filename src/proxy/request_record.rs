//! What is counted of a request, once.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::metrics::{Outcome, Outcomes, PoolMetrics};

/// When a request began, and the status of its response.
#[derive(Debug)]
pub(super) struct RequestRecord {
    started: Instant,
    status: RecordedStatus,
    /// Previews are counted apart from public requests.
    is_preview: bool,
    is_rescued: bool,
}

#[derive(Clone, Copy, Debug)]
enum RecordedStatus {
    /// There is no response yet.
    Open,
    /// The response has this code, and says this of the application.
    Answered(u16, Outcome),
    Counted,
}

/// The client closed its connection before there was a response. nginx made this code common.
const CLIENT_LEFT: u16 = 499;

// === impl RequestRecord ===

impl RequestRecord {
    /// The record of a request that begins now.
    pub(super) fn begin() -> Self {
        Self {
            started: Instant::now(),
            status: RecordedStatus::Open,
            is_preview: false,
            is_rescued: false,
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Notes that the request is a preview.
    pub(super) fn note_preview(&mut self) {
        self.is_preview = true;
    }

    /// Notes that the request was moved to another pool.
    pub(super) fn note_rescued(&mut self) {
        self.is_rescued = true;
    }

    /// Whether it may be moved to another pool: it is no preview, and was not moved yet.
    pub(super) fn may_be_rescued(&self) -> bool {
        !self.is_preview && !self.is_rescued
    }

    /// Notes that the response head has arrived. Returns how long it took, unless the request is a preview.
    pub(super) fn note_head(&self, metrics: &PoolMetrics) -> Option<Duration> {
        let took = (!self.is_preview).then(|| self.started.elapsed())?;
        metrics.observe_head(took.as_secs_f64());
        Some(took)
    }

    /// Notes the status code of the response of the application.
    pub(super) fn set_status(&mut self, code: u16) {
        let outcome = if code >= 500 { Outcome::Failed } else { Outcome::Answered };
        self.set_outcome(code, outcome);
    }

    /// Notes the status code of the response, and what it says of the application. A later one replaces it: if nothing of
    /// a response was written, the client gets an error instead.
    pub(super) fn set_outcome(&mut self, code: u16, outcome: Outcome) {
        self.status = RecordedStatus::Answered(code, outcome);
    }

    /// Notes that the response did not come to its end.
    pub(super) fn note_incomplete(&mut self) {
        if let RecordedStatus::Answered(_, outcome) = &mut self.status {
            *outcome = Outcome::Failed;
        }
    }

    /// Counts nothing: the request goes on with a record of its own.
    pub(super) fn discard(&mut self) {
        self.status = RecordedStatus::Counted;
    }

    /// Counts the request. Does nothing after the first call. A request without a response is counted as 499, also if
    /// it was cut. `client` is asked for the address of the client, and whether a watch has counted the request as failed
    /// already.
    pub(super) fn count(
        &mut self,
        metrics: &PoolMetrics,
        client: impl FnOnce() -> (Option<IpAddr>, bool),
    ) {
        let (code, outcome) = match std::mem::replace(&mut self.status, RecordedStatus::Counted) {
            RecordedStatus::Open => (CLIENT_LEFT, Outcome::Excluded),
            RecordedStatus::Answered(code, outcome) => (code, outcome),
            RecordedStatus::Counted => return,
        };
        match self.is_preview {
            true => metrics.count_preview(code),
            false => {
                metrics.count(code);
                metrics.observe(self.started.elapsed().as_secs_f64());
                let outcomes = metrics.outcomes();
                if outcome != Outcome::Answered || outcomes.is_watched() {
                    count_outcome(outcomes, outcome, client());
                }
            }
        }
    }
}

/// Counts what the request says of the application, once.
#[cold]
fn count_outcome(outcomes: &Outcomes, outcome: Outcome, client: (Option<IpAddr>, bool)) {
    match client {
        (_, true) => outcomes.count(Outcome::Excluded, None),
        (client, false) => outcomes.count(outcome, client),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// The codes that were counted, with how often.
    fn counted(course: impl FnOnce(&mut RequestRecord, &PoolMetrics)) -> Vec<(u16, u64)> {
        let metrics = Metrics::new(&prometheus::Registry::new()).expect("a fresh registry");
        let pool = metrics.unrouted();
        course(&mut RequestRecord::begin(), &pool);
        let text = metrics.show(crate::model::Generation(1), true, &[]);
        let lines =
            text.lines().filter_map(|it| it.strip_prefix("flipgate_requests_total{code=\""));
        let read =
            |it: &str| Some((it.get(..3)?.parse().ok()?, it.rsplit_once(' ')?.1.parse().ok()?));
        lines.filter_map(read).collect()
    }

    #[test]
    fn a_request_is_counted_once_with_the_last_code_it_was_answered_with() {
        let counts = counted(|record, pool| {
            record.set_status(200);
            record.set_status(502);
            record.count(pool, || (None, false));
            record.count(pool, || (None, false));
        });
        assert_eq!(counts, [(502, 1)]);
    }

    #[test]
    fn a_request_without_an_answer_is_counted_as_a_client_that_left() {
        let counts = counted(|record, pool| record.count(pool, || (None, false)));
        assert_eq!(counts, [(CLIENT_LEFT, 1)]);
    }
}
