//! Checks which promises held, from the history of a drill. Pure: no clock, no sockets.

mod analysis;
mod checker;
mod drains;
mod gradual;
mod pins;
pub mod register;
mod transactions;
mod trials;

use std::collections::HashSet;

pub(crate) use self::{checker::check_history, drains::BOUND};

/// A promise of a blue/green proxy.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Promise {
    /// Every request gets the right response.
    Answered,
    /// For each service, the routing table behaves as one register that the flips write.
    Register,
    /// A flip of several services changes all of them at one instant.
    Together,
    /// Each request reaches one application, once and with its number. Only sample applications answer.
    Once,
    /// Bodies and trailers arrive as they were sent.
    Whole,
    /// Streams end, complete, on the color and the endpoint on which they began.
    Kept,
    /// Public clients get no color before it is active. Testers get the color that they ask for.
    Private,
    /// The `drained` event of a color comes after the end of its last request, and within a bound.
    Drained,
    /// Every flip succeeds while the proxy runs.
    Acknowledged,
    /// The promotion of a bad color is refused, and no public client gets that color.
    Gated,
    /// A color that turns bad after its promotion is rolled back.
    Guarded,
    /// One version answers all calls of a transaction.
    Pinned,
    /// A page gets all of its assets, from its version.
    WholePage,
    /// A client that has got the candidate of a gradual promotion keeps it, and the candidate gets its share of the clients.
    Sticky,
}

/// The result of the check of a promise.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The promise.
    pub promise: Promise,
    /// Cases in which it was tested, without the excused ones.
    pub checked: u64,
    /// Cases in which it was broken.
    pub broken: u64,
    /// Cases in which it could not be kept because the drill had killed a process, or had a color fail.
    pub excused: u64,
    /// Why it was not tested, if so.
    pub unchecked_reason: Option<&'static str>,
    /// In nanoseconds. For `register`, the longest time from the acknowledgement of a flip to the begin of a request
    /// that the old color answered. For `drained`, the longest time from the end of the last request to its event.
    /// For `guarded`, the longest time until a color that had turned bad was rolled back. Otherwise 0.
    pub max_delay: u64,
    /// For `guarded`, the public requests that failed until then. Otherwise 0.
    pub cost: u64,
}

/// One case in which a promise was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The promise.
    pub promise: Promise,
    /// The time, in nanoseconds of [`crate::sample::now_ns`].
    pub at: u64,
    /// What happened, with times relative to the begin of the measured load.
    pub text: String,
}

/// The result of all checks.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The result of each promise.
    pub findings: Vec<Finding>,
    /// All violations, in order of time.
    pub violations: Vec<Violation>,
    /// The numbers of requests that failed because the drill had killed a process, or had a color fail.
    pub(crate) excused: HashSet<u64>,
    /// Requests that the drill could not send, because of its own limits.
    pub not_sent: u64,
    /// Calls of flips, by result.
    pub flips: FlipCounts,
    /// Why the drill did not do all that it had to do, if so.
    pub incomplete: Option<String>,
}

/// Calls of flips, by result.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FlipCounts {
    /// Acknowledged.
    pub succeeded: u64,
    /// Failed, or their result is not known, although the proxy was running.
    pub failed: u64,
    /// Without an acknowledgement because the drill had killed the proxy.
    pub excused: u64,
}

// === impl Promise ===

impl Promise {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Answered,
        Self::Register,
        Self::Together,
        Self::Once,
        Self::Whole,
        Self::Kept,
        Self::Private,
        Self::Drained,
        Self::Acknowledged,
        Self::Gated,
        Self::Guarded,
        Self::Pinned,
        Self::WholePage,
        Self::Sticky,
    ];

    /// The name, for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Register => "register",
            Self::Together => "together",
            Self::Once => "once",
            Self::Whole => "whole",
            Self::Kept => "kept",
            Self::Private => "private",
            Self::Drained => "drained",
            Self::Acknowledged => "acknowledged",
            Self::Gated => "gated",
            Self::Guarded => "guarded",
            Self::Pinned => "pinned",
            Self::WholePage => "whole_page",
            Self::Sticky => "sticky",
        }
    }

    /// The promise as a sentence.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Answered => "every request gets the right response",
            Self::Register => "after a flip is acknowledged, the old color gets no new request",
            Self::Together => "a flip of several services changes all of them at one instant",
            Self::Once => {
                "each request reaches one application exactly once, with its number, and only sample applications answer"
            }
            Self::Whole => "bodies and trailers arrive as they were sent",
            Self::Kept => {
                "WebSockets, downloads, uploads and event streams end, complete, on the color and endpoint on which they \
                 began; after a flip, the proxy may close WebSockets between two messages"
            }
            Self::Private => {
                "public clients get no color before it is active; testers get the color that they ask for"
            }
            Self::Drained => {
                "a color is reported as drained after the end of its last request and of its pins, and within 500 ms"
            }
            Self::Acknowledged => "every flip succeeds while the proxy runs",
            Self::Gated => "the promotion of a bad color is refused, and no public client gets it",
            Self::Guarded => "a color that turns bad after its promotion is rolled back",
            Self::Pinned => "one version answers all calls of a transaction, also after a flip",
            Self::WholePage => "a page gets all of its assets, from its version",
            Self::Sticky => {
                "in a gradual promotion, a client that has got the new color keeps it, and the new color gets its share of \
                 the clients"
            }
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether every tested promise held, and the drill did all that it had to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|it| it.broken == 0)
            && self.not_sent == 0
            && self.incomplete.is_none()
    }

    /// The result of a promise.
    #[must_use]
    pub fn of(&self, promise: Promise) -> Option<&Finding> {
        self.findings.iter().find(|it| it.promise == promise)
    }
}

#[cfg(test)]
mod drains_tests;
#[cfg(test)]
mod gradual_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transactions_tests;
#[cfg(test)]
mod trials_tests;
