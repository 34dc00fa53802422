//! A sequential test of a share of failures: it may be evaluated after every tick, and its false alarms stay bounded.
//!
//! It is a mixture of likelihood ratios over change points: the share may rise at any tick of the watch, to 1.6, 4 or 10
//! times the limit. The weights of the change points sum to 1, so for any share up to the limit the evidence exceeds
//! [`THRESHOLD`] in at most 1 of 1,000 watches (Ville's inequality; Shin, Ramdas, Rinaldo, "E-detectors", 2023). One tick
//! adds at most [`TICK_EVIDENCE_MAX`], so a short burst of failures does not fire the test; a cap only lowers the evidence.

/// The evidence that fires the test: at most one false alarm in so many watches.
const THRESHOLD: f64 = 1000.0;

/// The logarithm of the most evidence of one tick: with ticks of 250 ms, an outage must last a second.
const TICK_EVIDENCE_MAX: f64 = 4.0;

/// Right after the flip, half of the weight makes two ticks enough evidence. They are less than a second.
const FAILING_TICKS_MIN: u64 = 4;

/// The shares that the test looks for, as multiples of the limit: several, since one of them would miss shares that are
/// a little above the limit.
const MULTIPLES: [f64; 3] = [1.6, 4.0, 10.0];

/// The largest share that the test looks for.
const SHARE_MAX: f64 = 0.99;

/// The smallest limit: with a limit of 0, a single failure would be infinite evidence.
const LIMIT_MIN: f64 = 0.000_1;

/// The weight of a change at the first tick. The later ticks share the rest equally.
const FIRST_WEIGHT: f64 = 0.5;

/// The test of one watch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MixtureTest {
    /// Empty if the limit is so high that no share is above it.
    alternatives: Vec<Alternative>,
    /// The ticks of the whole watch.
    ticks: u64,
    /// Ticks so far.
    seen: u64,
    /// Ticks with failures so far.
    failing: u64,
}

/// A share that the test looks for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Alternative {
    /// The logarithm of the likelihood ratio of a failure.
    of_failure: f64,
    /// The same of any other answer.
    of_other: f64,
    /// The logarithm of the weighted sum over the change points so far.
    log_sum: f64,
}

// === impl MixtureTest ===

impl MixtureTest {
    /// A test for a share above `limit`, from 0 to 1, over a number of ticks.
    pub(super) fn new(limit: f64, ticks: u64) -> Self {
        let limit = limit.clamp(LIMIT_MIN, 1.0);
        let alternative = |multiple: f64| {
            let share = (limit * multiple).min(SHARE_MAX);
            (share > limit).then(|| Alternative {
                of_failure: (share / limit).ln(),
                of_other: ((1.0 - share) / (1.0 - limit)).ln(),
                log_sum: f64::NEG_INFINITY,
            })
        };
        let alternatives = MULTIPLES.into_iter().filter_map(alternative).collect();
        Self { alternatives, ticks: ticks.max(1), seen: 0, failing: 0 }
    }

    /// Adds the failures and other answers of one tick. Returns whether the share is proved to be above the limit.
    pub(super) fn tick(&mut self, failures: u64, others: u64) -> bool {
        let weight = self.weight();
        self.seen += 1;
        self.failing += u64::from(failures > 0);
        let log_weight = weight.ln();
        #[expect(clippy::cast_precision_loss, reason = "counts of one tick")]
        let (failures, others) = (failures as f64, others as f64);
        for Alternative { of_failure, of_other, log_sum } in &mut self.alternatives {
            let evidence = failures.mul_add(*of_failure, others * *of_other).min(TICK_EVIDENCE_MAX);
            *log_sum = log_add(*log_sum, log_weight) + evidence;
        }
        self.evidence() >= THRESHOLD && self.failing >= FAILING_TICKS_MIN
    }

    /// The evidence so far: about 1 in the beginning.
    pub(super) fn evidence(&self) -> f64 {
        let Some(count) = u32::try_from(self.alternatives.len()).ok().filter(|it| *it > 0) else {
            return 0.0;
        };
        let sum: f64 = self.alternatives.iter().map(|it| it.log_sum.min(700.0).exp()).sum();
        sum / f64::from(count) + self.unused_weight()
    }

    /// The weight of a change at the next tick.
    fn weight(&self) -> f64 {
        match self.seen {
            0 => FIRST_WEIGHT,
            seen if seen < self.ticks => self.later_weight(),
            _ => 0.0,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a watch has fewer ticks than 2^52")]
    fn later_weight(&self) -> f64 {
        (1.0 - FIRST_WEIGHT) / (self.ticks.max(2) - 1) as f64
    }

    #[expect(clippy::cast_precision_loss, reason = "a watch has fewer ticks than 2^52")]
    fn unused_weight(&self) -> f64 {
        match self.seen {
            0 => 1.0,
            seen => self.ticks.saturating_sub(seen) as f64 * self.later_weight(),
        }
    }
}

/// The logarithm of the sum of two numbers that are given by their logarithms.
fn log_add(one: f64, other: f64) -> f64 {
    let (high, low) = if one > other { (one, other) } else { (other, one) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_answers_nothing_is_proved() {
        let mut test = MixtureTest::new(0.05, 1200);
        assert!((test.evidence() - 1.0).abs() < 1e-9);
        (0..2000).for_each(|_| assert!(!test.tick(0, 0)));
        assert!((test.evidence() - 1.0).abs() < 1e-9, "all weight is used: {}", test.evidence());
    }

    #[test]
    fn a_short_outage_does_not_fire_and_a_longer_one_does() {
        for (ticks, fires) in [(3, false), (4, true)] {
            let mut test = MixtureTest::new(0.05, 1200);
            let mut fired = (0..ticks).any(|_| test.tick(1_000_000, 0));
            // Good answers after it take the evidence back.
            fired |= (0..10).any(|_| test.tick(0, 25)) || (0..100).any(|_| test.tick(1, 24));
            assert_eq!(fired, fires, "an outage of {ticks} ticks at the start");
        }
        for (ticks, fires) in [(3, false), (5, true)] {
            let mut test = MixtureTest::new(0.05, 1200);
            (0..100).for_each(|_| assert!(!test.tick(0, 25)));
            let fired = (0..ticks).any(|_| test.tick(25, 0));
            assert_eq!(fired, fires, "an outage of {ticks} ticks later");
        }
    }

    #[test]
    fn every_limit_and_every_count_has_a_meaning() {
        for limit in [0.0, 0.000_001, 0.5, 0.98, 0.99, 1.0, 2.0, -1.0] {
            let mut test = MixtureTest::new(limit, 10);
            for (failures, others) in [(0, 0), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX)] {
                let _ = test.tick(failures, others);
                assert!(!test.evidence().is_nan(), "{limit} {failures} {others}");
            }
        }
        let never = |limit| {
            let mut test = MixtureTest::new(limit, 10);
            !(0..1000).any(|_| test.tick(1000, 0))
        };
        assert!(never(1.0) && never(0.99), "nothing is above it");
        assert!(!never(0.9) && !never(0.0));
        let mut forgiving = MixtureTest::new(0.0, 1200);
        assert!((0..1200).all(|_| !forgiving.tick(0, 100)), "no failure, no alarm");
    }
}
