//! How long does it take to find the service for a host and a path among 10 to 100,000 routes?
//!
//! Two tables: one with a host for every route, and one with a single host and a path for every route;
//! `making` tells what it takes to build them.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion};
use flipgate::model::{Host, HostPattern, PathPrefix, Router};

const ROUTES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    by_host(&mut criterion);
    by_path(&mut criterion);
    making(&mut criterion);
    criterion.final_summary();
}

fn by_host(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route: a host for each");
    for routes in ROUTES {
        let middle = routes / 4 * 2;
        for (name, host, is_found) in [
            // Even numbers are hosts, odd ones wildcards.
            ("hit", format!("app-{middle}.example.com"), true),
            ("wildcard", format!("www.shop.tenant-{}.example.com", middle + 1), true),
            ("miss", "www.shop.elsewhere.example.org".to_owned(), false),
        ] {
            group.bench_function(BenchmarkId::new(name, routes), |bencher| {
                let router = hosts(routes);
                let host = Host::parse(&host).expect("a host");
                assert_eq!(router.find(&host, "/api/v2/orders").is_some(), is_found);
                bencher.iter(|| router.find(black_box(&host), black_box("/api/v2/orders")));
            });
        }
    }
    group.finish();
}

fn by_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route: a path for each");
    for routes in ROUTES {
        for (name, path, is_found) in [
            ("first", "/shop/part-100000/list".to_owned(), true),
            ("last", format!("/shop/part-{}/list", 100_000 + routes - 1), true),
            ("miss", "/shop/elsewhere/list".to_owned(), false),
        ] {
            group.bench_function(BenchmarkId::new(name, routes), |bencher| {
                let router = paths(routes);
                let host = Host::parse("www.example.com").expect("a host");
                assert_eq!(router.find(&host, &path).is_some(), is_found);
                bencher.iter(|| router.find(black_box(&host), black_box(&path)));
            });
        }
    }
    group.finish();
}

fn making(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route: making the table");
    group.sample_size(10);
    for (name, sizes, make) in [
        ("a host for each", &ROUTES[..], hosts as fn(usize) -> Router<usize>),
        ("a path for each", &ROUTES[..], paths),
    ] {
        for routes in sizes {
            group.bench_function(BenchmarkId::new(name, routes), |bencher| {
                bencher.iter_batched(|| *routes, make, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

/// Half of them are hosts, half wildcards.
fn hosts(routes: usize) -> Router<usize> {
    table((0..routes).map(|it| match it % 2 {
        0 => (format!("app-{it}.example.com"), "/".to_owned()),
        _ => (format!("*.tenant-{it}.example.com"), "/".to_owned()),
    }))
}

fn paths(routes: usize) -> Router<usize> {
    table(
        (0..routes)
            .map(|it| ("www.example.com".to_owned(), format!("/shop/part-{}", 100_000 + it))),
    )
}

fn table(routes: impl Iterator<Item = (String, String)>) -> Router<usize> {
    let mut router = Router::default();
    for (number, (host, path)) in routes.enumerate() {
        let host: HostPattern = host.parse().expect("a pattern");
        let path: PathPrefix = path.parse().expect("a prefix");
        router.insert(&host, &path, number).expect("free");
    }
    router
}
