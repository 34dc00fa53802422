//! The state as entries, each of a kind and with a key. An older version keeps entries of a kind
//! that it does not know.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    accepted::AcceptedCall,
    data::{
        AcceptedData, AuditData, HoldData, MaintenanceData, ManifestData, PinKeyData,
        PromotionData, RolloutData, ServiceData,
    },
    entry::{
        ACCEPTED, AUDIT, AUDIT_LINE, HOLD, LAST, MAINTENANCE, MANIFEST, PIN_KEY, PROMOTION,
        ROLLOUT, SERVICE, StateEntry, accepted_entry, audit_entry, audit_line_entry, hold_entry,
        maintenance_entry, manifest_entry, pin_key_entry, promotion_entry, rollout_entry,
        service_entry, unknown_entry,
    },
    rollouts::RolloutState,
    state::{EntryId, ManifestKey, PinKeyState, Revision, ServiceState, State},
};
use crate::model::{Difference, Generation, RolloutId, ServiceName};

/// The difference between a state and the next: the body of a record of the journal.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Delta<'a> {
    /// The revision of the later state.
    pub(super) revision: u64,
    pub(super) generation: u64,
    /// Entries that are new or have changed.
    #[serde(borrow)]
    put: Vec<StateEntry<'a>>,
    /// Entries that were removed.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    remove: Vec<RemovedEntries<'a>>,
}

#[derive(Debug, Deserialize, Serialize)]
struct RemovedEntries<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
}

// === impl Delta ===

impl Delta<'_> {
    /// The difference between `before` and `after`. Its size depends on what differs, not on the size of the
    /// state.
    pub(super) fn between(before: &State, after: &State) -> Delta<'static> {
        let State {
            revision,
            generation,
            services,
            promotion,
            accepted,
            manifests,
            pin_keys,
            holds,
            maintenance,
            rollouts,
            audit,
            damaged: _,
            unknown,
        } = after;
        let mut put = Vec::new();
        let mut remove = Vec::new();
        for difference in before.services.differences(services) {
            match difference {
                Difference::Added(name, service) | Difference::Changed(name, _, service) => {
                    put.push(service_entry(name, service));
                }
                Difference::Removed(name, _) => remove.push(removed(SERVICE, name.as_str())),
            }
        }
        if before.promotion != *promotion {
            put.push(promotion_entry(promotion));
        }
        let (accepted, gone) = before.accepted.changes(accepted);
        put.extend(accepted.into_iter().map(|(order, call)| accepted_entry(call, order)));
        remove.extend(gone.into_iter().map(|key| removed(ACCEPTED, key)));
        for difference in before.manifests.differences(manifests) {
            match difference {
                Difference::Added(key, json) | Difference::Changed(key, _, json) => {
                    put.push(manifest_entry(key, json));
                }
                Difference::Removed(key, _) => remove.push(removed(MANIFEST, &key.to_string())),
            }
        }
        put.extend(pin_keys.iter().filter(|it| !before.pin_keys.contains(it)).map(pin_key_entry));
        let is_gone = |old: &&PinKeyState| pin_keys.iter().all(|it| it.key.id != old.key.id);
        let gone = before.pin_keys.iter().filter(is_gone);
        remove.extend(gone.map(|it| removed(PIN_KEY, &it.key.id.to_string())));
        for difference in before.holds.differences(holds) {
            match difference {
                Difference::Added(name, term) | Difference::Changed(name, _, term) => {
                    put.push(hold_entry(name, term));
                }
                Difference::Removed(name, _) => remove.push(removed(HOLD, name.as_str())),
            }
        }
        for difference in before.maintenance.differences(maintenance) {
            match difference {
                Difference::Added(name, it) | Difference::Changed(name, _, it) => {
                    put.push(maintenance_entry(name, it));
                }
                Difference::Removed(name, _) => remove.push(removed(MAINTENANCE, name.as_str())),
            }
        }
        for difference in before.rollouts.differences(rollouts) {
            match difference {
                Difference::Added(id, it) | Difference::Changed(id, _, it) => {
                    put.push(rollout_entry(id, it));
                }
                Difference::Removed(id, _) => remove.push(removed(ROLLOUT, id.as_str())),
            }
        }
        for difference in before.audit.pending.differences(&audit.pending) {
            match difference {
                Difference::Added(number, line) | Difference::Changed(number, _, line) => {
                    put.push(audit_line_entry(*number, line));
                }
                Difference::Removed(number, _) => {
                    remove.push(removed(AUDIT_LINE, &number.to_string()));
                }
            }
        }
        if AuditData::from(&before.audit) != AuditData::from(audit) {
            put.push(audit_entry(audit));
        }
        for difference in before.unknown.differences(unknown) {
            match difference {
                Difference::Added(id, value) | Difference::Changed(id, _, value) => {
                    put.push(unknown_entry(id, value));
                }
                Difference::Removed(id, _) => remove.push(removed(&id.kind, &id.key)),
            }
        }
        Delta { revision: revision.0, generation: generation.0, put, remove }
    }

    /// Applies the difference to `state`, which must be the earlier state.
    ///
    /// # Errors
    ///
    /// The entry that cannot be read, and why.
    pub(super) fn apply(self, mut state: State) -> Result<State, String> {
        let Self { revision, generation, put, remove } = self;
        (state.revision, state.generation) = (Revision(revision), Generation(generation));
        let mut accepted = Vec::new();
        for RemovedEntries { kind, key } in remove {
            match &*kind {
                SERVICE => drop(state.services.remove(&*key)),
                ACCEPTED => state.accepted.remove(&key),
                MANIFEST => {
                    if let Some(key) = manifest_key(&key) {
                        state.manifests.remove(&key);
                    }
                }
                PIN_KEY => state.pin_keys.retain(|it| it.key.id.to_string() != *key),
                HOLD => drop(state.holds.remove(&*key)),
                MAINTENANCE => drop(state.maintenance.remove(&*key)),
                ROLLOUT => drop(state.rollouts.remove(&*key)),
                AUDIT_LINE => {
                    if let Ok(number) = key.parse::<u64>() {
                        state.audit.pending.remove(&number);
                    }
                }
                _ => drop(
                    state.unknown.remove(&EntryId { kind: (*kind).into(), key: (*key).into() }),
                ),
            }
        }
        for entry in put {
            put_entry(&mut state, &entry, &mut accepted)?;
        }
        accept(&mut state, accepted);
        Ok(state)
    }
}

/// All entries of a state but those of services.
pub(super) fn common_entries(state: &State) -> Vec<StateEntry<'static>> {
    let accepted = state.accepted.iter().enumerate();
    let mut entries = vec![promotion_entry(&state.promotion)];
    entries.extend(accepted.map(|(place, it)| accepted_entry(it, place as u64)));
    entries.extend(state.manifests.iter().map(|(key, json)| manifest_entry(key, json)));
    entries.extend(state.pin_keys.iter().map(pin_key_entry));
    entries.extend(state.holds.iter().map(|(name, term)| hold_entry(name, term)));
    entries.extend(state.maintenance.iter().map(|(name, it)| maintenance_entry(name, it)));
    entries.extend(state.rollouts.iter().map(|(id, it)| rollout_entry(id, it)));
    if state.audit.count > 0 {
        entries.push(audit_entry(&state.audit));
        let pending = state.audit.pending.iter();
        entries.extend(pending.map(|(number, line)| audit_line_entry(*number, line)));
    }
    entries.extend(state.unknown.iter().map(|(id, value)| unknown_entry(id, value)));
    entries
}

/// Puts entries into a state.
///
/// # Errors
///
/// The first entry that cannot be read, and why.
pub(super) fn put_entries(state: &mut State, entries: &[StateEntry<'_>]) -> Result<(), String> {
    let mut accepted = Vec::new();
    for entry in entries {
        put_entry(state, entry, &mut accepted)?;
    }
    accept(state, accepted);
    Ok(())
}

fn accept(state: &mut State, mut accepted: Vec<(u64, AcceptedCall)>) {
    accepted.sort_by_key(|it| it.0);
    for (_, call) in accepted {
        state.accepted.put(call);
    }
}

fn put_entry(
    state: &mut State,
    entry: &StateEntry<'_>,
    accepted: &mut Vec<(u64, AcceptedCall)>,
) -> Result<(), String> {
    let StateEntry { kind, key, value } = entry;
    let wrong = |error: &dyn std::fmt::Display| format!("{kind} `{key}` cannot be read: {error}");
    match &**kind {
        SERVICE => {
            let (name, service) = service_of(entry).map_err(|error| wrong(&error))?;
            state.damaged.remove(&name);
            state.services.insert(name, Arc::new(service));
        }
        PROMOTION if key == LAST => {
            let data: PromotionData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            state.promotion = Arc::new(data.try_into().map_err(|error: String| wrong(&error))?);
        }
        ACCEPTED => {
            let data: AcceptedData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            let AcceptedData { fingerprint, generation, order, at } = data;
            let generation = Generation(generation);
            let call = AcceptedCall { key: key.clone().into_owned(), fingerprint, generation, at };
            accepted.push((order, call));
        }
        MANIFEST => {
            let ManifestData { json } =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            let key = manifest_key(key).ok_or_else(|| wrong(&"it names no pool"))?;
            state.manifests.insert(key, json.into());
        }
        PIN_KEY => {
            let id = key.parse::<u32>().map_err(|error| wrong(&error))?;
            let data: PinKeyData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            let pin_key = data.key(id).map_err(|error| wrong(&error))?;
            state.pin_keys.retain(|it| it.key.id != id);
            state.pin_keys.push(pin_key);
            state.pin_keys.sort_by_key(|it| it.key.id);
        }
        HOLD => {
            let name = key.parse::<ServiceName>().map_err(|error| wrong(&error))?;
            let data: HoldData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            state.holds.insert(name, Arc::new(data.into()));
        }
        MAINTENANCE => {
            let name = key.parse::<ServiceName>().map_err(|error| wrong(&error))?;
            let data: MaintenanceData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            state.maintenance.insert(name, Arc::new(data.into()));
        }
        ROLLOUT => {
            let id = key.parse::<RolloutId>().map_err(|error| wrong(&error))?;
            let data: RolloutData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            let rollout = RolloutState::try_from(data).map_err(|error| wrong(&error))?;
            state.rollouts.insert(id, Arc::new(rollout));
        }
        AUDIT if key == LAST => {
            let data: AuditData =
                serde_json::from_str(value.get()).map_err(|error| wrong(&error))?;
            data.put(&mut state.audit).map_err(|error| wrong(&error))?;
        }
        AUDIT_LINE => {
            let number = key.parse::<u64>().map_err(|error| wrong(&error))?;
            state.audit.pending.insert(number, value.get().into());
        }
        _ => {
            let id = EntryId { kind: (**kind).into(), key: (**key).into() };
            state.unknown.insert(id, value.get().into());
        }
    }
    Ok(())
}

/// The service that an entry is of.
///
/// # Errors
///
/// Why it cannot be read.
pub(super) fn service_of(entry: &StateEntry<'_>) -> Result<(ServiceName, ServiceState), String> {
    if entry.kind != SERVICE {
        return Err(format!("it is an entry of `{}` and not of a service", entry.kind));
    }
    let name = entry.key.parse::<ServiceName>().map_err(|error| error.to_string())?;
    Ok((name, service_state(entry.value.get())?))
}

/// The service that is written like this.
///
/// # Errors
///
/// Why it cannot be read.
pub(super) fn service_state(json: &str) -> Result<ServiceState, String> {
    let data: ServiceData = serde_json::from_str(json).map_err(|error| error.to_string())?;
    data.try_into()
}

/// The pool that the key of a manifest names. Service names have no dots.
fn manifest_key(text: &str) -> Option<ManifestKey> {
    let (service, color) = text.split_once('.')?;
    Some(ManifestKey { service: service.parse().ok()?, color: color.parse().ok()? })
}

fn removed(kind: &str, key: &str) -> RemovedEntries<'static> {
    RemovedEntries { kind: kind.to_owned().into(), key: key.to_owned().into() }
}
