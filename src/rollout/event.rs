//! What happens to a rollout. Its record is the list of its events, and its position follows from them.
//!
//! These types are a format, as those of [`super::plan`] are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An event, and when it happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// In milliseconds of Unix time.
    pub at: u64,
    /// What happened.
    pub event: Event,
}

/// What happens to a rollout.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// A stage, or its undo, begins. Written before it does anything.
    Began(Step),
    /// A stage that had begun in an earlier process, and has no end, is done again.
    Repeated(Step),
    /// A helper was started for the command of a stage. Written before the helper may run the command.
    Child {
        /// The stage.
        step: Step,
        /// The helper.
        child: ChildId,
    },
    /// A stage has changed the state of Flipgate: written together with that change.
    Made(Step),
    /// A stage, or its undo, has succeeded.
    Done {
        /// The stage.
        step: Step,
        /// The values that later stages use.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        saved: BTreeMap<String, String>,
        /// What was found, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A stage, or its undo, has failed.
    Failed {
        /// The stage.
        step: Step,
        /// Why.
        failure: Failure,
    },
    /// The condition of a stage does not hold.
    Skipped {
        /// The stage.
        stage: usize,
    },
    /// A stage that waits for a person was approved.
    Approved {
        /// The caller.
        by: String,
        /// The stage that the caller named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<usize>,
    },
    /// A person has ended the rollout.
    Cancelled {
        /// The caller.
        by: String,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A person has what has failed, or was interrupted, tried again.
    Retried {
        /// The caller.
        by: String,
    },
    /// The promotion was taken back by someone else: by hand, by a watch, or for want of a confirmation.
    TakenBack {
        /// Why.
        reason: String,
    },
}

/// A stage, or its undo.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Step {
    /// The place of the stage in the plan.
    pub stage: usize,
    /// Whether it is done or undone.
    pub direction: Direction,
}

/// Whether a stage is done or undone.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It is done.
    Do,
    /// It is undone.
    Undo,
}

/// Why a stage has failed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// For people.
    pub error: String,
    /// What a command printed, or an application responded, cut to a limit and without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Whether the stage has certainly done nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nothing_done: bool,
    /// Whether a gate has refused the promotion.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_gate: bool,
    /// Whether the stage was interrupted, so that nothing is known of its outcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
}

/// A process that no other one can be taken for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChildId {
    /// Its number.
    pub pid: i32,
    /// When it was started, in clock ticks since the system was booted.
    pub started: u64,
    /// The boot of the system that it was started in.
    pub boot: String,
}

// === impl Step ===

impl Step {
    /// Doing a stage.
    #[must_use]
    pub fn forward(stage: usize) -> Self {
        Self { stage, direction: Direction::Do }
    }

    /// Undoing a stage.
    #[must_use]
    pub fn back(stage: usize) -> Self {
        Self { stage, direction: Direction::Undo }
    }
}

// === impl Failure ===

impl Failure {
    /// A failure of a stage that has certainly done nothing.
    #[must_use]
    pub fn before_anything(error: impl Into<String>) -> Self {
        Self { error: error.into(), nothing_done: true, ..Self::default() }
    }

    /// A failure of a stage that may have done something.
    #[must_use]
    pub fn maybe_done(error: impl Into<String>) -> Self {
        Self { error: error.into(), ..Self::default() }
    }
}
