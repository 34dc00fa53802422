//! Simulations of whole watches: how often a good color is called bad, and how soon a bad one is.
//!
//! Each simulation prints its seed and draws another one each time.

use super::*;
use crate::release::watch::random::{Poisson, most_of, random};

/// The ticks of a watch of five minutes.
const TICKS: u64 = 1200;

/// The tick in which a good color turns bad: after 120 s.
const TURN: u64 = 480;

/// The share of failures of a good color before it turns bad.
const GOOD_SHARE: f64 = 0.001;

/// How requests arrive, at random, from 1,000 clients.
struct Traffic {
    failures: Poisson,
    others: Poisson,
    random: fastrand::Rng,
    buffer: Vec<(IpAddr, u64)>,
}

impl Traffic {
    fn new(rate: f64, share: f64) -> Self {
        let mean = rate / 4.0;
        Self {
            failures: Poisson::new(mean * share),
            others: Poisson::new(mean * (1.0 - share)),
            random: random(),
            buffer: Vec::new(),
        }
    }

    /// Passes the requests of one tick to the judge, with failures of an abusive client added. Returns how many the
    /// others have sent.
    fn tick(&mut self, judge: &mut WatchJudge, abuse: u64) -> u64 {
        let (failures, others) =
            (self.failures.draw(&mut self.random), self.others.draw(&mut self.random));
        self.buffer.clear();
        for _ in 0..failures {
            self.buffer.push((client(self.random.u32(0..1000)), 1));
        }
        if abuse > 0 {
            self.buffer.push((client(9999), abuse));
        }
        let answers = failures + others;
        judge.tick(&Tick { answers: answers + abuse, failures: &self.buffer, ..Tick::default() });
        answers
    }
}

fn client(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000 | number).to_be_bytes())
}

fn judge(requests_min: u64) -> WatchJudge {
    let settings = JudgeSettings {
        limit_percent: 5.0,
        ticks: TICKS,
        requests_min,
        clients: 3,
        latency: None,
        waits: false,
    };
    WatchJudge::new(&settings, (0, 0))
}

fn has_fired(judge: &WatchJudge) -> bool {
    matches!(judge.outcome, Outcome::Fired(_))
}

/// How many of `watches` watches fire in which `abuse` gives the failures of an abusive client in a tick.
fn alarms(
    traffic: &mut Traffic,
    watches: u32,
    mut abuse: impl FnMut(&mut fastrand::Rng, u64) -> u64,
) -> u32 {
    let mut watch = || {
        let mut judge = judge(50);
        for number in 0..TICKS {
            let abuse = abuse(&mut traffic.random, number);
            traffic.tick(&mut judge, abuse);
        }
        has_fired(&judge)
    };
    (0..watches).map(|_| u32::from(watch())).sum()
}

/// How many requests a bad color gets until the test fires.
struct Case {
    share: f64,
    /// Requests per second.
    rate: f64,
    /// The ticks in which the color is good.
    after: u64,
    /// The expected median.
    median: f64,
    /// The expected 95 % quantile.
    most: Option<f64>,
}

impl Case {
    fn quantiles(&self, runs: usize, requests_min: u64) -> (f64, f64) {
        let &Self { share, rate, after, .. } = self;
        let (mut good, mut bad) = (Traffic::new(rate, GOOD_SHARE), Traffic::new(rate, share));
        // Good traffic takes most of the time, and one good start is like another: each is used several times.
        let starts = if after == 0 { 1 } else { 50 };
        let mut found = Vec::new();
        for _ in 0..starts {
            let mut start = judge(requests_min);
            (0..after).for_each(|_| {
                good.tick(&mut start, 0);
            });
            for _ in 0..runs / starts {
                let (mut judge, mut requests) = (start.clone(), 0);
                while judge.outcome == Outcome::Running {
                    requests += bad.tick(&mut judge, 0);
                }
                assert!(has_fired(&judge), "{share} at {rate}/s: {:?}", judge.outcome);
                found.push(requests);
            }
        }
        found.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let at = |percent: usize| found[found.len() * percent / 100] as f64;
        println!("{share} at {rate}/s after {after} ticks: median {}, 95 % {}", at(50), at(95));
        (at(50), at(95))
    }

    /// Tests the quantiles without a minimum of requests, with a tolerance of 15 % or one request, whichever is more.
    /// The error of the simulation is less than a sixth of that.
    fn check(&self, runs: usize) {
        let near = |found: f64, expected: f64| {
            assert!((found - expected).abs() <= (0.15 * expected).max(1.0), "{found} {expected}");
        };
        let (median, most) = self.quantiles(runs, 0);
        near(median, self.median);
        if let Some(expected) = self.most {
            near(most, expected);
        }
    }
}

#[test]
fn a_dead_color_is_found_after_5_requests_at_1_per_second() {
    let case = Case { share: 1.0, rate: 1.0, after: 0, median: 4.0, most: Some(5.0) };
    case.check(2000);
}

#[test]
fn half_of_failures_from_the_start_are_found() {
    Case { share: 0.5, rate: 10.0, after: 0, median: 14.0, most: Some(25.0) }.check(4000);
}

#[test]
fn a_fifth_of_failures_from_the_start_is_found() {
    Case { share: 0.2, rate: 10.0, after: 0, median: 62.0, most: Some(141.0) }.check(4000);
}

#[test]
fn a_color_that_dies_later_is_found() {
    Case { share: 1.0, rate: 10.0, after: TURN, median: 13.0, most: Some(18.0) }.check(4000);
}

#[test]
fn half_of_failures_later_are_found() {
    Case { share: 0.5, rate: 10.0, after: TURN, median: 23.0, most: Some(38.0) }.check(4000);
}

#[test]
fn a_fifth_of_failures_later_is_found_at_10_per_second() {
    Case { share: 0.2, rate: 10.0, after: TURN, median: 97.0, most: Some(181.0) }.check(4000);
}

#[test]
fn a_fifth_of_failures_later_is_found_at_100_per_second() {
    Case { share: 0.2, rate: 100.0, after: TURN, median: 165.0, most: Some(261.0) }.check(4000);
}

#[test]
fn a_tenth_of_failures_later_is_found() {
    Case { share: 0.1, rate: 100.0, after: TURN, median: 797.0, most: None }.check(2000);
}

#[test]
fn a_little_more_than_the_limit_is_found() {
    Case { share: 0.08, rate: 100.0, after: TURN, median: 1608.0, most: None }.check(1000);
}

#[test]
fn with_a_minimum_of_requests_half_of_failures_take_at_most_that_minimum() {
    let case = Case { share: 0.5, rate: 10.0, after: 0, median: 14.0, most: None };
    let (median, most) = case.quantiles(2000, 50);
    assert!(median < 20.0 && most < 60.0, "{median} {most}");
    let case = Case { share: 1.0, rate: 1.0, after: 0, median: 4.0, most: None };
    assert!(case.quantiles(2000, 50).0 <= 5.0, "none at 100 %");
}

#[test]
fn outages_of_250_ms_at_a_mean_of_1_percent_fire_at_most_once_in_1000_watches() {
    let (mut good, mut outage) = (Traffic::new(100.0, 0.0), Traffic::new(100.0, 1.0));
    let (watches, mut found) = (600, 0);
    for _ in 0..watches {
        let mut judge = judge(50);
        for _ in 0..TICKS {
            let is_out = good.random.f64() < 0.01;
            if is_out { &mut outage } else { &mut good }.tick(&mut judge, 0);
        }
        found += u32::from(has_fired(&judge));
    }
    println!("{found} of {watches} watches fire");
    assert!(found <= most_of(watches, 0.001, 1e-6), "{found} of {watches} watches");
}

#[test]
fn a_color_that_hangs_is_found_a_second_after_its_requests_are_overdue() {
    let mut traffic = Traffic::new(100.0, GOOD_SHARE);
    let mut overdue = Traffic::new(100.0, 1.0);
    for _ in 0..100 {
        let mut judge = judge(50);
        (0..TURN).for_each(|_| {
            traffic.tick(&mut judge, 0);
        });
        // Nothing for 2 s; then the caller counts each request that has waited for so long.
        (0..8).for_each(|_| {
            judge.tick(&Tick::default());
        });
        let ticks = (1..TICKS).find(|_| {
            overdue.tick(&mut judge, 0);
            judge.outcome != Outcome::Running
        });
        assert!(has_fired(&judge) && ticks <= Some(5), "{ticks:?}");
    }
}

#[test]
fn one_client_with_half_of_all_requests_as_failures_does_not_fire() {
    for (rate, background, watches) in
        [(1.0, 0.001, 200), (10.0, 0.01, 200), (100.0, 0.01, 200), (1000.0, 0.01, 200)]
    {
        let mut traffic = Traffic::new(rate, background);
        let abuse = Poisson::new(rate / 4.0);
        let found = alarms(&mut traffic, watches, |random, _| abuse.draw(random));
        println!("{rate}/s, others fail {background}: {found} of {watches} watches fire");
        assert!(found <= most_of(watches, 0.001, 1e-6), "{rate}/s: {found}");
    }
}

/// If the counts of the whole watch were compared, the failures of the others in two minutes would be a credit that the
/// abusive client could use within a second.
#[test]
fn one_client_that_waits_for_the_failures_of_others_does_not_fire() {
    for (rate, background, watches) in [(10.0, 0.01, 200), (100.0, 0.01, 200), (1000.0, 0.01, 200)]
    {
        let mut traffic = Traffic::new(rate, background);
        let abuse = Poisson::new(rate / 4.0);
        let found =
            alarms(
                &mut traffic,
                watches,
                |random, tick| {
                    if tick % 300 >= 280 { abuse.draw(random) } else { 0 }
                },
            );
        println!("{rate}/s, others fail {background}: {found} of {watches} watches fire");
        assert!(found <= most_of(watches, 0.001, 1e-6), "{rate}/s: {found}");
    }
}

/// Takes minutes without optimisation.
#[test]
#[ignore = "run with `cargo test --release -- --ignored --nocapture`"]
fn one_abusive_client_among_others_that_fail_up_to_the_limit() {
    for rate in [10.0, 100.0, 1000.0] {
        for background in [0.001, 0.01, 0.02, 0.03, 0.04, 0.05] {
            for waits in [false, true] {
                let mut traffic = Traffic::new(rate, background);
                let abuse = Poisson::new(rate / 4.0);
                let found = alarms(&mut traffic, 2000, |random, tick| {
                    if waits && tick % 300 < 280 { 0 } else { abuse.draw(random) }
                });
                println!("{rate}/s, others fail {background}, waits {waits}: {found} of 2000");
                // It can double the failures of the others, and makes them come in pairs.
                assert!(background > 0.015 || found <= most_of(2000, 0.001, 1e-6));
            }
        }
    }
}

/// Takes minutes without optimisation.
#[test]
#[ignore = "run with `cargo test --release -- --ignored --nocapture`"]
fn a_watch_of_a_stable_share_in_20000_runs() {
    for rate in [1.0, 10.0, 100.0, 1000.0] {
        let found = alarms(&mut Traffic::new(rate, 0.05), 20_000, |_, _| 0);
        println!("{rate}/s at 5 %: {found} of 20000");
        assert!(found <= most_of(20_000, 0.001, 1e-6));
    }
}

/// Takes minutes without optimisation.
#[test]
#[ignore = "run with `cargo test --release -- --ignored --nocapture`"]
fn outages_of_250_ms_in_20000_runs() {
    let (mut good, mut outage) = (Traffic::new(100.0, 0.0), Traffic::new(100.0, 1.0));
    let mut found = 0;
    for _ in 0..20_000 {
        let mut judge = judge(50);
        for _ in 0..TICKS {
            let is_out = good.random.f64() < 0.01;
            if is_out { &mut outage } else { &mut good }.tick(&mut judge, 0);
        }
        found += u32::from(has_fired(&judge));
    }
    println!("outages: {found} of 20000");
    assert!(found <= most_of(20_000, 0.001, 1e-6));
}
