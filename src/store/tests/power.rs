//! Loss of power at every call, with every subset of what was not synced; and every changed byte.

use super::{super::segment::Segment, Bench, FEW_BLOCKS, Simulated, found, recover, states};
use crate::store::{disk::Disk, recovery::SNAPSHOT, state::State};

/// Subsets that are tried all; of more, as many by chance.
const ALL: usize = 10;

#[test]
fn a_power_loss_at_any_moment_keeps_every_acknowledged_change() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = Simulated::default();
    disk.remember();
    let states = states(4 * FEW_BLOCKS as u64);
    let mut bench = Bench::ready(&disk);
    let mut acknowledged = Vec::new();
    for state in &states[1..] {
        bench.commit(state.clone()).expect("a disk that is well");
        acknowledged.push(state.revision.0);
    }
    let mut tried = 0;
    for (call, moment) in disk.history().into_iter().enumerate() {
        let count = moment.uncertain();
        let subsets: Vec<u64> = match count {
            0..=ALL => (0..1 << count).collect(),
            _ => (0..1 << ALL).map(|_| random.u64(..)).collect(),
        };
        for subset in subsets {
            let after = moment.after_power_loss(|place| subset >> (place % 64) & 1 == 1);
            let after = Simulated::of(after);
            let context = || format!("seed {seed}, call {call}, subset {subset:b}");
            let state = found(&after).unwrap_or_else(|error| panic!("{error}\n{}", context()));
            // The note is that of the last change that was acknowledged at this call; the one behind it may
            // be there or not.
            let (last, next) = (moment.note, moment.note + 1);
            let revision = state.revision.0;
            assert!((last..=next).contains(&revision), "{revision} not {last}: {}", context());
            let expected = &states[usize::try_from(revision).expect("small")];
            assert!(state == *expected, "{}", context());
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried} crashes prove little");
}

/// What stands in the files after some changes, with the mark of the last one.
fn written() -> (Simulated, State) {
    let disk = Simulated::default();
    let states = states(FEW_BLOCKS as u64 + 2);
    let mut bench = Bench::ready(&disk);
    for state in &states[1..] {
        bench.commit(state.clone()).expect("a disk that is well");
    }
    (disk, states[states.len() - 1].clone())
}

/// Every single changed byte is found, or costs only the service of its line.
#[test]
fn no_changed_byte_goes_unnoticed() {
    let (disk, expected) = written();
    let (mut stopped, mut kept, mut set_aside) = (0, 0, 0);
    for file in disk.list().expect("names") {
        let length = disk.read(&file).expect("it is there").len();
        for place in 0..length {
            // Every bit of what is not zero; of the rest one, which is enough to see that it is checked.
            let byte = disk.read(&file).expect("it is there")[place];
            let flips: &[u8] = if byte == 0 { &[0x10] } else { &[0x01, 0x20, 0x80] };
            for flip in flips {
                disk.change(&file, |it| it[place] ^= flip);
                match found(&disk) {
                    Err(error) => {
                        assert!(error.contains("damaged"), "{error}");
                        stopped += 1;
                    }
                    Ok(state) if state.damaged.is_empty() => {
                        assert!(state == expected, "{file}, byte {place}");
                        kept += 1;
                    }
                    Ok(state) => {
                        assert_eq!(state.damaged.len(), 1, "{file}, byte {place}");
                        for (name, service) in state.services.iter() {
                            assert_eq!(Some(service), expected.services.get(name));
                        }
                        assert_eq!(state.revision, expected.revision, "{file}, byte {place}");
                        assert_eq!(state.accepted, expected.accepted, "{file}, byte {place}");
                        set_aside += 1;
                    }
                }
                disk.change(&file, |it| it[place] ^= flip);
            }
        }
    }
    assert!(stopped > 1000 && kept > 1000 && set_aside > 100, "{stopped} {kept} {set_aside}");
}

#[test]
fn no_cut_file_passes_for_whole() {
    let (disk, expected) = written();
    for file in disk.list().expect("names") {
        let whole = disk.read(&file).expect("it is there");
        for length in (0..whole.len()).step_by(97) {
            disk.change(&file, |it| it.truncate(length));
            match found(&disk) {
                Ok(state) if state.damaged.is_empty() => {
                    assert!(
                        state == expected,
                        "{file} cut at {length}: revision {}",
                        state.revision
                    );
                }
                Ok(state) => {
                    assert_eq!(state.revision, expected.revision, "{file} cut at {length}");
                }
                Err(error) => assert!(error.contains("damaged"), "{error}"),
            }
            disk.change(&file, |it| it.clone_from(&whole));
        }
    }
}

#[test]
fn a_file_that_is_missing_is_damage() {
    let (disk, _) = written();
    let names = disk.list().expect("names");
    let number = |it: &String| Segment::number_of(it);
    let journal = names.iter().filter(|it| number(it).is_some()).min_by_key(|it| number(it));
    for name in [SNAPSHOT, journal.expect("there is one")] {
        let disk = Simulated::of(disk.inner().clone());
        disk.remove(name).expect("it is there");
        let error = found(&disk).expect_err("changes are missing");
        assert!(error.contains("not there") && error.contains("mv "), "{error}");
    }
}

#[test]
fn an_incomplete_last_record_is_removed_and_logged() {
    let disk = Simulated::default();
    let states = states(2);
    let mut bench = Bench::ready(&disk);
    disk.remember();
    for state in &states[1..] {
        bench.commit(state.clone()).expect("a disk that is well");
    }
    let torn = disk.history().into_iter().filter(|it| it.note == 1).find_map(|moment| {
        (0..1_u64 << moment.uncertain()).find_map(|subset| {
            let after = moment.after_power_loss(|place| subset >> place & 1 == 1);
            let found = recover(&Simulated::of(after), "state").expect("cut, not stopped");
            found.torn.map(|torn| (torn, found.state))
        })
    });
    let ((file, offset), state) = torn.expect("some moment tears it");
    assert!(file.starts_with("journal-") && offset > 0, "{file} {offset}");
    assert_eq!(state, Some(states[1].clone()));
}
