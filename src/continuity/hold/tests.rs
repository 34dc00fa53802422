use std::{
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
};

use super::*;

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn term(id: u64, places: usize) -> HoldTerm {
    HoldTerm { id, owner: "ci".into(), began_ms: 0, set_ms: 0, until_ms: 10_000, places }
}

/// A hold of 10 s.
fn hold(now: Instant, places: usize) -> Arc<Hold> {
    let limits = Arc::new(HoldLimits::new(1000));
    Arc::new(Hold::new(term(1, places), now + 10 * SECOND, &limits))
}

fn enter(hold: &Arc<Hold>, now: Instant) -> Option<HoldTicket> {
    match hold.enter(None, 1, now) {
        Entry::Wait(ticket) => Some(ticket),
        Entry::Open | Entry::Refused => None,
    }
}

fn poll(ticket: &HoldTicket, now: Instant) -> Turn {
    ticket.poll_turn(Waker::noop(), now)
}

#[test]
fn requests_go_in_order_one_after_the_other_at_a_bounded_rate() {
    let start = Instant::now();
    let hold = hold(start, 1000);
    let [one, two, three] = [(); 3].map(|()| enter(&hold, start).expect("a place"));
    assert_eq!(poll(&one, start), Turn::Wait(Some(start + 10 * SECOND)));
    assert_eq!(poll(&two, start), Turn::Wait(None), "only the first one looks at the time");
    let now = start + SECOND;
    hold.release(now);
    assert_eq!(poll(&two, now), Turn::Wait(None));
    assert_eq!(poll(&one, now), Turn::Go);
    assert_eq!(poll(&two, now), Turn::Wait(None), "the one before is not admitted yet");
    drop(one);
    let next = now + Duration::from_millis(2);
    assert_eq!(poll(&two, now), Turn::Wait(Some(next)), "1000 places in 2 s");
    assert_eq!(poll(&two, next), Turn::Go);
    drop(two);
    // A new request goes behind those that wait.
    let new = enter(&hold, next).expect("it waits");
    assert_eq!(poll(&new, next + SECOND), Turn::Wait(None));
    assert_eq!(poll(&three, next + SECOND), Turn::Go);
    drop(three);
    assert_eq!(poll(&new, next + SECOND), Turn::Go, "a late one catches up");
    assert!(!hold.is_open());
    drop(new);
    assert!(hold.is_open() && enter(&hold, next + SECOND).is_none());
}

#[test]
fn with_few_places_at_least_200_go_per_second_and_after_4_s_all() {
    let start = Instant::now();
    let hold = hold(start, 10);
    let tickets: Vec<_> = (0..10).filter_map(|_| enter(&hold, start)).collect();
    assert_eq!(tickets.len(), 10);
    hold.release(start);
    assert_eq!(poll(&tickets[0], start), Turn::Go);
    let mut tickets = tickets.into_iter();
    drop(tickets.next());
    let second = tickets.next().expect("another");
    assert_eq!(poll(&second, start), Turn::Wait(Some(start + Duration::from_millis(5))));
    let late = start + 4 * SECOND;
    for ticket in [second].into_iter().chain(tickets) {
        assert_eq!(poll(&ticket, late), Turn::Go);
    }
    assert!(hold.is_open());
}

#[test]
fn a_hold_ends_by_itself_and_then_new_requests_do_not_wait() {
    let start = Instant::now();
    let quiet = hold(start, 10);
    let end = start + 10 * SECOND;
    assert_eq!(quiet.snapshot(end - SECOND).remaining, SECOND);
    assert!(matches!(quiet.enter(None, 1, end), Entry::Open) && quiet.is_open());
    let busy = hold(start, 10);
    let ticket = enter(&busy, start).expect("a place");
    assert_eq!(poll(&ticket, end - Duration::from_millis(1)), Turn::Wait(Some(end)));
    assert_eq!(poll(&ticket, end), Turn::Go);
    drop(ticket);
    assert!(busy.is_open());
}

#[test]
fn places_and_memory_are_bounded_and_given_back() {
    let now = Instant::now();
    let hold = hold(now, 2);
    let one = enter(&hold, now).expect("a place");
    let two = enter(&hold, now).expect("a place");
    assert!(matches!(hold.enter(None, 1, now), Entry::Refused), "every place is taken");
    drop(two);
    assert!(matches!(hold.enter(None, 1000, now), Entry::Refused), "more than all memory");
    let rest = hold.enter(None, 999, now);
    assert!(matches!(rest, Entry::Wait(_)), "the rest of the memory");
    drop((one, rest));
    assert_eq!(hold.snapshot(now).waiting, 0);
    assert!(matches!(hold.enter(None, 1000, now), Entry::Wait(_)), "all is given back");
}

#[test]
fn one_client_cannot_take_every_place() {
    let now = Instant::now();
    let limits = Arc::new(HoldLimits::new(usize::MAX));
    let hold = Arc::new(Hold::new(term(1, 100), now + SECOND, &limits));
    let client: IpAddr = "192.0.2.1".parse().expect("an address");
    let mut own = Vec::new();
    while let Entry::Wait(ticket) = hold.enter(Some(client), 1, now) {
        own.push(ticket);
    }
    assert_eq!(own.len(), 51);
    let other: IpAddr = "192.0.2.2".parse().expect("an address");
    assert!(matches!(hold.enter(Some(other), 1, now), Entry::Wait(_)));
    own.clear();
    assert!(matches!(hold.enter(Some(client), 1, now), Entry::Wait(_)), "they were given back");
}

#[test]
fn the_request_that_may_go_next_is_woken() {
    let start = Instant::now();
    let hold = hold(start, 10);
    let woken = [(); 3].map(|()| Arc::new(Woken::default()));
    let tickets = [(); 3].map(|()| enter(&hold, start).expect("a place"));
    let count = |place: usize| woken[place].0.load(Relaxed);
    for (ticket, woken) in tickets.iter().zip(&woken) {
        let _ = ticket.poll_turn(&Waker::from(Arc::clone(woken)), start);
    }
    let [one, two, three] = tickets;
    // The second one leaves: nothing changes for the others.
    drop(two);
    assert_eq!((count(0), count(2)), (0, 0));
    // The first one leaves: the next one looks at the time.
    drop(one);
    assert_eq!(count(2), 1);
    let waker = Waker::from(Arc::clone(&woken[2]));
    assert_eq!(three.poll_turn(&waker, start), Turn::Wait(Some(start + 10 * SECOND)));
    hold.release(start);
    assert_eq!(count(2), 2);
    assert_eq!(three.poll_turn(&waker, start), Turn::Go);
}

#[test]
fn an_extension_moves_the_end_and_the_same_term_does_not() {
    let start = Instant::now();
    let hold = hold(start, 10);
    let ticket = enter(&hold, start).expect("a place");
    let never = || -> Instant { unreachable!("it is the same term") };
    hold.begin(&term(1, 10), never, start + SECOND);
    assert_eq!(poll(&ticket, start), Turn::Wait(Some(start + 10 * SECOND)));
    let until = start + 30 * SECOND;
    let extended = HoldTerm { until_ms: 30_000, places: 20, ..term(1, 10) };
    hold.begin(&extended, || until, start);
    assert_eq!(poll(&ticket, start), Turn::Wait(Some(until)));
    assert_eq!(hold.snapshot(start).term, extended);
    // A new hold while the one before lets its requests go: they wait again.
    hold.release(start);
    hold.begin(&term(2, 10), || until, start);
    assert_eq!(poll(&ticket, start), Turn::Wait(Some(until)));
}

#[test]
fn a_flush_lets_all_go_at_once_and_the_hold_goes_on_after_it() {
    let start = Instant::now();
    let hold = hold(start, 1000);
    let tickets = [(); 3].map(|()| enter(&hold, start).expect("a place"));
    hold.flush();
    for ticket in tickets {
        assert_eq!(poll(&ticket, start), Turn::Go);
    }
    assert!(!hold.is_open(), "the hold stays");
    let never = || -> Instant { unreachable!("it is the same term") };
    hold.begin(&term(1, 1000), never, start);
    let ticket = enter(&hold, start).expect("a place");
    assert_eq!(poll(&ticket, start), Turn::Wait(Some(start + 10 * SECOND)));
}

#[test]
fn all_are_refused_and_woken_when_the_process_stops() {
    let now = Instant::now();
    let hold = hold(now, 10);
    let woken = Arc::new(Woken::default());
    let tickets = [(); 3].map(|()| enter(&hold, now).expect("a place"));
    for ticket in &tickets {
        let _ = ticket.poll_turn(&Waker::from(Arc::clone(&woken)), now);
    }
    hold.limits.stop();
    hold.wake_all();
    assert_eq!(woken.0.load(Relaxed), 3);
    assert!(tickets.iter().all(|it| poll(it, now) == Turn::Refused));
    assert!(matches!(hold.enter(None, 1, now), Entry::Refused));
}

#[test]
fn what_is_left_of_a_hold_is_never_more_than_its_length() {
    let term = HoldTerm { set_ms: 50_000, until_ms: 60_000, ..term(1, 10) };
    for (now_ms, left_ms) in [(50_000, 10_000), (57_500, 2500), (60_000, 0), (90_000, 0)] {
        assert_eq!(term.left(now_ms), Duration::from_millis(left_ms), "{now_ms}");
    }
    // A clock that was set back.
    assert_eq!(term.left(0), 10 * SECOND);
}

#[test]
fn the_time_to_come_again_is_the_rest_of_the_hold_and_of_the_queue() {
    let start = Instant::now();
    let hold = hold(start, 10);
    let tickets: Vec<_> = (0..10).filter_map(|_| enter(&hold, start)).collect();
    assert_eq!(hold.retry_after(start + SECOND), 9 * SECOND + Duration::from_millis(50));
    hold.release(start + SECOND);
    assert_eq!(hold.retry_after(start + SECOND), Duration::from_millis(50));
    drop(tickets);
    assert_eq!(hold.retry_after(start + SECOND), Duration::ZERO);
}

/// Random calls in any order: never two at a time, in order, never more than the places, and at the end all is free.
#[test]
fn a_random_walk_keeps_the_order_and_the_bounds() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = Arc::new(HoldLimits::new(64));
        let mut now = Instant::now();
        let hold = Arc::new(Hold::new(term(1, 8), now + SECOND, &limits));
        let mut waiting: Vec<HoldTicket> = Vec::new();
        let mut going: Option<HoldTicket> = None;
        let mut last = None;
        for step in 0..300 {
            match random.u8(0..9) {
                0..=2 => match hold.enter(None, random.usize(1..12), now) {
                    Entry::Wait(ticket) => waiting.push(ticket),
                    Entry::Open => assert!(waiting.is_empty() && going.is_none(), "{seed} {step}"),
                    Entry::Refused => {}
                },
                3 if !waiting.is_empty() => drop(waiting.remove(random.usize(..waiting.len()))),
                4 => going = None,
                5 => now += Duration::from_millis(random.u64(0..700)),
                6 => hold.release(now),
                7 => hold.begin(&term(step, 8), || now + SECOND, now),
                _ => {}
            }
            let turns: Vec<_> = waiting.iter().map(|it| poll(it, now)).collect();
            let ready: Vec<_> = (0..turns.len()).filter(|it| turns[*it] == Turn::Go).collect();
            assert!(ready.is_empty() || ready == [0] && going.is_none(), "{seed} {step}");
            if ready == [0] {
                let first = waiting.remove(0);
                assert!(last.is_none_or(|it| it < first.number), "{seed} {step}: out of order");
                last = Some(first.number);
                going = Some(first);
            }
            assert_eq!(hold.snapshot(now).waiting, waiting.len(), "{seed} {step}");
            assert!(waiting.len() <= 8 && limits.bytes.load(Relaxed) <= 64, "{seed} {step}");
        }
        drop((waiting, going));
        assert_eq!(limits.bytes.load(Relaxed), 0, "{seed}");
    }
}

#[test]
fn a_hold_that_begins_anew_knows_of_the_request_that_it_has_let_go() {
    let start = Instant::now();
    let hold = hold(start, 10);
    let [one, two] = [(); 2].map(|()| enter(&hold, start).expect("a place"));
    hold.release(start);
    assert_eq!(poll(&one, start), Turn::Go);
    assert!(!hold.is_letting_go(), "it does not hold");
    hold.begin(&term(2, 10), || start + 5 * SECOND, start);
    assert!(hold.is_letting_go());
    drop(one);
    assert!(!hold.is_letting_go());
    assert_eq!(poll(&two, start), Turn::Wait(Some(start + 5 * SECOND)));
}
