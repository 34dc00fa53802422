//! Where transactions go, over flips, rollbacks, changed pools and time.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn settings() -> PinSettings {
    PinSettings {
        start: Vec::new(),
        carrier: PinCarrier::Cookie,
        max_age: 15 * MINUTE,
        idle: None,
        max_share: 100,
        group: None,
        domain: None,
        makes_private: false,
    }
}

/// Pins with this history, and the color of the window.
fn pins(
    settings: PinSettings,
    history: &[(u64, Color)],
    since: [u64; 2],
    window: Option<(Color, Instant)>,
) -> ServicePins {
    let span = |it: &(u64, Color)| Span { from: Generation(it.0), color: it.1 };
    let history: Arc<[Span]> = history.iter().map(span).collect();
    let keys = vec![PinKey { id: 1, secret: [3; 16] }];
    let name = "web".parse().expect("a name");
    let activity = Arc::new(PinActivity::new([4; 16], true));
    let max_age = settings.max_age;
    let window = window.map(|(color, retired)| PinWindow {
        color,
        retired_ms: 1,
        retired,
        until: retired + max_age,
    });
    let since = since.map(Generation);
    ServicePins::new(&name, Arc::new(settings), keys, history, since, activity).with_window(window)
}

fn pin(generation: u64) -> Carried {
    Carried::Pin(Pin { begin: begin(generation), id: generation })
}

fn begin(generation: u64) -> Begin {
    Begin { generation: Generation(generation), order: 0, on_candidate: false }
}

use Color::{Blue, Green};

#[test]
fn a_transaction_stays_on_the_color_that_was_active_when_it_began() {
    let now = Instant::now();
    let after_flip = pins(settings(), &[(2, Blue), (5, Green)], [0, 0], Some((Blue, now)));
    let found = [1, 2, 4, 5, 6].map(|it| after_flip.follow(pin(it), now));
    assert_eq!(found, [None, Some(Blue), Some(Blue), Some(Green), Some(Green)]);
    // Without a window there are no pins to a color that is not active.
    let later = pins(settings(), &[(2, Blue), (5, Green)], [0, 0], None);
    let found = [2, 4, 5, 6].map(|it| later.follow(pin(it), now));
    assert_eq!(found, [None, None, Some(Green), Some(Green)]);
}

#[test]
fn a_pin_older_than_its_pool_is_void() {
    let now = Instant::now();
    // Blue was set anew at generation 4, while it was not active, and became active at 6.
    let history = [(0, Blue), (2, Green), (6, Blue), (8, Green)];
    let it = pins(settings(), &history, [4, 0], Some((Blue, now)));
    let found = [1, 3, 6, 7, 8].map(|generation| it.follow(pin(generation), now));
    assert_eq!(found, [None, Some(Green), Some(Blue), Some(Blue), Some(Green)]);
}

#[test]
fn after_a_flip_and_a_flip_back_every_transaction_has_its_version() {
    let now = Instant::now();
    let history = [(0, Blue), (5, Green), (7, Blue)];
    let it = pins(settings(), &history, [0, 0], Some((Green, now)));
    let found = [4, 5, 6, 7].map(|generation| it.follow(pin(generation), now));
    assert_eq!(found, [Some(Blue), Some(Green), Some(Green), Some(Blue)]);
    // A rollback has ended the pins to green.
    let it = pins(settings(), &history, [0, 7], None);
    let found = [4, 5, 6, 7].map(|generation| it.follow(pin(generation), now));
    assert_eq!(found, [Some(Blue), None, None, Some(Blue)]);
}

#[test]
fn an_unused_pin_lapses_and_a_used_one_does_not() {
    let flip = Instant::now();
    let idle = PinSettings { idle: Some(MINUTE), ..settings() };
    for carrier in [PinCarrier::Cookie, PinCarrier::Header("x-scan".into())] {
        let of_header = carrier != PinCarrier::Cookie;
        let settings = PinSettings { carrier, ..idle.clone() };
        let it = pins(settings, &[(0, Blue), (5, Green)], [0, 0], Some((Blue, flip)));
        let carried = |name: &str| match of_header {
            true => Carried::Member(it.activity.members().key(name.as_bytes(), b"")),
            false => {
                let id = u64::from(name.as_bytes()[0]);
                Carried::Pin(Pin { begin: begin(3), id })
            }
        };
        for name in ["used", "lazy", "never"] {
            if let Carried::Member(key) = carried(name) {
                it.begin(key, begin(3), flip);
            }
        }
        for half_minutes in 1..20 {
            let now = flip + half_minutes * MINUTE / 2;
            assert_eq!(it.follow(carried("used"), now), Some(Blue), "{half_minutes}");
        }
        assert_eq!(it.follow(carried("lazy"), flip + MINUTE), Some(Blue));
        assert_eq!(it.follow(carried("lazy"), flip + 3 * MINUTE), None);
        assert_eq!(it.follow(carried("lazy"), flip + 3 * MINUTE), None, "it does not come back");
        assert_eq!(it.follow(carried("never"), flip + 2 * MINUTE), None);
        assert!(it.is_window_needed(flip + 10 * MINUTE), "one is in use");
        assert!(!it.is_window_needed(flip + 12 * MINUTE), "all have lapsed");
    }
}

#[test]
fn the_window_lasts_for_as_long_as_a_pin_can() {
    let flip = Instant::now();
    let window = Some((Blue, flip));
    let history = [(0, Blue), (5, Green)];
    let cookies = pins(settings(), &history, [0, 0], window);
    assert!(cookies.is_window_needed(flip + 14 * MINUTE));
    assert!(!cookies.is_window_needed(flip + 15 * MINUTE));
    cookies.activity().set_has_pins(Blue, false);
    assert!(!cookies.is_window_needed(flip), "there was never a pin");
    let named = PinSettings { carrier: PinCarrier::Query("scan".into()), ..settings() };
    let named = pins(named, &history, [0, 0], window);
    assert_eq!((named.pinned(flip), cookies.pinned(flip)), (Some(0), None));
    assert!(!named.is_window_needed(flip), "there is no transaction");
    let key = |it: u8| named.activity().members().key(&[it], b"");
    named.begin(key(1), begin(4), flip);
    named.begin(key(2), begin(5), flip);
    assert_eq!(named.pinned(flip), Some(1), "the other one is on the active color");
    assert!(named.is_window_needed(flip + 14 * MINUTE));
}

#[test]
fn a_lapsed_share_is_not_pinned_any_more() {
    let now = Instant::now();
    let some = PinSettings { max_share: 10, ..settings() };
    let it = pins(some, &[(0, Blue), (5, Green)], [0, 0], Some((Blue, now)));
    let pin = |order| Carried::Pin(Pin { begin: Begin { order, ..begin(3) }, id: 0 });
    for order in 0..100 {
        it.activity().count_request();
        assert_eq!(it.follow(pin(order), now), Some(Blue));
    }
    it.activity().limit_share(10);
    assert_eq!([89, 90].map(|order| it.follow(pin(order), now)), [None, Some(Blue)]);
    let active = Carried::Pin(Pin { begin: begin(6), id: 0 });
    assert_eq!(it.follow(active, now), Some(Green), "the share is that of the color before");
}

#[test]
fn forged_texts_say_nothing() {
    let it = pins(settings(), &[(0, Blue)], [0, 0], None);
    let text = it.sign(begin(0), 9).expect("a key");
    assert!(it.read(text.as_bytes(), &LastPin::default()).is_some_and(|pin| pin.id == 9));
    assert!(it.read(b"blue", &LastPin::default()).is_none());
    assert!(it.read(&text.as_bytes()[1..], &LastPin::default()).is_none());
}

/// A pin to the candidate.
fn candidate(generation: u64) -> Carried {
    let begin = Begin { on_candidate: true, ..begin(generation) };
    Carried::Pin(Pin { begin, id: generation })
}

#[test]
fn a_pin_to_a_candidate_is_valid_while_it_is_one_and_when_it_has_become_active() {
    let now = Instant::now();
    let during = pins(settings(), &[(0, Blue)], [0, 0], None);
    let during = during.with_candidate(Some((Green, Generation(5))));
    let found = [4, 5, 6].map(|it| during.follow(candidate(it), now));
    assert_eq!(found, [None, Some(Green), None], "only of this gradual promotion");
    assert_eq!(during.follow(pin(6), now), Some(Blue));
    let after = pins(settings(), &[(0, Blue), (8, Green)], [0, 0], Some((Blue, now)));
    assert_eq!(after.follow(candidate(6), now), Some(Green));
    assert_eq!(after.follow(pin(6), now), Some(Blue), "that page is of blue");
    let flipped_back = [(0, Blue), (8, Green), (9, Blue)];
    let open = pins(settings(), &flipped_back, [0, 0], Some((Green, now)));
    assert_eq!(open.follow(candidate(6), now), Some(Green), "until its pins end");
    let closed = pins(settings(), &flipped_back, [0, 0], None);
    assert_eq!(closed.follow(candidate(6), now), None);
}

#[test]
fn a_pin_to_a_candidate_that_was_taken_back_is_void_for_good() {
    let now = Instant::now();
    let taken_back = pins(settings(), &[(0, Blue)], [0, 7], None);
    assert_eq!(taken_back.follow(candidate(6), now), None);
    let again = taken_back.with_candidate(Some((Green, Generation(8))));
    assert_eq!(again.follow(candidate(6), now), None);
    let promoted = pins(settings(), &[(0, Blue), (9, Green)], [0, 7], Some((Blue, now)));
    assert_eq!(promoted.follow(candidate(6), now), None);
    // A color that was active once and is not the candidate is reached by none.
    let old = pins(settings(), &[(0, Green), (3, Blue)], [0, 0], Some((Green, now)));
    assert_eq!(old.follow(candidate(6), now), None, "it was no candidate at 6");
}
