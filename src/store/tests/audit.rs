//! The lines of the audit log and their changes come and go together, whatever becomes of the disk.

use std::sync::Arc;

use super::{super::audit_file::AuditFiles, Bench, FEW_BLOCKS, Simulated, found, simulated::Fault};
use crate::{
    audit::{AuditEntry, AuditFile, AuditResult, AuditSettings, Verification, verify},
    store::{
        FileStore, Store,
        audit_file::{CURRENT, full_files},
        audit_log::{AuditLog, AuditProgress},
        disk::Disk,
        read_audit,
        state::State,
    },
};

fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        time: jiff::Timestamp::UNIX_EPOCH,
        actor: "ada".to_owned(),
        from: "unix".to_owned(),
        action: format!("promote web=green {number}"),
        reason: None,
        before: number,
        after: number + 1,
        result: AuditResult::Done,
        verdicts: Vec::new(),
    }
}

/// The next state, with the line of its change.
pub(super) fn step(before: &State) -> State {
    let mut next = super::step(before, before.revision.0 + 1);
    next.audit.append(&entry(before.revision.0));
    next
}

/// A log with so many lines, none of which is in a file.
fn log(count: u64) -> AuditLog {
    let mut log = AuditLog::default();
    (0..count).for_each(|it| log.append(&entry(it)));
    log
}

fn files(disk: &Simulated, settings: AuditSettings) -> AuditFiles {
    AuditFiles::new(Arc::new(disk.clone()), settings)
}

/// The files of a disk against a log.
fn check(disk: &Simulated, log: &AuditLog) -> Verification {
    let names = disk.list().expect("names");
    let names = full_files(&names).into_iter().chain([CURRENT.to_owned()]);
    let read: Vec<_> = names.filter_map(|it| Some((disk.read(&it).ok()?, it))).collect();
    let views: Vec<_> = read.iter().map(|(bytes, name)| AuditFile { name, bytes }).collect();
    verify(&views, &log.anchor())
}

fn assert_complete(disk: &Simulated, log: &AuditLog, lines: u64) {
    let expected = Verification { lines, first: u64::from(lines > 0), ..Verification::default() };
    assert_eq!(check(disk, log), expected);
}

#[test]
fn a_change_with_its_line_costs_one_sync() {
    for has_line in [false, true] {
        let disk = Simulated::default();
        let mut bench = Bench::ready(&disk);
        let before = bench.journal.state().clone();
        let syncs = disk.inner().syncs;
        let next = if has_line { step(&before) } else { super::step(&before, 1) };
        bench.commit(next).expect("a disk that is well");
        assert_eq!(disk.inner().syncs - syncs, 1, "with a line: {has_line}");
    }
}

/// The state has the newest lines until the next change. While a process runs, they must be in the file, too.
#[tokio::test]
async fn a_newest_line_that_was_cut_off_is_found_while_a_process_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FileStore::open(folder.path()).expect("a folder of its own");
    let before = store.watch().borrow().clone();
    let next = step(&before);
    store.commit(before.revision, next).await.expect("a disk that is well");
    let file = folder.path().join(CURRENT);
    let written = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            break text;
        }
        tokio::task::yield_now().await;
    };
    let check = || read_audit(folder.path()).expect("it can be read").verification;
    let found = check();
    assert_eq!((found.lines, found.waiting, found.damages.len()), (1, 0, 0), "{found:?}");
    std::fs::write(&file, "").expect("cut");
    let found = check();
    assert_eq!((found.waiting, found.damages.len()), (1, 1), "{found:?}");
    assert!(found.damages[0].to_string().starts_with("audit.jsonl:1 is missing: 1 line"));
    std::fs::write(&file, written).expect("written back");
    assert_eq!(check().damages, []);
    store.close();
}

/// A process that was killed at any call has written a prefix of its lines; the next one completes them.
#[test]
fn a_kill_at_any_moment_loses_no_line_and_writes_none_twice() {
    let settings = AuditSettings { file_bytes_max: 1500, full_files_max: 100 };
    let disk = Simulated::default();
    disk.remember();
    let mut bench = Bench::ready(&disk);
    let mut files = files(&disk, settings);
    for _ in 0..4 * FEW_BLOCKS {
        let mut next = step(bench.journal.state());
        next.audit.forget_written(files.write(&bench.journal.state().audit).expect("well"));
        bench.commit(next).expect("a disk that is well");
    }
    let files_of = |disk: &Simulated| super::audit::files(disk, settings);
    let seed = fastrand::u64(..);
    // Shown if the test fails.
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut tried = 0;
    for moment in disk.history() {
        for round in 0..10 {
            let subset = [0, u64::MAX].get(round).copied().unwrap_or_else(|| random.u64(..));
            // All or nothing of what was not synced, or anything between.
            let after = moment.after_power_loss(|place| subset >> (place % 64) & 1 == 1);
            let after = Simulated::of(after);
            let state = found(&after).expect("readable");
            // What a killed process leaves is good also before the next start.
            if subset == u64::MAX || subset == 0 {
                assert_eq!(check(&after, &state.audit).damages, []);
            }
            files_of(&after).write(&state.audit).expect("well");
            assert_complete(&after, &state.audit, state.audit.count);
            // Once more: nothing is written twice.
            files_of(&after).write(&state.audit).expect("well");
            assert_complete(&after, &state.audit, state.audit.count);
            tried += 1;
        }
    }
    assert!(tried > 500, "{tried} crashes prove little");
}

#[test]
fn a_failed_call_loses_no_line_and_the_next_try_completes_the_file() {
    let settings = AuditSettings { file_bytes_max: 1500, full_files_max: 100 };
    let calls = {
        let disk = Simulated::default();
        files(&disk, settings).write(&log(8)).expect("a disk that is well");
        disk.calls()
    };
    let mut failed = 0;
    for call in 0..calls {
        for fault in Fault::ALL.into_iter().filter(|it| *it != Fault::Lie) {
            let disk = Simulated::default();
            let mut files = files(&disk, settings);
            disk.plan(call, fault);
            failed += usize::from(files.write(&log(8)).is_err());
            let progress = files.write(&log(9)).expect("a disk that is well");
            assert_eq!(progress.written, 9);
            assert_complete(&disk, &log(9), 9);
            // What was reported as written is durable.
            let after = Simulated::of(disk.inner().after_power_loss(|_| false));
            assert_complete(&after, &log(9), 9);
        }
    }
    assert!(failed > 10, "{failed} calls failed");
}

#[test]
fn a_removed_or_replaced_file_is_completed_with_what_the_state_has() {
    let disk = Simulated::default();
    let mut files = files(&disk, AuditSettings::default());
    let mut log = log(5);
    let progress = files.write(&log).expect("a disk that is well");
    log.forget_written(AuditProgress { written: 3, ..progress });
    disk.remove(CURRENT).expect("it is there");
    files.write(&log).expect("a disk that is well");
    let found = check(&disk, &log);
    assert_eq!((found.lines, found.damages.len()), (2, 1));
    let what = "audit.jsonl:1 is line 4 of the log: 3 lines before it are missing";
    assert_eq!(found.damages[0].to_string(), what);
    // A file with other content: it stays, and the lines are written behind it.
    disk.change(CURRENT, |it| *it = b"something else\nand a part".to_vec());
    files.write(&log).expect("a disk that is well");
    let bytes = disk.read(CURRENT).expect("it is there");
    assert!(bytes.starts_with(b"something else\n{") && bytes.ends_with(b"}\n"));
}

#[test]
fn the_files_of_a_state_that_was_removed_are_kept_under_another_name() {
    let disk = Simulated::default();
    let settings = AuditSettings { file_bytes_max: 1000, full_files_max: 9 };
    files(&disk, settings).write(&log(5)).expect("a disk that is well");
    let before = disk.read(CURRENT).expect("it is there");
    // A new state begins a log of its own.
    let mut fresh = AuditLog::default();
    fresh.append(&entry(100));
    files(&disk, settings).write(&fresh).expect("a disk that is well");
    assert_complete(&disk, &fresh, 1);
    let names = disk.list().expect("names");
    let kept: Vec<_> = names.iter().filter(|it| it.starts_with("earlier-")).collect();
    assert!(kept.len() > 1, "{names:?}");
    assert_eq!(disk.read(kept[0]).ok(), Some(before));
}

#[test]
fn a_full_file_is_followed_by_another_and_the_oldest_goes_when_the_state_says_so() {
    let settings = AuditSettings { file_bytes_max: 1000, full_files_max: 2 };
    let disk = Simulated::default();
    let mut files = files(&disk, settings);
    let mut log = AuditLog::default();
    for number in 0..30 {
        log.append(&entry(number));
        let progress = files.write(&log).expect("a disk that is well");
        assert_eq!(check(&disk, &log).damages, []);
        log.forget_written(progress);
        let names = full_files(&disk.list().expect("names"));
        assert!(names.len() <= 3, "{names:?}");
    }
    let names = disk.list().expect("names");
    assert_eq!(names, ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]);
    for name in &names {
        assert!(disk.read(name).expect("it is there").len() <= 1000);
    }
    let found = check(&disk, &log);
    assert_eq!((found.first, found.damages.len()), (log.removed + 1, 0));
    assert!(log.removed > 15, "{}", log.removed);
    // A kept file that is missing is found.
    disk.remove("audit.jsonl.2").expect("it is there");
    assert_eq!(check(&disk, &log).damages.len(), 1);
}

#[test]
fn lines_that_are_in_no_file_survive_snapshots() {
    let disk = Simulated::default();
    let mut bench = Bench::ready(&disk);
    for _ in 0..5 * FEW_BLOCKS {
        bench.commit(step(bench.journal.state())).expect("a disk that is well");
    }
    let state = found(&disk).expect("readable");
    assert_eq!(&state, bench.journal.state());
    assert_eq!(state.audit.pending.len(), 5 * FEW_BLOCKS);
    files(&disk, AuditSettings::default()).write(&state.audit).expect("well");
    assert_complete(&disk, &state.audit, 5 * FEW_BLOCKS as u64);
}
