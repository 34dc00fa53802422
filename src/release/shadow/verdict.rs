//! The verdict on the compared requests. Pure: numbers in, a verdict out.

use crate::release::watch::upper_bound;

/// With this confidence at most the allowed part of the requests differs, or the gate does not pass.
const CONFIDENCE: f64 = 0.95;

/// The bet against the limit is won at this factor: a candidate within the limit is refused as different in at most one
/// of so many gates, however often the counts are looked into.
const PROOF: f64 = 100.0;

/// Comparisons before the gate may end early: requests that follow each other are often alike.
const EARLY_MIN: u64 = 20;

/// More comparisons than this are not asked for.
const NEEDED_MAX: u64 = 10_000_000;

/// What the compared requests show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::release) enum Verdict {
    /// At most the allowed part differs.
    Passed,
    /// More than the allowed part differs.
    Different,
    /// There were too few comparisons to tell. So many would be needed at the observed share, if any number is enough.
    Inconclusive(Option<u64>),
}

// === impl Verdict ===

impl Verdict {
    /// The verdict on `different` of `compared` requests, of which `limit` percent may differ and `fewest` are needed.
    /// With a limit of 0, no request may differ, and `fewest` alone says how many are enough.
    pub(in crate::release) fn of(limit: u8, fewest: u64, different: u64, compared: u64) -> Self {
        if is_proved(limit, different, compared) {
            return Self::Different;
        }
        if compared >= fewest && is_bounded(limit, different, compared) {
            return Self::Passed;
        }
        Self::Inconclusive(needed(limit, fewest, different, compared))
    }

    /// Whether so many differ that the gate need not go on.
    pub(in crate::release) fn is_certain(
        limit: u8,
        fewest: u64,
        different: u64,
        compared: u64,
    ) -> bool {
        compared >= fewest.min(EARLY_MIN) && is_proved(limit, different, compared)
    }
}

fn share(percent: u8) -> f64 {
    f64::from(percent) / 100.0
}

fn is_bounded(limit: u8, different: u64, compared: u64) -> bool {
    match limit {
        0 => different == 0,
        _ => upper_bound(different, compared, CONFIDENCE) <= share(limit),
    }
}

/// Whether more than `limit` percent differ: a mixture of likelihood ratios of larger shares against the limit. At any
/// share up to the limit its mean is at most 1, so that Ville's inequality bounds false proofs also if the counts are
/// judged after every comparison.
fn is_proved(limit: u8, different: u64, compared: u64) -> bool {
    if limit == 0 || limit >= 100 {
        return limit == 0 && different > 0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts above 2^53 differ by less than matters")]
    let (d, same) = (different as f64, compared.saturating_sub(different) as f64);
    let p0 = share(limit);
    // Larger shares, from a little above the limit to nearly all requests.
    let parts = [0.02, 0.1, 0.4, 0.9];
    let logarithm = |part: f64| {
        let p1 = p0 + (1.0 - p0) * part;
        d * (p1 / p0).ln() + same * ((1.0 - p1) / (1.0 - p0)).ln()
    };
    // More than this proves it alone, and would not fit into a number.
    let sum: f64 = parts.iter().map(|it| logarithm(*it).min(100.0).exp()).sum();
    sum / 4.0 >= PROOF
}

/// The fewest comparisons that would pass if the share of different ones stays as it is.
fn needed(limit: u8, fewest: u64, different: u64, compared: u64) -> Option<u64> {
    let passes = |count: u64| {
        let at = u128::from(different) * u128::from(count);
        let differ = at.div_ceil(u128::from(compared.max(1)));
        is_bounded(limit, u64::try_from(differ).unwrap_or(u64::MAX), count)
    };
    let (mut low, mut high) = (fewest, fewest.max(compared).max(1));
    while !passes(high) {
        if high >= NEEDED_MAX {
            return None;
        }
        low = high;
        high *= 2;
    }
    while low < high {
        let middle = low.midpoint(high);
        if passes(middle) { high = middle } else { low = middle + 1 }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_within_the_limit_passes_with_enough_comparisons() {
        for (limit, fewest, different, compared, verdict) in [
            (1, 200, 0, 1000, Verdict::Passed),
            (1, 200, 0, 200, Verdict::Inconclusive(Some(362))),
            (1, 200, 0, 0, Verdict::Inconclusive(Some(362))),
            (1, 200, 0, 362, Verdict::Passed),
            (1, 5000, 0, 1000, Verdict::Inconclusive(Some(5000))),
            (5, 50, 1, 1000, Verdict::Passed),
            (100, 1, 1, 1, Verdict::Passed),
            (0, 20, 0, 20, Verdict::Passed),
            (0, 20, 0, 19, Verdict::Inconclusive(Some(20))),
        ] {
            let found = Verdict::of(limit, fewest, different, compared);
            assert_eq!(found, verdict, "{limit} % of {fewest}: {different} of {compared}");
        }
    }

    #[test]
    fn a_larger_share_is_refused() {
        for (limit, different, compared) in [(1, 20, 200), (1, 2, 2), (0, 1, 1000), (10, 60, 200)] {
            let found = Verdict::of(limit, 100, different, compared);
            assert_eq!(found, Verdict::Different, "{limit} %: {different} of {compared}");
        }
        // At the limit, no number of comparisons shows that it is not above.
        assert_eq!(Verdict::of(1, 100, 10, 1000), Verdict::Inconclusive(None));
    }

    #[test]
    fn the_gate_ends_early_only_after_some_comparisons() {
        assert!(Verdict::is_certain(1, 200, 20, 20) && Verdict::is_certain(1, 5, 5, 5));
        assert!(!Verdict::is_certain(1, 200, 19, 19) && !Verdict::is_certain(1, 200, 0, 500));
    }

    /// A candidate at the limit, judged after every comparison.
    #[test]
    fn at_most_one_in_a_hundred_is_refused_although_it_is_within_the_limit() {
        for (limit, seed) in [(1, 1), (5, 2), (50, 3)] {
            let mut random = fastrand::Rng::with_seed(seed);
            let is_refused = |random: &mut fastrand::Rng| {
                let mut different = 0;
                (1..=2000).any(|compared| {
                    different += u64::from(random.u8(0..100) < limit);
                    is_proved(limit, different, compared)
                })
            };
            let refused = (0..2000).filter(|_| is_refused(&mut random)).count();
            assert!(refused <= 20, "limit {limit} %, seed {seed}: {refused} of 2000");
        }
    }

    #[test]
    fn every_count_has_a_verdict() {
        for limit in [0, 1, 50, 99, 100] {
            for different in [0, 1, 1000, u64::MAX] {
                for compared in [0, 1, 1000, u64::MAX] {
                    let found = Verdict::of(limit, 1, different.min(compared), compared);
                    let all_differ = different >= compared && compared > 100;
                    assert!(found != Verdict::Passed || limit == 100 || !all_differ, "{found:?}");
                }
            }
        }
    }
}
