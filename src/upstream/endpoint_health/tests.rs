use super::*;

fn failed_check() -> Result<(), HealthFailure> {
    Err(HealthFailure::bad_response("500"))
}

#[test]
fn the_first_check_decides_and_later_ones_need_a_streak() {
    let check = HealthCheck { rise: 2, fall: 3, ..HealthCheck::default() };
    let mut state = HealthState::unknown();
    assert_eq!(state.tier(), Tier::Unchecked);
    state.record_check(Ok(()), &check);
    assert_eq!(state.tier(), Tier::Healthy);
    for found in [failed_check(), failed_check(), Ok(()), failed_check(), failed_check()] {
        state.record_check(found, &check);
        assert_eq!(state.tier(), Tier::Healthy, "never three in a row");
    }
    state.record_check(failed_check(), &check);
    assert_eq!(state.tier(), Tier::Unhealthy);
    state.record_check(Ok(()), &check);
    assert_eq!(state.tier(), Tier::Unhealthy, "it was up, so one success is not enough");
    state.record_check(Err(HealthFailure::refused("refused")), &check);
    assert_eq!(state.tier(), Tier::Refusing, "the failure may change");
    state.record_check(Err(HealthFailure::unresponsive("no response")), &check);
    assert_eq!(state.tier(), Tier::Unresponsive);
    state.record_check(Ok(()), &check);
    assert_eq!(state.tier(), Tier::Unresponsive, "never two in a row");
    state.record_check(Ok(()), &check);
    assert_eq!((state.tier(), state.details().failure), (Tier::Healthy, None));
}

#[test]
fn the_first_success_of_an_endpoint_that_was_never_up_is_enough() {
    let check = HealthCheck { rise: 3, fall: 1, ..HealthCheck::default() };
    let mut state = HealthState::unknown();
    assert_eq!(state.startup_failure(), None, "not checked yet");
    state.record_check(Err(HealthFailure::refused("refused")), &check);
    assert_eq!(state.startup_failure(), Some(FailureKind::Refused));
    state.record_check(failed_check(), &check);
    assert_eq!(state.startup_failure(), Some(FailureKind::BadResponse));
    state.record_check(Ok(()), &check);
    assert_eq!((state.tier(), state.startup_failure()), (Tier::Healthy, None));
    state.record_check(failed_check(), &check);
    assert_eq!((state.tier(), state.startup_failure()), (Tier::Unhealthy, None), "it was up");
    for _ in 0..2 {
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Unhealthy);
    }
    state.record_check(Ok(()), &check);
    assert_eq!(state.tier(), Tier::Healthy);
    let mut state = HealthState::unknown();
    assert!(
        state.record_connect_failure(HealthFailure::refused("refused"), 1),
        "a request found it"
    );
    assert_eq!(state.startup_failure(), Some(FailureKind::Refused));
    state.record_check(Ok(()), &check);
    assert_eq!(state.tier(), Tier::Healthy);
}

#[test]
fn connect_failures_of_requests_count_as_failed_checks() {
    let mut state = HealthState::unknown();
    let failure = || HealthFailure::refused("refused");
    state.record_connect_failure(failure(), 3);
    state.record_connect_failure(failure(), 3);
    state.record_connect_success();
    state.record_connect_failure(failure(), 3);
    state.record_connect_failure(failure(), 3);
    assert_eq!(state.tier(), Tier::Unchecked);
    state.record_connect_failure(failure(), 3);
    assert_eq!(state.tier(), Tier::Refusing);
}

#[test]
fn repeated_ejections_last_longer() {
    let rules = Ejection::default();
    let mut state = HealthState::unknown();
    state.record_check(Ok(()), &HealthCheck::default());
    let mut now = Instant::now();
    for seconds in [30, 60, 90] {
        state.eject("503".into(), &rules, now);
        assert_eq!(state.tier(), Tier::Ejected);
        assert!(!state.release(now + Duration::from_secs(seconds - 1)));
        now += Duration::from_secs(seconds);
        assert!(state.release(now), "after {seconds} s");
        assert_eq!(state.tier(), Tier::Healthy);
    }
    now += rules.duration_max + Duration::from_secs(1);
    state.eject("503".into(), &rules, now);
    assert!(state.release(now + rules.base_duration), "a long healthy time resets the count");
    let ejected: Vec<_> = state.take_changes().iter().map(|it| it.ejected.is_some()).collect();
    assert_eq!(ejected, [false, true, false, true, false, true, false, true, false]);
    assert!(state.take_changes().is_empty(), "changes are returned once");
}

#[test]
fn an_endpoint_that_could_not_be_reached_comes_back_without_its_ejection() {
    let check = HealthCheck { rise: 1, fall: 1, ..HealthCheck::default() };
    for (first, tier) in [
        (Err(HealthFailure::refused("refused")), Tier::Healthy),
        (Err(HealthFailure::unresponsive("no response")), Tier::Healthy),
        (failed_check(), Tier::Ejected),
    ] {
        let mut state = HealthState::unknown();
        state.record_check(Ok(()), &check);
        state.eject("closed".into(), &Ejection::default(), Instant::now());
        // It may respond before it is ready.
        for found in [first, failed_check(), Ok(())] {
            state.record_check(found, &check);
        }
        assert_eq!(state.tier(), tier);
        // A later ejection is not ended by the outage before it.
        state.eject("closed".into(), &Ejection::default(), Instant::now());
        state.record_check(failed_check(), &check);
        state.record_check(Ok(()), &check);
        assert_eq!(state.tier(), Tier::Ejected);
    }
}

#[test]
fn an_endpoint_in_transition_is_checked_often_enough_to_settle_within_an_interval() {
    let check = HealthCheck { rise: 2, fall: 4, ..HealthCheck::default() };
    assert_eq!(check.interval_for(false), check.interval);
    assert_eq!(check.interval_for(true) * check.fall, check.interval);
}
