//! Endpoints at their limits, and the queue for them.

use super::*;

#[test]
fn an_endpoint_at_its_request_limit_queues_others_in_order() {
    let limits = ServiceLimits { endpoint_requests: Some(2), queue: 2, ..ServiceLimits::default() };
    let pool = all_up(pool_of(&alike(&LISTED), Policy { limits, ..Policy::default() }));
    let mut random = seeded();
    let mut permits: Vec<_> = (0..6).map(|_| permit(pick(&pool, &[], &mut random))).collect();
    assert!(pool.endpoints().iter().all(|it| it.in_flight() == 2));
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Full));
    let tickets = [pool.enqueue(0), pool.enqueue(0)].map(|it| it.expect("room for two"));
    assert!(pool.enqueue(0).is_none() && pool.queued() == 2);
    drop(permits.pop());
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Full), "others wait in the queue");
    let (has_connection, now) = (|_: &Arc<EndpointState>| false, Instant::now());
    let waited = PickRequest {
        tried: &[],
        key: None,
        has_connection: &has_connection,
        has_waited: true,
        now,
    };
    assert!(matches!(pool.pick(&waited, &mut random), PickResult::Picked(_)));
    drop(tickets);
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Picked(_)));
}

#[test]
fn an_endpoint_at_its_connection_limit_gets_no_request() {
    let limits = ServiceLimits { endpoint_connections: Some(1), ..ServiceLimits::default() };
    let pool = all_up(pool_of(&alike(&LISTED[..1]), Policy { limits, ..Policy::default() }));
    let endpoint = &pool.endpoints()[0];
    let mut random = seeded();
    let connection_permit = endpoint.try_acquire_connection(Some(1)).expect("a permit");
    assert!(endpoint.try_acquire_connection(Some(1)).is_none());
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Full));
    let (has_connection, now) = (|_: &Arc<EndpointState>| true, Instant::now());
    let open = PickRequest {
        tried: &[],
        key: None,
        has_connection: &has_connection,
        has_waited: false,
        now,
    };
    assert!(
        matches!(pool.pick(&open, &mut random), PickResult::Picked(_)),
        "it has an idle connection"
    );
    drop(connection_permit);
    assert!(matches!(pick(&pool, &[], &mut random), PickResult::Picked(_)));
}

/// Every request gets the one permit in the end, however permits are returned and tickets dropped. A lost notification
/// would block forever, which the scheduler reports.
fn one_permit_for_all(names: &Resolver) {
    let limits = ServiceLimits { endpoint_requests: Some(1), queue: 9, ..ServiceLimits::default() };
    let policy = Policy { limits, ..Policy::default() };
    let pool = Arc::new(all_up(pool_by(&alike(&LISTED[..1]), policy, names.clone())));
    let inside = Arc::new(AtomicUsize::new(0));
    let request = |gives_up: bool| {
        let (pool, inside) = (Arc::clone(&pool), Arc::clone(&inside));
        shuttle::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(1);
            let mut tickets: Option<QueueTicket> = None;
            loop {
                shuttle::thread::yield_now();
                let (has_connection, now) = (|_: &Arc<EndpointState>| false, Instant::now());
                let has_waited = tickets.is_some();
                let choice = PickRequest {
                    tried: &[],
                    key: None,
                    has_connection: &has_connection,
                    has_waited,
                    now,
                };
                if let PickResult::Picked(permit) = pool.pick(&choice, &mut random) {
                    shuttle::thread::yield_now();
                    drop(tickets);
                    assert_eq!(inside.fetch_add(1, Relaxed), 0, "one permit at a time");
                    shuttle::thread::yield_now();
                    inside.fetch_sub(1, Relaxed);
                    return drop(permit);
                }
                shuttle::thread::yield_now();
                let waiting = tickets.get_or_insert_with(|| pool.enqueue(0).expect("room for all"));
                if gives_up {
                    shuttle::thread::yield_now();
                    return;
                }
                shuttle::future::block_on(std::future::poll_fn(|it| waiting.poll_notified(it)));
            }
        })
    };
    let all = [request(false), request(false), request(true), request(false)];
    for one in all {
        one.join().expect("every request ends");
    }
    assert_eq!((pool.queued(), pool.endpoints()[0].in_flight()), (0, 0));
}

#[test]
fn every_queued_request_gets_its_permit() {
    let names = Resolver::new(&ResolverSettings::default());
    shuttle::check_random(move || one_permit_for_all(&names), 3_000);
}
