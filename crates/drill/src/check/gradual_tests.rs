//! Gradual promotions: clients that keep the candidate and those that lose it, its share, and what is exempt meanwhile.

use super::{
    tests::{broken, flip, history, request},
    *,
};
use crate::{
    color::Color::{self, Blue, Green},
    record::{
        DrainedEvent, Flip, GradualPromotion, History, Kill, KilledProcess, Kind, Outcome, Request,
        ShareStep,
    },
};

/// Green has a share of the clients from 100 on, is active at 500, and is drained of blue later.
fn gradual(requests: Vec<Request>) -> History {
    let mut history = history(requests);
    history.flips = vec![Flip { is_automatic: true, ..flip(Green, 100, 500) }];
    history.drained = None;
    history.gradual = vec![GradualPromotion {
        service: 0,
        color: Green,
        from: 100,
        until: 500,
        steps: vec![ShareStep { percent: 10, from: 110, until: 490 }],
    }];
    history
}

/// A call of a visitor that made its first one with request 10.
fn visit(id: u64, color: Color, began: u64) -> Request {
    let call = request(id, Kind::Visitor, color, began, began + 10, began + 10);
    Request { client: 10, ..call }
}

#[test]
fn a_client_moves_once() {
    let good = [(Blue, 120), (Blue, 200), (Green, 300), (Green, 400)];
    let calls = |of: &[(Color, u64)]| {
        (10..).zip(of).map(|(id, (color, began))| visit(id, *color, *began)).collect::<Vec<_>>()
    };
    let history = gradual(calls(&good));
    assert_eq!(broken(&history), []);
    // A call after the move, and a step.
    assert_eq!(check_history(&history).of(Promise::Sticky).map(|it| it.checked), Some(2));
    let bad = gradual(calls(&[(Blue, 120), (Green, 200), (Blue, 300)]));
    assert_eq!(broken(&bad), [(Promise::Sticky, 1)]);
    let text = &check_history(&bad).violations[0].text;
    assert!(text.contains("its client had got green with request 11"), "{text}");
    // Clients without cookies get both colors, and so does a client from one promotion to the next.
    let mut other = gradual(calls(&[(Blue, 120), (Green, 200), (Blue, 300)]));
    other.requests[2].client = 12;
    assert_eq!(broken(&other), []);
    let before = gradual(calls(&[(Green, 20), (Blue, 200)]));
    assert_eq!(broken(&before), [(Promise::Private, 1)]);
}

#[test]
fn a_client_loses_the_candidate_only_when_its_endpoint_was_killed() {
    let calls = vec![visit(10, Green, 200), visit(11, Blue, 300)];
    let process =
        |color| KilledProcess::Upstream { service: 0, color, instance: 2, was_last: true };
    let kill = |color, from| Kill { process: process(color), from, until: from + 10 };
    let mut history = gradual(calls);
    for (kill, expected) in [
        (kill(Green, 250), &[][..]),
        (kill(Blue, 250), &[(Promise::Sticky, 1)]),
        (kill(Green, 400), &[(Promise::Sticky, 1)]),
    ] {
        history.kills = vec![kill];
        assert_eq!(broken(&history), expected, "{kill:?}");
    }
    // Another endpoint goes on, unless it was killed soon before.
    let one_of_two = |instance, from| {
        let process =
            KilledProcess::Upstream { service: 0, color: Green, instance, was_last: false };
        Kill { process, from, until: from + 10 }
    };
    history.kills = vec![one_of_two(2, 250)];
    assert_eq!(broken(&history), [(Promise::Sticky, 1)]);
    history.kills.insert(0, one_of_two(3, 150));
    assert_eq!(broken(&history), []);
    // It is over for a client that came later.
    history.kills = vec![kill(Green, 120)];
    assert_eq!(broken(&history), [(Promise::Sticky, 1)]);
}

#[test]
fn a_pin_from_before_is_no_share() {
    let first =
        Request { transaction: 10, client: 10, ..request(10, Kind::Page, Green, 20, 30, 30) };
    let later = |id, began| Request { transaction: 10, ..visit(id, Green, began) };
    let mut history = gradual(vec![first, later(11, 150), visit(12, Blue, 300)]);
    history.requests[1].kind = Kind::Scan;
    history.initial = vec![Green];
    history.flips.insert(0, flip(Blue, 50, 60));
    assert!(!broken(&history).iter().any(|it| it.0 == Promise::Sticky), "{:?}", broken(&history));
    history.requests[1].transaction = 0;
    assert!(broken(&history).contains(&(Promise::Sticky, 1)), "{:?}", broken(&history));
}

#[test]
fn pins_last_from_the_last_step_on() {
    // A scan that began on blue, and went to green with a raised share: its pin is valid until long after the last step.
    let first = Request { transaction: 10, ..request(10, Kind::Scan, Blue, 150, 160, 160) };
    let next = |began| {
        let next = request(11, Kind::Scan, Green, began, began + 10, began + 10);
        let mut history = gradual(vec![first, Request { transaction: 10, ..next }]);
        history.pin_age = Some(100_000_000);
        history
    };
    assert_eq!(broken(&next(300)), [(Promise::Pinned, 1)]);
    assert_eq!(broken(&next(700)), [(Promise::Pinned, 1)]);
    assert_eq!(broken(&next(600 + 100_000_000)), []);
}

#[test]
fn an_asset_may_reach_both_colors_while_a_candidate_has_a_share() {
    let page = Request { transaction: 10, ..request(10, Kind::Page, Blue, 150, 160, 160) };
    let asset = Request { transaction: 10, ..request(11, Kind::Page, Blue, 300, 310, 310) };
    let mut history = gradual(vec![page, asset]);
    history.arrived.as_mut().expect("numbers").push(11);
    history.flips.clear();
    history.gradual[0].until = u64::MAX;
    assert_eq!(broken(&history), []);
    history.gradual.clear();
    assert_eq!(broken(&history), [(Promise::Once, 1)]);
}

#[test]
fn a_candidate_is_not_drained_while_it_has_its_share() {
    let second = 1_000_000_000;
    let drained = |received| {
        let mut history = gradual(Vec::new());
        history.flips[0].acknowledged = 9 * second;
        history.gradual[0].until = 9 * second;
        let step = |percent, from, until| ShareStep { percent, from, until };
        history.gradual[0].steps = vec![step(0, 110, 200), step(10, 210, 8 * second)];
        history.ended = 20 * second;
        let event = DrainedEvent { service: 0, color: Green, generation: 3, received };
        history.drained = Some(vec![event]);
        let text = "while it had a share of the clients";
        check_history(&history).violations.iter().any(|it| it.text.contains(text))
    };
    assert_eq!([150, second / 10, second, 7 * second].map(drained), [false, false, true, true]);
}

#[test]
fn both_colors_are_right_while_the_candidate_has_a_share_and_not_after() {
    let short = |id, color, began| request(id, Kind::Short, color, began, began + 10, began + 10);
    let meanwhile = vec![short(1, Green, 120), short(2, Blue, 200), short(3, Green, 205)];
    assert_eq!(broken(&gradual(meanwhile)), []);
    assert_eq!(broken(&gradual(vec![short(1, Green, 50)])), [(Promise::Private, 1)]);
    assert_eq!(broken(&gradual(vec![short(1, Blue, 501)])), [(Promise::Register, 1)]);
    // One that is not finished may give both colors until the end.
    let mut unfinished = gradual(vec![short(1, Blue, 501), short(2, Green, 700)]);
    unfinished.flips.clear();
    unfinished.gradual[0].until = u64::MAX;
    assert_eq!(broken(&unfinished), []);
}

#[test]
fn the_candidate_gets_its_share_of_new_clients() {
    // The clients of green among 300 new ones. Five others began when the share was not certain.
    let with = |of_green: u64, kind: Kind| {
        let color = |number| if number < of_green { Green } else { Blue };
        let of_step = (0..300).map(|it| request(it + 1, kind, color(it), 120, 130, 130));
        let others = (0..5).map(|it| request(it + 900, kind, Green, 105, 115, 115));
        gradual(of_step.chain(others).collect())
    };
    for (of_green, is_right) in
        [(0, false), (3, false), (15, true), (30, true), (50, true), (80, false), (300, false)]
    {
        let expected: &[_] = if is_right { &[] } else { &[(Promise::Sticky, 1)] };
        assert_eq!(broken(&with(of_green, Kind::Short)), expected, "{of_green}");
    }
    let text = &check_history(&with(0, Kind::Short)).violations[0].text;
    assert!(
        text.starts_with("0 of 300 new clients of web got green while its share was 10 %"),
        "{text}"
    );
    // WebSockets cannot be given a cookie, so they stay.
    assert_eq!(broken(&with(0, Kind::Ws)), []);
    // Calls that follow draw nothing.
    let mut later = with(0, Kind::Visitor);
    later.requests.iter_mut().for_each(|it| it.client = 7000);
    assert_eq!(broken(&later), [(Promise::Sticky, 0); 0]);
}

#[test]
fn an_unanswered_request_says_nothing_about_shares() {
    let lost = Request { color: None, instance: 0, head: 0, ..visit(10, Green, 120) };
    let history = gradual(vec![Request { outcome: Outcome::NoResponse, ..lost }]);
    assert_eq!(broken(&history), [(Promise::Answered, 1)]);
    let sticky = check_history(&history);
    let sticky = sticky.of(Promise::Sticky).expect("a promise");
    assert_eq!(sticky.unchecked_reason, Some("no request tests it"));
}

/// The requests of both colors count for `drained`, as the last step is a flip.
#[test]
fn a_color_is_not_drained_while_it_has_requests_of_the_gradual_promotion() {
    let long = |color, active_at| {
        let request = request(1, Kind::Download, color, 200, 210, active_at);
        let mut history = gradual(vec![Request { active_at, ..request }]);
        let event = |received| DrainedEvent { service: 0, color: Blue, generation: 7, received };
        history.drained = Some(vec![event(600)]);
        history
    };
    assert_eq!(broken(&long(Blue, 590)), []);
    assert_eq!(broken(&long(Blue, 610)), [(Promise::Drained, 1)]);
    assert_eq!(broken(&long(Green, 610)), []);
    // Green was drained before its share began, and no flip tells of the share: it was not finished.
    let mut unfinished = long(Green, 700);
    unfinished.flips = vec![flip(Blue, 20, 30)];
    unfinished.initial = vec![Green];
    unfinished.gradual[0].until = u64::MAX;
    let event = DrainedEvent { service: 0, color: Green, generation: 7, received: 60 };
    unfinished.drained = Some(vec![event]);
    assert_eq!(broken(&unfinished), []);
    unfinished.gradual.clear();
    assert!(broken(&unfinished).contains(&(Promise::Register, 1)));
}
