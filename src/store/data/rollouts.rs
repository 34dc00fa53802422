//! Rollouts, as they are written. The id is the key of the entry.

use serde::{Deserialize, Serialize};

use super::{ColorData, names, pools::PoolData};
use crate::{
    model::Generation,
    store::{
        pool_state::PoolState,
        rollouts::{PoolBefore, RolloutState},
    },
};

#[derive(Debug, Deserialize, Serialize)]
pub(in crate::store) struct RolloutData {
    version: u64,
    owner: String,
    services: Vec<String>,
    /// In milliseconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promoted: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    before: Vec<BeforeData>,
    record: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct BeforeData {
    service: String,
    color: ColorData,
    pool: PoolData,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    set_by: Option<String>,
}

impl From<&RolloutState> for RolloutData {
    fn from(rollout: &RolloutState) -> Self {
        let RolloutState { version, owner, services, ended_at, promoted, before, record } = rollout;
        Self {
            version: *version,
            owner: owner.to_string(),
            services: services.iter().map(ToString::to_string).collect(),
            ended_at: *ended_at,
            promoted: promoted.map(|it| it.0),
            before: before.iter().map(Into::into).collect(),
            record: record.to_string(),
        }
    }
}

impl TryFrom<RolloutData> for RolloutState {
    type Error = String;

    fn try_from(data: RolloutData) -> Result<Self, String> {
        let RolloutData { version, owner, services, ended_at, promoted, before, record } = data;
        Ok(Self {
            version,
            owner: owner.into(),
            services: names(services)?,
            ended_at,
            promoted: promoted.map(Generation),
            before: before.into_iter().map(TryInto::try_into).collect::<Result<_, String>>()?,
            record: record.into(),
        })
    }
}

impl From<&PoolBefore> for BeforeData {
    fn from(before: &PoolBefore) -> Self {
        let PoolBefore { service, color, pool } = before;
        Self {
            service: service.to_string(),
            color: (*color).into(),
            pool: pool.into(),
            shared: pool.shared,
            set_by: pool.set_by.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<BeforeData> for PoolBefore {
    type Error = String;

    fn try_from(data: BeforeData) -> Result<Self, String> {
        let BeforeData { service, color, pool, shared, set_by } = data;
        let service =
            service.parse().map_err(|it: crate::model::ParseServiceNameError| it.to_string())?;
        let pool = PoolState { shared, set_by: set_by.map(Into::into), ..pool.try_into()? };
        Ok(Self { service, color: color.into(), pool })
    }
}
