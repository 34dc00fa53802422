//! Who is left out for a while, and what that costs in an outage.

use super::{super::ejection::TURN, *};

#[test]
fn who_fails_again_and_again_is_left_out_but_never_too_many() {
    let names = names(10);
    let listed: Vec<_> = names.iter().map(|it| (it.as_str(), 1)).collect();
    let ejection = Ejection { share: 30, ..Ejection::default() };
    let pool = well(pool_of(&listed, Policy { ejection, ..Policy::default() }));
    let members = pool.members();
    let now = Instant::now();
    let ejected = || members.iter().filter(|it| it.condition().ejected.is_some()).count();
    for _ in 0..4 {
        pool.failed(&members[0], "503", now);
    }
    pool.succeeded(&members[0]);
    pool.failed(&members[0], "503", now);
    assert_eq!(ejected(), 0, "never five in a row");
    for member in &members {
        for _ in 0..5 {
            pool.failed(member, "503", now);
        }
    }
    assert_eq!(ejected(), 3);
    let shares = shares(&pool, 1_000, &mut seeded());
    assert!(names[..3].iter().all(|it| !shares.contains_key(it)), "{shares:?}");
    pool.release(now + Duration::from_secs(29));
    assert_eq!(ejected(), 3);
    pool.release(now + Duration::from_secs(30));
    assert_eq!(ejected(), 0);
}

#[test]
fn when_another_one_should_be_out_the_one_that_is_out_for_longest_comes_back() {
    let pool = pool(&LISTED[..2]);
    let members = pool.members();
    let begin = Instant::now();
    let out = || -> Vec<_> { members.iter().map(|it| it.condition().ejected.is_some()).collect() };
    let fail = |member: &EndpointState, now| (0..5).for_each(|_| pool.failed(member, "503", now));
    fail(&members[0], begin);
    assert_eq!(out(), [true, false]);
    fail(&members[1], begin);
    assert_eq!(out(), [true, false], "not at once: there is no end to it if both are ill");
    fail(&members[1], begin + TURN);
    assert_eq!(out(), [false, true]);
    fail(&members[1], begin + TURN * 2);
    assert_eq!(out(), [false, true], "who is out already is out");
}

/// Calls `failed` while somebody holds the lock of the pool. Whether it came back without it.
fn fails_without_the_lock(pool: &Pool, member: &EndpointState, now: Instant) -> bool {
    std::thread::scope(|scope| {
        let held = pool.common.changing.lock().expect("no panic");
        let (done, is_done) = std::sync::mpsc::channel();
        scope.spawn(move || {
            pool.failed(member, "503", now);
            // Nobody listens any more if it had to wait.
            let _ = done.send(());
        });
        let is_back = is_done.recv_timeout(Duration::from_secs(10)).is_ok();
        drop(held);
        is_back
    })
}

#[test]
fn in_an_outage_a_request_that_fails_waits_for_nobody() {
    // Each one took the lock of the pool and copied the list of its members, when it was slowest anyway.
    let now = Instant::now();
    let fail =
        |pool: &Pool, member: &EndpointState| (0..5).for_each(|_| pool.failed(member, "503", now));
    let alone = pool(&LISTED[..1]);
    let only = &alone.members()[0];
    fail(&alone, only);
    assert!(fails_without_the_lock(&alone, only, now), "the only one");

    let two = pool(&LISTED[..2]);
    let members = two.members();
    fail(&two, &members[0]);
    assert!(fails_without_the_lock(&two, &members[0], now), "who is out");
    fail(&two, &members[1]);
    assert!(fails_without_the_lock(&two, &members[1], now), "as many as may be are out");
    let later = now + TURN;
    two.failed(&members[1], "503", later);
    let out: Vec<_> = members.iter().map(|it| it.is_ejected()).collect();
    assert_eq!(out, [false, true], "but when it is time for it, they change");

    let ejection = Ejection { share: 0, ..Ejection::default() };
    let never = pool_of(
        &[("10.0.0.1:80", 1), ("10.0.0.2:80", 1)],
        Policy { ejection, ..Policy::default() },
    );
    let member = &never.members()[0];
    fail(&never, member);
    assert!(fails_without_the_lock(&never, member, now), "nobody may be out");
}

#[test]
fn when_one_comes_back_another_one_can_be_left_out_at_once() {
    let pool = pool(&LISTED[..2]);
    let members = pool.members();
    let begin = Instant::now();
    let fail = |member: &EndpointState, now| (0..5).for_each(|_| pool.failed(member, "503", now));
    fail(&members[0], begin);
    let back = begin + Ejection::default().base;
    fail(&members[1], back - Duration::from_millis(500));
    // That was its turn; the other one is back before the next.
    assert!(members[1].is_ejected());
    fail(&members[0], back);
    assert!(!members[0].is_ejected(), "not at once");
    pool.release(back + Ejection::default().longest);
    fail(&members[0], back);
    assert!(members[0].is_ejected());
}

#[test]
fn the_only_one_is_never_left_out_and_of_two_one_may_be() {
    for (listed, expected) in [(&LISTED[..1], 0), (&LISTED[..2], 1)] {
        let pool = pool(listed);
        for member in pool.members() {
            for _ in 0..100 {
                pool.failed(&member, "503", Instant::now());
            }
        }
        let members = pool.members();
        let ejected = members.iter().filter(|it| it.condition().ejected.is_some()).count();
        assert_eq!(ejected, expected);
    }
}
