//! Transactions, and WebSockets that the proxy closes: kept, broken, and what is exempt from other promises.

use super::{
    tests::{broken, flip, history, request},
    *,
};
use crate::{
    color::Color::{self, Blue, Green},
    record::{DrainedEvent, Flip, History, Kill, KilledProcess, Kind, Outcome, Request},
};

const SECOND: u64 = 1_000_000_000;

/// A scan or a page that began on blue as request 10, the request 11 that goes on with it, and the number of them.
fn transaction(kind: Kind, color: Color, began: u64) -> History {
    let first = Request { transaction: 10, ..request(10, kind, Blue, 50, 60, 60) };
    let next = request(11, kind, color, began, began + 10, began + 10);
    let mut history = history(vec![first, Request { transaction: 10, ..next }]);
    history.drained = None;
    history.pin_age = Some(SECOND);
    history
}

#[test]
fn a_transaction_goes_on_with_its_color_after_the_flip() {
    for (kind, promise) in [(Kind::Scan, Promise::Pinned), (Kind::Page, Promise::WholePage)] {
        let good = transaction(kind, Blue, 300);
        assert_eq!(broken(&good), []);
        assert_eq!(check_history(&good).of(promise).map(|it| it.checked), Some(1));
        assert_eq!(broken(&transaction(kind, Green, 300)), [(promise, 1)]);
        // The color of another transaction says nothing about a request without one.
        let mut stale = good;
        stale.requests[1].transaction = 0;
        assert_eq!(broken(&stale), [(Promise::Register, 1)]);
    }
    let text = &check_history(&transaction(Kind::Scan, Green, 300)).violations[0].text;
    assert!(text.contains("began on blue with request 10, but green answered"), "{text}");
}

#[test]
fn only_the_first_request_of_a_transaction_shows_the_active_color() {
    let mut history = transaction(Kind::Scan, Blue, 300);
    // It began after the flip was acknowledged.
    history.requests[0].began = 200;
    history.requests[0].head = 210;
    assert_eq!(broken(&history), [(Promise::Register, 1)]);
}

#[test]
fn a_request_of_a_transaction_with_another_color_must_have_the_active_one() {
    let mut history = transaction(Kind::Scan, Green, 70);
    assert_eq!(broken(&history), [(Promise::Private, 1), (Promise::Pinned, 1)]);
    history = transaction(Kind::Scan, Green, 300);
    history.flips.push(flip(Blue, 200, 210));
    assert_eq!(broken(&history), [(Promise::Register, 1), (Promise::Pinned, 1)]);
}

#[test]
fn a_pin_ends_and_an_asset_does_not() {
    let late = 110 + SECOND + 20_000_000;
    for (kind, began, expected) in [
        (Kind::Scan, late, &[][..]),
        (Kind::Scan, late + 1, &[(Promise::Register, 1)]),
        (Kind::Page, late + 1, &[]),
    ] {
        assert_eq!(broken(&transaction(kind, Blue, began)), expected, "{kind:?} {began}");
    }
    // What comes after the pin has ended belongs to the active color.
    assert_eq!(broken(&transaction(Kind::Scan, Green, late + 1)), []);
    // Meanwhile both colors are right: the proxy counts from a time between the call and the acknowledgement.
    for began in [100 + SECOND, late] {
        assert_eq!([Blue, Green].map(|it| broken(&transaction(Kind::Scan, it, began))), [[], []]);
    }
    let before = transaction(Kind::Scan, Green, SECOND - 30_000_000);
    assert_eq!(broken(&before), [(Promise::Pinned, 1)]);
    // The color is active again, so its pins are valid again.
    let mut history = transaction(Kind::Scan, Blue, late + 1);
    history.flips.push(flip(Blue, 500, 510));
    assert_eq!(broken(&history), []);
}

#[test]
fn a_missing_asset_is_found_whichever_color_says_so() {
    for color in [Some(Blue), Some(Green), None] {
        let mut history = transaction(Kind::Page, Blue, 300);
        let asset = &mut history.requests[1];
        (asset.outcome, asset.color) = (Outcome::ErrorStatus(404), color);
        asset.instance = color.map_or(0, |it| if it == Blue { 1 } else { 2 });
        assert_eq!(broken(&history), [(Promise::WholePage, 1)], "{color:?}");
        // Of a scan, and with another status, it is an error like any other.
        history.requests[1].outcome = Outcome::ErrorStatus(500);
        assert!(broken(&history).contains(&(Promise::Answered, 1)), "{color:?}");
    }
    let mut scan = transaction(Kind::Scan, Blue, 300);
    scan.requests[1].outcome = Outcome::ErrorStatus(404);
    assert_eq!(broken(&scan), [(Promise::Answered, 1)]);
    let mut page = transaction(Kind::Page, Blue, 300);
    page.requests[0].outcome = Outcome::ErrorStatus(404);
    assert_eq!(broken(&page), [(Promise::Answered, 1)]);
}

#[test]
fn an_asset_may_reach_both_colors_once_each_after_a_flip() {
    let arrived = |kind, began, extra: &[u64]| {
        let mut history = transaction(kind, Blue, began);
        history.arrived.as_mut().expect("numbers").extend(extra);
        broken(&history)
    };
    assert_eq!(arrived(Kind::Page, 300, &[11]), []);
    assert_eq!(arrived(Kind::Page, 300, &[11, 11]), [(Promise::Once, 1)]);
    // Its page, a scan, and an asset before the flip.
    assert_eq!(arrived(Kind::Page, 300, &[10]), [(Promise::Once, 1)]);
    assert_eq!(arrived(Kind::Scan, 300, &[11]), [(Promise::Once, 1)]);
    assert_eq!(arrived(Kind::Page, 70, &[11]), [(Promise::Once, 1)]);
}

#[test]
fn a_kill_of_its_color_excuses_a_transaction() {
    let mut history = transaction(Kind::Scan, Green, 300);
    let process = KilledProcess::Upstream { service: 0, color: Blue, instance: 1, was_last: true };
    history.kills = vec![Kill { process, from: 120, until: 200 }];
    assert_eq!(broken(&history), []);
    assert_eq!(check_history(&history).of(Promise::Pinned).map(|it| it.excused), Some(1));
    // The kill came later, or was of the other color.
    history.kills[0].from = 400;
    assert_eq!(broken(&history), [(Promise::Pinned, 1)]);
    let process =
        KilledProcess::Upstream { service: 0, color: Green, instance: 2, was_last: false };
    history.kills = vec![Kill { process, from: 120, until: 200 }];
    assert_eq!(broken(&history), [(Promise::Pinned, 1)]);
}

#[test]
fn a_scan_goes_on_as_a_new_one_after_its_pin_has_ended() {
    // Blue is active again, but only after the pin has ended: the scan may have begun anew on green.
    let late = 110 + SECOND + 20_000_000;
    let back = |at| {
        let mut history = transaction(Kind::Scan, Green, 5 * SECOND);
        history.flips.push(flip(Blue, at, at + 10));
        broken(&history)
    };
    assert_eq!(back(late + 1), []);
    assert_eq!(
        back(500),
        [(Promise::Register, 1), (Promise::Pinned, 1)],
        "it was pinned all the time"
    );
}

#[test]
fn the_end_of_the_proxy_ends_the_scans_that_it_remembers_in_memory_only() {
    let mut history = transaction(Kind::Scan, Green, 300);
    history.kills = vec![Kill { process: KilledProcess::Proxy, from: 150, until: 200 }];
    assert_eq!(broken(&history), [(Promise::Pinned, 1)]);
    history.forgetful = vec![0];
    assert_eq!(broken(&history), []);
    history.kills[0].from = 400;
    history.kills[0].until = 410;
    assert_eq!(broken(&history), [(Promise::Pinned, 1)], "later");
}

/// A scan on blue before the flip at 10 s, with pins for 5 s, and a `drained` event.
fn drained_at(received: u64) -> History {
    let first = request(10, Kind::Scan, Blue, SECOND, SECOND + 1, SECOND + 1);
    let mut history = history(vec![Request { transaction: 10, ..first }]);
    history.flips = vec![flip(Green, 10 * SECOND, 10 * SECOND + 5)];
    history.pin_age = Some(5 * SECOND);
    history.ended = 40 * SECOND;
    history.drained = Some(vec![DrainedEvent { service: 0, color: Blue, generation: 7, received }]);
    history
}

#[test]
fn a_color_is_drained_when_its_pins_have_ended_neither_earlier_nor_later() {
    assert_eq!(broken(&drained_at(15 * SECOND)), []);
    assert_eq!(broken(&drained_at(15 * SECOND + BOUND)), []);
    let early = drained_at(14 * SECOND);
    assert_eq!(broken(&early), [(Promise::Drained, 1)]);
    let text = &check_history(&early).violations[0].text;
    assert!(text.contains("1000.000 ms before its pins could end"), "{text}");
    assert_eq!(broken(&drained_at(16 * SECOND)), [(Promise::Drained, 1)]);
    let mut never = drained_at(0);
    never.drained = Some(Vec::new());
    assert_eq!(broken(&never), [(Promise::Drained, 1)]);
}

#[test]
fn without_a_scan_on_the_color_it_may_be_drained_at_once() {
    let at_once = drained_at(10 * SECOND + 9);
    assert_eq!(broken(&at_once), [(Promise::Drained, 1)]);
    for change in [
        |it: &mut Request| it.kind = Kind::Short,
        |it: &mut Request| (it.color, it.instance) = (Some(Green), 2),
        // It may have been routed after the flip.
        |it: &mut Request| it.ended = 10 * SECOND + 1,
    ] {
        let mut history = at_once.clone();
        change(&mut history.requests[0]);
        assert!(!broken(&history).contains(&(Promise::Drained, 1)), "{:?}", broken(&history));
    }
    // Its pins ended with an earlier drain of the color.
    let mut history = drained_at(40 * SECOND + 9);
    let other_flip = |color, at| Flip { generation: Some(at), ..flip(color, at, at + 5) };
    history.flips.push(other_flip(Blue, 30 * SECOND));
    history.flips.push(other_flip(Green, 40 * SECOND));
    let drained =
        |color, generation, received| DrainedEvent { service: 0, color, generation, received };
    history.drained = Some(vec![
        drained(Blue, 7, 15 * SECOND),
        drained(Green, 30 * SECOND, 30 * SECOND + 9),
        drained(Blue, 40 * SECOND, 40 * SECOND + 9),
    ]);
    history.ended = 60 * SECOND;
    assert_eq!(broken(&history), []);
}

#[test]
fn a_request_in_flight_after_the_event_is_found_unless_it_is_an_asset() {
    let late = |kind| {
        let mut history = drained_at(15 * SECOND);
        history.requests[0].kind = kind;
        let next = request(11, kind, Blue, 14 * SECOND, 14 * SECOND + 1, 16 * SECOND);
        let next = Request { transaction: 10, active_at: 15 * SECOND + BOUND, ..next };
        history.requests.push(next);
        history.arrived.as_mut().expect("numbers").push(11);
        broken(&history)
    };
    assert_eq!(late(Kind::Scan), [(Promise::Drained, 1)]);
    assert_eq!(late(Kind::Page), []);
}

#[test]
fn a_websocket_is_closed_only_after_a_flip_and_between_messages() {
    let closed = |outcome, began, moved| {
        let socket = request(1, Kind::Ws, Blue, began, began + 5, moved);
        let mut history = history(vec![Request { outcome, moved, ..socket }]);
        history.drained = None;
        broken(&history)
    };
    assert_eq!(closed(Outcome::Complete, 50, 400), []);
    // During the flip, which may have taken effect.
    assert_eq!(closed(Outcome::Complete, 50, 100), []);
    assert_eq!(closed(Outcome::Complete, 50, 99), [(Promise::Kept, 1)]);
    assert_eq!(closed(Outcome::MessageCut, 50, 400), [(Promise::Kept, 1)]);
    let of_green = Request { moved: 400, ..request(1, Kind::Ws, Green, 200, 205, 400) };
    let mut history = history(vec![of_green]);
    history.drained = None;
    assert_eq!(broken(&history), [(Promise::Kept, 1)]);
    // It began on a color that was taken away before, so no flip has taken that away from it.
    history.flips.insert(0, flip(Blue, 20, 30));
    assert_eq!(broken(&history), [(Promise::Kept, 1)]);
}
