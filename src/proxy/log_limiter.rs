//! What is said of endpoints and clients in the log: in an outage it happens with each request, and is said once a
//! second of each kind, with how many were left out.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// When each kind was said last, and how often it was left out since. Of one worker.
#[derive(Debug, Default)]
pub(super) struct LogLimiter([Cell<(Option<Instant>, u64)>; 6]);

/// What there is to be said.
#[derive(Clone, Copy, Debug)]
pub(super) enum LimitedEvent {
    /// A connection was closed without an answer.
    Closed,
    /// An answer cannot be understood.
    Protocol,
    /// An answer broke off.
    BrokeOff,
    /// An interim answer that is not allowed.
    Interim,
    /// A client misuses HTTP/2.
    Http2Abuse,
    /// The response to a request whose client has left did not come to its end.
    GaveUp,
}

const PAUSE: Duration = Duration::from_secs(1);

impl LogLimiter {
    /// Whether it is to be said now; then with how many like it were left out.
    pub(super) fn permits(&self, line: LimitedEvent, now: Instant) -> Option<u64> {
        let cell = &self.0[line as usize];
        let (last, left_out) = cell.get();
        if last.is_some_and(|it| now.saturating_duration_since(it) < PAUSE) {
            cell.set((last, left_out + 1));
            return None;
        }
        cell.set((Some(now), 0));
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_said_once_a_second() {
        let (log_limiter, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(log_limiter.permits(LimitedEvent::Closed, now), Some(0));
        assert_eq!(log_limiter.permits(LimitedEvent::Closed, now + PAUSE / 2), None);
        assert_eq!(log_limiter.permits(LimitedEvent::BrokeOff, now + PAUSE / 2), Some(0));
        assert_eq!(log_limiter.permits(LimitedEvent::Closed, now + PAUSE), Some(1));
    }
}
