//! A sequential test of a share of failures. The caller may evaluate it after every tick; its false alarms stay
//! bounded.
//!
//! The test is a mixture of likelihood ratios over change points: the share may rise at any tick of the watch, to one
//! of three shares above the limit. The weights of the change points sum to 1. For any share up to the limit the
//! evidence is then at most a nonnegative martingale that starts at 1, and by Ville's inequality (Ville, "Étude
//! critique de la notion de collectif", 1939) it reaches [`THRESHOLD`] in at most 1 of 1,000 watches. The mixture over
//! change points follows Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework for sequential change
//! detection", 2023; their unweighted form bounds the mean time between alarms only.
//!
//! One tick adds at most [`TICK_EVIDENCE_MAX`], so that a short burst of failures does not fire the test. The cap only
//! lowers the evidence, and so do failures that the caller leaves out: evidence grows with the number of failures.

/// The evidence that fires the test: at most one false alarm in so many watches.
const THRESHOLD: f64 = 1000.0;

/// The natural logarithm of the most evidence of one tick. With ticks of 250 ms, an outage of about a second can fire
/// the test; right after the flip, with half of the weight, two ticks can.
const TICK_EVIDENCE_MAX: f64 = 4.0;

/// The shares that the test looks for, in order. One share alone would leave shares between it and the limit
/// undetected.
const TARGETS: [Target; 3] = [
    Target { multiple: 1.6, distance: 0.25 },
    Target { multiple: 4.0, distance: 0.5 },
    Target { multiple: 10.0, distance: 0.9 },
];

/// The smallest limit, 0.01 %. With a limit of 0, one failure would be infinite evidence; with this one, it is evidence
/// of at most a factor of 10, as at any other small limit.
const LIMIT_MIN: f64 = 0.000_1;

/// The largest limit, 99.99 %. Above it, no share can be told from the limit, and the test never fires.
const LIMIT_MAX: f64 = 0.999_9;

/// The weight of a change at the first tick. The later ticks share the rest equally.
const FIRST_WEIGHT: f64 = 0.5;

/// The logarithm of the sum before the first tick.
const LOG_SUM_MIN: f64 = f64::MIN;

/// The largest logarithm that is turned into a number: beyond, the evidence no longer matters.
const LOG_EVIDENCE_MAX: f64 = 700.0;

/// The test of one share in one watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MixtureTest {
    /// From [`LIMIT_MIN`] to [`LIMIT_MAX`], or 1: never fires.
    limit: f64,
    /// The ticks of the whole watch, at least 1.
    ticks: u64,
    /// Ticks so far.
    seen: u64,
    alternatives: [Alternative; 3],
    /// The evidence for the first alternative since its most likely change point, at least 0.
    excess: f64,
}

/// Where a share above the limit lies.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// As a multiple of the limit.
    multiple: f64,
    /// For large limits, of which multiples exceed 1: as a part of the distance from the limit to 1.
    distance: f64,
}

/// A share that the test looks for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Alternative {
    /// The natural logarithm of the likelihood ratio of a failure, at least 0.
    of_failure: f64,
    /// The same of any other answer, at most 0.
    of_other: f64,
    /// The natural logarithm of the weighted sum over the change points so far.
    log_sum: f64,
}

// === impl MixtureTest ===

impl MixtureTest {
    /// A test for a share above `limit`, over a watch of `ticks` ticks.
    ///
    /// `limit` is a share from 0 to 1. Below 0.0001 it counts as 0.0001. Above 0.9999, and if it is not a number, the
    /// test never fires. The alternatives are 1.6, 4 and 10 times the limit, but at most 25, 50 and 90 % of the way
    /// from the limit to 1; that makes a difference for limits above 29, 14 and 9 %.
    pub(super) fn new(limit: f64, ticks: u64) -> Self {
        let limit = if limit <= LIMIT_MAX { limit.max(LIMIT_MIN) } else { 1.0 };
        let alternatives = TARGETS.map(|it| Alternative::new(limit, it.share(limit)));
        Self { limit, ticks: ticks.max(1), seen: 0, alternatives, excess: 0.0 }
    }

    /// Adds the failures and the other answers of one tick. A tick without answers only moves on to the next change
    /// point.
    pub(super) fn tick(&mut self, failures: u64, others: u64) {
        let log_weight = self.weight().ln();
        for it in &mut self.alternatives {
            let sum = log_add(it.log_sum, log_weight) + it.tick_evidence(failures, others);
            it.log_sum = sum.max(LOG_SUM_MIN);
        }
        let evidence = self.alternatives[0].tick_evidence(failures, others);
        self.excess = (self.excess + evidence).max(0.0);
        self.seen = self.seen.saturating_add(1);
    }

    /// Whether the evidence is enough now. It can fall again: remember the first time if it matters.
    pub(super) fn has_fired(&self) -> bool {
        self.evidence() >= THRESHOLD
    }

    /// The evidence that the share is above the limit: 1 in the beginning, at least 0, finite.
    pub(super) fn evidence(&self) -> f64 {
        let [first, second, third] =
            self.alternatives.map(|it| it.log_sum.min(LOG_EVIDENCE_MAX).exp());
        (first + second + third) / 3.0 + self.unused_weight()
    }

    /// Whether the latest answers speak for the smallest alternative rather than for the limit.
    ///
    /// This is the cumulative sum of Page ("Continuous inspection schemes", 1954). If it is 0 after a tick, then the
    /// share has most likely not risen before the end of this tick. It is above 0 whenever the test has fired, since a
    /// tick is evidence for the first alternative by at least a fixed part of its evidence for any other one.
    pub(super) fn has_excess(&self) -> bool {
        self.excess > 0.0
    }

    /// The limit in effect: from 0.0001 to 0.9999, or 1 if the test never fires.
    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    /// The weight of a change at the next tick; 0 after the watch.
    fn weight(&self) -> f64 {
        match self.seen {
            0 => FIRST_WEIGHT,
            seen if seen < self.ticks => self.later_weight(),
            _ => 0.0,
        }
    }

    /// The weight of a change at any tick but the first.
    fn later_weight(&self) -> f64 {
        (1.0 - FIRST_WEIGHT) / as_float(self.ticks.saturating_sub(1).max(1))
    }

    /// The weight of changes that have not come yet.
    fn unused_weight(&self) -> f64 {
        let Some(later) = self.seen.min(self.ticks).checked_sub(1) else { return 1.0 };
        (1.0 - FIRST_WEIGHT - as_float(later) * self.later_weight()).max(0.0)
    }
}

// === impl Target ===

impl Target {
    /// The share for a limit from 0 to 1: above it and below 1, unless the limit is 1.
    fn share(self, limit: f64) -> f64 {
        (self.multiple * limit).min(limit + self.distance * (1.0 - limit))
    }
}

// === impl Alternative ===

impl Alternative {
    fn new(limit: f64, share: f64) -> Self {
        let (of_failure, of_other) = if limit < 1.0 {
            ((share / limit).ln(), ((1.0 - share) / (1.0 - limit)).ln())
        } else {
            (0.0, 0.0)
        };
        Self { of_failure, of_other, log_sum: LOG_SUM_MIN }
    }

    /// The natural logarithm of the likelihood ratio of one tick, capped.
    fn tick_evidence(&self, failures: u64, others: u64) -> f64 {
        let evidence = as_float(failures) * self.of_failure + as_float(others) * self.of_other;
        evidence.min(TICK_EVIDENCE_MAX)
    }
}

/// The logarithm of the sum of two numbers that are given by their logarithms. The first one is finite.
fn log_add(finite: f64, other: f64) -> f64 {
    let (high, low) = if finite > other { (finite, other) } else { (other, finite) };
    high + (low - high).exp().ln_1p()
}

#[expect(clippy::cast_precision_loss, reason = "counts above 2^53 differ by less than matters")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
