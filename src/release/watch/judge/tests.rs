//! Simulations: how often good colors are called bad, and how soon bad ones are.
//!
//! Each prints its seed, and draws another one each time.

use super::*;

/// The ticks of a watch of five minutes.
const TICKS: u64 = 1200;

fn settings() -> WatchSettings {
    WatchSettings::default()
}

fn random(what: &str) -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("{what}: seed = {seed}");
    fastrand::Rng::with_seed(seed)
}

/// How many of `count` requests fail, each with the probability `share`, from this many clients.
fn tick(random: &mut fastrand::Rng, count: u64, share: f64, clients: u32) -> TickCounts {
    let mut counts = TickCounts::default();
    for _ in 0..count {
        if random.f64() < share {
            let client = Some(IpAddr::from(random.u32(0..clients).to_be_bytes()));
            match counts.failures.iter_mut().find(|it| it.0 == client) {
                Some((_, count)) => *count += 1,
                None => counts.failures.push((client, 1)),
            }
        } else {
            counts.others += 1;
        }
    }
    counts
}

/// The requests of each tick at a rate per second.
fn arrivals(random: &mut fastrand::Rng, rate: f64) -> u64 {
    let mean = rate * TICK.as_secs_f64();
    let whole = mean.floor();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "small and positive"
    )]
    let whole = (whole as u64, random.f64() < mean - whole);
    whole.0 + u64::from(whole.1)
}

/// The requests until a color is called bad that has `share` failures from a tick on; `None` if it never is.
fn requests_until(random: &mut fastrand::Rng, rate: f64, share: f64, from: u64) -> Option<u64> {
    let mut judge = WatchJudge::new(&settings(), Duration::from_secs(300), (0, 0));
    let mut requests = 0;
    for number in 0..TICKS {
        let count = arrivals(random, rate);
        let share = if number < from { 0.001 } else { share };
        if number >= from {
            requests += count;
        }
        let counts = tick(random, count, share, 1000);
        if judge.tick(&counts).is_some() {
            return (number >= from).then_some(requests);
        }
    }
    None
}

/// The alarms of `watches` watches of a stable share.
fn alarms(random: &mut fastrand::Rng, watches: u32, rate: f64, share: f64) -> u32 {
    (0..watches).map(|_| u32::from(requests_until(random, rate, share, 0).is_some())).sum()
}

#[test]
fn a_color_within_the_limit_is_almost_never_called_bad() {
    let mut random = random("false alarms");
    // At most 1 in 1,000. More than 6 of 300 have a probability below 1 in 10 million then.
    for (share, rate) in
        [(0.001, 10.0), (0.01, 10.0), (0.01, 100.0), (0.05, 1.0), (0.05, 10.0), (0.05, 100.0)]
    {
        let found = alarms(&mut random, 300, rate, share);
        println!("{share} at {rate}/s: {found} of 300");
        assert!(found <= 6, "{share} at {rate}/s: {found} alarms");
    }
}

#[test]
fn short_outages_with_a_mean_within_the_limit_do_not_fire() {
    let mut random = random("bursts");
    let mut found = 0;
    for _ in 0..200 {
        let mut judge = WatchJudge::new(&settings(), Duration::from_secs(300), (0, 0));
        for _ in 0..TICKS {
            // One tick in 100 is an outage.
            let share = if random.f64() < 0.01 { 1.0 } else { 0.0 };
            let counts = tick(&mut random, 25, share, 1000);
            if judge.tick(&counts).is_some() {
                found += 1;
                break;
            }
        }
    }
    println!("{found} of 200");
    assert!(found <= 4, "{found} of 200 watches fired");
}

/// The median of the requests until a bad color is found.
fn median(random: &mut fastrand::Rng, rate: f64, share: f64, from: u64) -> u64 {
    let mut all: Vec<_> = (0..101)
        .map(|_| requests_until(random, rate, share, from).expect("it is found within the watch"))
        .collect();
    all.sort_unstable();
    println!("{share} from tick {from} at {rate}/s: median {}, 95 % {}", all[50], all[95]);
    all[50]
}

#[test]
fn a_color_that_is_bad_from_the_start_is_found_after_few_requests() {
    let mut random = random("bad from the start");
    for (share, rate, most) in [(1.0, 1.0, 6), (0.5, 10.0, 60), (0.2, 10.0, 100)] {
        let median = median(&mut random, rate, share, 0);
        assert!(median <= most, "{share} at {rate}/s: {median} requests");
    }
}

#[test]
fn a_color_that_turns_bad_later_is_found_too() {
    let mut random = random("bad after 120 s");
    for (share, rate, most) in
        [(1.0, 10.0, 20), (0.5, 10.0, 40), (0.2, 10.0, 140), (0.2, 100.0, 250), (0.1, 100.0, 1300)]
    {
        let median = median(&mut random, rate, share, 480);
        assert!(median <= most, "{share} at {rate}/s: {median} requests");
    }
}

#[test]
fn one_abusive_client_rolls_nothing_back() {
    let client = Some(IpAddr::from([192, 0, 2, 1]));
    let mut judge = WatchJudge::new(&settings(), Duration::from_secs(300), (0, 0));
    let abuse = TickCounts { failures: vec![(client, 50)], others: 50, ..TickCounts::default() };
    for _ in 0..TICKS {
        assert_eq!(judge.tick(&abuse), None);
    }
    // Behind one address, it is the application.
    let behind_nat = WatchSettings { clients: 1, ..settings() };
    let mut judge = WatchJudge::new(&behind_nat, Duration::from_secs(300), (0, 0));
    assert!((0..20).any(|_| judge.tick(&abuse).is_some()));
}

#[test]
fn too_few_requests_are_no_pass_and_no_failure() {
    let mut judge = WatchJudge::new(&settings(), Duration::from_secs(300), (0, 0));
    assert_eq!(
        judge.end(),
        WatchEnd::Inconclusive(
            "0 of 0 requests failed; at least 50 requests are needed".to_owned()
        )
    );
    let good = TickCounts { others: 10, ..TickCounts::default() };
    (0..4).for_each(|_| assert_eq!(judge.tick(&good), None));
    assert!(matches!(judge.end(), WatchEnd::Inconclusive(_)));
    judge.tick(&good);
    assert_eq!(
        judge.end(),
        WatchEnd::Passed("0 of 50 requests failed (0 %, 0 clients)".to_owned())
    );
    // Above the limit, and not proved.
    let mut judge = WatchJudge::new(&settings(), Duration::from_secs(300), (0, 0));
    for client in 0..4_u8 {
        let failures = vec![(Some(IpAddr::from([10, 0, 0, client])), 1)];
        assert_eq!(judge.tick(&TickCounts { failures, others: 14, ..TickCounts::default() }), None);
    }
    let WatchEnd::Inconclusive(why) = judge.end() else { panic!("it has passed") };
    assert!(
        why.starts_with("3 of 59 requests failed (5.1 %, 4 clients), above the limit of 5 %"),
        "{why}"
    );
}

#[test]
fn a_share_below_a_half_needs_a_number_of_requests() {
    let many = WatchSettings { requests: 1000, ..settings() };
    let failures =
        |count: u8| (0..count).map(|it| (Some(IpAddr::from([10, 0, 0, it])), 1)).collect();
    let ticks = |failing: u8, others: u64| {
        let mut judge = WatchJudge::new(&many, Duration::from_secs(300), (0, 0));
        let counts = TickCounts { failures: failures(failing), others, ..TickCounts::default() };
        (1..1000_u64).find(|_| judge.tick(&counts).is_some())
    };
    assert!(ticks(20, 0) < Some(10), "nothing but failures");
    assert_eq!(ticks(8, 12), Some(50), "40 %: after 1,000 requests");
}

#[test]
fn a_color_that_is_no_worse_than_the_one_before_stays() {
    assert!((limit_after(0.05, (5, 100)) - 0.05).abs() < 1e-9);
    assert!((limit_after(0.05, (0, 0)) - 0.05).abs() < 1e-9);
    let high = limit_after(0.05, (200, 1000));
    assert!((0.2..0.23).contains(&high), "{high}");
    let mut random = random("as bad as before");
    let mut found = 0;
    for _ in 0..100 {
        let mut judge = WatchJudge::new(&settings(), Duration::from_secs(60), (200, 1000));
        found +=
            u32::from((0..240).any(|_| judge.tick(&tick(&mut random, 10, 0.2, 1000)).is_some()));
    }
    assert!(found <= 3, "{found} of 100");
}

#[test]
fn slow_responses_are_judged_after_a_while() {
    let limit = LatencyLimit { percentile: 990, bound: Duration::from_millis(500) };
    let strict =
        WatchSettings { latency: Some(limit), latency_after: Duration::from_secs(1), ..settings() };
    let mut judge = WatchJudge::new(&strict, Duration::from_secs(300), (0, 0));
    let slow = TickCounts { others: 100, slow: 50, fast: 50, ..TickCounts::default() };
    (0..4).for_each(|_| assert_eq!(judge.tick(&slow), None, "it is cold"));
    let why = (0..10).find_map(|_| judge.tick(&slow)).expect("it is slow");
    assert!(
        why.contains("responses began after more than 500 ms (50 %, allowed are 1 %)"),
        "{why}"
    );
    let fast = TickCounts { others: 100, slow: 0, fast: 100, ..TickCounts::default() };
    let mut judge = WatchJudge::new(&strict, Duration::from_secs(300), (0, 0));
    assert!((0..TICKS).all(|_| judge.tick(&fast).is_none()));
    assert!(matches!(judge.end(), WatchEnd::Passed(_)));
}
