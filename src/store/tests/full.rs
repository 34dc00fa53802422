//! A full disk refuses changes, and no rollback.

use std::sync::Arc;

use super::{
    super::{
        CommitError, FileStore, Store, StoreError,
        audit_file::CURRENT,
        disk::Disk,
        reserve::RESERVE,
        state::{Promotion, State},
    },
    Simulated, audit,
};
use crate::{audit::AuditSettings, model::Generation};

fn open(disk: &Simulated) -> FileStore {
    let settings = AuditSettings::default();
    FileStore::start(Arc::new(disk.clone()), "state", (), settings).expect("it is readable")
}

fn current(store: &FileStore) -> State {
    store.watch().borrow().clone()
}

/// A change that is no rollback.
fn change(before: &State) -> State {
    let mut next = audit::step(before);
    next.promotion = Arc::clone(&before.promotion);
    next
}

fn rollback(before: &State) -> State {
    let mut next = audit::step(before);
    let generation = Generation(before.revision.0 + 1000);
    let promotion = Promotion { generation, is_rollback: true, ..Promotion::default() };
    next.promotion = Arc::new(promotion);
    next
}

async fn commit(store: &FileStore, next: State) -> Result<(), CommitError> {
    store.commit(current(store).revision, next).await.map(drop)
}

fn is_full(done: &Result<(), CommitError>) -> bool {
    matches!(done, Err(CommitError::Refused(StoreError::Full { .. })))
}

#[tokio::test]
async fn a_full_disk_refuses_changes_with_the_remedy_and_accepts_rollbacks() {
    let disk = Simulated::default();
    let store = open(&disk);
    commit(&store, change(&current(&store))).await.expect("there is room");
    assert!(disk.read(RESERVE).is_ok(), "space is reserved");
    // The audit file cannot grow any more.
    disk.inner().leave_bytes(Some(0));
    commit(&store, rollback(&current(&store))).await.expect("the journal file has room");
    super::wait_until(|| store.condition().audit.is_some());
    let before = current(&store);
    let refused = commit(&store, change(&before)).await;
    assert!(is_full(&refused), "{refused:?}");
    let text = refused.expect_err("refused").to_string();
    for part in ["state/audit.jsonl", "free space", "`state_dir`", "rollbacks"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(current(&store), before, "nothing has changed");
    assert!(store.condition().refused.is_some_and(|it| it.contains("full")));
    for _ in 0..3 {
        commit(&store, rollback(&current(&store))).await.expect("a rollback");
    }
    // With room again, all is as before, and no line is missing.
    disk.inner().leave_bytes(None);
    super::wait_until(|| store.condition().audit.is_none());
    commit(&store, change(&current(&store))).await.expect("there is room again");
    assert_eq!(store.condition().refused, None);
    let lines = current(&store).audit.count;
    store.close();
    let text = disk.read(CURRENT).expect("it is there");
    assert_eq!(text.iter().filter(|it| **it == b'\n').count() as u64, lines);
}

#[tokio::test]
async fn a_rollback_that_needs_a_new_journal_file_gets_the_reserve() {
    let disk = Simulated::default();
    let store = open(&disk);
    commit(&store, change(&current(&store))).await.expect("there is room");
    let state = current(&store);
    store.close();
    // A start writes new files: for these there is room only in the reserve.
    disk.inner().leave_bytes(Some(0));
    let store = open(&disk);
    assert_eq!(current(&store).services, state.services, "what is there is served");
    assert!(store.condition().refused.is_some_and(|it| it.contains("full")));
    let refused = commit(&store, change(&current(&store))).await;
    assert!(is_full(&refused), "{refused:?}");
    assert_eq!(current(&store).services, state.services, "nothing has changed");
    commit(&store, rollback(&current(&store))).await.expect("space is reserved for it");
    let last = current(&store);
    store.close();
    disk.inner().leave_bytes(None);
    let found = current(&open(&disk));
    assert_eq!((found.services, found.promotion), (last.services, last.promotion));
}

/// The state has grown since, and the disk has no room for a larger reserve.
#[tokio::test]
async fn a_start_on_a_full_disk_keeps_the_reserve_that_is_there() {
    let disk = Simulated::default();
    let store = open(&disk);
    commit(&store, change(&current(&store))).await.expect("there is room");
    let before = disk.read(RESERVE).expect("space is reserved").len();
    for _ in 0..50 {
        commit(&store, change(&current(&store))).await.expect("there is room");
    }
    store.close();
    disk.inner().leave_bytes(Some(0));
    let store = open(&disk);
    assert_eq!(disk.read(RESERVE).expect("it is kept").len(), before);
    assert!(commit(&store, change(&current(&store))).await.is_err());
    commit(&store, rollback(&current(&store))).await.expect("a rollback has its space");
    disk.inner().leave_bytes(None);
    commit(&store, change(&current(&store))).await.expect("there is room again");
    super::wait_until(|| disk.read(RESERVE).is_ok_and(|it| it.len() > before));
    super::wait_until(|| store.condition().refused.is_none());
}

#[test]
fn without_the_reserve_the_same_rollback_is_refused() {
    let disk = Simulated::default();
    let mut bench = super::Bench::ready(&disk);
    let next = audit::step(bench.journal.state());
    bench.commit(next).expect("there is room");
    let mut bench = super::Bench::open(&disk);
    disk.inner().leave_bytes(Some(0));
    bench.journal.begin().expect_err("there is no room");
    let done = bench.commit(rollback(bench.journal.state())).map(drop);
    assert!(is_full(&done), "{done:?}");
}

#[test]
fn the_reserve_takes_real_space_once_and_frees_it() {
    let disk = Simulated::default();
    let reserve = super::super::reserve::Reserve::new(Arc::new(disk.clone()), 100_000);
    disk.inner().leave_bytes(Some(99_999));
    assert!(reserve.take().is_err_and(|it| super::super::reserve::is_full(&it)));
    assert!(disk.read(RESERVE).is_err() && !reserve.is_held(), "a part of it is of no use");
    disk.inner().leave_bytes(Some(100_000));
    reserve.take().expect("there is room");
    reserve.take().expect("it is there");
    assert_eq!(disk.read(RESERVE).map(|it| it.len()).ok(), Some(100_000));
    let freed = reserve.give_up();
    assert!(freed.is_removed && disk.read(RESERVE).is_err());
    drop(freed);
    assert!(!reserve.give_up().is_removed, "there is none any more");
}

#[tokio::test]
async fn with_too_many_lines_in_no_file_only_rollbacks_are_accepted_and_no_line_is_lost() {
    use super::super::audit_log::AuditLog;
    let disk = Simulated::default();
    let store = open(&disk);
    // Another program's folder of this name, as far as this disk can show it.
    disk.inner().refuse(CURRENT, true);
    let mut made = 0;
    let refused = loop {
        match commit(&store, change(&current(&store))).await {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(made, AuditLog::PENDING_MAX);
    let text = refused.to_string();
    assert!(text.contains("1001 audit lines wait") && text.contains("refused"), "{text}");
    commit(&store, rollback(&current(&store))).await.expect("a rollback");
    assert!(store.condition().audit.is_some_and(|it| it.contains(CURRENT)));
    disk.inner().refuse(CURRENT, false);
    super::wait_until(|| store.condition().audit.is_none());
    commit(&store, change(&current(&store))).await.expect("the file is well again");
    assert!(current(&store).audit.pending.len() <= 2, "the others are in the file");
    let lines = current(&store).audit.count;
    store.close();
    let text = disk.read(CURRENT).expect("it is there");
    assert_eq!(text.iter().filter(|it| **it == b'\n').count() as u64, lines);
}

/// A copy-on-write file system can run out of space while it overwrites.
#[tokio::test]
async fn a_record_that_finds_no_room_is_refused_and_a_rollback_is_written_to_new_files() {
    for is_rollback in [false, true] {
        let disk = Simulated::default();
        let store = open(&disk);
        commit(&store, change(&current(&store))).await.expect("there is room");
        super::wait_until(|| disk.read(CURRENT).is_ok_and(|it| it.ends_with(b"\n")));
        let before = current(&store);
        disk.inner().leave_bytes(Some(0));
        disk.plan(0, super::simulated::Fault::NoSpace);
        let next = if is_rollback { rollback(&before) } else { change(&before) };
        let done = commit(&store, next).await;
        match is_rollback {
            true => done.expect("space is reserved for it"),
            false => {
                assert!(is_full(&done), "{done:?}");
                assert_eq!(current(&store), before);
                assert_eq!(store.condition().read_only, None, "the outcome is known");
                commit(&store, rollback(&before)).await.expect("still accepted");
            }
        }
        assert!(current(&store).promotion.is_rollback);
    }
}

#[test]
fn only_a_new_rollback_is_one() {
    use super::super::admission::is_rollback;
    let before = super::step(&State::default(), 1);
    assert!(is_rollback(&before, &rollback(&before)));
    assert!(!is_rollback(&before, &change(&before)));
    let after = rollback(&before);
    // A later change keeps the promotion that came before it.
    assert!(!is_rollback(&after, &change(&after)));
}
