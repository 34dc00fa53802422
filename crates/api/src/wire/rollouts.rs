//! Rollouts: deployments in stages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::EndpointRequest;

/// A rollout that begins.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// The plan; by default `default`: the plan of this name, or the one that Flipgate brings along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// What is deployed, by service.
    pub services: BTreeMap<String, DeploymentRequest>,
    /// Why, for the log and the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Take the promotion back unless it is confirmed within this time, such as `2m`. Overrides that of the plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within: Option<String>,
    /// Begin nothing: the response has the rollout as it would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What is deployed of one service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DeploymentRequest {
    /// The color; by default the one that is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// The version: 1 to 64 letters, digits, `.`, `_`, `+` and `-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The endpoints; by default those that the color has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointRequest>,
}

/// What a person does to a rollout.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RolloutActionRequest {
    /// Why, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of an approval: the stage that it is for. Without it, the one that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
}

/// All rollouts that are in progress, and the last ones, the latest first.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutList {
    /// The rollouts.
    pub rollouts: Vec<RolloutStatus>,
}

/// A rollout.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutStatus {
    /// The id.
    pub id: String,
    /// `running`, `waiting` (for a person), `done`, `undoing`, `undone`, `stuck` (a person has to decide) or `cancelled`.
    pub state: String,
    /// Whether nothing will happen any more.
    pub over: bool,
    /// How often it was written. With `since`, a call waits for the next version.
    pub version: u64,
    /// The plan.
    pub plan: String,
    /// The caller that began it.
    pub owner: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it began, as RFC 3339.
    pub started: String,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What is deployed, by service.
    pub services: BTreeMap<String, RolloutService>,
    /// The stages, in order.
    pub stages: Vec<RolloutStage>,
    /// Why everything is undone: `gate` (a gate refused the promotion), `failure`, `cancelled` or `taken_back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What the stage that runs waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// What is left for a person to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_to_do: Vec<String>,
}

/// A service in a rollout.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutService {
    /// The color that becomes active.
    pub candidate: String,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<String>,
    /// The version of the color that was active at the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_version: Option<String>,
}

/// A stage of a rollout.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutStage {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// `pending`, `running`, `waiting`, `done`, `failed`, `skipped`, `undoing`, `undone` or `undo_failed`.
    pub state: String,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a command printed, or an application responded, if the stage has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Its undo, if that has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<RolloutUndo>,
}

/// The undo of a stage.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RolloutUndo {
    /// `running`, `done` or `failed`.
    pub state: String,
    /// When it began.
    pub started: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// What was found, like a pool that another caller has set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Why it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a command printed, or an application responded, if it has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}
