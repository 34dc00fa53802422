//! Limits log lines that requests cause. In an outage each request would write one; instead there is one a second of
//! each kind for each service and color, with the number of lines that were left out.

use std::{
    cell::RefCell,
    collections::HashMap,
    time::{Duration, Instant},
};

/// When each line was written last, and how often it was left out since. Of one worker.
#[derive(Debug, Default)]
pub(super) struct LogLimiter(RefCell<HashMap<Key, (Instant, u64)>>);

type Key = (LimitedEvent, Box<str>, Box<str>);

/// What a line is about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum LimitedEvent {
    /// A connection was closed without a response.
    Closed,
    /// A response is not valid HTTP.
    Protocol,
    /// A response was cut.
    Incomplete,
    /// An interim response that is not allowed.
    Interim,
    /// A client misuses HTTP/2.
    Http2Abuse,
    /// The response to an abandoned request did not complete.
    AbandonedIncomplete,
    /// The client got an error that Flipgate made.
    ErrorResponse,
    /// A request was served by the color before.
    Rescued,
    /// A missing asset was asked of the other color.
    Asset,
    /// A TLS handshake failed for the certificate of the client.
    ClientCertificate,
}

const PAUSE: Duration = Duration::from_secs(1);

/// The most entries that are kept. When there are more, old ones are forgotten.
const ENTRIES_MAX: usize = 1024;

// === impl LogLimiter ===

impl LogLimiter {
    /// Whether to write a line now; then the number of lines like it that were left out.
    pub(super) fn permits(
        &self,
        event: LimitedEvent,
        (service, color): (&str, &str),
        now: Instant,
    ) -> Option<u64> {
        let mut entries = self.0.borrow_mut();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, (last, _)| now.saturating_duration_since(*last) < PAUSE);
        }
        let (last, left_out) = entries
            .entry((event, service.into(), color.into()))
            .or_insert((now.checked_sub(PAUSE).unwrap_or(now), 0));
        if now.saturating_duration_since(*last) < PAUSE {
            *left_out += 1;
            return None;
        }
        *last = now;
        Some(std::mem::take(left_out))
    }
}

// === impl LimitedEvent ===

impl LimitedEvent {
    /// The text of the line.
    pub(super) fn message(self) -> &'static str {
        match self {
            Self::Closed => "the endpoint closed the connection without a response",
            Self::Protocol => "invalid response of the endpoint",
            Self::Incomplete => "incomplete response of the endpoint",
            Self::Interim => "unexpected interim response of the endpoint",
            Self::Http2Abuse => {
                "HTTP/2 connection closed: the client resets more requests than it lets Flipgate answer, or floods it"
            }
            Self::AbandonedIncomplete => {
                "gave up waiting for the response to an abandoned request; the endpoint may still work on it"
            }
            Self::ErrorResponse => "error response",
            Self::Rescued => {
                "no endpoint of the active color can be connected; request served by the color before"
            }
            Self::Asset => "missing asset; this color was asked for it",
            Self::ClientCertificate => "client certificate refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_a_second_of_each_kind_service_and_color() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        let web = ("web", "blue");
        assert_eq!(limiter.permits(LimitedEvent::Closed, web, now), Some(0));
        assert_eq!(limiter.permits(LimitedEvent::Closed, web, now + PAUSE / 2), None);
        assert_eq!(
            limiter.permits(LimitedEvent::Closed, ("api", "blue"), now + PAUSE / 2),
            Some(0)
        );
        assert_eq!(
            limiter.permits(LimitedEvent::Closed, ("web", "green"), now + PAUSE / 2),
            Some(0)
        );
        assert_eq!(limiter.permits(LimitedEvent::Incomplete, web, now + PAUSE / 2), Some(0));
        assert_eq!(limiter.permits(LimitedEvent::Closed, web, now + PAUSE), Some(1));
    }

    #[test]
    fn old_entries_are_forgotten() {
        let (limiter, now) = (LogLimiter::default(), Instant::now());
        for it in 0..ENTRIES_MAX {
            limiter.permits(LimitedEvent::Closed, (&it.to_string(), "blue"), now);
        }
        limiter.permits(LimitedEvent::Closed, ("web", "blue"), now + PAUSE);
        assert_eq!(limiter.0.borrow().len(), 1);
    }
}
