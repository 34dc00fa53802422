//! Reads the state from the files of a state folder, without changing them.

use std::io;

use super::{
    StoreError,
    disk::Disk,
    entries::Delta,
    record,
    segment::{Segment, SegmentHeader},
    snapshot::{self, Snapshot},
    state::State,
};

/// The name of the snapshot.
pub(super) const SNAPSHOT: &str = "state.jsonl";

/// What the files of a folder hold.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Recovered {
    /// The state; `None` if nothing was ever written.
    pub(super) state: Option<State>,
    /// The largest number of a journal file that is there.
    pub(super) last_number: u64,
    /// An incomplete record at the end, which is ignored: the file, and the offset of the record.
    pub(super) torn: Option<(String, usize)>,
    /// Whether the snapshot is of an older format.
    pub(super) is_old: bool,
    /// How many changes the journal has behind the snapshot.
    pub(super) replayed: usize,
}

/// Reads the state.
///
/// # Errors
///
/// [`StoreError::Damaged`] if an acknowledged change may be lost, [`StoreError::Io`] if a
/// file cannot be read.
pub(super) fn recover(disk: &dyn Disk, place: &str) -> Result<Recovered, StoreError> {
    let names = disk.list().map_err(|source| StoreError::io("read the folder", place, source))?;
    let last_number =
        names.iter().filter_map(|it| Segment::number_of(it)).max().unwrap_or_default();
    let Some(bytes) = read(disk, place, SNAPSHOT)? else {
        // The snapshot of this journal was removed.
        let Some(orphan) = journal_with_records(disk, place, &names)? else {
            return Ok(Recovered { last_number, ..Recovered::default() });
        };
        let what = format!("it is not there, but {orphan} has changes");
        return Err(StoreError::damaged(place, SNAPSHOT, &what));
    };
    let damaged = |file: &str, what: &str| StoreError::damaged(place, file, what);
    let Snapshot { state, journal } =
        snapshot::read(&bytes).map_err(|damage| damaged(SNAPSHOT, &damage.to_string()))?;
    let Some((number, id)) = journal else {
        return Ok(Recovered {
            state: Some(state),
            last_number,
            is_old: true,
            ..Recovered::default()
        });
    };
    let mut found = Recovered { last_number, ..Recovered::default() };
    let (mut state, mut next, mut must_be_there) = (state, Some((number, id)), true);
    while let Some((number, id)) = next.take() {
        let name = Segment::name(number);
        let bytes = read(disk, place, &name)?;
        if bytes.is_none() && must_be_there {
            return Err(damaged(&name, "it is not there, and the changes in it are lost"));
        }
        let bytes = bytes.unwrap_or_default();
        let header = SegmentHeader::of(&bytes).filter(|it| it.number == number && it.id == id);
        let first = record::first_of(&bytes, id).unwrap_or(u64::MAX).min(state.revision.0 + 1);
        let scan = record::scan(&bytes, id, first).map_err(|bad| {
            let (offset, revision) = (bad.offset, bad.sequence);
            let what = "cannot be read, and it was acknowledged";
            damaged(&name, &format!("change {revision} at byte {offset} {what}"))
        })?;
        let Some(header) = header else {
            if must_be_there || !scan.bodies.is_empty() {
                return Err(damaged(&name, "its header cannot be read"));
            }
            // This file was not made completely.
            break;
        };
        if !header.is_whole(&bytes) {
            return Err(damaged(&name, "it is shorter than it was made"));
        }
        if let (Some((torn, _)), false) = (&found.torn, scan.bodies.is_empty()) {
            let what = "a change in it cannot be read, and later ones were acknowledged";
            return Err(damaged(torn, what));
        }
        for (place, body) in scan.bodies.iter().enumerate() {
            let sequence = first + place as u64;
            if sequence <= state.revision.0 {
                // It is in the snapshot.
                continue;
            }
            let wrong = |what: &str| damaged(&name, &format!("change {sequence} {what}"));
            let delta: Delta<'_> = serde_json::from_slice(body)
                .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
            if delta.revision != sequence {
                return Err(wrong(&format!("says that it is change {}", delta.revision)));
            }
            state = delta.apply(state).map_err(|error| wrong(&error))?;
            found.replayed += 1;
        }
        if let (Some(torn), None) = (scan.torn, &found.torn) {
            found.torn = Some((name, torn.offset));
        }
        must_be_there = header.is_followed(&bytes);
        next = Some((number + 1, header.next_id));
    }
    Ok(Recovered { state: Some(state), ..found })
}

fn read(disk: &dyn Disk, place: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    match disk.read(name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", &format!("{place}/{name}"), error)),
    }
}

/// A journal file that has a record in it.
fn journal_with_records(
    disk: &dyn Disk,
    place: &str,
    names: &[String],
) -> Result<Option<String>, StoreError> {
    for name in names.iter().filter(|it| Segment::number_of(it).is_some()) {
        let Some(bytes) = read(disk, place, name)? else { continue };
        if SegmentHeader::of(&bytes).is_some_and(|it| record::first_of(&bytes, it.id).is_some()) {
            return Ok(Some(name.clone()));
        }
    }
    Ok(None)
}
