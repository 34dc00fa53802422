//! What does counting a request for `/metrics` cost, at 1, 2 and 4 threads?
//!
//! It cannot be turned off, so there is no run without it to compare with: these are the calls that
//! each request makes when it ends, and no others. The series are the process's, so workers meet in them; how
//! much that costs is what the second thread shows. The time is that of one round of all threads, the rate of
//! requests, of all threads together.

mod support;

use std::{hint::black_box, time::Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use flipgate::{
    metrics::{Metrics, PoolMetrics},
    model::{Color, ServiceName},
};
use prometheus::Registry;
use support::together;

const THREADS: [usize; 3] = [1, 2, 4];

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
    let pools: Vec<PoolMetrics> = (0..4).map(|it| pool(&metrics, it)).collect();
    let started = Instant::now();
    let parts: [(&str, &(dyn Fn(usize) + Sync)); 5] = [
        ("the code of an answer", &|_| pools[0].count(black_box(200))),
        ("its duration", &|_| pools[0].observe(black_box(0.0123))),
        ("looking at the clock", &|_| {
            black_box(started.elapsed());
        }),
        ("all of it", &|_| count(&pools[0], started)),
        ("all of it, a service each", &|thread| count(&pools[thread], started)),
    ];
    for (name, part) in parts {
        let mut group = criterion.benchmark_group(format!("counting: {name}"));
        for threads in THREADS {
            group.throughput(Throughput::Elements(threads as u64));
            group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
                bencher.iter_custom(|rounds| together(threads, rounds, part));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// What an exchange does when it is over.
fn count(pool: &PoolMetrics, started: Instant) {
    pool.count(black_box(200));
    pool.observe(black_box(started).elapsed().as_secs_f64());
}

fn pool(metrics: &Metrics, number: usize) -> PoolMetrics {
    let service: ServiceName = format!("service-{number}").parse().expect("a name");
    metrics.pool(&service, Color::Blue)
}
