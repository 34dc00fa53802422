//! The choice among members: distributions with seeds, and bounds that follow from them.

mod called;
mod ejection;
mod line;

use std::{collections::HashMap, time::Duration};

use prometheus::Registry;

use super::*;
use crate::{
    metrics::Metrics,
    model::{Algorithm, Balance, Ejection, Endpoint, HashKey, Health, ServiceLimits},
    upstream::{Resolver, ResolverSettings, endpoint_state::RequestPermit},
};

fn pool_of(endpoints: &[(&str, u16)], policy: Policy) -> Pool {
    pool_by(endpoints, policy, Resolver::new(&ResolverSettings::default()))
}

fn pool_by(endpoints: &[(&str, u16)], policy: Policy, names: Resolver) -> Pool {
    let service: ServiceName = "web".parse().expect("a name");
    let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
    let metrics = Arc::new(metrics.pool(&service, Color::Blue));
    let admission = Admission::new(&policy.limits);
    let policy = Arc::new(policy);
    let parts = PoolContext::new(names);
    Pool::new(service, Color::Blue, spec(endpoints), policy, admission, parts, metrics)
}

fn spec(endpoints: &[(&str, u16)]) -> PoolSpec {
    let endpoints = endpoints.iter().map(|(address, weight)| WeightedEndpoint {
        endpoint: address.parse().expect("an endpoint"),
        weight: *weight,
    });
    PoolSpec::new(None, endpoints).expect("no two alike")
}

fn pool(endpoints: &[&str]) -> Pool {
    well(pool_of(&alike(endpoints), Policy::default()))
}

fn alike<'a>(endpoints: &[&'a str]) -> Vec<(&'a str, u16)> {
    endpoints.iter().map(|it| (*it, 1)).collect()
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|it| format!("10.0.0.{it}:80")).collect()
}

/// The same with every member known to be well.
fn well(pool: Pool) -> Pool {
    for member in pool.members() {
        pool.checked(&member, Ok(()));
    }
    pool
}

fn seeded() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    fastrand::Rng::with_seed(seed)
}

fn pick(pool: &Pool, tried: &[Arc<EndpointState>], random: &mut fastrand::Rng) -> PickResult {
    pick_for(pool, tried, None, random)
}

fn pick_for(
    pool: &Pool,
    tried: &[Arc<EndpointState>],
    key: Option<u64>,
    random: &mut fastrand::Rng,
) -> PickResult {
    let (is_open, now) = (|_: &Arc<EndpointState>| false, Instant::now());
    pool.pick(&PickRequest { tried, key, is_open: &is_open, is_called: false, now }, random)
}

fn permit(picked: PickResult) -> RequestPermit {
    match picked {
        PickResult::Seat(permit) => permit,
        other => panic!("a seat, not {other:?}"),
    }
}

fn name(permit: &RequestPermit) -> String {
    permit.member().endpoint().to_string()
}

/// How often each member is chosen when nobody stays.
fn shares(pool: &Pool, picks: usize, random: &mut fastrand::Rng) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..picks {
        *shares.entry(name(&permit(pick(pool, &[], random)))).or_default() += 1;
    }
    shares
}

/// Asserts that a count is what chance makes of it: within six standard deviations of a binomial
/// distribution, which is left once in 500 million times.
fn assert_share(count: usize, picks: usize, probability: f64) {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (count, picks) = (count as f64, picks as f64);
    let (mean, deviation) =
        (picks * probability, (picks * probability * (1.0 - probability)).sqrt());
    assert!((count - mean).abs() <= 6.0 * deviation + 1.0, "{count} of {picks}, not {mean}");
}

const LISTED: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

fn down(pool: &Pool, member: &EndpointState, failure: &HealthFailure) {
    while member.health() != Health::Down {
        pool.checked(member, Err(failure.clone()));
    }
}

#[test]
fn the_less_busy_of_two_is_taken() {
    for policy in [None, Some(Duration::from_secs(1))] {
        // With a slow start nobody is chosen in the short way; all have begun at the same time.
        let balance = Balance { slow_start: policy, ..Balance::default() };
        let pool = well(pool_of(&alike(&LISTED), Policy { balance, ..Policy::default() }));
        let mut random = seeded();
        let seats: Vec<_> = (0..300).map(|_| permit(pick(&pool, &[], &mut random))).collect();
        // Two choices keep the loads within a few of each other.
        for member in pool.members() {
            assert!((90..=110).contains(&member.in_flight()), "{:?}", pool.members());
        }
        drop(seats);
        assert!(pool.members().iter().all(|it| it.in_flight() == 0));
    }
}

#[test]
fn nobody_who_is_idle_is_preferred() {
    let names = names(10);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let shares = shares(&pool(&names), 20_000, &mut seeded());
    for name in names {
        assert_share(shares[name], 20_000, 0.1);
    }
}

#[test]
fn each_gets_by_its_weight() {
    let listed = [("10.0.0.1:80", 1), ("10.0.0.2:80", 2), ("10.0.0.3:80", 7)];
    for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin] {
        let balance = Balance { algorithm: algorithm.clone(), ..Balance::default() };
        let pool = well(pool_of(&listed, Policy { balance, ..Policy::default() }));
        let mut random = seeded();
        // Nobody leaves: whoever has twice the weight holds twice the requests.
        let seats: Vec<_> = (0..1000).map(|_| permit(pick(&pool, &[], &mut random))).collect();
        let held: Vec<_> = pool.members().iter().map(|it| it.in_flight()).collect();
        for (held, expected) in held.iter().zip([100, 200, 700]) {
            assert!(held.abs_diff(expected) <= expected / 10, "{algorithm:?} {held:?}");
        }
        assert_eq!(seats.len(), 1000);
        drop(seats);
        // Everybody leaves at once: the shares are the same when nobody is busy.
        let shares = shares(&pool, 9_000, &mut random);
        for (name, weight) in listed {
            assert_share(shares[name], 9_000, f64::from(weight) / 10.0);
        }
    }
}

#[test]
fn in_turn_means_one_after_the_other() {
    let balance = Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() };
    let pool = well(pool_of(&alike(&LISTED), Policy { balance, ..Policy::default() }));
    let mut random = seeded();
    let mut order = || name(&permit(pick(&pool, &[], &mut random)));
    let first: Vec<_> = (0..3).map(|_| order()).collect();
    assert_eq!(first, LISTED);
    assert_eq!((0..300).map(|_| order()).collect::<Vec<_>>(), LISTED.repeat(100));
}

#[test]
fn shares_in_turn_are_spread_evenly() {
    let balance = Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() };
    let listed = [("10.0.0.1:80", 1), ("10.0.0.2:80", 3)];
    let pool = well(pool_of(&listed, Policy { balance, ..Policy::default() }));
    let mut random = seeded();
    let order: Vec<_> = (0..400).map(|_| name(&permit(pick(&pool, &[], &mut random)))).collect();
    assert_eq!(order.iter().filter(|it| *it == "10.0.0.1:80").count(), 100);
    for four in order.windows(8) {
        let count = four.iter().filter(|it| *it == "10.0.0.1:80").count();
        assert!((1..=3).contains(&count), "{order:?}");
    }
}

#[test]
fn a_key_stays_where_it_is_until_its_member_leaves() {
    let algorithm = Algorithm::Hash(HashKey::Address);
    let names = names(10);
    let listed: Vec<_> = names.iter().map(|it| (it.as_str(), 1)).collect();
    let policy = || Policy {
        balance: Balance { algorithm: algorithm.clone(), ..Balance::default() },
        ..Policy::default()
    };
    let before = well(pool_of(&listed, policy()));
    let after = well(pool_of(&listed[1..], policy()));
    let mut random = seeded();
    let mut at = |pool: &Pool, key| name(&permit(pick_for(pool, &[], Some(key), &mut random)));
    let (mut of_first, mut counts) = (0, HashMap::<_, usize>::new());
    for key in 0..10_000 {
        let key = xxhash_rust::xxh3::xxh3_64(&u64::to_le_bytes(key));
        let here = at(&before, key);
        assert_eq!(here, at(&before, key));
        *counts.entry(here.clone()).or_default() += 1;
        match here == names[0] {
            true => of_first += 1,
            false => assert_eq!(here, at(&after, key), "only the keys of who left move"),
        }
    }
    assert_share(of_first, 10_000, 0.1);
    for name in &names {
        assert_share(counts[name], 10_000, 0.1);
    }
}

#[test]
fn keys_are_shared_out_by_weight() {
    let balance = Balance { algorithm: Algorithm::Hash(HashKey::Address), ..Balance::default() };
    let listed = [("10.0.0.1:80", 1), ("10.0.0.2:80", 3)];
    let pool = well(pool_of(&listed, Policy { balance, ..Policy::default() }));
    let mut random = seeded();
    let count = (0..10_000)
        .map(|it: u64| xxhash_rust::xxh3::xxh3_64(&it.to_le_bytes()))
        .filter(|it| name(&permit(pick_for(&pool, &[], Some(*it), &mut random))) == "10.0.0.2:80")
        .count();
    assert_share(count, 10_000, 0.75);
}

#[test]
fn nobody_is_tried_twice_and_who_stands_worse_comes_later() {
    let listed = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
    let pool = pool_of(&alike(&listed), Policy::default());
    let members = pool.members();
    down(&pool, &members[0], &HealthFailure::refuses("refused"));
    down(&pool, &members[1], &HealthFailure::answers("500"));
    pool.checked(&members[3], Ok(()));
    let mut random = seeded();
    for _ in 0..100 {
        let mut tried = Vec::new();
        while let PickResult::Seat(permit) = pick(&pool, &tried, &mut random) {
            tried.push(Arc::clone(permit.member()));
        }
        let order: Vec<_> = tried.iter().map(|it| it.endpoint().to_string()).collect();
        assert_eq!(order, ["10.0.0.4:80", "10.0.0.3:80", "10.0.0.2:80", "10.0.0.1:80"]);
    }
    assert!(matches!(pick(&pool, &members, &mut random), PickResult::Nobody));
}

#[test]
fn an_empty_pool_has_no_seat() {
    let picked = pick(&pool(&[]), &[], &mut seeded());
    assert!(matches!(picked, PickResult::Nobody));
}

#[test]
fn when_too_few_are_left_those_help_who_answer_badly_but_not_those_who_are_gone() {
    let names = names(10);
    let pool = pool(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let members = pool.members();
    for member in &members[..5] {
        down(&pool, member, &HealthFailure::answers("500"));
    }
    assert!(!pool.is_panicking(), "half of them are enough");
    down(&pool, &members[5], &HealthFailure::refuses("refused"));
    assert!(pool.is_panicking());
    let mut random = seeded();
    let shares = shares(&pool, 9_000, &mut random);
    for (place, name) in names.iter().enumerate() {
        match place {
            5 => assert_eq!(shares.get(name), None, "nobody can speak with it"),
            _ => assert_share(shares[name], 9_000, 1.0 / 9.0),
        }
    }
    let tried = [Arc::clone(&members[0])];
    for _ in 0..100 {
        let again = permit(pick(&pool, &tried, &mut random));
        let is_well = members[6..].iter().any(|it| Arc::ptr_eq(it, again.member()));
        assert!(is_well, "whoever was turned down goes to those who are well");
    }
}

#[test]
fn who_has_just_come_back_gets_less() {
    let balance = Balance { slow_start: Some(Duration::from_secs(3600)), ..Balance::default() };
    let old = pool_of(&alike(&LISTED), Policy { balance, ..Policy::default() });
    // Nobody has looked at the first two, who share alike; the third comes back again and again.
    let [one, two, three] = &old.members()[..] else { panic!("three") };
    for member in [one, two, three] {
        old.checked(member, Ok(()));
    }
    let whole = |it: &EndpointState| it.share(Some(Duration::from_secs(3600)), Instant::now());
    assert_eq!(whole(one), 100, "a tenth to begin with");
    let later = Instant::now() + Duration::from_secs(1800);
    assert!((450..=550).contains(&one.share(Some(Duration::from_secs(3600)), later)));
    let after = Instant::now() + Duration::from_secs(3700);
    assert_eq!(one.share(Some(Duration::from_secs(3600)), after), 1000);
    assert_eq!(one.share(None, Instant::now()), 1000);
}

#[test]
fn an_endpoint_that_stays_is_the_same_member() {
    let old = pool(&["10.0.0.1:80", "10.0.0.2:80"]);
    let policy = Arc::clone(old.policy());
    let new = spec(&[("10.0.0.2:80", 5), ("10.0.0.3:80", 1)]);
    let new = old.changed(new, policy, Arc::clone(old.admission()));
    assert!(Arc::ptr_eq(&old.members()[1], &new.members()[0]));
    assert_eq!((new.members()[0].weight(), new.members()[0].health()), (5, Health::Up));
    assert_eq!(new.members()[1].endpoint().to_string(), "10.0.0.3:80");
    assert_eq!(new.members()[1].health(), Health::Unknown);
}

#[test]
fn a_name_has_a_member_for_each_of_its_addresses() {
    let pool = pool(&["app:80", "10.0.0.9:80"]);
    let addresses =
        |pool: &Pool| -> Vec<_> { pool.members().iter().map(|it| it.address()).collect() };
    let of = |it: &str| Some(it.parse::<SocketAddr>().expect("an address"));
    assert_eq!(addresses(&pool), [None, of("10.0.0.9:80")]);
    let [one, two, three]: [IpAddr; 3] =
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|it| it.parse().expect("an address"));
    assert!(pool.resolve("app", &[one, two]));
    assert!(!pool.resolve("app", &[one, two]), "nothing has changed");
    assert!(!pool.resolve("other", &[three]));
    assert_eq!(addresses(&pool), [of("10.0.0.1:80"), of("10.0.0.2:80"), of("10.0.0.9:80")]);
    let before = pool.members();
    assert!(pool.resolve("app", &[two, three]));
    assert_eq!(addresses(&pool), [of("10.0.0.2:80"), of("10.0.0.3:80"), of("10.0.0.9:80")]);
    assert!(Arc::ptr_eq(&before[1], &pool.members()[0]), "who stays is the same");
    let changed = pool.changed(
        spec(&[("app:80", 1)]),
        Arc::clone(pool.policy()),
        Arc::clone(pool.admission()),
    );
    assert_eq!(addresses(&changed), [of("10.0.0.2:80"), of("10.0.0.3:80")]);
    let endpoint: Endpoint = "app:80".parse().expect("an endpoint");
    assert!(changed.members().iter().all(|it| *it.endpoint() == endpoint));
}
