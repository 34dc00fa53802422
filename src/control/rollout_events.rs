//! The events of rollouts.

use serde::Serialize;

use crate::model::ServiceName;

/// An event of a rollout.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum RolloutEvent {
    /// A rollout has begun.
    RolloutStarted {
        /// Its id.
        rollout: String,
        /// Its plan.
        plan: String,
        /// Its services.
        services: Vec<ServiceName>,
        /// The caller.
        by: String,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A stage, or its undo, has begun or ended.
    RolloutStage {
        /// The rollout.
        rollout: String,
        /// The name of the stage.
        stage: String,
        /// `running`, `done`, `failed`, `skipped`, `undoing`, `undone` or `undo_failed`.
        state: &'static str,
        /// Why it has failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A rollout needs a person: it waits for an approval, or it is stuck.
    RolloutNeedsPerson {
        /// The rollout.
        rollout: String,
        /// `waiting` or `stuck`.
        state: &'static str,
    },
    /// A rollout is over.
    RolloutEnded {
        /// The rollout.
        rollout: String,
        /// `done`, `undone` or `cancelled`.
        state: &'static str,
        /// Why it was undone.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

// === impl RolloutEvent ===

impl RolloutEvent {
    /// The value of `event` in its serialized form.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::RolloutStarted { .. } => "rollout_started",
            Self::RolloutStage { .. } => "rollout_stage",
            Self::RolloutNeedsPerson { .. } => "rollout_needs_person",
            Self::RolloutEnded { .. } => "rollout_ended",
        }
    }
}
