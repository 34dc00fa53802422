//! The choice among endpoints: distributions with seeds, and bounds that follow from them.

mod ejection;
mod queueing;
mod worker_requests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

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
    PoolSpec::new(None, endpoints).expect("no duplicates")
}

fn pool(endpoints: &[&str]) -> Pool {
    all_up(pool_of(&alike(endpoints), Policy::default()))
}

fn alike<'a>(endpoints: &[&'a str]) -> Vec<(&'a str, u16)> {
    endpoints.iter().map(|it| (*it, 1)).collect()
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|it| format!("10.0.0.{it}:80")).collect()
}

/// The same pool with every endpoint up.
fn all_up(pool: Pool) -> Pool {
    for endpoint in pool.endpoints() {
        pool.record_check(&endpoint, Ok(()));
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
    let (no_connection, now) = (|_: &Arc<EndpointState>| false, Instant::now());
    pool.pick(
        &PickRequest { tried, key, has_connection: &no_connection, has_waited: false, now },
        random,
    )
}

fn permit(picked: PickResult) -> RequestPermit {
    match picked {
        PickResult::Picked(permit) => permit,
        other => panic!("a permit, not {other:?}"),
    }
}

fn name(permit: &RequestPermit) -> String {
    permit.endpoint().configured().to_string()
}

/// How often each endpoint is picked when no request stays.
fn shares(pool: &Pool, picks: usize, random: &mut fastrand::Rng) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..picks {
        *shares.entry(name(&permit(pick(pool, &[], random)))).or_default() += 1;
    }
    shares
}

/// Asserts that a count is within six standard deviations of a binomial distribution, which fails by chance once in 500
/// million times.
fn assert_share(count: usize, picks: usize, probability: f64) {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let (count, picks) = (count as f64, picks as f64);
    let (mean, deviation) =
        (picks * probability, (picks * probability * (1.0 - probability)).sqrt());
    assert!((count - mean).abs() <= 6.0 * deviation + 1.0, "{count} of {picks}, not {mean}");
}

const LISTED: [&str; 3] = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];

fn down(pool: &Pool, endpoint: &EndpointState, failure: &HealthFailure) {
    while endpoint.health() != Health::Down {
        pool.record_check(endpoint, Err(failure.clone()));
    }
}

#[test]
fn the_less_loaded_of_two_is_picked() {
    for policy in [None, Some(Duration::from_secs(1))] {
        // A slow start disables the fast path; all endpoints start at the same time.
        let balance = Balance { slow_start: policy, ..Balance::default() };
        let pool = all_up(pool_of(&alike(&LISTED), Policy { balance, ..Policy::default() }));
        let mut random = seeded();
        let permits: Vec<_> = (0..300).map(|_| permit(pick(&pool, &[], &mut random))).collect();
        // Two choices keep the loads within a few of each other.
        for endpoint in pool.endpoints() {
            assert!((90..=110).contains(&endpoint.in_flight()), "{:?}", pool.endpoints());
        }
        drop(permits);
        assert!(pool.endpoints().iter().all(|it| it.in_flight() == 0));
    }
}

#[test]
fn idle_endpoints_are_picked_equally_often() {
    let names = names(10);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let shares = shares(&pool(&names), 20_000, &mut seeded());
    for name in names {
        assert_share(shares[name], 20_000, 0.1);
    }
}

#[test]
fn requests_are_spread_by_weight() {
    let listed = [("10.0.0.1:80", 1), ("10.0.0.2:80", 2), ("10.0.0.3:80", 7)];
    for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin] {
        let balance = Balance { algorithm: algorithm.clone(), ..Balance::default() };
        let pool = all_up(pool_of(&listed, Policy { balance, ..Policy::default() }));
        let mut random = seeded();
        // With requests in flight: twice the weight holds twice the requests.
        let permits: Vec<_> = (0..1000).map(|_| permit(pick(&pool, &[], &mut random))).collect();
        let held: Vec<_> = pool.endpoints().iter().map(|it| it.in_flight()).collect();
        for (held, expected) in held.iter().zip([100, 200, 700]) {
            assert!(held.abs_diff(expected) <= expected / 10, "{algorithm:?} {held:?}");
        }
        assert_eq!(permits.len(), 1000);
        drop(permits);
        // Without requests in flight the shares are the same.
        let shares = shares(&pool, 9_000, &mut random);
        for (name, weight) in listed {
            assert_share(shares[name], 9_000, f64::from(weight) / 10.0);
        }
    }
}

#[test]
fn round_robin_keeps_the_order() {
    let balance = Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() };
    let pool = all_up(pool_of(&alike(&LISTED), Policy { balance, ..Policy::default() }));
    let mut random = seeded();
    let mut order = || name(&permit(pick(&pool, &[], &mut random)));
    let first: Vec<_> = (0..3).map(|_| order()).collect();
    assert_eq!(first, LISTED);
    assert_eq!((0..300).map(|_| order()).collect::<Vec<_>>(), LISTED.repeat(100));
}

#[test]
fn weighted_round_robin_is_spread_evenly() {
    let balance = Balance { algorithm: Algorithm::RoundRobin, ..Balance::default() };
    let listed = [("10.0.0.1:80", 1), ("10.0.0.2:80", 3)];
    let pool = all_up(pool_of(&listed, Policy { balance, ..Policy::default() }));
    let mut random = seeded();
    let order: Vec<_> = (0..400).map(|_| name(&permit(pick(&pool, &[], &mut random)))).collect();
    assert_eq!(order.iter().filter(|it| *it == "10.0.0.1:80").count(), 100);
    for four in order.windows(8) {
        let count = four.iter().filter(|it| *it == "10.0.0.1:80").count();
        assert!((1..=3).contains(&count), "{order:?}");
    }
}

#[test]
fn a_hash_key_stays_at_its_endpoint_until_that_leaves() {
    let algorithm = Algorithm::Hash(HashKey::Address);
    let names = names(10);
    let listed: Vec<_> = names.iter().map(|it| (it.as_str(), 1)).collect();
    let policy = || Policy {
        balance: Balance { algorithm: algorithm.clone(), ..Balance::default() },
        ..Policy::default()
    };
    let before = all_up(pool_of(&listed, policy()));
    let after = all_up(pool_of(&listed[1..], policy()));
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
            false => {
                assert_eq!(here, at(&after, key), "only the keys of the removed endpoint move");
            }
        }
    }
    assert_share(of_first, 10_000, 0.1);
    for name in &names {
        assert_share(counts[name], 10_000, 0.1);
    }
}

#[test]
fn hash_keys_are_spread_by_weight() {
    let balance = Balance { algorithm: Algorithm::Hash(HashKey::Address), ..Balance::default() };
    let listed = [("10.0.0.1:80", 1), ("10.0.0.2:80", 3)];
    let pool = all_up(pool_of(&listed, Policy { balance, ..Policy::default() }));
    let mut random = seeded();
    let count = (0..10_000)
        .map(|it: u64| xxhash_rust::xxh3::xxh3_64(&it.to_le_bytes()))
        .filter(|it| name(&permit(pick_for(&pool, &[], Some(*it), &mut random))) == "10.0.0.2:80")
        .count();
    assert_share(count, 10_000, 0.75);
}

#[test]
fn no_endpoint_is_tried_twice_and_better_tiers_come_first() {
    let listed = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"];
    let pool = pool_of(&alike(&listed), Policy::default());
    let endpoints = pool.endpoints();
    down(&pool, &endpoints[0], &HealthFailure::refused("refused"));
    down(&pool, &endpoints[1], &HealthFailure::bad_response("500"));
    pool.record_check(&endpoints[3], Ok(()));
    let mut random = seeded();
    for _ in 0..100 {
        let mut tried = Vec::new();
        while let PickResult::Picked(permit) = pick(&pool, &tried, &mut random) {
            tried.push(Arc::clone(permit.endpoint()));
        }
        let order: Vec<_> = tried.iter().map(|it| it.configured().to_string()).collect();
        assert_eq!(order, ["10.0.0.4:80", "10.0.0.3:80", "10.0.0.2:80", "10.0.0.1:80"]);
    }
    assert!(matches!(pick(&pool, &endpoints, &mut random), PickResult::NoEndpoint));
}

#[test]
fn an_empty_pool_has_no_endpoint() {
    let picked = pick(&pool(&[]), &[], &mut seeded());
    assert!(matches!(picked, PickResult::NoEndpoint));
}

#[test]
fn in_panic_mode_unhealthy_endpoints_are_used_but_not_refusing_ones() {
    let names = names(10);
    let pool = pool(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let endpoints = pool.endpoints();
    for endpoint in &endpoints[..5] {
        down(&pool, endpoint, &HealthFailure::bad_response("500"));
    }
    assert!(!pool.is_panicking(), "half of them is enough");
    down(&pool, &endpoints[5], &HealthFailure::refused("refused"));
    assert!(pool.is_panicking());
    let mut random = seeded();
    let shares = shares(&pool, 9_000, &mut random);
    for (index, name) in names.iter().enumerate() {
        match index {
            5 => assert_eq!(shares.get(name), None, "it refuses connections"),
            _ => assert_share(shares[name], 9_000, 1.0 / 9.0),
        }
    }
    let tried = [Arc::clone(&endpoints[0])];
    for _ in 0..100 {
        let again = permit(pick(&pool, &tried, &mut random));
        let is_healthy = endpoints[6..].iter().any(|it| Arc::ptr_eq(it, again.endpoint()));
        assert!(is_healthy, "a retry goes to healthy endpoints");
    }
}

#[test]
fn a_recovered_endpoint_starts_slowly() {
    let balance = Balance { slow_start: Some(Duration::from_secs(3600)), ..Balance::default() };
    let old = pool_of(&alike(&LISTED), Policy { balance, ..Policy::default() });
    // The endpoints come up for the first time, which starts the slow start.
    let [one, two, three] = &old.endpoints()[..] else { panic!("three") };
    for endpoint in [one, two, three] {
        old.record_check(endpoint, Ok(()));
    }
    let whole =
        |it: &EndpointState| it.effective_weight(Some(Duration::from_secs(3600)), Instant::now());
    assert_eq!(whole(one), 100, "a tenth at first");
    let later = Instant::now() + Duration::from_secs(1800);
    assert!((450..=550).contains(&one.effective_weight(Some(Duration::from_secs(3600)), later)));
    let after = Instant::now() + Duration::from_secs(3700);
    assert_eq!(one.effective_weight(Some(Duration::from_secs(3600)), after), 1000);
    assert_eq!(one.effective_weight(None, Instant::now()), 1000);
}

#[test]
fn an_endpoint_that_stays_keeps_its_state() {
    let old = pool(&["10.0.0.1:80", "10.0.0.2:80"]);
    let policy = Arc::clone(old.policy());
    let new = spec(&[("10.0.0.2:80", 5), ("10.0.0.3:80", 1)]);
    let new = old.with_spec(new, policy, Arc::clone(old.admission()));
    assert!(Arc::ptr_eq(&old.endpoints()[1], &new.endpoints()[0]));
    assert_eq!((new.endpoints()[0].weight(), new.endpoints()[0].health()), (5, Health::Up));
    assert_eq!(new.endpoints()[1].configured().to_string(), "10.0.0.3:80");
    assert_eq!(new.endpoints()[1].health(), Health::Unknown);
}

#[test]
fn a_name_has_an_endpoint_state_for_each_of_its_addresses() {
    let pool = pool(&["app:80", "10.0.0.9:80"]);
    let addresses =
        |pool: &Pool| -> Vec<_> { pool.endpoints().iter().map(|it| it.address()).collect() };
    let of = |it: &str| Some(it.parse::<SocketAddr>().expect("an address"));
    assert_eq!(addresses(&pool), [None, of("10.0.0.9:80")]);
    let [one, two, three]: [IpAddr; 3] =
        ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|it| it.parse().expect("an address"));
    assert!(pool.resolve("app", &[one, two]));
    assert!(!pool.resolve("app", &[one, two]), "unchanged");
    assert!(!pool.resolve("other", &[three]));
    assert_eq!(addresses(&pool), [of("10.0.0.1:80"), of("10.0.0.2:80"), of("10.0.0.9:80")]);
    let before = pool.endpoints();
    assert!(pool.resolve("app", &[two, three]));
    assert_eq!(addresses(&pool), [of("10.0.0.2:80"), of("10.0.0.3:80"), of("10.0.0.9:80")]);
    assert!(Arc::ptr_eq(&before[1], &pool.endpoints()[0]), "a kept address keeps its state");
    let changed = pool.with_spec(
        spec(&[("app:80", 1)]),
        Arc::clone(pool.policy()),
        Arc::clone(pool.admission()),
    );
    assert_eq!(addresses(&changed), [of("10.0.0.2:80"), of("10.0.0.3:80")]);
    let configured: Endpoint = "app:80".parse().expect("an endpoint");
    assert!(changed.endpoints().iter().all(|it| *it.configured() == configured));
}
