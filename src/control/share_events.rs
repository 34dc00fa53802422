//! The events of gradual promotions.

use serde::Serialize;

use crate::model::{Color, Generation, ServiceName};

/// An event of a gradual promotion.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ShareEvent {
    /// The candidate gets a share of the clients, or another one than before.
    ShareChanged {
        /// The service.
        service: ServiceName,
        /// The candidate.
        color: Color,
        /// The generation that the change led to.
        generation: Generation,
        /// The share, in percent.
        percent: u8,
        /// The caller's reason, if the promotion begins.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The caller, or the part of Flipgate.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The time of a step is over, but the watch has no verdict. The share stays.
    ShareWaiting {
        /// The service.
        service: ServiceName,
        /// The candidate.
        color: Color,
        /// The share, in percent.
        percent: u8,
        /// Why there is no verdict.
        reason: String,
    },
    /// The candidate is bad: the gradual promotion is taken back.
    ShareFailed {
        /// The service.
        service: ServiceName,
        /// The candidate.
        color: Color,
        /// The share, in percent.
        percent: u8,
        /// Why.
        reason: String,
    },
    /// The gradual promotion was taken back: every client is on the active color.
    ShareEnded {
        /// The service.
        service: ServiceName,
        /// The color that was the candidate.
        color: Color,
        /// The generation that the change led to.
        generation: Generation,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The caller, or the part of Flipgate.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
}

// === impl ShareEvent ===

impl ShareEvent {
    /// The value of `event` in its serialized form.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::ShareChanged { .. } => "share_changed",
            Self::ShareWaiting { .. } => "share_waiting",
            Self::ShareFailed { .. } => "share_failed",
            Self::ShareEnded { .. } => "share_ended",
        }
    }
}
