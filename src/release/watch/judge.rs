//! The judgement of one watch. Pure: the caller passes what happened in each tick.

use std::{fmt::Write, net::IpAddr, time::Duration};

use super::{clients::FailingClients, mixture::MixtureTest};
use crate::model::{LatencyLimit, WatchSettings};

/// The time between two ticks.
pub(in crate::release) const TICK: Duration = Duration::from_millis(250);

/// Below this share of failures, a verdict needs a number of requests.
const CLEAR_SHARE: f64 = 0.5;

/// The normal quantile of a one-sided confidence of 95 %.
const Z_95: f64 = 1.645;

/// What happened in one tick.
#[derive(Clone, Debug, Default)]
pub(super) struct TickCounts {
    /// Failures by client; `None` for clients that are not known.
    pub(super) failures: Vec<(Option<IpAddr>, u64)>,
    /// Other answers.
    pub(super) others: u64,
    /// Response heads that were slower than the latency limit.
    pub(super) slow: u64,
    /// Other response heads.
    pub(super) fast: u64,
}

/// Judges the answers of a color.
#[derive(Clone, Debug)]
pub(super) struct WatchJudge {
    /// The limit of the share of failures, from 0 to 1.
    limit: f64,
    errors: MixtureTest,
    clients: FailingClients,
    /// The fewest requests before a verdict.
    requests_min: u64,
    failures: u64,
    others: u64,
    latency: Option<LatencyJudge>,
    seen: u64,
}

#[derive(Clone, Debug)]
struct LatencyJudge {
    limit: LatencyLimit,
    test: MixtureTest,
    /// The first tick that counts.
    after: u64,
    slow: u64,
    fast: u64,
}

/// How a watch that did not fire ends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::release) enum WatchEnd {
    /// The answers were good enough.
    Passed(String),
    /// Nothing is proved.
    Inconclusive(String),
}

// === impl WatchJudge ===

impl WatchJudge {
    /// A judge for a watch of this time. `before` are the failures and the requests of the color before.
    pub(super) fn new(settings: &WatchSettings, time: Duration, before: (u64, u64)) -> Self {
        let WatchSettings { errors, latency, latency_after, requests, clients, .. } = settings;
        let ticks = ticks_of(time);
        let limit = limit_after(f64::from(*errors) / 100.0, before);
        let after = ticks_of(*latency_after);
        Self {
            limit,
            errors: MixtureTest::new(limit, ticks),
            clients: FailingClients::new(*clients),
            requests_min: *requests,
            failures: 0,
            others: 0,
            latency: latency.map(|limit| LatencyJudge {
                limit,
                test: MixtureTest::new(limit.slow_share(), ticks.saturating_sub(after)),
                after,
                slow: 0,
                fast: 0,
            }),
            seen: 0,
        }
    }

    /// Adds a tick. Returns why the color is bad, if that is proved now.
    pub(super) fn tick(&mut self, counts: &TickCounts) -> Option<String> {
        let failures = self.clients.add(&counts.failures);
        self.failures += failures;
        self.others += counts.others;
        self.seen += 1;
        let has_fired = self.errors.tick(failures, counts.others);
        if has_fired && self.has_enough_requests() && self.clients.are_enough() {
            return Some(format!(
                "{}, above the limit of {}",
                self.describe(),
                percent(self.limit)
            ));
        }
        let latency = self.latency.as_mut().filter(|it| self.seen > it.after)?;
        latency.slow += counts.slow;
        latency.fast += counts.fast;
        let has_fired = latency.test.tick(counts.slow, counts.fast);
        let is_enough = latency.slow + latency.fast >= self.requests_min;
        (has_fired && is_enough).then(|| latency.describe())
    }

    /// The share of failures so far, from 0 to 1; 0 without answers.
    pub(super) fn share(&self) -> f64 {
        share(self.failures, self.failures + self.others)
    }

    /// Failures that count, and all answers that count.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.failures, self.failures + self.others)
    }

    /// How the watch ends, if it did not fire.
    pub(super) fn end(&self) -> WatchEnd {
        let (_, requests) = self.counts();
        let described = self.describe();
        if self.share() > self.limit {
            let limit = percent(self.limit);
            return WatchEnd::Inconclusive(format!(
                "{described}, above the limit of {limit}, but too few to prove it"
            ));
        }
        if requests < self.requests_min.max(1) {
            return WatchEnd::Inconclusive(format!(
                "{described}; at least {} requests are needed",
                self.requests_min.max(1)
            ));
        }
        match &self.latency {
            Some(it) if share(it.slow, it.slow + it.fast) > it.limit.slow_share() => {
                WatchEnd::Inconclusive(format!("{}, but too few to prove it", it.describe()))
            }
            _ => WatchEnd::Passed(described),
        }
    }

    fn has_enough_requests(&self) -> bool {
        let (_, requests) = self.counts();
        requests >= self.requests_min || self.share() >= CLEAR_SHARE
    }

    fn describe(&self) -> String {
        let (failures, requests) = self.counts();
        let mut text = format!("{failures} of {requests} requests failed");
        if requests > 0 {
            let clients = self.clients.len();
            write!(text, " ({}, {clients} clients)", percent(self.share()))
                .expect("writing to memory cannot fail");
        }
        text
    }
}

impl LatencyJudge {
    fn describe(&self) -> String {
        let (slow, all) = (self.slow, self.slow + self.fast);
        format!(
            "{slow} of {all} responses began after more than {} ms ({}, allowed are {})",
            self.limit.bound.as_millis(),
            percent(share(slow, all)),
            percent(self.limit.slow_share())
        )
    }
}

/// The limit, or the upper confidence bound of the share of the color before if that failed more: otherwise a bug that
/// both versions have would roll back every release.
fn limit_after(limit: f64, (failures, requests): (u64, u64)) -> f64 {
    if share(failures, requests) <= limit { limit } else { upper_bound(failures, requests) }
}

/// The upper bound of a share with a confidence of 95 %, by the score interval (Wilson, 1927).
#[expect(clippy::cast_precision_loss, reason = "more requests than 2^52 are not counted")]
fn upper_bound(failures: u64, requests: u64) -> f64 {
    if requests == 0 {
        return 1.0;
    }
    let (n, p, z2) = (requests as f64, share(failures, requests), Z_95 * Z_95);
    let spread = Z_95 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    ((p + z2 / (2.0 * n) + spread) / (1.0 + z2 / n)).min(1.0)
}

#[expect(clippy::cast_precision_loss, reason = "more requests than 2^52 are not counted")]
fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

/// A share as percent, with one digit if it is small.
pub(in crate::release) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let rounded = (percent * 10.0).round() / 10.0;
    if rounded.fract() == 0.0 { format!("{rounded:.0} %") } else { format!("{rounded:.1} %") }
}

fn ticks_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
