//! How long does it take to tell internal from public, with 10 to 100,000 networks?
//!
//! Asked once for each connection, and for each request behind a trusted proxy. The addresses that are asked
//! for are many, so that not only one path of the tree is in the processor's cache.

use std::{
    hint::black_box,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use criterion::{BatchSize, BenchmarkId, Criterion};
use flipgate::model::Networks;
use ipnet::IpNet;

const SIZES: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];
const ASKED: usize = 1024;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("audience");
    for size in SIZES {
        for (name, asker) in [
            ("internal, IPv4", inside_v4 as fn(&Sample, u32) -> IpAddr),
            ("public, IPv4", |_, number| outside_v4(number)),
            ("internal, IPv6", inside_v6),
            ("public, IPv6", |_, number| outside_v6(number)),
            ("public, IPv6, beside a network", beside_v6),
        ] {
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                let sample = Sample::of(size);
                let asked: Vec<IpAddr> = (0..ASKED as u32).map(|it| asker(&sample, it)).collect();
                let is_internal = name.starts_with("internal");
                assert!(asked.iter().all(|it| sample.networks.contains(*it) == is_internal));
                let mut askers = asked.iter().cycle();
                bencher.iter(|| {
                    let asker = askers.next().expect("a cycle has no end");
                    sample.networks.contains(black_box(*asker))
                });
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("audience: making the set");
    group.sample_size(10);
    for size in SIZES {
        group.bench_function(BenchmarkId::new("networks", size), |bencher| {
            let list = Sample::of(size).list;
            let make = |it: Vec<IpNet>| it.into_iter().collect::<Networks>();
            bencher.iter_batched(|| list.clone(), make, BatchSize::PerIteration);
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Networks of the private ranges, half of them of each family, and nothing beside them.
struct Sample {
    list: Vec<IpNet>,
    networks: Networks,
}

impl Sample {
    fn of(size: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let network = |number: usize| match number % 2 {
            // Within 10.0.0.0/8, from a building to a single machine.
            0 => {
                let address = u32::from(Ipv4Addr::new(10, 0, 0, 0)) | random.u32(..1 << 24);
                let length = if number == 0 { 24 } else { random.u8(20..=32) };
                IpNet::new(Ipv4Addr::from(address).into(), length).expect("a length").trunc()
            }
            // Within fd00::/8.
            _ => {
                let address = 0xfd << 120 | random.u128(..1 << 120);
                let length = if number == 1 { 64 } else { random.u8(40..=64) };
                IpNet::new(Ipv6Addr::from(address).into(), length).expect("a length").trunc()
            }
        };
        let list: Vec<IpNet> = (0..size).map(network).collect();
        Self { networks: list.iter().copied().collect(), list }
    }
}

fn inside_v4(sample: &Sample, number: u32) -> IpAddr {
    sample.list[number as usize * 2 % sample.list.len()].addr()
}

fn inside_v6(sample: &Sample, number: u32) -> IpAddr {
    sample.list[(number as usize * 2 + 1) % sample.list.len()].addr()
}

/// In the other half of the next larger network, so that it differs only at the end.
fn beside_v6(sample: &Sample, number: u32) -> IpAddr {
    let network = sample.list[(number as usize * 2 + 1) % sample.list.len()];
    let IpAddr::V6(address) = network.addr() else { unreachable!("odd numbers are IPv6") };
    Ipv6Addr::from(u128::from(address) ^ 1 << (128 - network.prefix_len())).into()
}

/// All over the world, without the private ranges.
fn outside_v4(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0b00_0000 + number * 7919 * 131).into()
}

fn outside_v6(number: u32) -> IpAddr {
    Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(number) << 70 | 1).into()
}
