//! Places at endpoints that have as much as they may, and the line for them.

use super::*;

#[test]
fn an_endpoint_has_no_more_requests_than_it_may_and_others_wait_in_order() {
    let limits = ServiceLimits { endpoint_requests: Some(2), queue: 2, ..ServiceLimits::default() };
    let pool = well(pool_of(&alike(&LISTED), Policy { limits, ..Policy::default() }));
    let mut random = seeded();
    let mut seats: Vec<_> = (0..6).map(|_| permit(pick(&pool, &[], &mut random))).collect();
    assert!(pool.members().iter().all(|it| it.in_flight() == 2));
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Full));
    let line = [pool.queue(0), pool.queue(0)].map(|it| it.expect("room for two"));
    assert!(pool.queue(0).is_none() && pool.queued() == 2);
    drop(seats.pop());
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Full), "others were here before");
    let (is_open, now) = (|_: &Arc<EndpointState>| false, Instant::now());
    let called = PickRequest { tried: &[], key: None, is_open: &is_open, is_called: true, now };
    assert!(matches!(pool.pick(&called, &mut random), PickResult::Seat(_)));
    drop(line);
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Seat(_)));
}

#[test]
fn an_endpoint_has_no_more_connections_than_it_may() {
    let limits = ServiceLimits { endpoint_connections: Some(1), ..ServiceLimits::default() };
    let pool = well(pool_of(&alike(&LISTED[..1]), Policy { limits, ..Policy::default() }));
    let member = &pool.members()[0];
    let mut random = seeded();
    let connection_permit = member.try_open(Some(1)).expect("the first");
    assert!(member.try_open(Some(1)).is_none());
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Full));
    let (is_open, now) = (|_: &Arc<EndpointState>| true, Instant::now());
    let open = PickRequest { tried: &[], key: None, is_open: &is_open, is_called: false, now };
    assert!(
        matches!(pool.pick(&open, &mut random), PickResult::Seat(_)),
        "it is connected already"
    );
    drop(connection_permit);
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Seat(_)));
}

/// Everybody gets the one place in the end, whoever gives it back, leaves the line or comes between.
/// Whoever would be forgotten waits for ever, which the schedule's end tells.
fn one_place_for_all(names: &Resolver) {
    let limits = ServiceLimits { endpoint_requests: Some(1), queue: 9, ..ServiceLimits::default() };
    let policy = Policy { limits, ..Policy::default() };
    let pool = Arc::new(well(pool_by(&alike(&LISTED[..1]), policy, names.clone())));
    let inside = Arc::new(AtomicUsize::new(0));
    let come = |gives_up: bool| {
        let (pool, inside) = (Arc::clone(&pool), Arc::clone(&inside));
        shuttle::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(1);
            let mut line: Option<QueueTicket> = None;
            loop {
                shuttle::thread::yield_now();
                let (is_open, now) = (|_: &Arc<EndpointState>| false, Instant::now());
                let is_called = line.is_some();
                let choice =
                    PickRequest { tried: &[], key: None, is_open: &is_open, is_called, now };
                if let PickResult::Seat(permit) = pool.pick(&choice, &mut random) {
                    shuttle::thread::yield_now();
                    drop(line);
                    assert_eq!(inside.fetch_add(1, Relaxed), 0, "one place is one place");
                    shuttle::thread::yield_now();
                    inside.fetch_sub(1, Relaxed);
                    return drop(permit);
                }
                shuttle::thread::yield_now();
                let waiting = line.get_or_insert_with(|| pool.queue(0).expect("room for all"));
                if gives_up {
                    shuttle::thread::yield_now();
                    return;
                }
                shuttle::future::block_on(std::future::poll_fn(|it| waiting.poll_called(it)));
            }
        })
    };
    let all = [come(false), come(false), come(true), come(false)];
    for one in all {
        one.join().expect("everybody comes to an end");
    }
    assert_eq!((pool.queued(), pool.members()[0].in_flight()), (0, 0));
}

#[test]
fn nobody_who_waits_is_forgotten() {
    let names = Resolver::new(&ResolverSettings::default());
    shuttle::check_random(move || one_place_for_all(&names), 3_000);
}
