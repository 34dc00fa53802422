//! The upper confidence bound of a share.
//!
//! If the old color failed more than the configured limit, its bound is the limit of the new color. Otherwise a bug
//! that both versions have would roll back every release.

/// A share that is above the true one with at least about this `confidence`, from 0.5 to 0.999 (else the
/// nearest of these; 0.999 if it is not a number).
///
/// `failures` of `requests` failed; more failures than requests count as that many. The result is from 0 to 1; without
/// requests it is 1, since nothing is known.
///
/// It is the upper end of the one-sided score interval (Wilson, "Probable inference, the law of succession, and
/// statistical inference", 1927) with continuity correction (Newcombe, "Two-sided confidence intervals for the single
/// proportion", 1998, method 4). It is close to the exact bound of Clopper and Pearson (1934), which needs an
/// iteration. At a confidence of 95 %, shares up to 50 % are above it with a probability of at most 5 %, larger ones of
/// at most 7 %; without the correction, it is up to 7 % and 10 % (computed for 50, 100 and 500 requests).
pub(in crate::release) fn upper_bound(failures: u64, requests: u64, confidence: f64) -> f64 {
    if failures >= requests {
        return 1.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts above 2^53 differ by less than matters")]
    let (k, n) = (failures as f64, requests as f64);
    let (p, z) = (k / n, normal_quantile(confidence));
    let spread = z * z + 2.0 - 1.0 / n + 4.0 * p * ((n - k) - 1.0);
    let bound = (2.0 * k + z * z + 1.0 + z * spread.max(0.0).sqrt()) / (2.0 * (n + z * z));
    bound.clamp(p, 1.0)
}

/// The quantile of the normal distribution, for a probability from 0.5 to 0.999. Its error is below 0.00045 (Abramowitz
/// and Stegun, "Handbook of mathematical functions", 26.2.23).
fn normal_quantile(probability: f64) -> f64 {
    let probability = if probability < 0.999 { probability.max(0.5) } else { 0.999 };
    let t = (-2.0 * (1.0 - probability).ln()).sqrt();
    let above = 2.515_517 + t * (0.802_853 + t * 0.010_328);
    let below = 1.0 + t * (1.432_788 + t * (0.189_269 + t * 0.001_308));
    (t - above / below).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The probability of at most `failures` of `requests` with this share.
    fn at_most(failures: u32, requests: u32, share: f64) -> f64 {
        let n = f64::from(requests);
        let mut log_mass = n * (-share).ln_1p();
        let mut sum = log_mass.exp();
        for k in (0..failures).map(f64::from) {
            log_mass += ((n - k) / (k + 1.0) * share / (1.0 - share)).ln();
            sum += log_mass.exp();
        }
        sum
    }

    #[test]
    fn the_quantile_is_the_known_one() {
        for (probability, expected) in [
            (0.5, 0.0),
            (0.9, 1.2816),
            (0.95, 1.6449),
            (0.975, 1.96),
            (0.99, 2.3263),
            (7.0, 3.0902),
        ] {
            let found = normal_quantile(probability);
            assert!((found - expected).abs() < 0.000_5, "{probability}: {found}");
        }
    }

    #[test]
    fn the_bound_is_near_the_exact_one() {
        // With the exact bound as the share, so few failures have a probability of 5 %.
        for requests in [50, 100, 1000, 10_000] {
            for part in [0, 1, 5, 10, 20, 50, 80] {
                let failures = requests * part / 100;
                let bound = upper_bound(failures.into(), requests.into(), 0.95);
                let tail = at_most(failures, requests, bound);
                assert!((0.025..0.065).contains(&tail), "{failures} of {requests}: {bound} {tail}");
            }
        }
    }

    #[test]
    fn a_share_is_covered_with_the_confidence() {
        for requests in [50_u32, 100, 500] {
            for thousandths in (5..500).step_by(5) {
                let share = f64::from(thousandths) / 1000.0;
                // The fewest failures of which the bound is not below the share.
                let fewest = (0..=requests)
                    .find(|it| upper_bound((*it).into(), requests.into(), 0.95) >= share)
                    .unwrap();
                let missed = if fewest == 0 { 0.0 } else { at_most(fewest - 1, requests, share) };
                assert!(missed < 0.05, "{share} of {requests}: {missed}");
            }
        }
    }

    #[test]
    fn more_requests_make_it_tighter() {
        let bounds = [10, 100, 1000, 10_000].map(|it| upper_bound(it / 10, it, 0.95));
        println!("10 % failures of 10, 100, 1,000, 10,000 requests: {bounds:?}");
        assert!(bounds.is_sorted_by(|one, next| one > next) && bounds[3] > 0.1);
    }

    #[test]
    fn every_value_is_allowed() {
        let counts = [0, 1, 2, 1000, u64::MAX - 1, u64::MAX];
        for confidence in [f64::NAN, -1.0, 0.0, 0.5, 0.95, 1.0, f64::INFINITY] {
            for failures in counts {
                for requests in counts {
                    let bound = upper_bound(failures, requests, confidence);
                    assert!((0.0..=1.0).contains(&bound), "{failures} {requests} {confidence}");
                    assert!(failures < requests || bound >= 1.0);
                }
            }
        }
    }
}
