//! How long is a flip on its way to the disk, with 1 and with 10,000 services?
//!
//! Each round does three things in turn on the same disk: an overwrite of 4 KiB in a zero-filled file with
//! `fdatasync`, which is the least that a durable change can cost; a commit to the store; and a flip, from the
//! call to its acknowledgement, by which it is applied. For comparison, a whole state is written beside the old
//! one, synced and renamed, which is what version 0.1.0 did. The medians are printed, with their ratio to
//! the first.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use flipgate::{
    app::App,
    config::Config,
    control::{Change, ChangeRequest, PoolSnapshot},
    model::{Color, Generation, Health, PoolSpec, ServiceName},
    store::{FileStore, Revision, ServiceState, State, Store},
};

const BLOCK: usize = 4096;
const BLOCKS: usize = 512;

fn main() {
    // `cargo test --benches` only wants to know that it works.
    let rounds = if std::env::args().any(|it| it == "--bench") { 1000 } else { 3 };
    println!("services  4 KiB + fdatasync       commit          flip    rename (0.1.0)");
    for services in [1, 10_000] {
        let medians = measure(services, rounds);
        let [sync, ..] = medians;
        let micros = |it: Duration| format!("{:7.1} µs", it.as_secs_f64() * 1e6);
        let ratio = |it: Duration| it.as_secs_f64() / sync.as_secs_f64();
        println!(
            "{services:8}        {}   {} {:.2}  {} {:.2}  {} {:.2}",
            micros(sync),
            micros(medians[1]),
            ratio(medians[1]),
            micros(medians[2]),
            ratio(medians[2]),
            micros(medians[3]),
            ratio(medians[3]),
        );
    }
}

fn measure(services: usize, rounds: usize) -> [Duration; 4] {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let zeros = zero_filled(&folder.path().join("zeros"));
    let store = FileStore::open(&folder.path().join("store")).expect("a fresh folder");
    let mut state = state(services);
    runtime.block_on(store.commit(Revision(0), state.clone())).expect("a disk that is well");
    let app = app(services, folder.path());
    let mut color = Color::Blue;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for round in 0..rounds {
        let begin = Instant::now();
        let block = [u8::try_from(round % 251).expect("small"); BLOCK];
        zeros.write_all_at(&block, ((round % BLOCKS) * BLOCK) as u64).expect("a disk that is well");
        zeros.sync_data().expect("a disk that is well");
        times[0].push(begin.elapsed());

        let expected = store.watch().borrow().revision;
        let next = flipped(&mut state, services / 2);
        let begin = Instant::now();
        runtime.block_on(store.commit(expected, next)).expect("a disk that is well");
        times[1].push(begin.elapsed());

        color = color.other();
        let colors = BTreeMap::from([(name(services / 2), color)]);
        let change = Change::Promote(colors);
        let call = ChangeRequest::unconditional(change);
        // On the thread that the admin API asks from.
        let control = app.control().clone();
        let flip = app.control_runtime().spawn(async move {
            let begin = Instant::now();
            control.propose(call).await.expect("it can be flipped");
            begin.elapsed()
        });
        times[2].push(runtime.block_on(flip).expect("no panic"));
    }
    // By itself: what megabytes leave to be written would slow the others down.
    let whole = vec![b'x'; 500 * services];
    for _ in 0..rounds.min(200) {
        let begin = Instant::now();
        rename(folder.path(), &whole);
        times[3].push(begin.elapsed());
    }
    let _ = app.shut_down();
    times.map(|mut it| {
        it.sort_unstable();
        it[it.len() / 2]
    })
}

fn name(number: usize) -> ServiceName {
    format!("s{number}").parse().expect("a name")
}

fn state(services: usize) -> State {
    let mut state = State { generation: Generation(1), ..State::default() };
    for number in 0..services {
        let service = ServiceState::fresh(Color::Blue, spec("127.0.0.1:1"), spec("127.0.0.1:2"));
        state.services.insert(name(number), service.into());
    }
    state
}

fn spec(endpoint: &str) -> PoolSpec {
    let endpoint: flipgate::model::Endpoint = endpoint.parse().expect("an endpoint");
    PoolSpec::new(None, [endpoint]).expect("one endpoint")
}

fn flipped(state: &mut State, number: usize) -> State {
    let mut service = ServiceState::clone(&state.services[&name(number)]);
    service.promote(service.active.other());
    state.services.insert(name(number), service.into());
    state.generation = state.generation.next();
    state.clone()
}

fn app(services: usize, folder: &Path) -> App {
    let mut text = format!(
        "state_dir = {:?}\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\n",
        folder.join("app").display().to_string()
    );
    for number in 0..services {
        text.push_str(&format!(
            "[service.s{number}]\nhosts = [\"s{number}.test\"]\n\
             blue = {{ endpoints = [\"127.0.0.1:1\"] }}\ngreen = {{ endpoints = [\"127.0.0.1:2\"] }}\n\
             health = {{ interval = \"1h\", fall = 1, rise = 1 }}\n"
        ));
    }
    let config = Config::parse("bench.toml".as_ref(), &text).expect("a configuration");
    let app = App::start(config, None).expect("free ports and a folder");
    // The first health checks of so many endpoints keep a core busy for seconds.
    let is_known =
        |it: &PoolSnapshot| it.endpoints.iter().all(|it| it.health.health != Health::Unknown);
    let is_calm = || {
        let services = app.control().snapshot().services;
        services.values().all(|it| is_known(&it.blue) && is_known(&it.green))
    };
    while !is_calm() {
        std::thread::yield_now();
    }
    app
}

fn zero_filled(path: &Path) -> File {
    let file = File::create(path).expect("a folder");
    file.write_all_at(&vec![0; BLOCK * BLOCKS], 0).expect("room");
    file.sync_all().expect("a disk that is well");
    file
}

fn rename(folder: &Path, whole: &[u8]) {
    let (beside, place) = (folder.join("state.next"), folder.join("state"));
    let mut file = File::create(&beside).expect("a folder");
    file.write_all(whole).expect("room");
    file.sync_all().expect("a disk that is well");
    std::fs::rename(beside, place).expect("a folder");
    File::open(folder).and_then(|it| it.sync_all()).expect("a disk that is well");
}
