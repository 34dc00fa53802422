//! The judgement of one share of the answers of a watch: of failures, or of slow answers.

use std::{fmt, net::IpAddr};

use super::{clients::FailingClients, mixture::MixtureTest};

/// From this share of failures on, a verdict needs no minimum of requests.
const CLEAR_SHARE: f64 = 0.5;

/// The fewest ticks with failures since the share has risen. Right after the flip, with half of the weight, two ticks
/// can be enough evidence; with this, an outage of up to 500 ms alone does not fire.
const FAILING_TICKS_MIN: u64 = 4;

/// Judges one share: of failures, or of slow answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShareJudge {
    pub(super) test: MixtureTest,
    clients: FailingClients,
    /// Ticks with failures that counted, while the test has an excess.
    failing_ticks: u64,
    pub(super) counts: Counts,
}

/// Failures, or slow answers, of a watch so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::release) struct Counts {
    /// All requests with a known result.
    pub(in crate::release) answers: u64,
    /// Those of them that failed or were slow.
    pub(in crate::release) failures: u64,
    /// Those of the failures that counted; the others were left out, since a single client had too many.
    pub(in crate::release) counted: u64,
    /// The limit in effect, from 0 to 1.
    pub(in crate::release) limit: f64,
}

// === impl ShareJudge ===

impl ShareJudge {
    pub(super) fn new(limit: f64, ticks: u64, clients: usize) -> Self {
        let test = MixtureTest::new(limit, ticks);
        let counts = Counts { limit: test.limit(), ..Counts::default() };
        Self { test, clients: FailingClients::new(clients), failing_ticks: 0, counts }
    }

    /// Forgets what was counted, for a watch of `ticks` ticks.
    pub(super) fn restart(&mut self, ticks: u64) {
        self.test = MixtureTest::new(self.counts.limit, ticks);
        self.clients.forget();
        self.failing_ticks = 0;
        self.counts = Counts { limit: self.counts.limit, ..Counts::default() };
    }

    /// Adds a tick. Returns whether the share is proved to be above the limit.
    pub(super) fn tick(
        &mut self,
        answers: u64,
        failures: &[(IpAddr, u64)],
        requests_min: u64,
    ) -> bool {
        let failed = failures.iter().fold(0_u64, |sum, it| sum.saturating_add(it.1));
        let counted = self.clients.count(failures);
        self.counts.add(answers.max(failed), failed, counted);
        self.test.tick(counted, answers.saturating_sub(failed));
        self.failing_ticks = self.failing_ticks.saturating_add(u64::from(counted > 0));
        if !self.test.has_excess() {
            self.failing_ticks = 0;
            self.clients.forget();
        }
        self.test.has_fired()
            && self.failing_ticks >= FAILING_TICKS_MIN
            && self.clients.are_enough()
            && (self.counts.judged() >= requests_min || self.counts.judged_share() >= CLEAR_SHARE)
    }
}

// === impl Counts ===

impl Counts {
    /// The share of failures, from 0 to 1; 0 without answers.
    pub(in crate::release) fn share(&self) -> f64 {
        ratio(self.failures, self.answers)
    }

    /// The answers without the failures that were left out.
    pub(super) fn judged(&self) -> u64 {
        self.answers.saturating_sub(self.failures.saturating_sub(self.counted))
    }

    /// The share of the failures that counted.
    fn judged_share(&self) -> f64 {
        ratio(self.counted, self.judged())
    }

    /// Writes like `7 of 50 requests failed (14 %, limit 5 %)`, with `what` as `requests failed`.
    pub(super) fn describe(&self, what: &str) -> String {
        let Self { answers, failures, counted, limit } = self;
        let left_out = match failures.saturating_sub(*counted) {
            0 => String::new(),
            it => format!("{it} of single clients left out, "),
        };
        let (share, limit) = (Percent(self.share()), Percent(*limit));
        format!("{failures} of {answers} {what} ({left_out}{share}, limit {limit})")
    }

    /// Why a share above the limit is not proved.
    pub(super) fn why_unproved(&self) -> &'static str {
        match self.failures > self.counted {
            true => "most came from too few client addresses to prove it (`watch.clients`)",
            false => "too few to prove it",
        }
    }

    fn add(&mut self, answers: u64, failures: u64, counted: u64) {
        self.answers = self.answers.saturating_add(answers);
        self.failures = self.failures.saturating_add(failures);
        self.counted = self.counted.saturating_add(counted);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 differ by less than matters")]
fn ratio(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

/// A share as percent, with at most two digits behind the point.
struct Percent(f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (self.0 * 10_000.0).round() / 100.0)
    }
}
