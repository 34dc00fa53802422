//! Which `drained` events are due, and when.

use super::{
    tests::{broken, flip, history, request},
    *,
};
use crate::{
    color::Color::{Blue, Green},
    record::{
        DrainedEvent, EventGaps, Flip, FlipOutcome, History, Kill, KilledProcess, Kind, Outcome,
        Request,
    },
};

const SECOND: u64 = 1_000_000_000;

/// Flipped to green at 10 s, to blue at 20 s and to green at 30 s. A WebSocket that began on blue ended at 12 s,
/// one that began on green at 21 s. The event of each flip came at once.
fn flips_with_streams() -> History {
    let flip = |color, seconds: u64| Flip {
        generation: Some(seconds),
        ..flip(color, seconds * SECOND, seconds * SECOND + 5)
    };
    let stream = |id, color, began: u64, ended: u64| {
        let began = began * SECOND;
        request(id, Kind::Ws, color, began, began + 5, ended * SECOND)
    };
    let drained_event = |color, generation, received: u64| DrainedEvent {
        service: 0,
        color,
        generation,
        received: received * SECOND + 9,
    };
    let mut history = history(vec![stream(1, Blue, 9, 12), stream(2, Green, 19, 21)]);
    history.ended = 40 * SECOND;
    history.flips = vec![flip(Green, 10), flip(Blue, 20), flip(Green, 30)];
    history.drained = Some(vec![
        drained_event(Blue, 10, 12),
        drained_event(Green, 20, 21),
        drained_event(Blue, 30, 30),
    ]);
    history
}

fn drained(history: &mut History) -> &mut Vec<DrainedEvent> {
    history.drained.as_mut().expect("events")
}

#[test]
fn every_flip_needs_its_drained_event_not_only_the_last() {
    assert_eq!(broken(&flips_with_streams()), []);
    for missing in 0..3 {
        let mut history = flips_with_streams();
        drained(&mut history).remove(missing);
        assert_eq!(broken(&history), [(Promise::Drained, 1)], "{missing}");
    }
    let mut history = flips_with_streams();
    drained(&mut history).remove(0);
    let text = &check_history(&history).violations[0].text;
    let expected = "no `drained` event of web blue came after the flip called at 10.0000 s: its last request ended at \
                    12.0000 s, and the color was not active again before 20.0000 s";
    assert_eq!(text, expected);
}

#[test]
fn a_color_that_becomes_active_before_it_is_drained_needs_no_event() {
    let mut history = flips_with_streams();
    drained(&mut history).remove(0);
    // The last request ends when the flip back is called, or so shortly before that no event is due.
    for ended in [21 * SECOND, 20 * SECOND - BOUND, 20 * SECOND - 1] {
        history.requests[0].ended = ended;
        assert_eq!(broken(&history), [], "{ended}");
    }
    history.requests[0].ended = 20 * SECOND - BOUND - 1;
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    // A request without an answer may have been on either color.
    let unknown =
        Request { color: None, instance: 0, outcome: Outcome::NoResponse, ..history.requests[0] };
    history.requests.push(Request { id: 3, ended: 20 * SECOND, ..unknown });
    assert_eq!(broken(&history), [(Promise::Answered, 1)]);
    // A request that began after the acknowledgement was on the other color.
    history.requests[2].began = 11 * SECOND;
    assert_eq!(broken(&history), [(Promise::Answered, 1), (Promise::Drained, 1)]);
    // A flip of unknown outcome may have made the color active again.
    history.requests.pop();
    let unknown = Flip { outcome: FlipOutcome::Unknown, ..flip(Blue, 12 * SECOND, 13 * SECOND) };
    history.flips.insert(1, unknown);
    assert!(!broken(&history).iter().any(|it| it.0 == Promise::Drained), "{:?}", broken(&history));
}

#[test]
fn previews_delay_a_drain_only_if_they_began_before_the_flip() {
    let mut history = flips_with_streams();
    drained(&mut history).remove(0);
    let mut tester = request(3, Kind::Preview, Blue, 11 * SECOND, 11 * SECOND + 5, 20 * SECOND);
    history.requests.push(tester);
    history.arrived = None;
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    tester.began = 10 * SECOND;
    history.requests[2] = tester;
    assert_eq!(broken(&history), []);
}

#[test]
fn the_event_may_carry_an_earlier_or_a_later_generation() {
    // The stream of before the first flip is there until after the third.
    let mut history = flips_with_streams();
    history.requests[0].ended = 33 * SECOND;
    let of = |generation, received: u64| {
        vec![DrainedEvent { service: 0, color: Blue, generation, received }]
    };
    let green = drained(&mut history)[1];
    for (generation, received, is_good) in [
        (10, 33 * SECOND + 9, true),
        (30, 33 * SECOND + 9, true),
        (31, 33 * SECOND + 9, true),
        (10, 34 * SECOND, false),
        (30, 34 * SECOND, false),
        // The event came before that flip.
        (10, 25 * SECOND, false),
    ] {
        history.drained = Some(of(generation, received));
        drained(&mut history).push(green);
        drained(&mut history).sort_by_key(|it| it.received);
        assert_eq!(broken(&history).is_empty(), is_good, "{generation} {received}");
    }
}

#[test]
fn a_late_drained_event_is_found_unless_the_drill_itself_was_late() {
    let late = |by: u64| {
        let mut history = flips_with_streams();
        drained(&mut history)[0].received = 12 * SECOND + by;
        history
    };
    assert_eq!(broken(&late(BOUND)), []);
    let mut history = late(BOUND + 1);
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    let text = &check_history(&history).violations[0].text;
    assert!(
        text.contains("came 500.000 ms after the end of its last request (at 12.0000 s)"),
        "{text}"
    );
    assert_eq!(
        check_history(&history).of(Promise::Drained).map(|it| it.max_delay),
        Some(BOUND + 1)
    );
    history.event_gaps.delays = vec![(12 * SECOND + 50, 100)];
    assert_eq!(broken(&history), []);
    history.event_gaps.delays = vec![(12 * SECOND - 1, 100), (13 * SECOND, 100)];
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    // Also if the color is active again when the event comes.
    assert_eq!(broken(&late(9 * SECOND)), [(Promise::Drained, 1)]);
    // A flip that is acknowledged after the last request ended.
    let mut history = late(BOUND + 1);
    history.flips[0].acknowledged = 12 * SECOND + 1;
    assert_eq!(broken(&history), []);
}

#[test]
fn events_that_the_drill_could_not_receive_are_not_judged() {
    for missing in [true, false] {
        let mut history = flips_with_streams();
        match missing {
            true => drop(drained(&mut history).remove(0)),
            false => drained(&mut history)[0].received = 15 * SECOND,
        }
        history.event_gaps = EventGaps { missed: vec![(0, 10 * SECOND)], delays: Vec::new() };
        assert_eq!(broken(&history), []);
        history.event_gaps.missed = vec![(0, 9 * SECOND), (31 * SECOND, u64::MAX)];
        assert_eq!(broken(&history), [(Promise::Drained, 1)]);
        let kill = |from: u64| Kill { process: KilledProcess::Proxy, from, until: from + SECOND };
        history.kills = vec![kill(11 * SECOND)];
        assert_eq!(broken(&history), []);
        history.kills = vec![kill(16 * SECOND)];
        assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    }
    // The drill stopped before the last event was due.
    let mut history = flips_with_streams();
    drained(&mut history).pop();
    history.event_gaps.missed = vec![(30 * SECOND + BOUND, u64::MAX)];
    assert_eq!(broken(&history), []);
    history.event_gaps.missed = vec![(31 * SECOND, u64::MAX)];
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
}
