//! The switch under real threads, and under the schedules of a model checker.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::*;

type TestSwitch = Switch<(), &'static str>;

fn entry(name: &str, active: Color) -> ServiceEntry<&'static str> {
    let name = name.parse().expect("a name");
    ServiceEntry {
        name,
        active,
        blue: Arc::new("v1"),
        green: Arc::new("v2"),
        terms: (),
        renewed: None,
    }
}

fn test_switch() -> TestSwitch {
    let entries = vec![entry("api", Color::Blue), entry("web", Color::Blue)];
    Switch::new(Table::first(Generation(0), (), entries))
}

fn claim_active<C: Pointer<Table<(), &'static str>>>(
    switch: &Switch<(), &'static str, (), C>,
    service: usize,
) -> Claim<&'static str> {
    let Ok(claim) = switch.claim(|_| Ok::<_, Infallible>((service, Visit::Active)));
    claim
}

/// Makes `color` active for the named services in one change.
fn promote<C: Pointer<Table<(), &'static str>>>(
    switch: &Switch<(), &'static str, (), C>,
    color: Color,
    services: &[&str],
) -> Result<Vec<Drain<&'static str>>, Stale> {
    let seen = switch.load();
    let mut entries = seen.entries();
    for entry in &mut entries {
        if services.contains(&entry.name.as_str()) {
            entry.active = color;
        }
    }
    let next = seen.next(seen.generation().next(), (), entries);
    switch.replace(seen, next)
}

fn retired_side(drains: &[Drain<&'static str>], color: Color) -> Drain<&'static str> {
    let of_color: Vec<_> = drains.iter().filter(|it| it.color() == color).collect();
    assert_eq!(of_color.len(), 1, "one side of that color is retired");
    of_color[0].clone()
}

#[test]
fn a_request_stays_where_it_was_admitted() {
    let switch = test_switch();
    let before = claim_active(&switch, 1);
    promote(&switch, Color::Green, &["web"]).expect("current");
    let after = claim_active(&switch, 1);
    assert_eq!((**before.pool(), **after.pool()), ("v1", "v2"));
    assert_eq!((before.generation(), after.generation()), (Generation(0), Generation(1)));
}

#[test]
fn a_claim_on_a_pool_is_only_given_while_the_table_has_that_pool() {
    let switch = test_switch();
    let name = "web".parse().expect("a name");
    let blue = Arc::clone(claim_active(&switch, 1).pool());
    let drains = promote(&switch, Color::Green, &["web"]).expect("current");
    let claim = switch.claim_pool(&name, &blue).expect("blue is there, and not active");
    assert_eq!((claim.color(), claim.is_active()), (Color::Blue, false));
    assert!(!retired_side(&drains, Color::Blue).is_held(), "the replaced side stays drained");
    let seen = switch.load();
    let mut entries = seen.entries();
    *entries[1].pool_mut(Color::Blue) = Arc::new("v1");
    let next = seen.next(seen.generation().next(), (), entries);
    drop(switch.replace(seen, next).expect("current"));
    assert!(switch.claim_pool(&name, &blue).is_none(), "an equal pool is another one");
    assert!(switch.claim_pool(&"api".parse().expect("a name"), &blue).is_none());
}

#[tokio::test]
async fn a_drain_ends_with_the_last_claim_and_not_before() {
    let switch = test_switch();
    let (one, two) = (claim_active(&switch, 1), claim_active(&switch, 1));
    let drains = promote(&switch, Color::Green, &["web"]).expect("current");
    let mut drain = retired_side(&drains, Color::Blue);
    assert_eq!(drain.in_flight(), 2);
    drop(one);
    assert_eq!(drain.in_flight(), 1);
    assert!(is_pending(drain.wait()), "one request is still in flight");
    drop(two);
    drain.wait().await;
    assert_eq!((drain.in_flight(), drain.is_held()), (0, false));
}

fn is_pending(future: impl Future<Output = ()>) -> bool {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    future.as_mut().poll(&mut context).is_pending()
}

#[tokio::test]
async fn a_flip_and_a_rollback_keep_two_generations_of_one_color_apart() {
    let switch = test_switch();
    let first = claim_active(&switch, 1);
    let mut old =
        retired_side(&promote(&switch, Color::Green, &["web"]).expect("current"), Color::Blue);
    promote(&switch, Color::Blue, &["web"]).expect("current");
    let again = claim_active(&switch, 1);
    assert_eq!((**first.pool(), **again.pool()), ("v1", "v1"));
    let web = "web".parse().expect("a name");
    assert_eq!(switch.in_flight(&web, Color::Blue), InFlight { current: 1, retired: 1 });
    drop(first);
    old.wait().await;
    assert_eq!(switch.in_flight(&web, Color::Blue), InFlight { current: 1, retired: 0 });
    drop(again);
}

#[test]
fn a_stale_change_changes_nothing() {
    let switch = test_switch();
    let (mine, theirs) = (switch.load(), switch.load());
    let (next, other) =
        (mine.next(Generation(1), (), mine.entries()), theirs.next(Generation(1), (), vec![]));
    switch.replace(mine, next).expect("the first change is current");
    let stale = switch.replace(theirs, other).expect_err("the second change is stale");
    assert_eq!(stale, Stale { decided_on: Generation(0), current: Generation(1) });
    assert_eq!(switch.read(|it| it.services().count()), 2);
}

#[test]
fn a_change_leaves_the_sides_of_other_services_alone() {
    let switch = test_switch();
    let api = claim_active(&switch, 0);
    let drains = promote(&switch, Color::Green, &["web"]).expect("current");
    assert!(drains.iter().all(|it| it.service().as_str() == "web"), "{drains:?}");
    let name = "api".parse().expect("a name");
    assert_eq!(switch.in_flight(&name, Color::Blue), InFlight { current: 1, retired: 0 });
    drop(api);
}

#[tokio::test]
async fn a_replaced_pool_and_a_removed_service_drain_too() {
    let switch = test_switch();
    let Ok(preview) = switch.claim(|_| Ok::<_, Infallible>((1, Visit::Preview(Color::Green))));
    assert!(!preview.is_active());
    let api = claim_active(&switch, 0);
    let seen = switch.load();
    let mut entries = seen.entries();
    let mut web = entries.pop().expect("web is last");
    *web.pool_mut(Color::Green) = Arc::new("v3");
    let next = seen.next(Generation(1), (), vec![web]);
    let drains = switch.replace(seen, next).expect("current");
    let mut held: Vec<_> = drains.into_iter().filter(|it| it.in_flight() > 0).collect();
    assert_eq!(held.len(), 2, "{held:?}");
    assert_eq!(**preview.pool(), "v2");
    drop((preview, api));
    for drain in &mut held {
        drain.wait().await;
    }
}

#[test]
fn a_table_with_one_change_shares_the_rest_and_may_skip_generations() {
    let entries = (0..200).map(|it| entry(&format!("s{it}"), Color::Blue)).collect();
    let switch = TestSwitch::new(Table::first(Generation(0), (), entries));
    let (before, after) = (claim_active(&switch, 76), claim_active(&switch, 78));
    let seen = switch.load();
    let mut change = seen.service_at(77).entry();
    change.active = Color::Green;
    let next = seen.with_changes(Generation(41), (), vec![change, entry("unknown", Color::Blue)]);
    let drains = switch.replace(seen, next).expect("current");
    let retired: Vec<_> = drains.iter().map(|it| (it.service().as_str(), it.side())).collect();
    let id = |color| SideId { since: Generation(0), service: 77, color, part: 0 };
    assert_eq!(retired, [("s77", id(Color::Blue)), ("s77", id(Color::Green))]);
    switch.read(|table| {
        assert_eq!((table.generation(), table.services().count()), (Generation(41), 200));
        let active = |index| table.service_at(index).active();
        assert_eq!([active(76), active(77), active(78)], [Color::Blue, Color::Green, Color::Blue]);
        assert_eq!(table.service_at(77).side(Color::Green).id().since, Generation(41));
        assert_eq!(table.service_at(76).side(Color::Blue).id(), before.side());
    });
    assert_eq!(claim_active(&switch, 77).generation(), Generation(41));
    drop((before, after));
}

#[tokio::test]
async fn a_renewed_side_drains_what_was_admitted_before_within_one_generation() {
    let switch = test_switch();
    let pinned = |switch: &TestSwitch| {
        let Ok(claim) = switch.claim(|_| Ok::<_, Infallible>((1, Visit::Pinned(Color::Green))));
        claim
    };
    let mut sides = Vec::new();
    for round in 0..3 {
        let claim = pinned(&switch);
        assert!(!claim.is_active());
        let seen = switch.load();
        let entry = ServiceEntry { renewed: Some(Color::Green), ..seen.service_at(1).entry() };
        let next = seen.with_changes(Generation(0), (), vec![entry]);
        let drains = switch.replace(seen, next).expect("current");
        assert_eq!(drains.len(), 1, "{round}: {drains:?}");
        let mut drain = retired_side(&drains, Color::Green);
        assert_eq!((drain.side(), drain.in_flight()), (claim.side(), 1));
        assert!(!sides.contains(&claim.side()), "{sides:?}");
        sides.push(claim.side());
        drop(claim);
        drain.wait().await;
    }
}

/// Readers in tight loops on real threads, and a flip whenever the last one has drained: no request may be in flight on
/// a side that has reported drained.
#[test]
fn no_request_enters_a_drained_side_on_real_threads() {
    /// A pool that counts its requests and knows whether it may be used.
    #[derive(Debug, Default)]
    struct TestPool {
        closed: AtomicBool,
        inside: AtomicUsize,
    }
    let new_entry = |active| ServiceEntry {
        name: "web".parse().expect("a name"),
        active,
        blue: Arc::new(TestPool::default()),
        green: Arc::new(TestPool::default()),
        terms: (),
        renewed: None,
    };
    let table = Table::first(Generation(0), (), vec![new_entry(Color::Blue)]);
    let switch: Switch<(), TestPool, (), ArcSwap<_>> = Switch::new(table);
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.is_cancelled() {
                    let Ok(claim) = switch.claim(|_| Ok::<_, Infallible>((0, Visit::Active)));
                    claim.pool().inside.fetch_add(1, SeqCst);
                    assert!(!claim.pool().closed.load(SeqCst), "entered after drained");
                    claim.pool().inside.fetch_sub(1, SeqCst);
                }
            });
        }
        let _stop_on_panic = stop.clone().drop_guard();
        for _ in 0..3_000 {
            let seen = switch.load();
            let mut entries = seen.entries();
            let old = entries[0].active;
            entries[0].active = old.other();
            // A new pool for the new color, so that `closed` stays true.
            *entries[0].pool_mut(old.other()) = Arc::new(TestPool::default());
            let pool = Arc::clone(entries[0].pool(old));
            let next = seen.next(seen.generation().next(), (), entries);
            let drains = switch.replace(seen, next).expect("the only writer");
            let mut drain =
                drains.into_iter().find(Drain::was_active).expect("the old side is retired");
            runtime.block_on(drain.wait());
            assert_eq!(pool.inside.load(SeqCst), 0, "drained, but a request is in flight");
            pool.closed.store(true, SeqCst);
        }
    });
}

// --- model checking ---

/// An atomic pointer that lets any other thread run at every step of a reader: before the load, between load and claim,
/// and before the loaded table is dropped.
#[derive(Debug)]
struct Yielding<T>(Mutex<Arc<T>>);

impl<T> Pointer<T> for Yielding<T> {
    fn holding(first: Arc<T>) -> Self {
        Self(Mutex::new(first))
    }

    fn with<Out>(&self, look: impl FnOnce(&T) -> Out) -> Out {
        let guard = self.load();
        shuttle::thread::yield_now();
        let out = look(&guard);
        shuttle::thread::yield_now();
        drop(guard);
        out
    }

    fn load(&self) -> Arc<T> {
        Arc::clone(&self.0.lock().expect("not poisoned"))
    }

    fn replace(&self, seen: &Arc<T>, next: Arc<T>) -> bool {
        let mut current = self.0.lock().expect("not poisoned");
        let is_current = Arc::ptr_eq(&current, seen);
        let old = is_current.then(|| std::mem::replace(&mut *current, next));
        drop(current);
        drop(old);
        is_current
    }
}

type Modelled = Switch<(), &'static str, (), Yielding<Table<(), &'static str>>>;

/// What the schedules led to, so that a model which explores too little fails.
#[derive(Debug, Default)]
struct Seen {
    blue: AtomicUsize,
    green: AtomicUsize,
    waits: AtomicUsize,
}

/// Requests of two services, a flip of both, and a watcher of the drain.
fn flip_against_claims_against_drain(readers: usize, seen: &Arc<Seen>) {
    let entries = vec![entry("api", Color::Blue), entry("web", Color::Blue)];
    let switch = Arc::new(Modelled::new(Table::first(Generation(0), (), entries)));
    let acknowledged = Arc::new(AtomicBool::new(false));
    let drained = Arc::new(AtomicBool::new(false));
    let inside_old = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..readers)
        .map(|_| {
            let (switch, acknowledged) = (Arc::clone(&switch), Arc::clone(&acknowledged));
            let (drained, inside_old) = (Arc::clone(&drained), Arc::clone(&inside_old));
            let seen = Arc::clone(seen);
            shuttle::thread::spawn(move || {
                let began_after = acknowledged.load(SeqCst);
                let api = claim_active(&switch, 0);
                let is_old = **api.pool() == "v1";
                let color = if is_old { &seen.blue } else { &seen.green };
                color.fetch_add(1, SeqCst);
                if is_old {
                    inside_old.fetch_add(1, SeqCst);
                    assert!(
                        !began_after,
                        "the old color, though the request began after the reply"
                    );
                    assert!(!drained.load(SeqCst), "in flight on a side that reported drained");
                }
                shuttle::thread::yield_now();
                let web = claim_active(&switch, 1);
                assert!(is_old || **web.pool() == "v2", "the request saw half of the flip");
                drop(web);
                shuttle::thread::yield_now();
                if is_old {
                    inside_old.fetch_sub(1, SeqCst);
                }
                drop(api);
            })
        })
        .collect();
    shuttle::thread::yield_now();
    let drains = promote(&switch, Color::Green, &["api", "web"]).expect("the only writer");
    acknowledged.store(true, SeqCst);
    let api = drains.iter().find(|it| it.service().as_str() == "api" && it.was_active());
    let api = api.expect("the flip retires it").clone();
    seen.waits.fetch_add(usize::from(api.in_flight() > 0), SeqCst);
    while api.is_held() {
        shuttle::thread::yield_now();
    }
    drained.store(true, SeqCst);
    assert_eq!(inside_old.load(SeqCst), 0, "drained, but a request is in flight");
    for thread in threads {
        thread.join().expect("no reader fails");
    }
}

#[test]
fn no_schedule_of_the_model_breaks_flip_claim_or_drain() {
    let seen = Arc::new(Seen::default());
    let all = Arc::clone(&seen);
    shuttle::check_random(move || flip_against_claims_against_drain(3, &all), 20_000);
    let all = Arc::clone(&seen);
    shuttle::check_pct(move || flip_against_claims_against_drain(3, &all), 5_000, 3);
    for count in [&seen.blue, &seen.green, &seen.waits] {
        assert!(count.load(SeqCst) > 1_000, "the model explores too little: {seen:?}");
    }
}

/// The mistake that the switch avoids: load the side, then increment its counter. The model must find it, or it proves
/// nothing.
#[test]
fn the_model_finds_a_claim_that_is_counted_too_late() {
    struct Counted {
        inside: AtomicUsize,
    }
    let late = || {
        let current = Arc::new(Mutex::new(Arc::new(Counted { inside: AtomicUsize::new(0) })));
        let old = Arc::clone(&current.lock().expect("not poisoned"));
        let closed = Arc::new(AtomicBool::new(false));
        let reader = {
            let (current, closed, old) =
                (Arc::clone(&current), Arc::clone(&closed), Arc::clone(&old));
            shuttle::thread::spawn(move || {
                let side = Arc::clone(&current.lock().expect("not poisoned"));
                shuttle::thread::yield_now();
                side.inside.fetch_add(1, SeqCst);
                let is_old = Arc::ptr_eq(&side, &old);
                assert!(!is_old || !closed.load(SeqCst), "entered after drained");
                side.inside.fetch_sub(1, SeqCst);
            })
        };
        shuttle::thread::yield_now();
        *current.lock().expect("not poisoned") = Arc::new(Counted { inside: AtomicUsize::new(0) });
        while old.inside.load(SeqCst) > 0 {
            shuttle::thread::yield_now();
        }
        closed.store(true, SeqCst);
        shuttle::thread::yield_now();
        reader.join().expect("the reader's own assertion");
    };
    let found = std::panic::catch_unwind(|| shuttle::check_random(late, 5_000));
    assert!(found.is_err(), "the model did not find the planted mistake");
}
