//! The hold and the maintenance of a service in the table, as they follow from the state.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{catalog::ServiceSpec, pin_terms::TermsFactory, shared::unix_millis};
use crate::{
    continuity::{Continuity, Hold, HoldSnapshot, HoldTerm, Intake},
    model::ServiceName,
    store::State,
    upstream::{ServiceSwitch, ServiceTable, TableEntry, Terms},
};

/// The holds that are in the table or in the state, and when to look at each again. There are few.
#[derive(Debug, Default)]
pub(super) struct LiveHolds {
    live: HashMap<ServiceName, LiveHold>,
    /// Those of services that the next table does not have.
    gone: Vec<Arc<Hold>>,
}

#[derive(Debug)]
struct LiveHold {
    /// `None` for one that is only in the state: its time was over at the start, or its service is not configured.
    hold: Option<Arc<Hold>>,
    due: Instant,
}

/// The time between two checks whether a released hold has let all of its requests go.
const RELEASE_CHECK: Duration = Duration::from_millis(250);

/// When the end of a hold is written again if it could not be.
pub(super) const RETRY: Duration = Duration::from_secs(5);

// === impl TermsFactory ===

impl TermsFactory<'_> {
    /// What keeps new requests from a service; `None` if nothing does. Begins a hold that the state has, and keeps a
    /// released one while it lets its requests go.
    pub(super) fn intake(
        &self,
        name: &ServiceName,
        spec: &ServiceSpec,
        old: Option<&Continuity>,
    ) -> Option<Arc<Intake>> {
        let maintenance = self.state.maintenance.get(name).cloned();
        let term = self.state.holds.get(name);
        let old = old.and_then(|it| it.intake.as_ref()?.hold.as_ref());
        let is_over = |term: &HoldTerm| term.left(self.now_ms).is_zero();
        let hold = match (term, old) {
            (Some(term), Some(old)) => {
                // Maintenance lets the requests of a hold go, but a new end of the hold counts.
                if maintenance.is_none() || !old.has_begun(term) {
                    old.begin(term, || self.now + term.left(self.now_ms), self.now);
                }
                Some(Arc::clone(old))
            }
            (Some(term), None) if !is_over(term) => {
                let until = self.now + term.left(self.now_ms);
                Some(Arc::new(Hold::new(HoldTerm::clone(term), until, self.hold_limits)))
            }
            (None, Some(old)) if !old.is_open() => Some(Arc::clone(old)),
            _ => None,
        };
        if maintenance.is_none() && hold.is_none() {
            return None;
        }
        let pass = Arc::clone(&spec.hold.pass);
        Some(Arc::new(Intake { maintenance, hold, pass }))
    }
}

/// The hold of these terms.
fn hold_of(terms: &Terms) -> Option<&Arc<Hold>> {
    terms.as_ref()?.intake.as_ref()?.hold.as_ref()
}

/// The hold of a service, until it was released and all of its requests have gone.
pub(super) fn hold_snapshot(switch: &ServiceSwitch, service: &ServiceName) -> Option<HoldSnapshot> {
    let hold = switch.read(|it| hold_of(it.service(service)?.terms()).cloned())?;
    let snapshot = hold.snapshot(Instant::now());
    (!snapshot.is_releasing || snapshot.waiting > 0).then_some(snapshot)
}

/// Wakes every request that waits.
pub(super) fn wake_all(switch: &ServiceSwitch) {
    let holds = |table: &ServiceTable| {
        let holds = table.services().filter_map(|it| hold_of(it.terms()).cloned());
        holds.collect::<Vec<_>>()
    };
    switch.read(holds).iter().for_each(|it| it.wake_all());
}

// === impl LiveHolds ===

impl LiveHolds {
    /// Those of a whole table, and of the state.
    pub(super) fn replace(&mut self, entries: &[TableEntry], state: &State) {
        let before = std::mem::take(&mut self.live);
        for entry in entries {
            self.update(entry, state);
        }
        for name in state.holds.keys() {
            let due = Instant::now();
            self.live.entry(name.clone()).or_insert(LiveHold { hold: None, due });
        }
        let is_there = |it: &ServiceName| self.live.get(it).is_some_and(|it| it.hold.is_some());
        let gone = before.into_iter().filter(|(name, _)| !is_there(name));
        self.gone.extend(gone.filter_map(|(_, live)| live.hold));
    }

    /// Follows a new entry of the table.
    pub(super) fn update(&mut self, entry: &TableEntry, state: &State) {
        let hold = hold_of(&entry.terms).cloned();
        match hold.is_some() || state.holds.contains_key(&entry.name) {
            true => {
                let live = LiveHold { hold, due: Instant::now() };
                self.live.insert(entry.name.clone(), live);
            }
            false => drop(self.live.remove(&entry.name)),
        }
    }

    /// Releases the holds that the state does not have any more, and empties those of services in maintenance. Only when
    /// the table of this state is in use: the requests that go read it.
    pub(super) fn settle(&mut self, state: &State) {
        let now = Instant::now();
        let now_ms = unix_millis();
        self.gone.drain(..).for_each(|it| it.release(now));
        self.live.retain(|name, live| live.hold.is_some() || state.holds.contains_key(name));
        for (name, live) in &mut self.live {
            if let Some(hold) = &live.hold {
                match state.holds.contains_key(name) {
                    true if state.maintenance.contains_key(name) => hold.flush(),
                    true => {}
                    false => hold.release(now),
                }
            }
            let left = match (&live.hold, state.holds.get(name)) {
                (Some(hold), Some(_)) => hold.snapshot(now).remaining,
                (None, Some(term)) => term.left(now_ms),
                (_, None) => RELEASE_CHECK,
            };
            live.due = now + left;
        }
    }

    /// Whether the hold of a service lets a request go at this moment.
    pub(super) fn is_letting_go(&self, name: &ServiceName) -> bool {
        let hold = self.live.get(name).and_then(|it| it.hold.as_ref());
        hold.is_some_and(|it| it.is_letting_go())
    }

    /// Looks at a hold again at that time.
    pub(super) fn delay(&mut self, name: &ServiceName, by: Duration) {
        if let Some(live) = self.live.get_mut(name) {
            live.due = Instant::now() + by;
        }
    }

    /// Waits for the next check. For ever if there is none. Cancel-safe.
    pub(super) async fn due(&self) {
        match self.live.values().map(|it| it.due).min() {
            Some(next) => tokio::time::sleep_until(next.into()).await,
            None => std::future::pending().await,
        }
    }

    /// The services to check now.
    pub(super) fn all_due(&self) -> Vec<ServiceName> {
        let now = Instant::now();
        self.live.iter().filter(|(_, it)| it.due <= now).map(|it| it.0.clone()).collect()
    }
}
