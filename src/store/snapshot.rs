//! The form of `state.jsonl`: the whole state at one revision, a line for the whole, a line for what is
//! common, then a line for each service, each with its own checksum, so that damage is found and affects
//! one line only.
//!
//! ```text
//! 5f3c21aa {"flipgate":2,"generation":42,"services":["api","web"],"last_promotion":[],"accepted":[]}
//! 1b7e90f4 {"revision":57,"journal":{"number":7,"id":"9f…"},"entries":[{"kind":"promotion",…},…]}
//! 09b1d2c3 {"kind":"service","key":"api","value":{"active":"blue","previous":null,…}}
//! 77ab0e12 {"kind":"service","key":"web","value":{"active":"green","previous":"blue",…}}
//! ```
//!
//! Later changes are in the journal that the second line names, and in the files after it.
//! The first line has the shape of format 1, so that version 0.1.0, which knows no journal, refuses the file
//! as one of a later version instead of using an old state.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    accepted::AcceptedCall,
    entries::{common_entries, put_entries, service_of, service_state},
    entry::{StateEntry, service_entry},
    record::FileId,
    state::{Promotion, Revision, State},
};
use crate::model::{Generation, ServiceName};

/// The number of this format. A later one is refused.
pub(super) const FORMAT: u32 = 2;

/// The format of version 0.1.0: no journal, no revision, everything common in the first line.
const FORMAT_1: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
struct SnapshotHead {
    flipgate: u32,
    generation: u64,
    /// The services of the following lines, so that a lost line is noticed by name.
    services: Vec<String>,
    /// Empty since format 2.
    last_promotion: Vec<String>,
    /// Empty since format 2.
    accepted: Vec<Accepted1>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Accepted1 {
    key: String,
    fingerprint: String,
    generation: u64,
}

/// The line of a service in format 1.
#[derive(Debug, Deserialize)]
struct Entry1 {
    service: String,
    truth: Box<serde_json::value::RawValue>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Common<'a> {
    revision: u64,
    journal: JournalLink,
    #[serde(borrow)]
    entries: Vec<StateEntry<'a>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct JournalLink {
    number: u64,
    id: String,
}

/// The content of a snapshot.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Snapshot {
    pub(super) state: State,
    /// The journal with the later changes; `None` in format 1.
    pub(super) journal: Option<(u64, FileId)>,
}

/// Damage that concerns the whole snapshot.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum SnapshotDamage {
    #[error("line {line} {what}")]
    Line { line: usize, what: String },
    #[error("it has {found} lines, and {wanted} by its first line")]
    Lines { found: usize, wanted: usize },
    #[error("none of its {0} services can be read")]
    Everything(usize),
    #[error(
        "it was written by a later Flipgate (format {0}; this one reads up to format {FORMAT})"
    )]
    Later(u32),
}

/// The text of a snapshot that this journal continues.
pub(super) fn write(state: &State, journal: (u64, FileId)) -> String {
    let State { services, damaged, .. } = state;
    let names = services.keys().chain(damaged.keys()).map(ToString::to_string);
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    let head = SnapshotHead {
        flipgate: FORMAT,
        generation: state.generation.0,
        services: names,
        last_promotion: Vec::new(),
        accepted: Vec::new(),
    };
    let (number, FileId(id)) = journal;
    let common = Common {
        revision: state.revision.0,
        journal: JournalLink { number, id: format!("{id:032x}") },
        entries: common_entries(state),
    };
    let mut text = sealed(&head);
    text.push('\n');
    text.push_str(&sealed(&common));
    text.push('\n');
    for (name, service) in services.iter() {
        text.push_str(&sealed(&service_entry(name, service)));
        text.push('\n');
    }
    for line in damaged.values() {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Reads a snapshot of any format up to this one. A service with a damaged line is set aside; the others
/// are as they were.
///
/// # Errors
///
/// [`SnapshotDamage`] if the lines that concern all services are damaged.
pub(super) fn read(bytes: &[u8]) -> Result<Snapshot, SnapshotDamage> {
    // Damaged bytes may be invalid UTF-8; the replacement characters fail that line's checksum.
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    let damage = |line, what| SnapshotDamage::Line { line, what };
    let line = |place: usize| lines.get(place).copied().unwrap_or_default();
    let SnapshotHead { flipgate, generation, services, last_promotion, accepted } =
        opened(line(0)).map_err(|what| damage(1, what))?;
    let names: Result<Vec<ServiceName>, _> = services.iter().map(|it| it.parse()).collect();
    let names = names.map_err(|error| damage(1, format!("cannot be read: {error}")))?;
    let mut state = State { generation: Generation(generation), ..State::default() };
    let (first, journal) = match flipgate {
        FORMAT_1 => {
            let promoted: Result<_, _> = last_promotion.iter().map(|it| it.parse()).collect();
            let services =
                promoted.map_err(|error| damage(1, format!("cannot be read: {error}")))?;
            state.promotion = Arc::new(Promotion { services, ..Promotion::default() });
            for Accepted1 { key, fingerprint, generation } in accepted {
                let generation = Generation(generation);
                state.accepted.put(AcceptedCall { key, fingerprint, generation, at: None });
            }
            (1, None)
        }
        FORMAT => {
            let common: Common<'_> = opened(line(1)).map_err(|what| damage(2, what))?;
            let Common { revision, journal: JournalLink { number, id }, entries } = common;
            state.revision = Revision(revision);
            put_entries(&mut state, &entries).map_err(|what| damage(2, what))?;
            let id = u128::from_str_radix(&id, 16)
                .map_err(|_| damage(2, "has no id of a journal".to_owned()))?;
            (2, Some((number, FileId(id))))
        }
        later => return Err(SnapshotDamage::Later(later)),
    };
    let lines = lines.get(first..).unwrap_or_default();
    if lines.len() > names.len() {
        return Err(SnapshotDamage::Lines {
            found: lines.len() + first,
            wanted: names.len() + first,
        });
    }
    let mut unreadable = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let read = if flipgate == FORMAT_1 { open_service_1(line) } else { open_service(line) };
        let Ok((name, service)) = read else {
            unreadable.push(*line);
            continue;
        };
        let is_listed = names.binary_search(&name).is_ok();
        if !is_listed || state.services.insert(name.clone(), Arc::new(service)).is_some() {
            let what = format!("is an entry of `{name}` that the first line does not have");
            return Err(damage(place + first + 1, what));
        }
    }
    // A line that cannot be read is kept with one of the services that are missing.
    let mut unreadable = unreadable.into_iter();
    let count = names.len();
    for name in names {
        if !state.services.contains_key(&name) {
            state.damaged.insert(name, unreadable.next().unwrap_or_default().into());
        }
    }
    if count > 0 && state.services.is_empty() {
        return Err(SnapshotDamage::Everything(count));
    }
    Ok(Snapshot { state, journal })
}

fn open_service(line: &str) -> Result<(ServiceName, super::state::ServiceState), String> {
    service_of(&opened(line)?)
}

fn open_service_1(line: &str) -> Result<(ServiceName, super::state::ServiceState), String> {
    let Entry1 { service, truth } = opened(line)?;
    let name = service.parse::<ServiceName>().map_err(|error| error.to_string())?;
    // The field `truth` of format 1 has the shape of a service's entry in format 2. When that
    // changes, this needs the old type.
    Ok((name, service_state(truth.get())?))
}

/// A value as JSON behind its checksum.
fn sealed(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("maps with text keys and plain values only");
    format!("{:08x} {json}", crc32fast::hash(json.as_bytes()))
}

fn opened<'a, T: Deserialize<'a>>(line: &'a str) -> Result<T, String> {
    let (checksum, json) = line.split_once(' ').ok_or("is not a checksum and its text")?;
    let wanted = u32::from_str_radix(checksum, 16).map_err(|_| "has no checksum")?;
    if crc32fast::hash(json.as_bytes()) != wanted {
        return Err("does not match its checksum".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("cannot be read: {error}"))
}
