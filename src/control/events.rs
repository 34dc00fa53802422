//! The events, in order, for subscribers and for those that reconnect.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::event_kinds::{Event, EventKind};

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
