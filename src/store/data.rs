//! The data types that the entries of the state are made of, and how the program's own types become them
//! and come back.
//!
//! These types are a format. A field is never renamed or removed within a format version; a new field
//! of a service has a default and stands at the top of its entry, where an older version keeps what it
//! does not know.

mod intake;
mod pins;
mod pools;
mod rollouts;
mod share;
mod watches;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use self::{
    intake::{HoldData, MaintenanceData},
    pins::PinKeyData,
    rollouts::RolloutData,
};
use self::{
    pins::PinsData,
    pools::PoolData,
    share::{ShareData, ShareEndData},
    watches::{ConfirmationData, WatchData, WatchEndData},
};
use super::{
    audit_log::AuditLog,
    pool_state::PoolState,
    state::{Approval, Promotion, ServiceState, ShareState},
};
use crate::{
    audit::LineHash,
    model::{Color, Generation, ServiceName},
};

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum ColorData {
    Blue,
    Green,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ServiceData {
    active: ColorData,
    previous: Option<ColorData>,
    blue: PoolData,
    green: PoolData,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    approvals: Vec<ApprovalData>,
    /// Who set the pools at run time, by color.
    #[serde(default, skip_serializing_if = "SetByData::is_empty")]
    set_by: SetByData,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    watch: Option<WatchData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmation: Option<ConfirmationData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_watch: Option<WatchEndData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<ShareData>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share_end: Option<ShareEndData>,
    #[serde(default, skip_serializing_if = "PinsData::is_empty")]
    pins: PinsData,
    #[serde(flatten)]
    unknown: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize, Serialize)]
struct ApprovalData {
    color: ColorData,
    by: String,
    at: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    authenticated: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct SetByData {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blue: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    green: Option<String>,
}

/// The manifest of a pool, as the text that the application sent.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ManifestData {
    pub(super) json: String,
}

/// Where the chain of audit lines ends.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct AuditData {
    /// How many lines there ever were.
    count: u64,
    /// The hash of the last one.
    hash: String,
    /// How many of the first lines rotation may have removed.
    #[serde(default, skip_serializing_if = "is_zero")]
    removed: u64,
    /// Commits that had only lines of refused calls.
    #[serde(default, skip_serializing_if = "is_zero")]
    refusal_commits: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct PromotionData {
    services: Vec<String>,
    generation: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    rollback: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct AcceptedData {
    pub(super) fingerprint: String,
    pub(super) generation: u64,
    /// Its place among the accepted calls: a larger number is later.
    pub(super) order: u64,
    /// When it was accepted, in Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<u64>,
}

// === conversions: the model's words as data, and back ===

impl From<Color> for ColorData {
    fn from(color: Color) -> Self {
        match color {
            Color::Blue => Self::Blue,
            Color::Green => Self::Green,
        }
    }
}

impl From<ColorData> for Color {
    fn from(data: ColorData) -> Self {
        match data {
            ColorData::Blue => Self::Blue,
            ColorData::Green => Self::Green,
        }
    }
}

impl From<&ServiceState> for ServiceData {
    fn from(state: &ServiceState) -> Self {
        let ServiceState {
            active,
            previous,
            blue,
            green,
            approvals,
            watch,
            confirmation,
            last_watch,
            share,
            share_end,
            history: _,
            unknown,
        } = state;
        let set_by = |it: &PoolState| it.set_by.as_ref().map(ToString::to_string);
        let set_by = SetByData { blue: set_by(blue), green: set_by(green) };
        let unknown = unknown.as_ref().map(|it| {
            serde_json::from_str(it).expect("it was written from a map of texts and JSON")
        });
        Self {
            active: (*active).into(),
            previous: previous.map(Into::into),
            blue: blue.into(),
            green: green.into(),
            approvals: approvals.iter().map(Into::into).collect(),
            set_by,
            watch: watch.as_ref().map(Into::into),
            confirmation: confirmation.as_ref().map(Into::into),
            last_watch: last_watch.as_ref().map(Into::into),
            share: share.as_ref().map(Into::into),
            share_end: share_end.as_ref().map(Into::into),
            pins: PinsData::of(state),
            unknown: unknown.unwrap_or_default(),
        }
    }
}

impl TryFrom<ServiceData> for ServiceState {
    type Error = String;

    fn try_from(data: ServiceData) -> Result<Self, String> {
        let ServiceData {
            active,
            previous,
            blue,
            green,
            approvals,
            set_by,
            watch,
            confirmation,
            last_watch,
            share,
            share_end,
            pins,
            unknown,
        } = data;
        let pool = |data: PoolData, set_by: Option<String>| {
            let set_by = set_by.map(Into::into);
            PoolState::try_from(data).map(|it| PoolState { set_by, ..it })
        };
        let text = |it| serde_json::to_string(&it).expect("a map of texts and JSON").into();
        let mut state = Self {
            active: active.into(),
            previous: previous.map(Into::into),
            blue: pool(blue, set_by.blue)?,
            green: pool(green, set_by.green)?,
            approvals: approvals.into_iter().map(Into::into).collect(),
            watch: watch.map(TryInto::try_into).transpose()?,
            confirmation: confirmation.map(TryInto::try_into).transpose()?,
            last_watch: last_watch.map(Into::into),
            // An older version may have promoted the candidate since, and has kept what it does not know.
            share: share
                .map(ShareState::try_from)
                .transpose()?
                .filter(|it| it.color != Color::from(active)),
            share_end: share_end.map(Into::into),
            history: Vec::new(),
            unknown: Some(unknown).filter(|it| !it.is_empty()).map(text),
        };
        pins.put(&mut state);
        Ok(state)
    }
}

impl SetByData {
    fn is_empty(&self) -> bool {
        let Self { blue, green } = self;
        blue.is_none() && green.is_none()
    }
}

impl From<&AuditLog> for AuditData {
    fn from(log: &AuditLog) -> Self {
        // The lines are entries of their own.
        let AuditLog { count, hash, removed, refusal_commits, pending: _ } = log;
        let (count, hash, removed) = (*count, hash.to_string(), *removed);
        Self { count, hash, removed, refusal_commits: *refusal_commits }
    }
}

impl AuditData {
    /// Sets the end of the chain.
    pub(super) fn put(self, log: &mut AuditLog) -> Result<(), &'static str> {
        let Self { count, hash, removed, refusal_commits } = self;
        log.hash = LineHash::parse(hash.as_bytes()).ok_or("it has no hash of a line")?;
        (log.count, log.removed, log.refusal_commits) = (count, removed, refusal_commits);
        Ok(())
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn names(texts: Vec<String>) -> Result<Vec<ServiceName>, String> {
    let names = texts.into_iter().map(|it| it.parse::<ServiceName>());
    names.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

impl From<&Approval> for ApprovalData {
    fn from(approval: &Approval) -> Self {
        let Approval { color, by, is_authenticated, at } = approval;
        let (color, by) = ((*color).into(), by.to_string());
        Self { color, by, at: *at, authenticated: *is_authenticated }
    }
}

impl From<ApprovalData> for Approval {
    fn from(data: ApprovalData) -> Self {
        let ApprovalData { color, by, at, authenticated } = data;
        Self { color: color.into(), by: by.into(), at, is_authenticated: authenticated }
    }
}

impl From<&Promotion> for PromotionData {
    fn from(promotion: &Promotion) -> Self {
        let Promotion { services, generation, is_rollback, reason } = promotion;
        Self {
            services: services.iter().map(ToString::to_string).collect(),
            generation: generation.0,
            rollback: *is_rollback,
            reason: reason.clone(),
        }
    }
}

impl TryFrom<PromotionData> for Promotion {
    type Error = String;

    fn try_from(data: PromotionData) -> Result<Self, String> {
        let PromotionData { services, generation, rollback, reason } = data;
        let (services, generation) = (names(services)?, Generation(generation));
        Ok(Self { services, generation, is_rollback: rollback, reason })
    }
}
