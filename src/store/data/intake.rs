//! Holds and maintenance. The service is the key of the entry.

use std::{num::NonZeroU32, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::continuity::{HoldTerm, Maintenance};

#[derive(Debug, Deserialize, Serialize)]
pub(in crate::store) struct HoldData {
    id: u64,
    owner: String,
    /// In milliseconds of Unix time, as all times here.
    began: u64,
    set: u64,
    until: u64,
    places: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(in crate::store) struct MaintenanceData {
    owner: String,
    since: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    page: Option<Arc<str>>,
    /// In seconds.
    retry_after: NonZeroU32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    except_internal: bool,
}

// === impl HoldData ===

impl From<&HoldTerm> for HoldData {
    fn from(term: &HoldTerm) -> Self {
        let HoldTerm { id, owner, began_ms, set_ms, until_ms, places } = term;
        Self {
            id: *id,
            owner: owner.to_string(),
            began: *began_ms,
            set: *set_ms,
            until: *until_ms,
            places: u64::try_from(*places).unwrap_or(u64::MAX),
        }
    }
}

impl From<HoldData> for HoldTerm {
    fn from(data: HoldData) -> Self {
        let HoldData { id, owner, began, set, until, places } = data;
        let places = usize::try_from(places).unwrap_or(usize::MAX);
        Self { id, owner: owner.into(), began_ms: began, set_ms: set, until_ms: until, places }
    }
}

// === impl MaintenanceData ===

impl From<&Maintenance> for MaintenanceData {
    fn from(maintenance: &Maintenance) -> Self {
        let Maintenance { owner, since_ms, page, retry_after, except_internal } = maintenance;
        Self {
            owner: owner.to_string(),
            since: *since_ms,
            page: page.clone(),
            retry_after: *retry_after,
            except_internal: *except_internal,
        }
    }
}

impl From<MaintenanceData> for Maintenance {
    fn from(data: MaintenanceData) -> Self {
        let MaintenanceData { owner, since, page, retry_after, except_internal } = data;
        Self { owner: owner.into(), since_ms: since, page, retry_after, except_internal }
    }
}
