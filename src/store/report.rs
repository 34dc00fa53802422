//! Describes a state folder, as text and as JSON, without locking the folder.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{
    StoreError,
    disk::Folder,
    entries::common_entries,
    entry::service_entry,
    recovery::{Recovered, recover},
    state::State,
};

/// What a state folder holds.
#[derive(Debug)]
pub struct StateReport {
    /// The state; `None` if nothing was ever written.
    pub state: Option<State>,
    /// The number of changes in the journal since the snapshot.
    pub replayed: usize,
    /// The file with an incomplete record at its end, and the offset of the record.
    pub torn: Option<(String, usize)>,
    /// Whether the snapshot was written by version 0.1.0.
    pub is_old: bool,
}

/// Reads a folder without locking it: the process that uses it is not disturbed, and a change that it writes
/// at the same time may be missing.
///
/// # Errors
///
/// [`StoreError`], as at a start.
pub fn show(folder: &Path) -> Result<StateReport, StoreError> {
    let place = folder.display().to_string();
    // Another process may write a snapshot and remove the files that were just listed: reading again once is enough.
    let found = recover(&Folder::at(folder), &place);
    let Recovered { state, replayed, torn, is_old, .. } = match found {
        Err(StoreError::Damaged { .. }) => recover(&Folder::at(folder), &place)?,
        found => found?,
    };
    Ok(StateReport { state, replayed, torn, is_old })
}

// === impl StateReport ===

impl StateReport {
    /// All of it as JSON: services by name, and the other entries by kind and key.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self { state, replayed, torn, is_old } = self;
        let mut shown = json!({
            "format": if *is_old { 1 } else { super::snapshot::FORMAT },
            "journaled": replayed,
        });
        if let Some((file, offset)) = torn {
            shown["unfinished"] = json!({"file": file, "offset": offset});
        }
        let Some(state) = state else { return shown };
        (shown["revision"], shown["generation"]) =
            (state.revision.0.into(), state.generation.0.into());
        let value = |raw: &str| serde_json::from_str::<Value>(raw).unwrap_or_default();
        let services = state
            .services
            .iter()
            .map(|(name, it)| (name.to_string(), value(service_entry(name, it).value.get())));
        shown["services"] = services.collect::<Map<_, _>>().into();
        for entry in common_entries(state) {
            shown[&*entry.kind][&*entry.key] = value(entry.value.get());
        }
        let damaged = state.damaged.iter().map(|(name, raw)| (name.to_string(), json!(&**raw)));
        shown["damaged"] = damaged.collect::<Map<_, _>>().into();
        shown
    }
}
