//! Each promise, broken and kept.

use super::*;
use crate::{
    color::Color::{self, Blue, Green},
    record::{
        DrainedEvent, Failure, Flip, FlipOutcome, History, Kill, KilledProcess, Kind, Outcome,
        Request, UnnumberedRequest,
    },
};

/// One service that is flipped to green between 100 and 110, and drained of blue at 500.
pub(super) fn history(requests: Vec<Request>) -> History {
    History {
        services: vec!["web".to_owned()],
        initial: vec![Blue],
        ended: 1000,
        instances: [(1, (0, Blue)), (2, (0, Green)), (4, (0, Green)), (5, (0, Green))].into(),
        arrived: Some(requests.iter().map(|it| it.id).collect()),
        requests,
        flips: vec![flip(Green, 100, 110)],
        drained: Some(vec![DrainedEvent { service: 0, color: Blue, generation: 7, received: 500 }]),
        ..History::default()
    }
}

pub(super) fn flip(color: Color, called: u64, acknowledged: u64) -> Flip {
    Flip {
        changes: vec![(0, color)],
        called,
        acknowledged,
        outcome: FlipOutcome::Acknowledged,
        generation: Some(7),
        error: None,
        lost_response: false,
        is_automatic: false,
    }
}

pub(super) fn request(
    id: u64,
    kind: Kind,
    color: Color,
    began: u64,
    head: u64,
    ended: u64,
) -> Request {
    Request {
        id,
        service: 0,
        kind,
        outcome: Outcome::Complete,
        color: Some(color),
        instance: if color == Blue { 1 } else { 2 },
        due: began,
        began,
        received: 0,
        head,
        ended,
        active_at: 0,
        moved: 0,
        transaction: 0,
        client: 0,
    }
}

pub(super) fn broken(history: &History) -> Vec<(Promise, u64)> {
    let findings = check_history(history).findings;
    let broken = findings.iter().filter(|it| it.broken > 0);
    broken.map(|it| (it.promise, it.broken)).collect()
}

fn excused(history: &History) -> u64 {
    check_history(history).findings.iter().map(|it| it.excused).sum()
}

#[test]
fn a_good_history_is_clean_and_every_promise_is_checked() {
    let mut socket = request(2, Kind::Ws, Blue, 20, 30, 490);
    socket.active_at = 480;
    let preview = request(3, Kind::RefusedPreview, Green, 300, 310, 310);
    let history = history(vec![request(1, Kind::Short, Green, 200, 210, 210), socket, preview]);
    let verdict = check_history(&history);
    assert!(verdict.is_clean() && verdict.violations.is_empty(), "{verdict:?}");
    let unchecked: Vec<_> =
        verdict.findings.iter().filter(|it| it.checked == 0).map(|it| it.promise).collect();
    assert_eq!(
        unchecked,
        [
            Promise::Together,
            Promise::Gated,
            Promise::Guarded,
            Promise::Pinned,
            Promise::WholePage,
            Promise::Sticky,
        ]
    );
    assert_eq!(verdict.findings.len(), Promise::ALL.len());
}

#[test]
fn each_bad_outcome_breaks_its_own_promise() {
    for (kind, outcome, head, promise) in [
        (Kind::Short, Outcome::NoResponse, 0, Promise::Answered),
        (Kind::Short, Outcome::NotConnected, 0, Promise::Answered),
        (Kind::Short, Outcome::ErrorStatus(502), 210, Promise::Answered),
        (Kind::Short, Outcome::UnknownResponder, 210, Promise::Answered),
        (Kind::Short, Outcome::TimedOut, 0, Promise::Answered),
        (Kind::Short, Outcome::Truncated, 210, Promise::Whole),
        (Kind::Download, Outcome::Truncated, 210, Promise::Kept),
        (Kind::Sse, Outcome::TimedOut, 210, Promise::Kept),
        (Kind::Ws, Outcome::ColorChanged, 210, Promise::Kept),
        (Kind::Ws, Outcome::EndpointChanged, 210, Promise::Kept),
        (Kind::Download, Outcome::Corrupted, 210, Promise::Whole),
        (Kind::Download, Outcome::TrailersLost, 210, Promise::Whole),
        (Kind::Preview, Outcome::WrongColor, 210, Promise::Private),
    ] {
        let bad = Request { outcome, ..request(1, kind, Green, 200, head, 220) };
        assert_eq!(broken(&history(vec![bad])), [(promise, 1)], "{kind:?} {outcome:?}");
    }
}

#[test]
fn the_old_color_after_the_acknowledgement_is_found_and_named() {
    let history = history(vec![request(9, Kind::Short, Blue, 120, 130, 130)]);
    assert_eq!(broken(&history), [(Promise::Register, 1)]);
    let text = &check_history(&history).violations[0].text;
    assert!(text.contains("blue answered web short 9, begun 0.000 ms after"), "{text}");
}

#[test]
fn a_color_before_it_is_active_and_a_granted_public_preview_break_private() {
    let early = request(1, Kind::Short, Green, 10, 20, 20);
    let granted = request(2, Kind::RefusedPreview, Blue, 200, 210, 210);
    assert_eq!(broken(&history(vec![early, granted])), [(Promise::Private, 2)]);
    let refused = request(3, Kind::RefusedPreview, Green, 200, 210, 210);
    let tester = request(4, Kind::Preview, Blue, 200, 210, 210);
    assert_eq!(broken(&history(vec![refused, tester])), []);
}

/// A public preview that a proxy granted during a flip once broke `register`: its response looked like a read of the
/// active color.
#[test]
fn a_granted_public_preview_is_not_a_read_of_the_active_color() {
    let ahead = request(1, Kind::Short, Green, 101, 102, 102);
    let mut granted = request(2, Kind::RefusedPreview, Blue, 103, 104, 104);
    granted.active_at = 510;
    let late = request(3, Kind::RefusedPreview, Blue, 120, 130, 130);
    assert_eq!(broken(&history(vec![ahead, granted])), []);
    assert_eq!(broken(&history(vec![ahead, granted, late])), [(Promise::Private, 1)]);
    // Without a preview header, the same responses break `register`.
    let behind = request(4, Kind::Short, Blue, 103, 104, 104);
    assert_eq!(broken(&history(vec![ahead, behind])), [(Promise::Register, 1)]);
}

#[test]
fn a_request_that_arrives_twice_or_never_is_found() {
    let one = request(1, Kind::Short, Green, 200, 210, 210);
    let mut history = history(vec![one]);
    history.arrived = Some(vec![1, 1]);
    assert_eq!(broken(&history), [(Promise::Once, 1)]);
    history.arrived = Some(Vec::new());
    assert_eq!(broken(&history), [(Promise::Once, 1)]);
    // A request without a response need not have arrived.
    history.requests[0] = Request { head: 0, color: None, outcome: Outcome::NoResponse, ..one };
    assert_eq!(broken(&history), [(Promise::Answered, 1)]);
    history.arrived = None;
    let verdict = check_history(&history);
    assert!(verdict.of(Promise::Once).is_some_and(|it| it.unchecked_reason.is_some()));
}

#[test]
fn a_drained_event_before_the_last_request_ended_is_found() {
    let mut socket = request(1, Kind::Ws, Blue, 20, 30, 700);
    socket.active_at = 501;
    assert_eq!(broken(&history(vec![socket])), [(Promise::Drained, 1)]);
    socket.active_at = 499;
    assert_eq!(broken(&history(vec![socket])), []);
    // A request that began during the flip and got the old color is in flight on the old color.
    let between = Request { active_at: 600, ..request(1, Kind::Short, Blue, 95, 600, 600) };
    assert_eq!(broken(&history(vec![between])), [(Promise::Drained, 1)]);
    // A tester may ask for it at any time.
    let tester = Request { kind: Kind::Preview, ..between };
    assert_eq!(broken(&history(vec![tester])), []);
    // If the color is active again before the response, it is not known before which flip the request was routed.
    let mut history = history(vec![between]);
    history.flips.push(flip(Blue, 550, 560));
    history.drained.as_mut().expect("events").push(DrainedEvent {
        service: 0,
        color: Green,
        generation: 8,
        received: 570,
    });
    assert_eq!(broken(&history), []);
}

#[test]
fn a_drained_event_covers_all_earlier_flips_and_no_later_ones() {
    let early = Request { active_at: 650, ..request(1, Kind::Ws, Blue, 20, 30, 700) };
    let later = Request { active_at: 950, ..request(2, Kind::Ws, Blue, 320, 330, 960) };
    let mut history = history(vec![early, later]);
    let flip = |color, called, generation| Flip {
        generation: Some(generation),
        ..flip(color, called, called + 10)
    };
    history.flips = vec![flip(Green, 100, 7), flip(Blue, 300, 8), flip(Green, 400, 9)];
    // There is no event of the first flip. The event after the second one means that all requests have ended.
    let drained_event =
        |generation, received| vec![DrainedEvent { service: 0, color: Blue, generation, received }];
    history.drained = Some(drained_event(9, 640));
    assert_eq!(broken(&history), [(Promise::Drained, 2)]);
    history.drained = Some(drained_event(7, 640));
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    history.drained = Some(drained_event(9, 955));
    assert_eq!(broken(&history), []);
}

#[test]
fn a_failed_flip_is_found_and_its_unknown_result_breaks_nothing_else() {
    let mut history = history(vec![
        request(1, Kind::Short, Blue, 120, 130, 130),
        request(2, Kind::Short, Green, 140, 150, 150),
    ]);
    history.flips[0].outcome = FlipOutcome::Unknown;
    assert_eq!(broken(&history), [(Promise::Acknowledged, 1)]);
    // From the next flip that succeeds on, the active color is known again.
    history.flips.push(flip(Blue, 160, 170));
    history.requests.push(request(3, Kind::Short, Green, 180, 190, 190));
    (history.arrived, history.drained) = (None, None);
    assert_eq!(broken(&history), [(Promise::Register, 1), (Promise::Acknowledged, 1)]);
}

#[test]
fn a_refused_flip_changes_nothing() {
    let mut history = history(vec![request(1, Kind::Short, Green, 120, 130, 130)]);
    history.flips[0].outcome = FlipOutcome::Refused;
    assert_eq!(broken(&history), [(Promise::Private, 1), (Promise::Acknowledged, 1)]);
}

#[test]
fn a_kill_excuses_only_the_requests_that_it_affected() {
    let lost = Request {
        outcome: Outcome::NoResponse,
        color: None,
        instance: 0,
        ..request(1, Kind::Short, Green, 200, 0, 220)
    };
    let mut history = history(vec![lost]);
    let kill = |victim, from, until| Kill { process: victim, from, until };
    history.kills = vec![kill(KilledProcess::Proxy, 210, 300)];
    assert_eq!((broken(&history), excused(&history)), (vec![], 1));
    history.kills = vec![kill(KilledProcess::Proxy, 230, 300)];
    assert_eq!(broken(&history), [(Promise::Answered, 1)]);
    // A GET can be retried on another endpoint; an upload cannot.
    let upstream =
        KilledProcess::Upstream { service: 0, color: Green, instance: 4, was_last: false };
    history.kills = vec![kill(upstream, 210, 215)];
    assert_eq!(broken(&history), [(Promise::Answered, 1)]);
    history.requests[0].kind = Kind::Upload;
    assert_eq!((broken(&history), excused(&history)), (vec![], 1));
    history.kills = vec![kill(
        KilledProcess::Upstream { service: 1, color: Green, instance: 4, was_last: false },
        210,
        215,
    )];
    assert_eq!(broken(&history), [(Promise::Answered, 1)]);
    // A truncated response must come from the endpoint that was killed.
    let cut = Request {
        outcome: Outcome::Truncated,
        instance: 4,
        ..request(1, Kind::Download, Green, 200, 205, 220)
    };
    history.requests = vec![cut];
    history.kills = vec![kill(upstream, 210, 215)];
    assert_eq!((broken(&history), excused(&history)), (vec![], 1));
    history.requests[0].instance = 5;
    assert_eq!(broken(&history), [(Promise::Kept, 1)]);
}

#[test]
fn the_kill_of_an_inactive_color_excuses_nothing() {
    let lost = Request {
        outcome: Outcome::ErrorStatus(503),
        color: None,
        instance: 0,
        ..request(1, Kind::Short, Green, 200, 210, 210)
    };
    let last = |color| KilledProcess::Upstream { service: 0, color, instance: 4, was_last: true };
    for (color, is_excused) in [(Green, true), (Blue, false)] {
        let mut history = history(vec![lost]);
        history.kills = vec![Kill { process: last(color), from: 150, until: 300 }];
        assert_eq!(broken(&history).is_empty(), is_excused, "{color}");
    }
    // During a flip it may be either color.
    let between = Request { began: 100, ..lost };
    let mut history = history(vec![between]);
    history.kills = vec![Kill { process: last(Blue), from: 90, until: 300 }];
    assert_eq!((broken(&history), excused(&history)), (vec![], 1));
}

#[test]
fn a_kill_of_the_proxy_excuses_missing_data_but_no_wrong_data() {
    for (outcome, is_excused) in [
        (Outcome::Truncated, true),
        (Outcome::TimedOut, true),
        (Outcome::ErrorStatus(502), true),
        (Outcome::ErrorStatus(404), false),
        (Outcome::Corrupted, false),
        (Outcome::ColorChanged, false),
        (Outcome::EndpointChanged, false),
        (Outcome::UnknownResponder, false),
    ] {
        let bad = Request { outcome, ..request(1, Kind::Download, Green, 200, 210, 220) };
        let mut history = history(vec![bad]);
        history.kills = vec![Kill { process: KilledProcess::Proxy, from: 205, until: 300 }];
        assert_eq!(broken(&history).is_empty(), is_excused, "{outcome:?}");
    }
}

#[test]
fn a_response_of_another_pool_is_found() {
    let right = request(1, Kind::Short, Green, 200, 210, 210);
    assert_eq!(broken(&history(vec![Request { instance: 4, ..right }])), []);
    assert_eq!(broken(&history(vec![Request { instance: 1, ..right }])), [(Promise::Once, 1)]);
    // Nothing is known of an application that the drill did not start.
    let mut history = history(vec![Request { instance: 77, ..right }]);
    history.arrived = Some(Vec::new());
    assert_eq!(broken(&history), []);
}

#[test]
fn a_request_that_arrived_before_the_flip_was_routed_before_it() {
    // Its response came after a flip and a flip back, so the time of the response alone allows both colors.
    let slow = Request { received: 50, ..request(1, Kind::Upload, Green, 40, 400, 400) };
    assert_eq!(broken(&history(vec![Request { received: 0, ..slow }])), []);
    assert_eq!(broken(&history(vec![slow])), [(Promise::Private, 1)]);
}

#[test]
fn a_missing_drained_event_is_found() {
    let mut history = history(vec![request(1, Kind::Short, Green, 200, 210, 210)]);
    history.drained = Some(Vec::new());
    assert_eq!(broken(&history), [(Promise::Drained, 1)]);
    // A proxy that was killed since then sends no event.
    history.kills = vec![Kill { process: KilledProcess::Proxy, from: 300, until: 400 }];
    assert_eq!(broken(&history), []);
}

#[test]
fn a_request_without_a_number_is_found_unless_it_may_be_a_health_check() {
    let mut history = history(vec![request(1, Kind::Short, Green, 200, 210, 210)]);
    history.unnumbered = vec![UnnumberedRequest { instance: 1, at: 300, is_traffic: false }];
    assert_eq!(broken(&history), []);
    // In a demo, only the drill sends requests.
    history.is_exclusive = true;
    assert_eq!(broken(&history), [(Promise::Once, 1)]);
    history.is_exclusive = false;
    history.unnumbered.push(UnnumberedRequest { instance: 2, at: 320, is_traffic: true });
    assert_eq!(broken(&history), [(Promise::Once, 1)]);
    let text = &check_history(&history).violations[0].text;
    assert!(
        text.contains("a request without a number reached application 2 of web green"),
        "{text}"
    );
}

#[test]
fn a_number_that_was_never_sent_is_found_unless_it_is_from_before_the_load() {
    let mut history = history(vec![request(100, Kind::Short, Green, 200, 210, 210)]);
    history.arrived = Some(vec![0, 99, 100]);
    assert_eq!(broken(&history), []);
    history.arrived = Some(vec![100, 101]);
    assert_eq!(broken(&history), [(Promise::Once, 1)]);
}

#[test]
fn unsent_requests_break_no_promise_but_are_not_clean() {
    let unsent = Request {
        outcome: Outcome::NotSent,
        color: None,
        ..request(1, Kind::Short, Green, 200, 0, 200)
    };
    let verdict = check_history(&history(vec![unsent]));
    assert!(!verdict.is_clean() && verdict.not_sent == 1);
    assert_eq!(broken(&history(vec![unsent])), []);
}

#[test]
fn a_failed_call_breaks_a_promise_unless_the_proxy_was_killed() {
    let mut history = history(vec![request(1, Kind::Short, Green, 200, 210, 210)]);
    history.failures = vec![Failure { from: 300, until: 310, text: "no".to_owned() }];
    assert_eq!(broken(&history), [(Promise::Acknowledged, 1)]);
    history.kills = vec![Kill { process: KilledProcess::Proxy, from: 305, until: 400 }];
    assert_eq!((broken(&history), excused(&history)), (vec![], 1));
}

#[test]
fn a_kill_never_excuses_a_response_of_the_old_color() {
    let mut history = history(vec![request(1, Kind::Short, Blue, 220, 230, 230)]);
    history.kills = vec![Kill { process: KilledProcess::Proxy, from: 150, until: 210 }];
    assert_eq!(broken(&history), [(Promise::Register, 1)]);
}
