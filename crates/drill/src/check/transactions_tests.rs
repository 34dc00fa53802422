//! `pinned` and `whole_page`, broken and kept, and what transactions mean for the other promises.

use super::{
    tests::{broken, flip, history, request},
    *,
};
use crate::{
    color::Color::{self, Blue, Green},
    record::{DrainedEvent, Flip, History, Kill, KilledProcess, Kind, Outcome, Request},
};

const SECOND: u64 = 1_000_000_000;

/// A transaction that begins on blue before the flip at 100, and goes on with these colors after it.
fn transaction(kind: Kind, colors: &[Color]) -> Vec<Request> {
    let first = Request { transaction: 1, ..request(1, kind, Blue, 20, 30, 30) };
    let later = (2..).zip(colors).map(|(id, color)| Request {
        transaction: 1,
        ..request(id, kind, *color, 100 + 20 * id, 110 + 20 * id, 110 + 20 * id)
    });
    std::iter::once(first).chain(later).collect()
}

#[test]
fn a_transaction_stays_on_its_version_and_the_register_is_not_disturbed() {
    for (kind, promise) in [(Kind::Scan, Promise::Pinned), (Kind::Page, Promise::WholePage)] {
        let held = history(transaction(kind, &[Blue, Blue]));
        assert_eq!(broken(&held), []);
        assert_eq!(check_history(&held).of(promise).map(|it| it.checked), Some(2));
        let mixed = history(transaction(kind, &[Blue, Green]));
        assert_eq!(broken(&mixed), [(promise, 1)]);
        let text = &check_history(&mixed).violations[0].text;
        assert!(text.contains("began on blue with request 1, but green answered"), "{text}");
    }
}

#[test]
fn the_first_request_of_a_transaction_and_others_get_the_active_color() {
    let mut late = transaction(Kind::Scan, &[]);
    late[0] = Request { began: 200, head: 210, ended: 210, ..late[0] };
    assert_eq!(broken(&history(late)), [(Promise::Register, 1)]);
    let mut other = transaction(Kind::Scan, &[Blue]);
    other.push(request(9, Kind::Short, Blue, 200, 210, 210));
    assert_eq!(broken(&history(other)), [(Promise::Register, 1)]);
}

#[test]
fn a_missing_asset_is_no_whole_page_and_a_failed_call_is_not_answered() {
    let mut page = transaction(Kind::Page, &[Green]);
    page[1].outcome = Outcome::ErrorStatus(404);
    assert_eq!(broken(&history(page)), [(Promise::WholePage, 1)]);
    let mut scan = transaction(Kind::Scan, &[Blue]);
    scan[1].outcome = Outcome::ErrorStatus(503);
    assert_eq!(broken(&history(scan)), [(Promise::Answered, 1)]);
    let mut scan = transaction(Kind::Scan, &[Blue]);
    scan[1].outcome = Outcome::ErrorStatus(404);
    assert_eq!(
        broken(&history(scan)),
        [(Promise::Answered, 1)],
        "only an asset is asked elsewhere"
    );
}

#[test]
fn a_color_without_its_endpoint_excuses_the_other_version() {
    let mut mixed = history(transaction(Kind::Scan, &[Green]));
    let kill = |color| Kill {
        process: KilledProcess::Upstream { service: 0, color, instance: 1, was_last: true },
        from: 50,
        until: 60,
    };
    mixed.kills = vec![kill(Green)];
    assert_eq!(broken(&mixed), [(Promise::Pinned, 1)], "the other color was killed");
    mixed.kills = vec![kill(Blue)];
    assert_eq!(broken(&mixed), []);
}

#[test]
fn an_asset_may_reach_both_colors_after_a_flip_and_nothing_else_may() {
    for (kind, expected) in [(Kind::Page, &[][..]), (Kind::Scan, &[(Promise::Once, 1)])] {
        let mut twice = history(transaction(kind, &[Blue]));
        twice.arrived = Some(vec![1, 2, 2]);
        assert_eq!(broken(&twice), expected, "{kind:?}");
        twice.arrived = Some(vec![1, 2, 2, 2]);
        assert_eq!(broken(&twice), [(Promise::Once, 1)], "{kind:?}");
    }
    let mut before = history(transaction(Kind::Page, &[Blue]));
    before.requests[1] = Request { began: 40, head: 50, ended: 50, ..before.requests[1] };
    before.arrived = Some(vec![1, 2, 2]);
    assert_eq!(broken(&before), [(Promise::Once, 1)], "there was no flip");
}

#[test]
fn a_websocket_may_only_be_closed_after_its_color_was_replaced() {
    let moved = |color, began, moved| {
        let socket = request(1, Kind::Ws, color, began, began + 10, moved);
        history(vec![Request { moved, ..socket }])
    };
    assert_eq!(broken(&moved(Blue, 20, 200)), []);
    assert_eq!(broken(&moved(Blue, 20, 90)), [(Promise::Kept, 1)], "before the flip");
    assert_eq!(broken(&moved(Green, 200, 300)), [(Promise::Kept, 1)], "green was not replaced");
}

/// A scan began on blue, and blue was replaced at 10 s. Pins are valid for 3 s.
fn with_pins(drained: u64) -> History {
    let flip = Flip { generation: Some(7), ..flip(Green, 10 * SECOND, 10 * SECOND + 5) };
    let mut history = history(vec![Request {
        transaction: 1,
        ..request(1, Kind::Scan, Blue, 8 * SECOND, 8 * SECOND + 5, 8 * SECOND + 6)
    }]);
    history.flips = vec![flip];
    history.ended = 20 * SECOND;
    history.pin_age = Some(3 * SECOND);
    let event = DrainedEvent { service: 0, color: Blue, generation: 7, received: drained };
    history.drained = Some(vec![event]);
    history
}

#[test]
fn a_color_is_drained_when_its_pins_have_ended_and_not_before() {
    assert_eq!(broken(&with_pins(13 * SECOND + 9)), []);
    assert_eq!(broken(&with_pins(13 * SECOND + 400_000_000)), []);
    assert_eq!(broken(&with_pins(12 * SECOND)), [(Promise::Drained, 1)], "too early");
    assert_eq!(broken(&with_pins(14 * SECOND)), [(Promise::Drained, 1)], "too late");
    let mut missing = with_pins(0);
    missing.drained = Some(Vec::new());
    assert_eq!(broken(&missing), [(Promise::Drained, 1)]);
    // Without a pin, the color may be drained at once.
    let mut unpinned = with_pins(10 * SECOND + 9);
    unpinned.requests[0].kind = Kind::Short;
    unpinned.requests[0].transaction = 0;
    assert_eq!(broken(&unpinned), []);
}
