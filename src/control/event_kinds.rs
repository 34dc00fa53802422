//! The kinds of events, as subscribers get them.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::Serialize;

use super::{rollout_events::RolloutEvent, share_events::ShareEvent};
use crate::{
    model::{Color, Generation, ServiceName, StreamEnd, StreamKind},
    upstream::EndpointEvent,
};

/// An event.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Event {
    /// One more than the number of the event before. A process begins above the numbers of earlier ones, unless the
    /// clock was set back.
    pub seq: u64,
    /// The time.
    pub at: Timestamp,
    /// The kind.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The process began to serve.
    Started {
        /// The generation that it continues with.
        generation: Generation,
    },
    /// Colors became active, all in one step.
    Promoted {
        /// The generation that the promotion led to.
        generation: Generation,
        /// Each service with its color.
        services: BTreeMap<ServiceName, Color>,
        /// Whether it was a rollback.
        rollback: bool,
        /// The reason, if there is one.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The name of the caller's token, or `local` without a token.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The last request on a replaced color has ended: it is safe to stop it.
    Drained {
        /// The service.
        service: ServiceName,
        /// The color of the side.
        color: Color,
        /// The generation that replaced it.
        generation: Generation,
        /// The time from the change to the last request, in milliseconds.
        took_ms: u64,
    },
    /// The last request on a replaced side has ended, but its color is active again or has other requests. The color is
    /// not drained.
    Released {
        /// The service.
        service: ServiceName,
        /// The color of the side.
        color: Color,
        /// The generation that replaced it.
        generation: Generation,
        /// The time from the change to the last request, in milliseconds.
        took_ms: u64,
    },
    /// The streams on a replaced color begin to end.
    StreamsEnding {
        /// The service.
        service: ServiceName,
        /// The replaced color.
        color: Color,
        /// The kinds of streams that end.
        kinds: Vec<&'static str>,
        /// Whether an operator has asked for it, and not the policy of the service.
        by_hand: bool,
        /// The time until the last one ends, in milliseconds.
        last_ms: u64,
    },
    /// The color is drained, or its streams are not ended any more.
    StreamsEnded {
        /// The service.
        service: ServiceName,
        /// The replaced color.
        color: Color,
        /// Whether the ending was stopped: the color is active again, or another ending has begun.
        stopped: bool,
        /// How many streams were ended.
        streams: EndedStreams,
    },
    /// A pool has another version or other endpoints.
    PoolChanged {
        /// The generation that the change led to.
        generation: Generation,
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
    },
    /// Every gate has allowed a promotion.
    GatePassed {
        /// The service.
        service: ServiceName,
        /// The candidate.
        color: Color,
        /// The verdicts, in the order of the gates.
        gates: Vec<GateSummary>,
    },
    /// A gate has refused a promotion. Nothing has changed.
    GateRefused {
        /// The service.
        service: ServiceName,
        /// The candidate.
        color: Color,
        /// The verdicts, in the order of the gates.
        gates: Vec<GateSummary>,
    },
    /// A pool was approved, at the version that it has.
    Approved {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// Its version, if it was set.
        #[serde(skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// The name of the caller's token, or `local` without a token.
        by: String,
    },
    /// A watch of a new active color has begun, or goes on after a restart.
    WatchStarted {
        /// The service.
        service: ServiceName,
        /// The active color.
        color: Color,
        /// The generation of the promotion.
        generation: Generation,
        /// When it ends.
        until: Timestamp,
    },
    /// The answers of the watched color were good enough.
    WatchPassed {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The generation of the promotion.
        generation: Generation,
        /// The counts.
        summary: String,
    },
    /// The watch is over, and nothing is proved.
    WatchInconclusive {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The generation of the promotion.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// The watched color is bad.
    WatchFailed {
        /// The service.
        service: ServiceName,
        /// The color.
        color: Color,
        /// The generation of the promotion.
        generation: Generation,
        /// Why.
        reason: String,
        /// Whether the promotion was rolled back.
        rollback: bool,
        /// Why it stays, if it was not.
        #[serde(skip_serializing_if = "Option::is_none")]
        stays: Option<String>,
    },
    /// The promotion of a service was confirmed.
    Confirmed {
        /// The service.
        service: ServiceName,
        /// The generation of the promotion.
        generation: Generation,
    },
    /// A promotion was not confirmed in time.
    ConfirmExpired {
        /// The service.
        service: ServiceName,
        /// The generation of the promotion.
        generation: Generation,
        /// Whether it was rolled back.
        rollback: bool,
        /// Why it stays, if it was not.
        #[serde(skip_serializing_if = "Option::is_none")]
        stays: Option<String>,
    },
    /// New requests of a service wait, or its hold has another end.
    HoldStarted {
        /// The service.
        service: ServiceName,
        /// The hold.
        id: u64,
        /// The caller, as the audit log names it.
        owner: String,
        /// When it ends by itself.
        until: Timestamp,
        /// How many requests may wait.
        requests: usize,
    },
    /// The requests of a hold go.
    HoldReleased {
        /// The service.
        service: ServiceName,
        /// The hold.
        id: u64,
        /// The name of the caller's token, or `local` without a token. Absent if the time of the hold was over.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// New requests of a service are answered with 503.
    MaintenanceStarted {
        /// The service.
        service: ServiceName,
        /// The caller, as the audit log names it.
        owner: String,
    },
    /// The service takes new requests again.
    MaintenanceEnded {
        /// The service.
        service: ServiceName,
        /// The name of the caller's token, or `local` without a token.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// A changed configuration was applied.
    Reloaded {
        /// The generation that the change led to.
        generation: Generation,
    },
    /// The process has begun to stop.
    Stopping,
    /// Earlier events are not kept any more, so the subscriber has missed some.
    Missed {
        /// How many, if that is known.
        events: u64,
    },
    /// An event of a gradual promotion.
    #[serde(untagged)]
    Share(ShareEvent),
    /// An event of a rollout.
    #[serde(untagged)]
    Rollout(RolloutEvent),
    /// An event of endpoints.
    #[serde(untagged)]
    Endpoint(EndpointEvent),
}

/// The verdict of one gate.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct GateSummary {
    /// The gate.
    pub gate: &'static str,
    /// Whether it allows the promotion.
    pub passed: bool,
    /// Whether it did not run, because a gate before it refused.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_run: bool,
    /// Why it refuses, or why it did not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// How many streams were ended, by kind and way: `{"websocket": {"closed": 12}}`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct EndedStreams(pub BTreeMap<&'static str, BTreeMap<&'static str, u64>>);

// === impl EndedStreams ===

impl EndedStreams {
    /// The streams of this list.
    #[must_use]
    pub fn new(ended: Vec<(StreamKind, StreamEnd, u64)>) -> Self {
        let mut streams = Self::default();
        for (kind, how, count) in ended {
            streams.0.entry(kind.as_str()).or_default().insert(how.as_str(), count);
        }
        streams
    }
}

/// For the log: `websocket closed 12, download cut 1`.
impl fmt::Display for EndedStreams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().flat_map(|(kind, ways)| ways.iter().map(move |it| (kind, it)));
        for (place, (kind, (how, count))) in all.enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            write!(formatter, "{comma}{kind} {how} {count}")?;
        }
        if self.0.is_empty() { formatter.write_str("none") } else { Ok(()) }
    }
}

// === impl EventKind ===

impl EventKind {
    /// The value of `event` in its serialized form.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Promoted { .. } => "promoted",
            Self::Drained { .. } => "drained",
            Self::Released { .. } => "released",
            Self::StreamsEnding { .. } => "streams_ending",
            Self::StreamsEnded { .. } => "streams_ended",
            Self::PoolChanged { .. } => "pool_changed",
            Self::GatePassed { .. } => "gate_passed",
            Self::GateRefused { .. } => "gate_refused",
            Self::Approved { .. } => "approved",
            Self::WatchStarted { .. } => "watch_started",
            Self::WatchPassed { .. } => "watch_passed",
            Self::WatchInconclusive { .. } => "watch_inconclusive",
            Self::WatchFailed { .. } => "watch_failed",
            Self::Confirmed { .. } => "confirmed",
            Self::ConfirmExpired { .. } => "confirm_expired",
            Self::HoldStarted { .. } => "hold_started",
            Self::HoldReleased { .. } => "hold_released",
            Self::MaintenanceStarted { .. } => "maintenance_started",
            Self::MaintenanceEnded { .. } => "maintenance_ended",
            Self::Reloaded { .. } => "reloaded",
            Self::Stopping => "stopping",
            Self::Missed { .. } => "missed",
            Self::Share(event) => event.name(),
            Self::Rollout(event) => event.name(),
            Self::Endpoint(event) => event.name(),
        }
    }
}
