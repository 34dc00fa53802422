//! Every call goes wrong once, in every way.

use super::{
    Bench, CommitError, FEW_BLOCKS, Simulated, found,
    simulated::{Fault, Inner},
    states,
};
use crate::store::state::State;

/// What may be found after a loss of power now, by chance and at both ends.
fn crashes(moment: &Inner, random: &mut fastrand::Rng) -> Vec<Simulated> {
    let mut subsets = vec![0, u64::MAX];
    subsets.extend((0..6).map(|_| random.u64(..)));
    let after = |subset: u64| moment.after_power_loss(|place| subset >> (place % 64) & 1 == 1);
    let mut disks: Vec<_> = subsets.into_iter().map(|it| Simulated::of(after(it))).collect();
    // A killed process leaves everything that it has written, also what never came to the disk.
    let mut kept = moment.clone();
    kept.note = 0;
    disks.push(Simulated::of(kept));
    disks
}

/// The numbers of the states that may come back.
struct Allowed {
    /// The last that was acknowledged, counted by its place among the acknowledged.
    last: State,
    /// A change with an unknown outcome.
    unknown: Option<State>,
}

#[test]
fn every_fault_is_reported_and_a_refused_change_never_comes_back() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let count = 3 * FEW_BLOCKS as u64;
    let calls = {
        let disk = Simulated::default();
        run(&disk, count);
        disk.calls()
    };
    let (mut refused, mut unknown) = (0, 0);
    for call in 0..calls {
        for fault in Fault::ALL {
            if fault == Fault::Lie {
                continue;
            }
            let disk = Simulated::default();
            disk.plan(call, fault);
            let outcome = run(&disk, count);
            refused += outcome.refused;
            unknown += usize::from(outcome.allowed.unknown.is_some());
            let moment = disk.inner().clone();
            for after in crashes(&moment, &mut random) {
                let context = || format!("seed {seed}, call {call}, {fault:?}");
                let state = found(&after).unwrap_or_else(|it| panic!("{it}\n{}", context()));
                let Allowed { last, unknown } = &outcome.allowed;
                let is_allowed = state == *last || unknown.as_ref() == Some(&state);
                assert!(is_allowed, "revision {}: {}", state.revision, context());
            }
        }
    }
    assert!(refused > 20, "{refused} were refused");
    assert_eq!(unknown, 0, "one fault alone leaves nothing unknown, for the next write is good");
}

struct Outcome {
    allowed: Allowed,
    refused: usize,
}

/// Commits so many changes, and goes on after one that is refused.
fn run(disk: &Simulated, count: u64) -> Outcome {
    let mut bench = Bench::open(disk);
    // A disk that takes nothing at the start is tried again with the first change.
    let _ = bench.journal.begin();
    let (mut refused, mut unknown) = (0, None);
    for number in 1..=count {
        let before = bench.journal.state().clone();
        let next = super::step(&before, before.revision.0 + 1);
        match bench.commit(next.clone()) {
            Ok(revision) => assert_eq!(revision, before.revision.next(), "change {number}"),
            Err(CommitError::Refused(_)) => {
                refused += 1;
                assert_eq!(*bench.journal.state(), before, "nothing has changed");
                assert_eq!(bench.journal.read_only(), None, "the next one is tried");
            }
            Err(CommitError::Unknown(_)) => {
                unknown = Some(next);
                assert!(bench.journal.read_only().is_some());
            }
            Err(CommitError::ReadOnly(_)) => assert!(unknown.is_some(), "said once before"),
            Err(other) => panic!("{other}"),
        }
    }
    Outcome { allowed: Allowed { last: bench.journal.state().clone(), unknown }, refused }
}

#[test]
fn a_failed_disk_leaves_one_change_unknown_and_the_state_read_only() {
    let disk = Simulated::default();
    let states = states(4);
    let mut bench = Bench::ready(&disk);
    bench.commit(states[1].clone()).expect("a disk that is well");
    // The record is written; its sync fails, and so does everything after it.
    disk.inner().die_after(1);
    let outcome = bench.commit(states[2].clone());
    assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
    let later = bench.commit(states[3].clone());
    assert!(matches!(later, Err(CommitError::ReadOnly(_))), "{later:?}");
    assert_eq!(*bench.journal.state(), states[1], "the process goes on with what was acknowledged");
}

/// A sync that lies can lose what it was for; it must not lead to a state that never was.
#[test]
fn a_lying_sync_leads_to_an_earlier_state_or_stops_the_start() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let count = 3 * FEW_BLOCKS as u64;
    let calls = {
        let disk = Simulated::default();
        run(&disk, count);
        disk.calls()
    };
    let states = states(count);
    for call in 0..calls {
        let disk = Simulated::default();
        disk.remember();
        disk.plan(call, Fault::Lie);
        run(&disk, count);
        for moment in disk.history() {
            for after in crashes(&moment, &mut random) {
                match found(&after) {
                    Ok(state) => {
                        let expected = &states[usize::try_from(state.revision.0).expect("small")];
                        let is_as_it_was = state == *expected;
                        // A snapshot that came to the disk in part has its services set aside.
                        let is_set_aside = !state.damaged.is_empty()
                            && state
                                .services
                                .iter()
                                .all(|(name, it)| expected.services.get(name) == Some(it));
                        assert!(is_as_it_was || is_set_aside, "seed {seed}, call {call}");
                    }
                    Err(error) => assert!(error.contains("damaged"), "{error}"),
                }
            }
        }
    }
}

#[test]
fn a_full_disk_at_the_start_refuses_changes_until_there_is_room() {
    let disk = Simulated::default();
    let states = states(3);
    let mut bench = Bench::ready(&disk);
    bench.commit(states[1].clone()).expect("a disk that is well");
    let mut bench = Bench::open(&disk);
    disk.inner().leave_room(Some(0));
    bench.journal.begin().expect_err("there is no room");
    let refused = bench.commit(states[2].clone());
    assert!(matches!(refused, Err(CommitError::Refused(_))), "{refused:?}");
    disk.inner().leave_room(None);
    bench.commit(states[2].clone()).expect("there is room again");
    assert_eq!(found(&disk), Ok(states[2].clone()));
}

/// A journal of 2 MiB that did not fit once stopped all changes, though there was room for many.
#[test]
fn a_disk_with_little_room_gets_a_smaller_journal() {
    let disk = Simulated::default();
    let states = states(2);
    let files =
        crate::store::journal::JournalFiles::new(std::sync::Arc::new(disk.clone()), "state", 256);
    let (sender, _jobs) = std::sync::mpsc::channel();
    let mut journal = crate::store::journal::Journal::new(files, State::default(), 0, sender);
    disk.inner().leave_room(Some(128 * 1024));
    journal.begin().expect("a small one fits");
    let expected = journal.state().revision;
    journal.commit(expected, states[1].clone()).expect("it has room");
    assert!(found(&disk) == Ok(states[1].clone()));
}
