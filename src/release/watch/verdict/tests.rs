//! The rules of a watch.

use super::*;
use crate::release::watch::mixture::MixtureTest;

/// The ticks of a watch of five minutes.
const TICKS: u64 = 1200;

fn settings() -> JudgeSettings {
    JudgeSettings {
        limit_percent: 5.0,
        ticks: TICKS,
        requests_min: 50,
        clients: 3,
        latency: None,
        waits: false,
    }
}

fn judge() -> WatchJudge {
    WatchJudge::new(&settings(), (0, 0))
}

fn client(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number])
}

/// One failure of each of `count` clients.
fn failures_of(count: u8) -> Vec<(IpAddr, u64)> {
    (0..count).map(|it| (client(it), 1)).collect()
}

fn good(answers: u64) -> Tick<'static> {
    Tick { answers, heads: answers, ..Tick::default() }
}

/// A tick with failures, without responses that count for the latency.
fn bad(answers: u64, failures: &[(IpAddr, u64)]) -> Tick<'_> {
    Tick { answers, failures, ..Tick::default() }
}

/// A tick of 25 responses, of which some are slow.
fn slow_tick(slow: &[(IpAddr, u64)]) -> Tick<'_> {
    Tick { answers: 25, heads: 25, slow, ..Tick::default() }
}

/// The outcome after `ticks` such ticks.
fn repeat(judge: &mut WatchJudge, ticks: u64, tick: &Tick<'_>) -> Outcome {
    (0..ticks).for_each(|_| {
        judge.tick(tick);
    });
    judge.outcome
}

#[test]
fn a_good_color_passes_at_the_end_and_not_before() {
    let mut judge = judge();
    assert_eq!(repeat(&mut judge, TICKS - 1, &good(25)), Outcome::Running);
    assert_eq!(judge.tick(&good(25)), Outcome::Passed);
    let failures = failures_of(9);
    let bad = bad(9, &failures);
    assert_eq!(repeat(&mut judge, 10, &bad), Outcome::Passed, "the watch is over");
}

#[test]
fn a_dead_color_with_a_request_per_second_is_found_at_the_fourth_one() {
    let mut judge = judge();
    for number in 1..=4 {
        let failures = [(client(number), 1)];
        let outcome = judge.tick(&bad(1, &failures));
        assert_eq!(outcome == Outcome::Running, number < 4, "request {number}: {outcome:?}");
        repeat(&mut judge, 3, &good(0));
    }
}

#[test]
fn a_bad_color_stays_bad() {
    let mut judge = judge();
    let failures = failures_of(9);
    let bad = bad(9, &failures);
    let outcome = repeat(&mut judge, 4, &bad);
    let counts = Counts { answers: 36, failures: 36, counted: 36, limit: 0.05 };
    assert_eq!(outcome, Outcome::Fired(FireReason::Failures(counts)));
    assert_eq!(repeat(&mut judge, TICKS, &good(1000)), outcome);
}

#[test]
fn an_outage_of_three_ticks_right_after_the_flip_does_not_fire() {
    let failures = failures_of(9);
    let bad = bad(9, &failures);
    let mut judge = judge();
    assert_eq!(repeat(&mut judge, 3, &bad), Outcome::Running);
    assert!(judge.failures.test.has_fired());
    repeat(&mut judge, 3, &good(200));
    assert_eq!(judge.tick(&bad), Outcome::Running, "good answers have taken the evidence back");
}

#[test]
fn the_minimum_of_requests_applies_below_half_of_failures_only() {
    let failures = failures_of(3);
    for (answers, fires) in [(6, true), (7, false)] {
        let settings = JudgeSettings { requests_min: 1000, ..settings() };
        let mut judge = WatchJudge::new(&settings, (0, 0));
        let tick = bad(answers, &failures);
        let outcome = repeat(&mut judge, 30, &tick);
        assert_eq!(matches!(outcome, Outcome::Fired(_)), fires, "{answers}: {outcome:?}");
        assert!(judge.failures.test.has_fired());
    }
}

#[test]
fn failures_of_too_few_clients_do_not_fire() {
    for (clients, fires) in [(2, false), (3, true)] {
        let mut judge = judge();
        let failures = failures_of(clients);
        let outcome = repeat(&mut judge, 100, &bad(9, &failures));
        assert_eq!(matches!(outcome, Outcome::Fired(_)), fires, "{clients} clients");
    }
}

#[test]
fn one_client_fires_the_test_if_one_is_enough() {
    let settings = JudgeSettings { clients: 1, ..settings() };
    let mut judge = WatchJudge::new(&settings, (0, 0));
    let failures = [(client(1), 1)];
    let bad = bad(1, &failures);
    assert!(matches!(repeat(&mut judge, 4, &bad), Outcome::Fired(_)));
}

#[test]
fn failures_that_do_not_count_are_no_good_answers() {
    let failures = [(client(1), 50)];
    let mut judge = judge();
    judge.tick(&bad(60, &failures));
    let counts = judge.failures();
    assert_eq!((counts.failures, counts.counted, counts.judged()), (50, 1, 11));
    let mut expected = MixtureTest::new(0.05, TICKS);
    expected.tick(1, 10);
    assert_eq!(judge.failures.test, expected);
}

#[test]
fn a_share_above_the_limit_without_proof_is_inconclusive() {
    let settings = JudgeSettings { ticks: 4, ..settings() };
    let mut judge = WatchJudge::new(&settings, (0, 0));
    let failures = failures_of(1);
    repeat(&mut judge, 3, &good(5));
    let outcome = judge.tick(&bad(4, &failures));
    let Outcome::Inconclusive(reason) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        reason.to_string(),
        "1 of 19 requests failed (5.26 %, limit 5 %): too few to prove it"
    );
}

#[test]
fn failures_of_one_client_above_the_limit_are_inconclusive_too() {
    let settings = JudgeSettings { ticks: 100, ..settings() };
    let mut judge = WatchJudge::new(&settings, (0, 0));
    let failures = [(client(1), 10)];
    let outcome = repeat(&mut judge, 100, &bad(20, &failures));
    let Outcome::Inconclusive(reason) = outcome else { panic!("{outcome:?}") };
    let text = reason.to_string();
    assert!(text.contains("1000 of 2000 requests failed ("), "{text}");
    assert!(text.contains(" of single clients left out, 50 %, limit 5 %)"), "{text}");
}

#[test]
fn too_few_requests_are_inconclusive() {
    let settings = JudgeSettings { ticks: 7, ..settings() };
    let mut judge = WatchJudge::new(&settings, (0, 0));
    let outcome = repeat(&mut judge, 7, &good(7));
    assert!(matches!(outcome, Outcome::Inconclusive(InconclusiveReason::Requests(_, 50))));
    for (answers, passes) in [(0, false), (1, true)] {
        let settings = JudgeSettings { requests_min: 0, ticks: 1, ..settings.clone() };
        let outcome = WatchJudge::new(&settings, (0, 0)).tick(&good(answers));
        assert_eq!(outcome == Outcome::Passed, passes, "without any answer, nothing is known");
    }
}

#[test]
fn slow_answers_are_judged_after_the_start_only() {
    let latency = Some(LatencySettings { share: 0.01, after: 120, clients: 3 });
    let settings = JudgeSettings { latency, ..settings() };
    let slow = failures_of(5);
    let tick = slow_tick(&slow);
    let mut judge = WatchJudge::new(&settings, (0, 0));
    assert_eq!(repeat(&mut judge, 120, &tick), Outcome::Running);
    assert_eq!(judge.latency.as_ref().map(|it| it.slow.counts.answers), Some(0));
    assert!(matches!(repeat(&mut judge, 10, &tick), Outcome::Fired(FireReason::Slow(_))));

    let mut judge = WatchJudge::new(&settings, (0, 0));
    repeat(&mut judge, 120, &tick);
    assert_eq!(repeat(&mut judge, TICKS, &good(25)), Outcome::Passed);
}

#[test]
fn failures_are_judged_from_the_start_with_a_latency_limit_too() {
    let latency = Some(LatencySettings { share: 0.01, after: 120, clients: 3 });
    let mut judge = WatchJudge::new(&JudgeSettings { latency, ..settings() }, (0, 0));
    let failures = failures_of(9);
    let bad = bad(9, &failures);
    assert!(matches!(repeat(&mut judge, 4, &bad), Outcome::Fired(FireReason::Failures(_))));
}

#[test]
fn slow_answers_of_one_client_do_not_fire() {
    let latency = Some(LatencySettings { share: 0.01, after: 0, clients: 3 });
    let mut judge = WatchJudge::new(&JudgeSettings { latency, ..settings() }, (0, 0));
    let slow = [(client(1), 10)];
    let outcome = repeat(&mut judge, TICKS, &slow_tick(&slow));
    assert!(matches!(outcome, Outcome::Inconclusive(InconclusiveReason::Slow(_))), "{outcome:?}");
}

#[test]
fn latency_without_requests_is_inconclusive() {
    for after in [4, 10] {
        let latency = Some(LatencySettings { share: 0.01, after, clients: 3 });
        let settings = JudgeSettings { ticks: 8, latency, ..settings() };
        let mut judge = WatchJudge::new(&settings, (0, 0));
        repeat(&mut judge, 4, &good(100));
        let outcome = repeat(&mut judge, 4, &good(1));
        let reason =
            InconclusiveReason::RequestsForLatency(judge.latency.as_ref().unwrap().slow.counts, 50);
        assert_eq!(outcome, Outcome::Inconclusive(reason), "after {after}");
    }
}

#[test]
fn an_old_color_that_failed_more_raises_the_limit() {
    let limit = |before| WatchJudge::new(&settings(), before).failures().limit;
    let is = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}");
    is(limit((0, 0)), 0.05);
    is(limit((50, 1000)), 0.05);
    is(limit((100, 1000)), upper_bound(100, 1000, 0.95));
    assert!((0.11..0.13).contains(&limit((100, 1000))), "{}", limit((100, 1000)));
    is(limit((3, 4)), 0.05); // Fewer requests than the minimum prove nothing.
    is(limit((1000, 1000)), 1.0);
}

#[test]
fn every_count_is_allowed() {
    let huge = [(client(1), u64::MAX), (client(2), u64::MAX), (client(1), u64::MAX)];
    for limit_percent in [f64::NAN, -1.0, 0.0, 5.0, 100.0, f64::INFINITY] {
        for clients in [0, 1, 3, usize::MAX] {
            let latency = Some(LatencySettings { share: limit_percent, after: 0, clients });
            let settings = JudgeSettings { limit_percent, clients, latency, ..settings() };
            for before in [(0, 0), (u64::MAX, u64::MAX), (1, 0), (u64::MAX - 1, u64::MAX)] {
                let mut judge = WatchJudge::new(&settings, before);
                for answers in [0, 1, u64::MAX] {
                    judge.tick(&Tick { answers, heads: answers, failures: &huge, slow: &huge });
                    judge.tick(&good(answers));
                }
                let counts = judge.failures();
                assert!(
                    (0.0..=1.0).contains(&counts.share()) && !counts.describe(FAILED).is_empty()
                );
            }
        }
    }
}

#[test]
fn a_watch_that_waits_goes_on_until_it_has_a_verdict() {
    let waiting = JudgeSettings { ticks: 8, waits: true, ..settings() };
    let mut judge = WatchJudge::new(&waiting, (0, 0));
    assert_eq!(repeat(&mut judge, 20, &good(2)), Outcome::Running, "40 of 50 requests");
    assert_eq!(judge.end(), Outcome::Running);
    assert_eq!(judge.tick(&good(10)), Outcome::Passed);
    // A bad color is found after the time, too.
    let mut judge = WatchJudge::new(&waiting, (0, 0));
    assert_eq!(repeat(&mut judge, 10, &good(2)), Outcome::Running);
    let failures = failures_of(9);
    let outcome = repeat(&mut judge, 20, &bad(9, &failures));
    assert!(matches!(outcome, Outcome::Fired(_)), "{outcome:?}");
}

#[test]
fn a_watch_that_has_passed_starts_anew_and_can_still_fire() {
    let mut judge = judge();
    judge.restart_if_passed();
    assert_eq!(repeat(&mut judge, TICKS, &good(25)), Outcome::Passed, "it went on");
    let failures = failures_of(9);
    assert_eq!(repeat(&mut judge, 20, &bad(10, &failures)), Outcome::Passed);
    judge.restart_if_passed();
    assert_eq!(judge.failures().answers, 0);
    assert!(matches!(repeat(&mut judge, 20, &bad(10, &failures)), Outcome::Fired(_)));
    let fired = judge.clone();
    judge.restart_if_passed();
    assert_eq!(judge, fired);
}
