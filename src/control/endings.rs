//! The end of the streams on a replaced color: started by a flip with a policy, or by hand; stopped if the color becomes
//! active again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::info;

use super::{
    event_kinds::{EndedStreams, EventKind},
    events::Events,
};
use crate::{
    model::{Color, ServiceName, StreamEnd, StreamKind, StreamPolicies},
    switch::{Drain, Service, StreamEnding},
    upstream::{Pool, Pools, ServiceSwitch},
};

/// Starts and stops endings, and has the last one of each color.
#[derive(Debug)]
pub(super) struct Endings {
    switch: Arc<ServiceSwitch>,
    events: Arc<Events>,
    last: Mutex<Entries>,
}

type Entries = HashMap<(ServiceName, Color), Entry>;

#[derive(Debug)]
struct Entry {
    /// That of the streams of a flip, or by hand; and that of streams that were pinned until later.
    endings: Vec<Arc<StreamEnding>>,
    /// Whether an event has said how it went, or none has to.
    is_reported: bool,
}

/// How far the streams of a color have ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndingSnapshot {
    /// Whether streams may still be ended.
    pub is_going: bool,
    /// The time left until the last ending, if each stream ends in time.
    pub left: Duration,
    /// How many streams were ended, by kind and way, without zeros.
    pub ended: Vec<(StreamKind, StreamEnd, u64)>,
}

/// Streams of the active color are not ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the color is active: promote the other one before you end its streams")]
pub struct ColorIsActive;

// === impl Entry ===

impl Entry {
    fn stop(&self) {
        self.endings.iter().for_each(|it| it.stop());
    }

    fn is_stopped(&self) -> bool {
        self.endings.iter().all(|it| it.is_stopped())
    }

    /// How many streams were ended, by kind and way, without zeros.
    fn ended(&self) -> Vec<(StreamKind, StreamEnd, u64)> {
        let mut sums: Vec<(StreamKind, StreamEnd, u64)> = Vec::new();
        for (kind, how, count) in self.endings.iter().flat_map(|it| it.ended()) {
            match sums.iter_mut().find(|it| (it.0, it.1) == (kind, how)) {
                Some((.., sum)) => *sum += count,
                None => sums.push((kind, how, count)),
            }
        }
        sums
    }
}

// === impl Endings ===

impl Endings {
    pub(super) fn new(switch: Arc<ServiceSwitch>, events: Arc<Events>) -> Self {
        Self { switch, events, last: Mutex::default() }
    }

    /// Starts and stops what follows from the flips between two states.
    pub(super) fn follow(&self, before: &Pools, after: &Pools, changed: &[ServiceName]) {
        for name in changed {
            let (Some(old), Some(new)) = (before.get(name), after.get(name)) else { continue };
            if old.active == new.active {
                continue;
            }
            let mut entries = self.entries();
            self.stop(&mut entries, name, new.active);
            let replaced = new.active.other();
            let policies = new.pool(replaced).policy().drain.streams;
            if policies.is_empty() {
                // What an earlier drain of this color ended does not concern this one.
                self.stop(&mut entries, name, replaced);
                entries.remove(&(name.clone(), replaced));
            } else {
                self.start(&mut entries, name, replaced, policies, false);
            }
        }
    }

    /// Ends the streams that a flip has left on a color by these policies at once, as
    /// [`StreamPolicies::by_hand`] says. Replaces an ending in progress.
    ///
    /// # Errors
    ///
    /// [`ColorIsActive`]; then nothing is ended.
    pub(super) fn start_by_hand(
        &self,
        service: &ServiceName,
        color: Color,
        policies: &StreamPolicies,
    ) -> Result<(), ColorIsActive> {
        let mut entries = self.entries();
        // Under the lock: a flip to this color, if it comes later, stops what is started here.
        let active = self.switch.read(|it| it.service(service).map(Service::active));
        if active == Some(color) {
            return Err(ColorIsActive);
        }
        self.start(&mut entries, service, color, policies.by_hand(), true);
        Ok(())
    }

    /// Has the streams of pinned requests end by these policies, as if the color had been replaced now: the pins to it have
    /// ended. Endings in progress go on.
    pub(super) fn start_pinned(&self, drain: &Drain<Pool>, policies: StreamPolicies) {
        if policies.is_empty() {
            return;
        }
        let mut entries = self.entries();
        let (service, color) = (drain.service(), drain.color());
        let ending = Arc::new(StreamEnding::new(policies, Instant::now(), fastrand::u32(..)));
        let in_flight = self.switch.end_streams_on(drain, &ending);
        if in_flight == 0 {
            return;
        }
        let none = || Entry { endings: Vec::new(), is_reported: false };
        let entry = entries.entry((service.clone(), color)).or_insert_with(none);
        entry.is_reported = false;
        entry.endings.push(ending);
        self.publish_start(service, color, (&policies, false), in_flight);
    }

    /// Forgets services that are not configured. What was started goes on.
    pub(super) fn keep(&self, is_configured: impl Fn(&ServiceName) -> bool) {
        self.entries().retain(|(name, _), _| is_configured(name));
    }

    /// Publishes how the ending of a drained color went, once.
    pub(super) fn report_drained(&self, service: &ServiceName, color: Color) {
        if let Some(entry) = self.entries().get_mut(&(service.clone(), color)) {
            self.report(entry, service, color);
        }
    }

    /// How far the streams of a color have ended since it was replaced; `None` if there was nothing to end.
    pub(super) fn snapshot(&self, service: &ServiceName, color: Color) -> Option<EndingSnapshot> {
        let entries = self.entries();
        let entry = entries.get(&(service.clone(), color))?;
        let (is_going, now) = (!entry.is_stopped(), Instant::now());
        let left = entry.endings.iter().filter(|_| is_going).map(|it| it.left(now)).max();
        Some(EndingSnapshot { is_going, left: left.unwrap_or_default(), ended: entry.ended() })
    }

    /// Starts an ending in place of the one before.
    fn start(
        &self,
        entries: &mut Entries,
        service: &ServiceName,
        color: Color,
        policies: StreamPolicies,
        by_hand: bool,
    ) {
        let key = (service.clone(), color);
        if let Some(before) = entries.get_mut(&key) {
            before.stop();
            self.report(before, service, color);
        }
        let ending = Arc::new(StreamEnding::new(policies, Instant::now(), fastrand::u32(..)));
        let in_flight = self.switch.end_streams(service, color, Some(&ending));
        // Where nothing is in flight, nothing can end.
        entries.insert(key, Entry { endings: vec![ending], is_reported: in_flight == 0 });
        if in_flight > 0 {
            self.publish_start(service, color, (&policies, by_hand), in_flight);
        }
    }

    fn publish_start(
        &self,
        service: &ServiceName,
        color: Color,
        (policies, by_hand): (&StreamPolicies, bool),
        in_flight: usize,
    ) {
        let kinds = StreamKind::ALL.into_iter().filter(|it| policies.get(*it).is_some());
        let kinds: Vec<_> = kinds.map(StreamKind::as_str).collect();
        let last_ms = u64::try_from(policies.longest().as_millis()).unwrap_or(u64::MAX);
        info!(%service, %color, kinds = kinds.join(","), in_flight, by_hand, last_ms, "ending streams");
        let service = service.clone();
        self.events.publish(EventKind::StreamsEnding { service, color, kinds, by_hand, last_ms });
    }

    /// Stops the ending of a color, if there is one. Streams that have not ended yet stay.
    fn stop(&self, entries: &mut Entries, service: &ServiceName, color: Color) {
        let Some(entry) = entries.get_mut(&(service.clone(), color)) else { return };
        entry.stop();
        self.switch.end_streams(service, color, None);
        self.report(entry, service, color);
    }

    /// Publishes how an ending went, once.
    fn report(&self, entry: &mut Entry, service: &ServiceName, color: Color) {
        if std::mem::replace(&mut entry.is_reported, true) {
            return;
        }
        let stopped = entry.is_stopped();
        let streams = EndedStreams::new(entry.ended());
        info!(%service, %color, stopped, %streams, "streams ended");
        let service = service.clone();
        self.events.publish(EventKind::StreamsEnded { service, color, stopped, streams });
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
