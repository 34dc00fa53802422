//! What happened, in order, for whoever listens now and for whoever was away for a moment.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::{
    model::{Color, Generation, ServiceName},
    upstream::EndpointEvent,
};

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Event {
    /// One more than that of the event before. A process begins above all numbers of the ones
    /// before it, as long as the clock is not set back.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// The process began to serve.
    Started {
        /// The generation that it came back to.
        generation: Generation,
    },
    /// Colors became active, all in one step.
    Promoted {
        /// The generation that has them.
        generation: Generation,
        /// Each service with its color.
        services: BTreeMap<ServiceName, Color>,
        /// Whether it was a rollback.
        rollback: bool,
        /// Why, if the caller said so.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// The name of the caller's token, or `local` without a token.
        #[serde(skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The last request that a change left behind on a color that is not active has ended: what was
    /// replaced may be stopped.
    Drained {
        /// The service.
        service: ServiceName,
        /// The color of the side.
        color: Color,
        /// The generation that replaced it.
        generation: Generation,
        /// How long that took, in milliseconds.
        took_ms: u64,
    },
    /// The last request has ended on a side whose color is active, or has others that somebody is
    /// inside of. The color itself is not drained.
    Released {
        /// The service.
        service: ServiceName,
        /// The color of the side.
        color: Color,
        /// The generation that replaced it.
        generation: Generation,
        /// How long that took, in milliseconds.
        took_ms: u64,
    },
    /// A pool is made of something else.
    PoolChanged {
        /// The generation that has it.
        generation: Generation,
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
    },
    /// A changed configuration was applied.
    Reloaded {
        /// The generation that has it.
        generation: Generation,
    },
    /// The process has begun to stop.
    Stopping,
    /// Events before this one are no longer known; a listener that was away has missed some.
    Missed {
        /// How many, as far as can be told.
        events: u64,
    },
    /// Something happened to endpoints.
    #[serde(untagged)]
    Endpoint(EndpointEvent),
}

/// The events of this process: the last of them kept, new ones passed on.
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

/// Events from some moment on.
#[derive(Debug)]
pub struct Subscription {
    /// Those that were before the subscription and after what the listener had seen.
    pub missed: Vec<Arc<Event>>,
    /// Those that come.
    pub live: broadcast::Receiver<Arc<Event>>,
}

/// Events that are kept for those who were away.
const KEPT: usize = 1024;

/// Events that a slow listener may lag behind before it misses some.
const LAG_MAX: usize = 256;

// === impl Events ===

impl Events {
    /// No events yet; their numbers begin behind `base`.
    #[must_use]
    pub fn after(base: u64) -> Self {
        let recent = EventBuffer { base, last: base, events: VecDeque::new() };
        Self { recent: Mutex::new(recent), live: broadcast::channel(LAG_MAX).0 }
    }

    /// No events yet; their numbers begin where no process before had any: a thousand for each
    /// millisecond.
    #[must_use]
    pub fn from_now() -> Self {
        Self::after(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default() * 1000)
    }

    /// Tells everybody.
    pub fn publish(&self, kind: EventKind) {
        let mut recent = self.recent();
        recent.last += 1;
        let event = Arc::new(Event { seq: recent.last, at: Timestamp::now(), kind });
        recent.events.push_back(Arc::clone(&event));
        if recent.events.len() > KEPT {
            recent.events.pop_front();
        }
        // Nobody listens: nobody is missing anything.
        let _ = self.live.send(event);
    }

    /// All events after number `after`, or only those that come. There is no gap between what was
    /// and what comes; events that are no longer kept are told by [`EventKind::Missed`].
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        let recent = self.recent();
        let live = self.live.subscribe();
        let Some(after) = after else { return Subscription { missed: Vec::new(), live } };
        // A number that this process has not given is one of an earlier one.
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

// === impl EventKind ===

impl EventKind {
    /// The word that its serialized form has as `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Promoted { .. } => "promoted",
            Self::Drained { .. } => "drained",
            Self::Released { .. } => "released",
            Self::PoolChanged { .. } => "pool_changed",
            Self::Reloaded { .. } => "reloaded",
            Self::Stopping => "stopping",
            Self::Missed { .. } => "missed",
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
    fn whoever_was_away_gets_what_it_missed_and_nothing_twice() {
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
    fn whoever_was_away_too_long_is_told_so() {
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
