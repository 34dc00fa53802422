//! Which promises held, judged from what was seen. Pure: no clock, no sockets.

mod analysis;
mod checker;
mod drains;
pub mod register;

use std::collections::HashSet;

pub(crate) use self::{checker::judge, drains::BOUND};

/// What a proxy promises.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Promise {
    /// Every request gets an answer.
    Answered,
    /// There is an order in which the table is one register that flips.
    Register,
    /// A flip of several services is one flip.
    Together,
    /// Each request reaches the upstream once and with its number, and only the sample applications answer.
    Once,
    /// What arrives is what was sent.
    Whole,
    /// What takes its time ends on the color and the endpoint that it began on.
    Kept,
    /// The public sees nothing of a color before it is active; testers see what they ask for.
    Private,
    /// A color is reported as drained after the end of its last request, and soon after it.
    Drained,
    /// Every flip succeeds.
    Acknowledged,
}

/// How a promise fared.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Which promise.
    pub promise: Promise,
    /// How many times it was put to the test.
    pub checked: u64,
    /// How many times it was broken.
    pub broken: u64,
    /// How many times it would have been, but for something that the drill itself killed.
    pub explained: u64,
    /// Why it was not put to the test, if it was not.
    pub unchecked_reason: Option<&'static str>,
    /// In nanoseconds, for `register`: how long after the acknowledgement of a flip the old color was still asked at
    /// most. For `drained`: how long after the last request had ended it was told at most. 0 otherwise.
    pub max_delay: u64,
}

/// One broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// When.
    pub at: u64,
    /// What happened, with its times.
    pub text: String,
}

/// What is to be said of a history.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Each promise.
    pub findings: Vec<Finding>,
    /// Each time that one was broken, in order.
    pub violations: Vec<Violation>,
    /// The numbers of requests that ended badly for something that the drill itself killed.
    pub(crate) explained: HashSet<u64>,
    /// Requests that the drill could not send, for limits of its own.
    pub not_sent: u64,
    /// Why it ended before its time, if it did.
    pub cut_short: Option<String>,
}

// === impl Promise ===

impl Promise {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Answered,
        Self::Register,
        Self::Together,
        Self::Once,
        Self::Whole,
        Self::Kept,
        Self::Private,
        Self::Drained,
        Self::Acknowledged,
    ];

    /// A word for programs.
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
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Answered => "every request is answered",
            Self::Register => "after a flip is acknowledged, nothing new reaches the old color",
            Self::Together => "a flip of several services is never seen in halves",
            Self::Once => {
                "each request reaches the upstream once and with its number, and only the sample applications answer"
            }
            Self::Whole => "bodies and trailers arrive as they were sent",
            Self::Kept => {
                "WebSockets, downloads, uploads and event streams end on their color and endpoint, uncut"
            }
            Self::Private => {
                "the public never sees the preview color; testers see what they ask for"
            }
            Self::Drained => {
                "a color is reported as drained after the last byte of its last request, and within 500 ms of it"
            }
            Self::Acknowledged => "every flip succeeds",
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether every promise that was put to the test held, and the drill could do what it was told.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|it| it.broken == 0)
            && self.not_sent == 0
            && self.cut_short.is_none()
    }

    /// How a promise fared.
    #[must_use]
    pub fn of(&self, promise: Promise) -> Option<&Finding> {
        self.findings.iter().find(|it| it.promise == promise)
    }
}

#[cfg(test)]
mod drains_tests;
#[cfg(test)]
mod tests;
