//! `gated` and `guarded`, broken and kept.

use super::{
    tests::{broken, flip, history, request},
    *,
};
use crate::{
    color::Color::{Blue, Green},
    record::{FlipOutcome, History, Kind, Outcome, Request, Trial, TrialKind, TrialResult},
};

fn trial(kind: TrialKind, result: TrialResult) -> Trial {
    Trial { kind, service: 0, color: Green, from: 50, until: 60, result }
}

/// Green is bad from 50 to 60, and active from about 105.
fn refused(requests: Vec<Request>, result: TrialResult) -> History {
    History { trials: vec![trial(TrialKind::Refuse, result)], ..history(requests) }
}

#[test]
fn a_refused_color_that_answers_no_public_request_is_gated() {
    let requests = vec![
        request(1, Kind::Short, Blue, 52, 55, 56),
        // A tester may see it, and another flip makes it active.
        request(2, Kind::Preview, Green, 52, 55, 56),
        request(3, Kind::Short, Green, 200, 210, 210),
    ];
    let history = refused(requests, TrialResult::Done);
    assert_eq!(broken(&history), []);
    let gated = check_history(&history).of(Promise::Gated).cloned().expect("a finding");
    assert_eq!((gated.checked, gated.unchecked_reason), (2, None));
}

#[test]
fn a_refused_color_that_answers_the_public_is_a_violation() {
    let history = refused(vec![request(1, Kind::Short, Green, 52, 55, 56)], TrialResult::Done);
    assert!(broken(&history).contains(&(Promise::Gated, 1)), "{:?}", broken(&history));
}

#[test]
fn a_bad_color_that_is_promoted_is_a_violation() {
    let history = refused(vec![request(1, Kind::Short, Blue, 10, 20, 20)], TrialResult::Missed);
    assert_eq!(broken(&history), [(Promise::Gated, 1)]);
}

/// Green is active from about 105, bad from 300, and rolled back by 400.
fn guarded(requests: Vec<Request>, result: TrialResult) -> History {
    let trial = Trial { from: 300, until: 400, ..trial(TrialKind::Guard, result) };
    let mut history = History { trials: vec![trial], drained: None, ..history(requests) };
    if result == TrialResult::Done {
        let mut back = flip(Blue, 300, 400);
        back.is_automatic = true;
        history.flips.push(back);
    }
    history
}

fn failed(id: u64, began: u64, head: u64) -> Request {
    Request {
        outcome: Outcome::ErrorStatus(500),
        ..request(id, Kind::Short, Green, began, head, head)
    }
}

#[test]
fn a_bad_color_that_is_rolled_back_is_guarded_and_its_failures_are_the_cost() {
    let requests = vec![
        failed(1, 310, 320),
        failed(2, 350, 360),
        request(3, Kind::Short, Blue, 500, 510, 510),
    ];
    let history = guarded(requests, TrialResult::Done);
    assert_eq!(broken(&history), []);
    let verdict = check_history(&history);
    let finding = verdict.of(Promise::Guarded).expect("a finding");
    assert_eq!((finding.checked, finding.cost, finding.max_delay), (1, 2, 100));
    assert_eq!(verdict.of(Promise::Answered).map(|it| (it.checked, it.excused)), Some((1, 2)));
}

#[test]
fn errors_of_another_color_or_time_are_not_excused() {
    for request in [
        failed(1, 210, 220),
        Request { color: Some(Blue), instance: 1, ..failed(1, 450, 460) },
        Request { outcome: Outcome::ErrorStatus(502), color: None, ..failed(1, 310, 320) },
        Request { outcome: Outcome::Corrupted, ..failed(1, 310, 320) },
    ] {
        let history = guarded(vec![request], TrialResult::Done);
        assert_eq!(broken(&history).len(), 1, "{request:?}");
    }
}

#[test]
fn a_bad_color_that_stays_is_a_violation() {
    let history = guarded(vec![failed(1, 310, 320)], TrialResult::Missed);
    assert_eq!(broken(&history), [(Promise::Guarded, 1)]);
    assert!(history.flips.iter().all(|it| it.outcome == FlipOutcome::Acknowledged));
}
