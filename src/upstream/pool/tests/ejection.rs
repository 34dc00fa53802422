//! Which endpoints are ejected, and what that costs in an outage.

use super::{super::ejection::ROTATION_MIN, *};

#[test]
fn repeated_failures_eject_an_endpoint_but_never_too_many() {
    let names = names(10);
    let listed: Vec<_> = names.iter().map(|it| (it.as_str(), 1)).collect();
    let ejection = Ejection { share: 30, ..Ejection::default() };
    let pool = all_up(pool_of(&listed, Policy { ejection, ..Policy::default() }));
    let endpoints = pool.endpoints();
    let now = Instant::now();
    let ejected = || endpoints.iter().filter(|it| it.health_details().ejected.is_some()).count();
    for _ in 0..4 {
        pool.record_failure(&endpoints[0], "503", now);
    }
    pool.record_success(&endpoints[0]);
    pool.record_failure(&endpoints[0], "503", now);
    assert_eq!(ejected(), 0, "never five in a row");
    for endpoint in &endpoints {
        for _ in 0..5 {
            pool.record_failure(endpoint, "503", now);
        }
    }
    assert_eq!(ejected(), 3);
    let shares = shares(&pool, 1_000, &mut seeded());
    assert!(names[..3].iter().all(|it| !shares.contains_key(it)), "{shares:?}");
    pool.release_ejected(now + Duration::from_secs(29));
    assert_eq!(ejected(), 3);
    pool.release_ejected(now + Duration::from_secs(30));
    assert_eq!(ejected(), 0);
}

#[test]
fn at_the_maximum_the_longest_ejected_endpoint_is_readmitted() {
    let pool = pool(&LISTED[..2]);
    let endpoints = pool.endpoints();
    let begin = Instant::now();
    let out =
        || -> Vec<_> { endpoints.iter().map(|it| it.health_details().ejected.is_some()).collect() };
    let fail = |endpoint: &EndpointState, now| {
        (0..5).for_each(|_| pool.record_failure(endpoint, "503", now));
    };
    fail(&endpoints[0], begin);
    assert_eq!(out(), [true, false]);
    fail(&endpoints[1], begin);
    assert_eq!(
        out(),
        [true, false],
        "not at once, or two failing endpoints would alternate all the time"
    );
    fail(&endpoints[1], begin + ROTATION_MIN);
    assert_eq!(out(), [false, true]);
    fail(&endpoints[1], begin + ROTATION_MIN * 2);
    assert_eq!(out(), [false, true], "it is already ejected");
}

/// Calls `record_failure` while another thread holds the lock of the pool, and returns whether it returned without it.
fn fails_without_the_lock(pool: &Pool, endpoint: &EndpointState, now: Instant) -> bool {
    std::thread::scope(|scope| {
        let held = pool.shared.change_lock.lock().expect("no panic");
        let (done, is_done) = std::sync::mpsc::channel();
        scope.spawn(move || {
            pool.record_failure(endpoint, "503", now);
            // Fails if the receiver has timed out.
            let _ = done.send(());
        });
        let is_back = is_done.recv_timeout(Duration::from_secs(10)).is_ok();
        drop(held);
        is_back
    })
}

#[test]
fn in_an_outage_a_failed_request_does_not_wait_for_the_lock() {
    // Each failed request took the lock of the pool and copied the list of endpoints, in an outage of all times.
    let now = Instant::now();
    let fail = |pool: &Pool, endpoint: &EndpointState| {
        (0..5).for_each(|_| pool.record_failure(endpoint, "503", now));
    };
    let alone = pool(&LISTED[..1]);
    let only = &alone.endpoints()[0];
    fail(&alone, only);
    assert!(fails_without_the_lock(&alone, only, now), "the only endpoint");

    let two = pool(&LISTED[..2]);
    let endpoints = two.endpoints();
    fail(&two, &endpoints[0]);
    assert!(fails_without_the_lock(&two, &endpoints[0], now), "already ejected");
    fail(&two, &endpoints[1]);
    assert!(fails_without_the_lock(&two, &endpoints[1], now), "the maximum is ejected");
    let later = now + ROTATION_MIN;
    two.record_failure(&endpoints[1], "503", later);
    let out: Vec<_> = endpoints.iter().map(|it| it.is_ejected()).collect();
    assert_eq!(out, [false, true], "after the minimum they rotate");

    let ejection = Ejection { share: 0, ..Ejection::default() };
    let never = pool_of(
        &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)],
        Policy { ejection, ..Policy::default() },
    );
    let endpoint = &never.endpoints()[0];
    fail(&never, endpoint);
    assert!(fails_without_the_lock(&never, endpoint, now), "no endpoint may be ejected");
}

#[test]
fn after_a_return_another_endpoint_can_be_ejected_at_once() {
    let pool = pool(&LISTED[..2]);
    let endpoints = pool.endpoints();
    let begin = Instant::now();
    let fail = |endpoint: &EndpointState, now| {
        (0..5).for_each(|_| pool.record_failure(endpoint, "503", now));
    };
    fail(&endpoints[0], begin);
    let back = begin + Ejection::default().base_duration;
    fail(&endpoints[1], back - Duration::from_millis(500));
    // The last possible moment for its ejection; the other one returns before the next.
    assert!(endpoints[1].is_ejected());
    fail(&endpoints[0], back);
    assert!(!endpoints[0].is_ejected(), "not at once");
    pool.release_ejected(back + Ejection::default().duration_max);
    fail(&endpoints[0], back);
    assert!(endpoints[0].is_ejected());
}

#[test]
fn the_only_endpoint_is_never_ejected_and_of_two_one_can_be() {
    for (listed, expected) in [(&LISTED[..1], 0), (&LISTED[..2], 1)] {
        let pool = pool(listed);
        for endpoint in pool.endpoints() {
            for _ in 0..100 {
                pool.record_failure(&endpoint, "503", Instant::now());
            }
        }
        let endpoints = pool.endpoints();
        let ejected = endpoints.iter().filter(|it| it.health_details().ejected.is_some()).count();
        assert_eq!(ejected, expected);
    }
}
