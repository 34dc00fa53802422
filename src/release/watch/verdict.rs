//! The judgement of one watch, from the counts of its ticks to its outcome.
//!
//! A [`WatchJudge`] has one test for failures and, with a latency limit, one for slow answers. Each of the two calls a
//! color bad that is within the limit in at most 1 of 1,000 watches. Everything that this file requires besides the
//! evidence of the test (clients, requests, ticks with failures) can only prevent an alarm.

use std::{fmt, net::IpAddr};

use super::{
    bound::upper_bound,
    share::{Counts, ShareJudge},
};

/// The confidence of the limit that the old color sets.
const CONFIDENCE: f64 = 0.95;

/// The fewest ticks of a watch that starts anew, a minute: often repeated short ones would have more false alarms.
const TICKS_AGAIN: u64 = 240;

/// How failures are called.
pub(super) const FAILED: &str = "requests failed";
const SLOW: &str = "responses were slow";

/// How a color is judged.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::release) struct JudgeSettings {
    /// The limit of failures, in percent of the answers, from 0 to 100. 0 counts as 0.01; 100 never fires.
    pub(in crate::release) limit_percent: f64,
    /// The length of the watch in ticks of 250 ms, at least 1.
    pub(in crate::release) ticks: u64,
    /// The fewest requests before a verdict on a share of failures below 50 %.
    pub(in crate::release) requests_min: u64,
    /// Failures must come from at least so many addresses, and at most half of them from one. 1: one address is enough.
    pub(in crate::release) clients: usize,
    /// The limit of slow answers, if there is one.
    pub(in crate::release) latency: Option<LatencySettings>,
    /// Whether the watch goes on after its time until it is proved that the color is good or bad. The bound on false alarms
    /// holds: the test gives no weight to changes after its time.
    pub(in crate::release) waits: bool,
}

/// The limit of slow answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::release) struct LatencySettings {
    /// The share of the answers that may be slow, from 0 to 1: 0.01 for p99.
    pub(in crate::release) share: f64,
    /// The first ticks, which do not count: a cold application is slower.
    pub(in crate::release) after: u64,
    /// Slow answers must come from at least so many addresses. 1 if the caller does not know the addresses.
    pub(in crate::release) clients: usize,
}

/// What happened in one tick.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::release) struct Tick<'a> {
    /// The requests of which the result is known since this tick, failures included. A request that has been in flight
    /// for longer than the limit belongs here, and to the failures; its answer, if there is one later, does not count
    /// again. Requests that the client canceled and answers that Flipgate made for other reasons are not among them.
    pub(in crate::release) answers: u64,
    /// Failures by client.
    pub(in crate::release) failures: &'a [(IpAddr, u64)],
    /// The responses that began since this tick, slow ones included.
    pub(in crate::release) heads: u64,
    /// Responses that began later than the bound allows, by client.
    pub(in crate::release) slow: &'a [(IpAddr, u64)],
}

/// What a watch has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::release) enum Outcome {
    /// The watch goes on.
    Running,
    /// The color is bad. Stays so.
    Fired(FireReason),
    /// The watch is over, and the color is good.
    Passed,
    /// The watch is over without proof.
    Inconclusive(InconclusiveReason),
}

/// Why a color is bad.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::release) enum FireReason {
    /// More failures than the limit.
    Failures(Counts),
    /// More slow answers than the limit.
    Slow(Counts),
}

/// Why nothing is proved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::release) enum InconclusiveReason {
    /// More failures than the limit, but not enough of them, or from too few clients.
    Failures(Counts),
    /// The same of slow answers.
    Slow(Counts),
    /// Fewer requests than the minimum, which is the number.
    Requests(Counts, u64),
    /// The same after the time in which slow answers do not count.
    RequestsForLatency(Counts, u64),
}

/// Judges the answers of a color after its promotion.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::release) struct WatchJudge {
    ticks: u64,
    requests_min: u64,
    waits: bool,
    seen: u64,
    failures: ShareJudge,
    latency: Option<LatencyJudge>,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
struct LatencyJudge {
    after: u64,
    slow: ShareJudge,
}

// === impl WatchJudge ===

impl WatchJudge {
    /// Starts a watch. `before` are the failures and the requests of the old color before the flip, without those that
    /// [`Tick::answers`] leaves out; (0, 0) if there were none.
    ///
    /// If the old color had at least the minimum of requests and failed more than the limit, the upper bound of its
    /// share at a confidence of 95 % is the limit.
    pub(in crate::release) fn new(settings: &JudgeSettings, before: (u64, u64)) -> Self {
        let JudgeSettings { limit_percent, ticks, requests_min, clients, latency, waits } =
            settings;
        let ticks = (*ticks).max(1);
        let limit = limit_after(limit_percent / 100.0, *requests_min, before);
        let latency = latency.map(|it| {
            let LatencySettings { share, after, clients } = it;
            LatencyJudge {
                after,
                slow: ShareJudge::new(share, ticks.saturating_sub(after), clients),
            }
        });
        Self {
            ticks,
            requests_min: *requests_min,
            waits: *waits,
            seen: 0,
            failures: ShareJudge::new(limit, ticks, *clients),
            latency,
            outcome: Outcome::Running,
        }
    }

    /// Adds a tick and returns the outcome. Does nothing unless the watch is running.
    ///
    /// More failures or slow answers than answers count as that many answers.
    pub(in crate::release) fn tick(&mut self, tick: &Tick<'_>) -> Outcome {
        if self.outcome == Outcome::Running {
            self.outcome = self.judge(tick);
        }
        self.outcome
    }

    /// Ends the watch now, if it is running: its time can be over before all of its ticks, since late ticks are not made up
    /// for.
    pub(in crate::release) fn end(&mut self) -> Outcome {
        if self.outcome == Outcome::Running {
            self.outcome = self.at_the_end();
        }
        self.outcome
    }

    fn judge(&mut self, tick: &Tick<'_>) -> Outcome {
        let Tick { answers, failures, heads, slow } = *tick;
        let requests_min = self.requests_min;
        let failed = self.failures.tick(answers, failures, requests_min);
        let latency = self.latency.as_mut().filter(|it| self.seen >= it.after);
        let was_slow = latency.is_some_and(|it| it.slow.tick(heads, slow, requests_min));
        self.seen = self.seen.saturating_add(1);
        if failed {
            return Outcome::Fired(FireReason::Failures(self.failures.counts));
        }
        match &self.latency {
            Some(it) if was_slow => Outcome::Fired(FireReason::Slow(it.slow.counts)),
            _ if self.seen < self.ticks => Outcome::Running,
            _ => self.at_the_end(),
        }
    }

    /// The outcome when the time is over.
    fn at_the_end(&self) -> Outcome {
        match self.inconclusive() {
            None => Outcome::Passed,
            Some(_) if self.waits => Outcome::Running,
            Some(reason) => Outcome::Inconclusive(reason),
        }
    }

    /// Starts anew with the same limits, if it has passed: each time, the bound on false alarms holds for as many ticks.
    pub(in crate::release) fn restart_if_passed(&mut self) {
        if self.outcome != Outcome::Passed {
            return;
        }
        self.ticks = self.ticks.max(TICKS_AGAIN);
        (self.seen, self.outcome) = (0, Outcome::Running);
        self.failures.restart(self.ticks);
        if let Some(it) = &mut self.latency {
            // The application is not cold any more.
            it.after = 0;
            it.slow.restart(self.ticks);
        }
    }

    /// The failures so far, with the limit in effect.
    pub(in crate::release) fn failures(&self) -> Counts {
        self.failures.counts
    }

    /// Why a watch that ends now without having fired has not passed.
    pub(in crate::release) fn inconclusive(&self) -> Option<InconclusiveReason> {
        let needed = self.requests_min.max(1);
        let failures = self.failures.counts;
        if failures.share() > failures.limit {
            return Some(InconclusiveReason::Failures(failures));
        }
        if failures.judged() < needed {
            return Some(InconclusiveReason::Requests(failures, needed));
        }
        let slow = self.latency.as_ref()?.slow.counts;
        if slow.share() > slow.limit {
            return Some(InconclusiveReason::Slow(slow));
        }
        (slow.judged() < needed).then_some(InconclusiveReason::RequestsForLatency(slow, needed))
    }
}

/// The limit as a share, or the upper bound of the share of the old color if that failed more.
fn limit_after(limit: f64, requests_min: u64, (failures, requests): (u64, u64)) -> f64 {
    let before = Counts { answers: requests, failures, ..Counts::default() };
    if before.share() > limit && requests >= requests_min {
        upper_bound(failures, requests, CONFIDENCE)
    } else {
        limit
    }
}

impl fmt::Display for FireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Failures(it) => it.describe(FAILED),
            Self::Slow(it) => it.describe(SLOW),
        })
    }
}

impl fmt::Display for InconclusiveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures(it) => write!(f, "{}: {}", it.describe(FAILED), it.why_unproved()),
            Self::Slow(it) => write!(f, "{}: {}", it.describe(SLOW), it.why_unproved()),
            Self::Requests(it, needed) => {
                write!(f, "{}; at least {needed} requests are needed", it.describe(FAILED))
            }
            Self::RequestsForLatency(it, needed) => {
                write!(f, "{}; at least {needed} responses are needed", it.describe(SLOW))
            }
        }
    }
}

#[cfg(test)]
mod simulations;
#[cfg(test)]
mod tests;
