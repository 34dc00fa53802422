//! The watch and the confirmation of a service, as they are written.

use serde::{Deserialize, Serialize};

use super::names;
use crate::{
    model::{Generation, WatchResult},
    store::state::{Confirmation, WatchEnd, WatchState},
};

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct WatchData {
    generation: u64,
    /// In milliseconds of Unix time.
    until: u64,
    services: Vec<String>,
    #[serde(default)]
    failures_before: u64,
    #[serde(default)]
    requests_before: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct WatchEndData {
    generation: u64,
    result: WatchResultData,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WatchResultData {
    Passed,
    Inconclusive,
    Failed,
    Stopped,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct ConfirmationData {
    generation: u64,
    /// In milliseconds of Unix time.
    until: u64,
    services: Vec<String>,
}

impl From<&WatchState> for WatchData {
    fn from(watch: &WatchState) -> Self {
        let WatchState { generation, until, services, before } = watch;
        let (failures_before, requests_before) = *before;
        let services = services.iter().map(ToString::to_string).collect();
        Self { generation: generation.0, until: *until, services, failures_before, requests_before }
    }
}

impl TryFrom<WatchData> for WatchState {
    type Error = String;

    fn try_from(data: WatchData) -> Result<Self, String> {
        let WatchData { generation, until, services, failures_before, requests_before } = data;
        let before = (failures_before, requests_before);
        Ok(Self { generation: Generation(generation), until, services: names(services)?, before })
    }
}

impl From<&WatchEnd> for WatchEndData {
    fn from(end: &WatchEnd) -> Self {
        let WatchEnd { generation, result } = end;
        let result = match result {
            WatchResult::Passed => WatchResultData::Passed,
            WatchResult::Inconclusive => WatchResultData::Inconclusive,
            WatchResult::Failed => WatchResultData::Failed,
            WatchResult::Stopped => WatchResultData::Stopped,
        };
        Self { generation: generation.0, result }
    }
}

impl From<WatchEndData> for WatchEnd {
    fn from(data: WatchEndData) -> Self {
        let WatchEndData { generation, result } = data;
        let result = match result {
            WatchResultData::Passed => WatchResult::Passed,
            WatchResultData::Inconclusive => WatchResult::Inconclusive,
            WatchResultData::Failed => WatchResult::Failed,
            WatchResultData::Stopped => WatchResult::Stopped,
        };
        Self { generation: Generation(generation), result }
    }
}

impl From<&Confirmation> for ConfirmationData {
    fn from(confirmation: &Confirmation) -> Self {
        let Confirmation { generation, until, services } = confirmation;
        let services = services.iter().map(ToString::to_string).collect();
        Self { generation: generation.0, until: *until, services }
    }
}

impl TryFrom<ConfirmationData> for Confirmation {
    type Error = String;

    fn try_from(data: ConfirmationData) -> Result<Self, String> {
        let ConfirmationData { generation, until, services } = data;
        Ok(Self { generation: Generation(generation), until, services: names(services)? })
    }
}
