//! What is counted of a request, once.

use std::time::Instant;

use crate::metrics::PoolMetrics;

/// When a request came, and how it was answered.
#[derive(Debug)]
pub(super) struct RequestRecord {
    started: Instant,
    status: RecordedStatus,
    /// Previews are counted apart from public requests.
    is_preview: bool,
}

#[derive(Clone, Copy, Debug)]
enum RecordedStatus {
    /// There is no answer yet.
    Open,
    /// The answer has this code.
    Answered(u16),
    Counted,
}

/// A client that closed its connection before it had an answer; a number that nginx made common.
const CLIENT_LEFT: u16 = 499;

// === impl RequestRecord ===

impl RequestRecord {
    /// Of a request that begins now.
    pub(super) fn begin() -> Self {
        Self { started: Instant::now(), status: RecordedStatus::Open, is_preview: false }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Notes that the request is a preview.
    pub(super) fn note_preview(&mut self) {
        self.is_preview = true;
    }

    /// Notes that the head of the endpoint's response is there.
    pub(super) fn note_head(&self, metrics: &PoolMetrics) {
        if !self.is_preview {
            metrics.observe_head(self.started.elapsed().as_secs_f64());
        }
    }

    /// Notes the code of the answer. A later one replaces it: of an answer that nothing was written of,
    /// the client gets an error in its place.
    pub(super) fn answer(&mut self, code: u16) {
        self.status = RecordedStatus::Answered(code);
    }

    /// Counts the request. Does nothing after the first call. A request without an answer is counted as
    /// one whose client has left, also if it was cut.
    pub(super) fn count(&mut self, metrics: &PoolMetrics) {
        let code = match std::mem::replace(&mut self.status, RecordedStatus::Counted) {
            RecordedStatus::Open => CLIENT_LEFT,
            RecordedStatus::Answered(code) => code,
            RecordedStatus::Counted => return,
        };
        match self.is_preview {
            true => metrics.count_preview(code),
            false => {
                metrics.count(code);
                metrics.observe(self.started.elapsed().as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    /// The codes under which a request is counted, with how often.
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
            record.answer(200);
            record.answer(502);
            record.count(pool);
            record.count(pool);
        });
        assert_eq!(counts, [(502, 1)]);
    }

    #[test]
    fn a_request_without_an_answer_is_counted_as_a_client_that_left() {
        assert_eq!(counted(RequestRecord::count), [(CLIENT_LEFT, 1)]);
    }
}
