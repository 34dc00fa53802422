//! What does a claim cost, and giving it back, at 1, 2 and 4 threads?
//!
//! Each thread stands for a worker, and takes and gives back one claim after the other. The time shown is that of one
//! round of all threads; the rate is of claims, of all threads together. Where there are fewer cores than
//! threads, they take turns, and only the rate says something.

mod support;

use std::{convert::Infallible, hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use flipgate::{
    model::{Audience, Color, Generation, Host, Networks, Router, Rules, ServiceName},
    proxy::{RequestView, RequestedColor, admit},
    switch::{Ledger, LedgerShard, ServiceEntry, Switch, Table, Visit},
};
use support::{together, together_beside};

/// As in the running program, but for the pools: a claim has nothing to do with what is in them.
type Fleet = Switch<Arc<Rules>, String>;

const SERVICES: usize = 50;
const THREADS: [usize; 3] = [1, 2, 4];
const PATH: &str = "/api/v2/orders/81632";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let switch = fleet();
    // All threads on one counter, as for a busy service.
    compare(&mut criterion, "one service", |threads, rounds| {
        together(threads, rounds, |_| claim(&switch, 0))
    });
    // What sharing the count costs is the difference to this.
    compare(&mut criterion, "a service each", |threads, rounds| {
        together(threads, rounds, |thread| claim(&switch, thread))
    });
    for (name, hosts) in [("one service", 1), ("a service each", SERVICES)] {
        let name = format!("{name}, by host and path, written into the ledger");
        compare(&mut criterion, &name, |threads, rounds| {
            let ledger = Ledger::new(threads);
            let workers: Vec<_> = (0..threads)
                .map(|it| (format!("service-{}.example.com", it % hosts), ledger.shard(it)))
                .collect();
            together(threads, rounds, |thread| admitted(&switch, &workers[thread]))
        });
    }
    compare(&mut criterion, "one service, flipped all the time", |threads, rounds| {
        together_beside(threads, rounds, |_| claim(&switch, 0), || flip(&switch, "service-0"))
    });
    compare(
        &mut criterion,
        "one service, while another is flipped all the time",
        |threads, rounds| {
            together_beside(threads, rounds, |_| claim(&switch, 0), || flip(&switch, "service-9"))
        },
    );
    criterion.final_summary();
}

fn compare(criterion: &mut Criterion, name: &str, run: impl Fn(usize, u64) -> Duration) {
    let mut group = criterion.benchmark_group(format!("claim: {name}"));
    for threads in THREADS {
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
            bencher.iter_custom(|rounds| run(threads, rounds));
        });
    }
    group.finish();
}

/// Takes a claim and gives it back, with nothing decided.
fn claim(switch: &Fleet, service: usize) {
    let Ok(claim) = switch.claim(|_| Ok::<_, Infallible>((black_box(service), Visit::Active)));
    black_box(claim.pool());
}

/// The same as a request does it: the service is found by host and path, and the claim is written down.
fn admitted(switch: &Fleet, (host, shard): &(String, Arc<LedgerShard<u64>>)) {
    let host = Host::parse(black_box(host)).expect("a host");
    let view = RequestView {
        host: &host,
        path: black_box(PATH),
        audience: Audience::Public,
        requested: RequestedColor::None,
        listener: None,
    };
    let claim = switch.claim(|table| admit(table.rules(), &view)).expect("there is a route");
    let ticket = shard.record(claim.side(), 0, None);
    black_box((claim.pool(), &ticket));
}

/// Makes the color active that is not, as a promotion does, without the call and the disk.
fn flip(switch: &Fleet, service: &str) {
    let seen = switch.load();
    let mut drafts = seen.entries();
    for draft in drafts.iter_mut().filter(|it| it.name.as_str() == service) {
        draft.active = draft.active.other();
    }
    let next = seen.next(seen.generation().next(), Arc::clone(seen.rules()), drafts);
    switch.replace(seen, next).expect("no other thread changes it");
}

/// Fifty services by four routes each.
fn fleet() -> Fleet {
    let mut router = Router::default();
    for service in 0..SERVICES {
        for host in [format!("service-{service}.example.com"), format!("*.s{service}.example.com")]
        {
            let host = host.parse().expect("a pattern");
            for path in ["/", "/api/v2"] {
                router.insert(&host, &path.parse().expect("a prefix"), service).expect("free");
            }
        }
    }
    let rules = Rules {
        id: 0,
        router,
        internal: Networks::default(),
        trusted_proxies: Networks::default(),
        public_headers: false,
        keeps_trace: false,
        response_timeout: Duration::from_secs(60),
        services: Vec::new(),
    };
    let draft = |service: usize| {
        let name: ServiceName = format!("service-{service}").parse().expect("a name");
        let pool = |color: Color| Arc::new(format!("{name} {color}"));
        ServiceEntry {
            blue: pool(Color::Blue),
            green: pool(Color::Green),
            active: Color::Blue,
            name,
            terms: (),
            renewed: None,
        }
    };
    let drafts = (0..SERVICES).map(draft).collect();
    Switch::new(Table::first(Generation(0), Arc::new(rules), drafts))
}
