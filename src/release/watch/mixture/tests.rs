//! The rules of the test, and its false alarms in simulations. Each simulation prints its seed and draws another one
//! each time.

use super::*;
use crate::release::watch::random::{Poisson, most_of, random};

/// The ticks of a watch of five minutes.
const TICKS: u64 = 1200;

fn test_of(limit: f64, ticks: &[(u64, u64)]) -> MixtureTest {
    let mut test = MixtureTest::new(limit, TICKS);
    for (failures, others) in ticks {
        test.tick(*failures, *others);
    }
    test
}

#[test]
fn without_answers_the_evidence_stays_1() {
    for ticks in [0, 1, 2, 1200, u64::MAX] {
        let mut test = MixtureTest::new(0.05, ticks);
        for _ in 0..2000 {
            assert!((test.evidence() - 1.0).abs() < 1e-9, "{ticks}: {}", test.evidence());
            test.tick(0, 0);
        }
    }
}

#[test]
fn the_evidence_is_the_weighted_mean_of_likelihood_ratios() {
    let close = |one: f64, other: f64| assert!((one / other - 1.0).abs() < 1e-9, "{one} {other}");
    // The ratios of one failure are 1.6, 4 and 10.
    close(test_of(0.05, &[(1, 0)]).evidence(), 0.5 * 15.6 / 3.0 + 0.5);
    let w = 0.5 / 1199.0;
    let sums = [1.6, 4.0, 10.0].map(|it| (0.5 * it + w) * it).iter().sum::<f64>();
    close(test_of(0.05, &[(1, 0), (1, 0)]).evidence(), sums / 3.0 + 1198.0 * w);
    let ratios = [0.92 / 0.95, 0.8 / 0.95, 0.5 / 0.95].iter().sum::<f64>();
    close(test_of(0.05, &[(0, 1)]).evidence(), 0.5 * ratios / 3.0 + 0.5);
}

#[test]
fn one_tick_adds_at_most_the_cap() {
    let test = test_of(0.05, &[(1_000_000, 0)]);
    assert!((test.evidence() - (0.5 * 4_f64.exp() + 0.5)).abs() < 1e-9);
}

#[test]
fn four_failures_in_a_row_from_the_start_are_enough() {
    assert!(!test_of(0.05, &[(1, 0); 3]).has_fired());
    assert!(test_of(0.05, &[(1, 0); 4]).has_fired());
}

#[test]
fn later_an_outage_of_four_ticks_is_enough_and_one_of_three_is_not() {
    for (outage, fires) in [(3, false), (4, true)] {
        let mut test = test_of(0.05, &[(0, 25); 480]);
        (0..outage).for_each(|_| test.tick(25, 0));
        assert_eq!(test.has_fired(), fires, "{outage} ticks");
    }
}

#[test]
fn good_answers_take_the_evidence_back() {
    let mut test = test_of(0.05, &[(1, 0); 4]);
    (0..20).for_each(|_| test.tick(0, 25));
    assert!(!test.has_fired() && !test.has_excess());
}

#[test]
fn evidence_means_excess() {
    let mut random = random();
    for _ in 0..200 {
        let limit = random.f64();
        let mut test = MixtureTest::new(limit, 100);
        let (failures, others) = (random.u64(0..20), random.u64(0..20));
        for _ in 0..100 {
            test.tick(random.u64(0..=failures), random.u64(0..=others));
            assert!(test.has_excess() || !test.has_fired(), "{limit} {test:?}");
        }
    }
}

#[test]
fn more_failures_are_more_evidence() {
    let mut random = random();
    for _ in 0..200 {
        let limit = random.f64();
        let (mut fewer, mut more) = (MixtureTest::new(limit, 50), MixtureTest::new(limit, 50));
        for _ in 0..50 {
            let (failures, others) = (random.u64(0..10), random.u64(0..40));
            fewer.tick(random.u64(0..=failures), others);
            more.tick(failures, others);
            assert!(fewer.evidence() <= more.evidence() * (1.0 + 1e-9), "{limit}");
        }
    }
}

#[test]
fn every_limit_has_alternatives_between_it_and_1() {
    for limit in (0..=9999).map(|it| f64::from(it) / 10_000.0) {
        let limit = MixtureTest::new(limit, 1).limit();
        let [first, second, third] = TARGETS.map(|it| it.share(limit));
        assert!(limit < first && first < second && second < third && third < 1.0, "{limit}");
    }
}

#[test]
fn a_limit_of_0_is_one_of_a_hundredth_of_a_percent() {
    assert_eq!(MixtureTest::new(0.0, TICKS), MixtureTest::new(0.000_1, TICKS));
    assert!(test_of(0.0, &[(1, 0); 4]).has_fired());
    assert!(!test_of(0.0, &vec![(0, 25); 1200]).has_fired());
}

#[test]
fn a_limit_of_100_percent_never_fires() {
    for limit in [1.0, 0.999_95, 2.0, f64::INFINITY, f64::NAN] {
        assert!(!test_of(limit, &vec![(1000, 0); 2000]).has_fired(), "{limit}");
    }
    assert!(test_of(0.99, &[(1000, 0); 100]).has_fired());
}

#[test]
fn every_count_is_allowed() {
    let counts = [(0, 0), (u64::MAX, 0), (0, u64::MAX), (u64::MAX, u64::MAX), (u64::MAX, 1)];
    for limit in [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, f64::MIN, f64::MAX, 0.0, -1.0, 0.3] {
        for ticks in [0, 1, 9, u64::MAX] {
            let mut test = MixtureTest::new(limit, ticks);
            for (failures, others) in counts.into_iter().chain(counts) {
                test.tick(failures, others);
                assert!(test.evidence().is_finite() && test.limit().is_finite(), "{test:?}");
                assert!(test.excess.is_finite() && test.excess >= 0.0, "{test:?}");
                assert!(test.alternatives.iter().all(|it| it.log_sum.is_finite()), "{test:?}");
            }
        }
    }
}

/// How many of `watches` watches fire at a stable share of failures, with requests that arrive at random.
fn alarms(share: f64, rate: f64, watches: u32) -> u32 {
    let mut random = random();
    let mean = rate / 4.0;
    let (failures, others) = (Poisson::new(mean * share), Poisson::new(mean * (1.0 - share)));
    let mut watch = || {
        let mut test = MixtureTest::new(0.05, TICKS);
        (0..TICKS).any(|_| {
            test.tick(failures.draw(&mut random), others.draw(&mut random));
            test.has_fired()
        })
    };
    let found = (0..watches).map(|_| u32::from(watch())).sum();
    println!("share {share}, {rate} requests/s: {found} of {watches} watches fire");
    found
}

/// Tests that at most 1 of 1,000 watches fires. Fails by chance in less than 1 of 10^6 runs.
fn check_alarms(share: f64, watches: u32) {
    let rates = [1.0, 10.0, 100.0, 1000.0];
    let found: u32 = rates.iter().map(|rate| alarms(share, *rate, watches)).sum();
    let most = most_of(4 * watches, 0.001, 1e-6);
    assert!(found <= most, "{found} alarms, at most {most} are expected");
}

#[test]
fn a_stable_share_of_a_thousandth_fires_at_most_once_in_1000_watches() {
    check_alarms(0.001, 600);
}

#[test]
fn a_stable_share_of_1_percent_fires_at_most_once_in_1000_watches() {
    check_alarms(0.01, 600);
}

#[test]
fn a_stable_share_at_the_limit_fires_at_most_once_in_1000_watches() {
    check_alarms(0.05, 600);
}

/// Takes minutes without optimisation.
#[test]
#[ignore = "run with `cargo test --release -- --ignored --nocapture`"]
fn the_bound_holds_in_20000_watches() {
    for share in [0.001, 0.01, 0.05] {
        check_alarms(share, 20_000);
    }
}
