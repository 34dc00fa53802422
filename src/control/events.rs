//! The events, in order, for subscribers and for those that reconnect.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use super::share_events::ShareEvent;
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

/// The events of this process: keeps the last ones, and publishes new ones.
#[derive(Debug)]
pub struct Events {
    recent: Mutex<EventBuffer>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct EventBuffer {
    /// The number before the first of this process.
    base: u64,
    last: u64,
    events: VecDeque<Arc<Event>>,
}

/// A subscription.
#[derive(Debug)]
pub struct Subscription {
    /// Events after the last one that the subscriber has seen.
    pub missed: Vec<Arc<Event>>,
    /// New events.
    pub live: broadcast::Receiver<Arc<Event>>,
}

/// Events that are kept for reconnecting subscribers.
const KEPT: usize = 1024;

/// Events that a slow subscriber may be behind before it misses some.
const LAG_MAX: usize = 256;

// === impl Events ===

impl Events {
    /// An empty list; numbers begin after `base`.
    #[must_use]
    pub fn after(base: u64) -> Self {
        let recent = EventBuffer { base, last: base, events: VecDeque::new() };
        Self { recent: Mutex::new(recent), live: broadcast::channel(LAG_MAX).0 }
    }

    /// An empty list; numbers begin above those of earlier processes: a thousand for each millisecond.
    #[must_use]
    pub fn from_now() -> Self {
        Self::after(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default() * 1000)
    }

    /// Publishes an event.
    pub fn publish(&self, kind: EventKind) {
        let mut recent = self.recent();
        recent.last += 1;
        let event = Arc::new(Event { seq: recent.last, at: Timestamp::now(), kind });
        recent.events.push_back(Arc::clone(&event));
        if recent.events.len() > KEPT {
            recent.events.pop_front();
        }
        // Without subscribers, none can miss it.
        let _ = self.live.send(event);
    }

    /// All events after number `after`, or only new ones. There is no gap between kept and new events. Events that are
    /// not kept any more are reported by [`EventKind::Missed`].
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        let recent = self.recent();
        let live = self.live.subscribe();
        let Some(after) = after else { return Subscription { missed: Vec::new(), live } };
        // A number of another process.
        let is_ours = (recent.base..=recent.last).contains(&after);
        let after = if is_ours { after } else { recent.base };
        let first_kept = recent.events.front().map_or(recent.last + 1, |it| it.seq);
        let lost = first_kept.saturating_sub(after + 1);
        let mut missed = Vec::new();
        if lost > 0 {
            let (seq, at) = (first_kept - 1, Timestamp::now());
            missed.push(Arc::new(Event { seq, at, kind: EventKind::Missed { events: lost } }));
        }
        missed.extend(recent.events.iter().filter(|it| it.seq > after).cloned());
        Subscription { missed, live }
    }

    fn recent(&self) -> MutexGuard<'_, EventBuffer> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
            Self::Endpoint(event) => event.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seqs(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|it| it.seq).collect()
    }

    #[test]
    fn a_reconnecting_subscriber_gets_each_missed_event_once() {
        let events = Events::after(0);
        for _ in 0..5 {
            events.publish(EventKind::Stopping);
        }
        assert_eq!(seqs(&events.subscribe(Some(3)).missed), [4, 5]);
        assert!(events.subscribe(Some(5)).missed.is_empty());
        assert!(events.subscribe(None).missed.is_empty());
        let mut subscription = events.subscribe(Some(4));
        events.publish(EventKind::Stopping);
        assert_eq!(seqs(&subscription.missed), [5]);
        assert_eq!(subscription.live.try_recv().map(|it| it.seq), Ok(6));
    }

    #[test]
    fn a_subscriber_that_was_away_too_long_gets_missed() {
        let events = Events::after(0);
        for _ in 0..KEPT + 10 {
            events.publish(EventKind::Stopping);
        }
        let missed = events.subscribe(Some(4)).missed;
        assert_eq!(missed[0].kind, EventKind::Missed { events: 6 });
        assert_eq!((missed[1].seq, missed.len()), (11, KEPT + 1));
    }

    #[test]
    fn a_number_of_an_earlier_process_means_from_the_beginning() {
        let events = Events::after(0);
        events.publish(EventKind::Stopping);
        assert_eq!(seqs(&events.subscribe(Some(500)).missed), [1]);
    }
}
