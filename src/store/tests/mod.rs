//! What comes back? What was acknowledged, whatever becomes of the disk.

mod audit;
mod faults;
mod formats;
mod full;
mod power;
mod simulated;

use std::sync::{Arc, mpsc};

use self::simulated::Simulated;
use super::{
    CommitError,
    accepted::AcceptedCall,
    disk::Disk,
    journal::{HousekeepingJob, Journal, JournalFiles},
    recovery::{Recovered, recover},
    state::{Promotion, Revision, ServiceState, State},
};
use crate::{
    continuity::{HoldTerm, Maintenance},
    model::{Color, Endpoint, Generation, PoolSpec, ServiceName},
};

/// A journal on a simulated disk; the test is its other thread.
struct Bench {
    disk: Simulated,
    files: JournalFiles,
    jobs: mpsc::Receiver<HousekeepingJob>,
    journal: Journal,
}

/// So few that a handful of changes goes through several files.
const FEW_BLOCKS: usize = 3;

impl Bench {
    fn open(disk: &Simulated) -> Self {
        let found = recover(disk, "state").expect("nothing is damaged");
        let disk = disk.clone();
        let files = JournalFiles::new(Arc::new(disk.clone()), "state", FEW_BLOCKS);
        let (sender, jobs) = mpsc::channel();
        let state = found.state.unwrap_or_default();
        let journal = Journal::new(files.clone(), state, found.last_number, sender);
        Self { disk, files, jobs, journal }
    }

    /// The same, ready for changes.
    fn ready(disk: &Simulated) -> Self {
        let mut bench = Self::open(disk);
        bench.journal.begin().expect("a disk that is well");
        bench
    }

    fn commit(&mut self, next: State) -> Result<Revision, CommitError> {
        let expected = self.journal.state().revision;
        let done = self.journal.commit(expected, next);
        self.disk.inner().note = self.journal.state().revision.0;
        while let Ok(job) = self.jobs.try_recv() {
            self.files.work(job);
        }
        done
    }
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_no_journal_behind() {
    // The calls that make and write the snapshot, behind six for the file of the journal, and the renaming.
    for (call, journals) in [(6, 1), (7, 1), (8, 1), (9, 2)] {
        let disk = Simulated::default();
        let mut bench = Bench::ready(&disk);
        bench.commit(step(&State::default(), 1)).expect("a disk that is well");
        let mut bench = Bench::open(&disk);
        disk.plan(call, simulated::Fault::NoSpace);
        bench.journal.begin().expect_err("the disk is full");
        let names = disk.list().expect("it can be listed");
        let found = names.iter().filter(|it| it.starts_with("journal-")).count();
        assert_eq!(
            (found, names.iter().any(|it| it.contains(".next"))),
            (journals, false),
            "{names:?}"
        );
    }
}

/// Waits for what another thread does.
fn wait_until(condition: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !condition() {
        assert!(begin.elapsed().as_secs() < 20, "not in time");
        std::thread::yield_now();
    }
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

fn spec(endpoints: &[&str]) -> PoolSpec {
    let endpoints = endpoints.iter().map(|it| it.parse::<Endpoint>().expect("an endpoint"));
    PoolSpec::new(Some("7.9".parse().expect("a version")), endpoints).expect("no two alike")
}

/// The state that change number `number` leads to, from the one before it: a bit of everything, and
/// sometimes more than a block.
fn step(before: &State, number: u64) -> State {
    let mut next = before.clone();
    next.revision = Revision(number);
    next.generation = Generation(number / 2);
    let service = name(["api", "shop", "web"][usize::try_from(number % 3).expect("small")]);
    // Most changes take a few sectors, and some more than a block.
    let count = if number.is_multiple_of(8) { 250 } else { 20 };
    let many: Vec<_> = (1..=count).map(|it| format!("10.0.0.{it}:{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut state = next.services.get(&service).map_or_else(
        || ServiceState::fresh(Color::Blue, spec(&["127.0.0.1:1"]), spec(&["app:2"])),
        |it| ServiceState::clone(it),
    );
    match number % 4 {
        0 => state.green.runtime = Some(spec(&many)),
        1 => state.promote(state.active.other()),
        2 => state.green.runtime = None,
        _ => {
            state.blue.served = !state.blue.served;
            state.green.shared = !state.green.shared;
        }
    }
    next.services.insert(service.clone(), Arc::new(state));
    match number % 5 {
        0 => drop(next.holds.insert(service.clone(), Arc::new(hold(number)))),
        1 => drop(next.maintenance.insert(service.clone(), Arc::new(maintenance(number)))),
        2 => drop(next.holds.remove(&service)),
        3 => drop(next.maintenance.remove(&service)),
        _ => {}
    }
    if number.is_multiple_of(2) {
        next.promotion = Arc::new(Promotion {
            services: vec![service],
            generation: next.generation,
            is_rollback: number.is_multiple_of(4),
            reason: Some(format!("change {number}")),
        });
        let (key, fingerprint) = (format!("key-{number}"), "f".to_owned());
        let (generation, at) = (next.generation, Some(number));
        next.accepted.put(AcceptedCall { key, fingerprint, generation, at });
    }
    next
}

fn hold(number: u64) -> HoldTerm {
    let (began_ms, set_ms, until_ms) = (number, number + 1, number + 10_000);
    HoldTerm { id: number, owner: "ci".into(), began_ms, set_ms, until_ms, places: 100 }
}

fn maintenance(number: u64) -> Maintenance {
    let page = number.is_multiple_of(2).then(|| "<p>\"soon\"</p>".into());
    let retry_after = Maintenance::RETRY_AFTER;
    let except_internal = number.is_multiple_of(4);
    Maintenance { owner: "uid 7".into(), since_ms: number, page, retry_after, except_internal }
}

/// The states that so many changes lead through, from the empty one.
fn states(count: u64) -> Vec<State> {
    let mut states = vec![State::default()];
    for number in 1..=count {
        states.push(step(&states[states.len() - 1], number));
    }
    states
}

fn found(disk: &dyn Disk) -> Result<State, String> {
    let found = recover(disk, "state").map_err(|error| error.to_string());
    found.map(|it: Recovered| it.state.unwrap_or_default())
}

#[test]
fn commits_are_found_through_many_files() {
    let disk = Simulated::default();
    let states = states(40);
    let mut bench = Bench::ready(&disk);
    for state in &states[1..=25] {
        bench.commit(state.clone()).expect("a disk that is well");
    }
    assert!(found(&disk) == Ok(states[25].clone()));
    let names = disk.list().expect("names");
    assert!(names.len() < 6, "what is old is removed: {names:?}");
    // A restart goes on where the last one ended.
    let mut bench = Bench::ready(&disk);
    for state in &states[26..] {
        bench.commit(state.clone()).expect("a disk that is well");
    }
    assert!(found(&disk) == Ok(states[40].clone()));
}

#[test]
fn a_commit_on_an_old_revision_changes_nothing() {
    let disk = Simulated::default();
    let states = states(3);
    let mut bench = Bench::ready(&disk);
    bench.commit(states[1].clone()).expect("current");
    let stale = bench.journal.commit(Revision(0), states[2].clone());
    assert!(matches!(stale, Err(CommitError::Conflict { current: Revision(1) })), "{stale:?}");
    assert!(found(&disk) == Ok(states[1].clone()));
}

#[test]
fn the_size_of_a_change_depends_on_the_difference_alone() {
    let mut state = State::default();
    for number in 0..10_000 {
        let service = ServiceState::fresh(Color::Blue, spec(&["127.0.0.1:1"]), spec(&["app:2"]));
        state.services.insert(name(&format!("service-{number}")), Arc::new(service));
    }
    let mut next = state.clone();
    let mut service = ServiceState::clone(&next.services["service-77"]);
    service.promote(Color::Green);
    next.services.insert(name("service-77"), Arc::new(service));
    let delta = super::entries::Delta::between(&state, &next);
    let bytes = serde_json::to_vec(&delta).expect("JSON").len();
    assert!(bytes < 600, "{bytes} bytes for one of ten thousand");
}

/// A cleaner that removes the lock file once let a second writer in.
#[test]
fn two_processes_do_not_share_a_folder_even_if_the_lock_file_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = super::FileStore::open(folder.path()).expect("a fresh folder");
    std::fs::remove_file(folder.path().join("lock")).expect("it is there");
    let second = super::FileStore::open(folder.path());
    assert!(matches!(second, Err(super::StoreError::InUse(_))), "{second:?}");
    first.close();
    super::FileStore::open(folder.path()).expect("it is free again").close();
}

#[tokio::test]
async fn a_store_notifies_watchers_and_survives_its_process() {
    use super::{FileStore, Store};
    let folder = tempfile::tempdir().expect("a folder");
    let states = states(2);
    let store = FileStore::open(folder.path()).expect("a fresh folder");
    let mut watch = store.watch();
    assert_eq!(*watch.borrow_and_update(), State::default());
    let done = store.commit(Revision(0), states[1].clone()).await;
    assert_eq!(done.expect("a disk that is well"), Revision(1));
    assert!(watch.has_changed().expect("the store lives"));
    assert_eq!(*watch.borrow_and_update(), states[1]);
    let stale = store.commit(Revision(0), states[2].clone()).await;
    assert!(matches!(stale, Err(CommitError::Conflict { .. })), "{stale:?}");
    // Dropping the future does not take the change back.
    let mut commit = store.commit(Revision(1), states[2].clone());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(commit.as_mut().poll(&mut context).is_pending());
    drop(commit);
    watch.changed().await.expect("it is made all the same");
    assert_eq!(*watch.borrow_and_update(), states[2]);
    tokio::task::spawn_blocking(move || store.close()).await.expect("it ends");
    assert!(watch.changed().await.is_err(), "the watch ends with the store");
    let again = FileStore::open(folder.path()).expect("it was released");
    assert_eq!(*again.watch().borrow(), states[2]);
}

/// Once, a full disk was not noticed before the next change.
#[tokio::test]
async fn a_full_disk_is_reported_until_a_write_succeeds() {
    use super::{FileStore, Store};
    let disk = Simulated::default();
    disk.inner().leave_room(Some(0));
    let store = FileStore::start(
        Arc::new(disk.clone()),
        "state",
        (),
        crate::audit::AuditSettings::default(),
    )
    .expect("it is readable");
    assert!(store.condition().refused.is_some_and(|it| it.contains("cannot make")));
    let states = states(3);
    disk.inner().leave_room(None);
    store.commit(Revision(0), states[1].clone()).await.expect("there is room again");
    assert_eq!(store.condition().refused, None);
    disk.plan(0, simulated::Fault::Io);
    let refused = store.commit(Revision(1), states[2].clone()).await;
    assert!(matches!(refused, Err(CommitError::Refused(_))), "{refused:?}");
    assert!(store.condition().refused.is_some_and(|it| it.contains("planned")));
    store.commit(Revision(1), states[2].clone()).await.expect("the disk is well again");
    assert_eq!(store.condition().refused, None);
}
