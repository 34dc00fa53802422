//! One entry of the state as it is written: its kind, its key and its value.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    accepted::AcceptedCall,
    audit_log::AuditLog,
    data::{
        AcceptedData, AuditData, HoldData, MaintenanceData, ManifestData, PinKeyData,
        PromotionData, RolloutData, ServiceData,
    },
    rollouts::RolloutState,
    state::{EntryId, ManifestKey, PinKeyState, Promotion, ServiceState},
};
use crate::{
    continuity::{HoldTerm, Maintenance},
    model::{RolloutId, ServiceName},
};

/// The kinds of entries that this version knows.
pub(super) const SERVICE: &str = "service";
pub(super) const PROMOTION: &str = "promotion";
pub(super) const ACCEPTED: &str = "accepted";
pub(super) const MANIFEST: &str = "manifest";
pub(super) const PIN_KEY: &str = "pin_key";
pub(super) const HOLD: &str = "hold";
pub(super) const MAINTENANCE: &str = "maintenance";
pub(super) const ROLLOUT: &str = "rollout";
pub(super) const AUDIT: &str = "audit";
pub(super) const AUDIT_LINE: &str = "audit_line";

/// The key of the only entry of its kind.
pub(super) const LAST: &str = "last";

/// One entry as it is written.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct StateEntry<'a> {
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    pub(super) value: Box<RawValue>,
}

/// A service's entry.
pub(super) fn service_entry(name: &ServiceName, service: &ServiceState) -> StateEntry<'static> {
    entry(SERVICE, name.as_str(), &ServiceData::from(service))
}

pub(super) fn promotion_entry(promotion: &Promotion) -> StateEntry<'static> {
    entry(PROMOTION, LAST, &PromotionData::from(promotion))
}

pub(super) fn accepted_entry(call: &AcceptedCall, order: u64) -> StateEntry<'static> {
    let AcceptedCall { key, fingerprint, generation, at } = call;
    let fingerprint = fingerprint.clone();
    let (generation, at) = (generation.0, *at);
    entry(ACCEPTED, key, &AcceptedData { fingerprint, generation, order, at })
}

pub(super) fn manifest_entry(key: &ManifestKey, json: &str) -> StateEntry<'static> {
    entry(MANIFEST, &key.to_string(), &ManifestData { json: json.to_owned() })
}

pub(super) fn pin_key_entry(state: &PinKeyState) -> StateEntry<'static> {
    entry(PIN_KEY, &state.key.id.to_string(), &PinKeyData::from(state))
}

pub(super) fn hold_entry(name: &ServiceName, term: &HoldTerm) -> StateEntry<'static> {
    entry(HOLD, name.as_str(), &HoldData::from(term))
}

pub(super) fn maintenance_entry(
    name: &ServiceName,
    maintenance: &Maintenance,
) -> StateEntry<'static> {
    entry(MAINTENANCE, name.as_str(), &MaintenanceData::from(maintenance))
}

pub(super) fn rollout_entry(id: &RolloutId, rollout: &RolloutState) -> StateEntry<'static> {
    entry(ROLLOUT, id.as_str(), &RolloutData::from(rollout))
}

pub(super) fn audit_entry(audit: &AuditLog) -> StateEntry<'static> {
    entry(AUDIT, LAST, &AuditData::from(audit))
}

pub(super) fn audit_line_entry(number: u64, line: &str) -> StateEntry<'static> {
    // The text as it is: the hash of the line is made of its bytes.
    let value =
        RawValue::from_string(line.to_owned()).expect("it was made as JSON, or read from it");
    StateEntry { kind: AUDIT_LINE.into(), key: number.to_string().into(), value }
}

pub(super) fn unknown_entry(id: &EntryId, value: &str) -> StateEntry<'static> {
    let value = RawValue::from_string(value.to_owned()).expect("it was read from JSON");
    let (kind, key) = (id.kind.to_string().into(), id.key.to_string().into());
    StateEntry { kind, key, value }
}

fn entry(kind: &'static str, key: &str, value: &impl Serialize) -> StateEntry<'static> {
    let value =
        serde_json::value::to_raw_value(value).expect("maps with text keys and plain values");
    StateEntry { kind: kind.into(), key: key.to_owned().into(), value }
}
