//! Applies a state and a configuration: the pools, the table, and the events that follow.
//!
//! Our own changes and those of other processes take the same path. A state may be many revisions ahead of the applied
//! one: only the difference counts.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::{
    catalog::Catalog,
    change::Actor,
    event_kinds::EventKind,
    intake_events::publish_intakes,
    intake_terms::LiveHolds,
    pin_terms::TermsFactory,
    pin_windows::PinWindows,
    publish::publish_changes,
    removed::KEPT,
    shared::{Applied, ControlShared, unix_millis},
    table_entries::{PoolFactory, entries, entry},
};
use crate::{
    continuity::HoldLimits,
    metrics::Metrics,
    model::{Color, Difference, ServiceName},
    store::{ServiceState, State},
    switch::{Drain, Table},
    upstream::{Pool, PoolContext, Pools, ServicePools, ServiceTable, TableEntry, Terms},
};

/// Applies one state after the other.
#[derive(Debug)]
pub(super) struct Reconciler {
    /// The tasks that wait for drains.
    drain_tasks: TaskTracker,
    /// The drains that these tasks wait for. Locked while a table is replaced, and while a task decides what its drain
    /// means: the last one of a color says that the color is drained.
    drains: Arc<Mutex<WatchedDrains>>,
    /// The number of the current rules.
    rules: u64,
    /// The services with pins to a color that is not active.
    windows: PinWindows,
    /// The services that are held.
    pub(super) holds: LiveHolds,
    /// Earlier tables that requests may still be reading.
    earlier: Vec<Weak<ServiceTable>>,
}

/// A reference for each drain of a color that is waited for, and one more.
type WatchedDrains = HashMap<(ServiceName, Color), Arc<()>>;

/// The longest wait for requests that read an earlier table.
const READERS_MAX: Duration = Duration::from_secs(1);

/// Removed services that are forgotten together.
const FORGOTTEN_TOGETHER: usize = 1000;

// === impl Reconciler ===

impl Reconciler {
    /// The first table of the process.
    pub(super) fn first(
        state: State,
        catalog: Catalog,
        metrics: &Metrics,
        parts: &PoolContext,
        hold_limits: &Arc<HoldLimits>,
    ) -> (Self, Applied, ServiceTable) {
        let make = PoolFactory { state: &state, metrics, parts };
        let terms = TermsFactory::now(&state, true, hold_limits);
        let services = catalog.services().iter();
        let pools: Pools =
            services.map(|(it, spec)| (it.clone(), make.pools(it, spec, None))).collect();
        parts.services.store(pools.len(), Relaxed);
        let rules = catalog.rules(0);
        let entries = entries(&pools, &catalog, &terms, None);
        let windows = PinWindows::of(&entries);
        let mut holds = LiveHolds::default();
        holds.replace(&entries, &state);
        holds.settle(&state);
        let table = Table::first(state.generation, rules, entries);
        let applied = Applied { state, catalog: Arc::new(catalog), pools };
        let drain_tasks = TaskTracker::new();
        let (drains, earlier) = (Arc::default(), Vec::new());
        (Self { drain_tasks, drains, rules: 0, windows, holds, earlier }, applied, table)
    }

    /// Applies a state, and publishes what has changed.
    pub(super) fn apply(
        &mut self,
        shared: &ControlShared,
        state: State,
        catalog: Option<Arc<Catalog>>,
        actor: Option<&Actor>,
    ) {
        let before = shared.applied();
        if state.revision == before.state.revision && catalog.is_none() {
            return;
        }
        let has_new_catalog = catalog.is_some();
        let catalog = catalog.unwrap_or_else(|| Arc::clone(&before.catalog));
        let changed = changed_services(&before.state, &state, &catalog);
        let has_new_keys = before.state.pin_keys != state.pin_keys;
        let gone = match has_new_catalog {
            true => self.record_removed(shared, &before.pools, &catalog),
            false => Vec::new(),
        };
        let make = PoolFactory { state: &state, metrics: &shared.metrics, parts: &shared.parts };
        let made = |name: &ServiceName, spec| make.pools(name, spec, before.pools.get(name));
        let terms = TermsFactory::now(&state, false, &shared.hold_limits);
        let seen = shared.switch.load();
        let generation = state.generation;
        let (pools, table) = if has_new_catalog {
            self.rules += 1;
            let services = catalog.services().iter();
            let pools: Pools = services.map(|(it, spec)| (it.clone(), made(it, spec))).collect();
            shared.parts.services.store(pools.len(), Relaxed);
            let entries = entries(&pools, &catalog, &terms, Some(&seen));
            self.windows = PinWindows::of(&entries);
            self.holds.replace(&entries, &state);
            let table = seen.next(generation, catalog.rules(self.rules), entries);
            (pools, Some(table))
        } else {
            let (mut pools, mut entries) = (before.pools.clone(), Vec::new());
            let signs =
                catalog.services().iter().filter(|(_, it)| has_new_keys && it.pins.is_some());
            let signs = signs.map(|it| it.0).filter(|it| !changed.contains(it));
            for name in changed.iter().chain(signs) {
                let Some(spec) = catalog.services().get(name) else { continue };
                let new = made(name, spec);
                let entry = entry(name, &new, Some(spec), &terms, seen.service(name));
                self.windows.update(&entry);
                self.holds.update(&entry, &state);
                entries.push(entry);
                pools.insert(name.clone(), new);
            }
            // The table is replaced only if the generation changes.
            let moves = !entries.is_empty() || generation != before.state.generation;
            let table =
                moves.then(|| seen.with_changes(generation, Arc::clone(seen.rules()), entries));
            (pools, table)
        };
        let applied = Arc::new(Applied { state, catalog, pools });
        // Before anyone can see the new state.
        end_rescues(&before, &applied, &changed);
        let (mut drains, mut earlier) = (Vec::new(), Vec::new());
        let watched = Arc::clone(&self.drains);
        let mut watched = lock(&watched);
        // Under the lock of the channel: no reader sees one without the other.
        shared.applied.send_modify(|it| {
            if let Some(table) = table {
                earlier.push(Arc::downgrade(&seen));
                let replaced = shared.switch.replace(seen, table);
                drains =
                    replaced.expect("this task alone replaces the table, and it has just read it");
            }
            *it = Arc::clone(&applied);
        });
        self.earlier.retain(|it| it.strong_count() > 0);
        self.earlier.append(&mut earlier);
        self.holds.settle(&applied.state);
        if !before.pools.is_same_version(&applied.pools) {
            shared.pools.send_replace(applied.pools.clone());
        }
        publish_changes(shared, &before, &applied, &changed, has_new_catalog, actor);
        publish_intakes(&shared.events, &before.state, &applied.state, actor);
        shared.endings.follow(&before.pools, &applied.pools, &changed);
        for drain in drains {
            end_pinned_streams(shared, &applied.pools, &drain);
            self.watch(shared, drain, &mut watched);
        }
        drop(watched);
        shared.removed.clear();
        if !gone.is_empty() {
            self.forget_when_drained(shared, gone);
        }
    }

    /// Takes the holds of these services out of the table that have let all of their requests go.
    pub(super) fn refresh_holds(&mut self, shared: &ControlShared, services: &[ServiceName]) {
        let applied = shared.applied();
        let terms = TermsFactory::now(&applied.state, false, &shared.hold_limits);
        let seen = shared.switch.load();
        let mut entries = Vec::new();
        for name in services {
            let Some(pools) = applied.pools.get(name) else { continue };
            let (spec, old) = (applied.catalog.services().get(name), seen.service(name));
            let entry = entry(name, pools, spec, &terms, old);
            self.holds.update(&entry, &applied.state);
            self.windows.update(&entry);
            entries.push(entry);
        }
        self.earlier.retain(|it| it.strong_count() > 0);
        if !entries.is_empty() {
            self.replace_entries(shared, &applied, seen, entries);
        }
        self.holds.settle(&applied.state);
    }

    /// Waits until this hold of a service is in effect: no request is admitted any more by an earlier table, nor as one that
    /// an earlier hold has let go. At most a moment, unless a worker gets no time on a processor. Cancel-safe.
    pub(super) async fn wait_for_hold(&mut self, service: &ServiceName) {
        let until = Instant::now() + READERS_MAX;
        loop {
            self.earlier.retain(|it| it.strong_count() > 0);
            let is_in_effect = self.earlier.is_empty() && !self.holds.is_letting_go(service);
            if is_in_effect || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the pins of a service have to be checked. For ever if no color is held by pins. Cancel-safe.
    pub(super) async fn pins_due(&self) {
        self.windows.due().await;
    }

    /// Ends the pins that have lapsed, and publishes the colors that are drained by that.
    pub(super) fn refresh_pins(&mut self, shared: &ControlShared) {
        let applied = shared.applied();
        self.earlier.retain(|it| it.strong_count() > 0);
        let is_check = self.earlier.is_empty();
        let terms = TermsFactory::now(&applied.state, false, &shared.hold_limits);
        let terms = TermsFactory { is_check, ..terms };
        let seen = shared.switch.load();
        let mut entries = Vec::new();
        for name in self.windows.take_due() {
            let Some(pools) = applied.pools.get(&name) else { continue };
            let (spec, old) = (applied.catalog.services().get(&name), seen.service(&name));
            let entry = entry(&name, pools, spec, &terms, old);
            self.windows.update(&entry);
            let pins = |it: &Terms| it.as_ref().and_then(|it| it.pins.clone());
            let is_same = match (old.and_then(|it| pins(it.terms())), pins(&entry.terms)) {
                (Some(old), Some(new)) => old.is_same(&new),
                _ => false,
            };
            if !is_same {
                entries.push(entry);
            }
        }
        if !entries.is_empty() {
            self.replace_entries(shared, &applied, seen, entries);
        }
    }

    /// Replaces the terms of services. The generation stays: for new requests of everyone else nothing has changed.
    fn replace_entries(
        &mut self,
        shared: &ControlShared,
        applied: &Applied,
        seen: Arc<ServiceTable>,
        entries: Vec<TableEntry>,
    ) {
        let table = seen.with_changes(seen.generation(), Arc::clone(seen.rules()), entries);
        let mut drains = Vec::new();
        // A request may still read this table after the next change.
        self.earlier.push(Arc::downgrade(&seen));
        let watched = Arc::clone(&self.drains);
        let mut watched = lock(&watched);
        // Calls that wait for a drain are woken by this.
        shared.applied.send_modify(|_| {
            let replaced = shared.switch.replace(seen, table);
            drains = replaced.expect("this task alone replaces the table, and it has just read it");
        });
        for drain in drains {
            end_pinned_streams(shared, &applied.pools, &drain);
            self.watch(shared, drain, &mut watched);
        }
    }

    /// Records the services that the new rules do not have, and returns them.
    fn record_removed(
        &self,
        shared: &ControlShared,
        pools: &Pools,
        catalog: &Catalog,
    ) -> Vec<ServiceName> {
        let is_configured = |it: &ServiceName| catalog.services().contains_key(it);
        shared.removed.keep(is_configured);
        shared.endings.keep(is_configured);
        let gone = pools.iter().filter(|(name, _)| !is_configured(name));
        let note = |(name, pools): (&ServiceName, &ServicePools)| {
            shared.removed.record(name, pools.active, self.rules + 1);
            name.clone()
        };
        gone.map(note).collect()
    }

    /// Forgets removed services some seconds after they are drained.
    fn forget_when_drained(&self, shared: &ControlShared, gone: Vec<ServiceName>) {
        let (removed, metrics, by) =
            (Arc::clone(&shared.removed), shared.metrics.clone(), self.rules);
        let drained = gone.into_iter().map(|name| {
            let drains = Color::BOTH.map(|color| shared.switch.drains(&name, color));
            let in_flight: usize = drains.iter().flatten().map(Drain::in_flight).sum();
            info!(service = %name, in_flight, "service removed");
            async move {
                let mut drains = drains.concat();
                join_all(drains.iter_mut().map(Drain::wait)).await;
                tokio::time::sleep(KEPT).await;
                name
            }
        });
        let drained: FuturesUnordered<_> = drained.collect();
        let guard = metrics.guard_task("drain");
        self.drain_tasks.spawn(async move {
            // Many at a time: each search goes through all series.
            let mut drained = drained.ready_chunks(FORGOTTEN_TOGETHER);
            while let Some(names) = drained.next().await {
                let (removed, metrics) = (Arc::clone(&removed), metrics.clone());
                let forget = move || removed.forget(&names, by, &metrics);
                // Searching the series takes as long as a scrape, too long for this thread. If it panics, they stay.
                let _ = tokio::task::spawn_blocking(forget).await;
            }
            drop(guard);
        });
    }

    /// Publishes when a replaced side is drained: one that was active, that pins have held until now, or that has requests
    /// in flight.
    fn watch(&self, shared: &ControlShared, mut drain: Drain<Pool>, watched: &mut WatchedDrains) {
        if !drain.was_active() && !drain.had_pins() && drain.in_flight() == 0 {
            return;
        }
        let (switch, metrics) = (Arc::clone(&shared.switch), shared.metrics.clone());
        let (events, endings) = (Arc::clone(&shared.events), Arc::clone(&shared.endings));
        let since = match drain.had_pins() {
            // The pins have held the color from the flip on.
            true => retired_since(shared, &drain),
            false => Instant::now(),
        };
        let of = (drain.service().clone(), drain.color());
        let (token, drains) =
            (Arc::clone(watched.entry(of).or_default()), Arc::clone(&self.drains));
        // After a panic there is no event for this drain. Calls that wait for it do not need one.
        let guard = metrics.guard_task("drain");
        self.drain_tasks.spawn(async move {
            drain.wait().await;
            let took = since.elapsed();
            let (service, color) = (drain.service().clone(), drain.color());
            let generation = drain.retired_by();
            if drain.was_active() {
                metrics.drained(&service, color, took.as_secs_f64());
            }
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            let mut watched = lock(&drains);
            drop(token);
            let of = (service.clone(), color);
            let is_last = watched.get(&of).is_none_or(|it| Arc::strong_count(it) == 1);
            if is_last {
                watched.remove(&of);
            }
            // Pins, or the share of a gradual promotion.
            let (is_active, is_admitted) = switch.read(|table: &ServiceTable| {
                let service = table.service(&service);
                let is_active = service.is_some_and(|it| it.active() == color);
                let terms = service.and_then(|it| it.terms().as_ref());
                (is_active, terms.is_some_and(|it| it.admits(color)))
            });
            // Other sides of the color may still have requests in flight.
            let is_held = is_admitted || !is_last || !switch.drains(&service, color).is_empty();
            let event = if is_active || is_held {
                info!(%service, %color, generation = generation.0, took_ms, "released");
                EventKind::Released { service, color, generation, took_ms }
            } else {
                endings.report_drained(&service, color);
                info!(%service, %color, generation = generation.0, took_ms, "drained");
                EventKind::Drained { service, color, generation, took_ms }
            };
            events.publish(event);
            drop(watched);
            drop(guard);
        });
    }
}

/// When another color became active than the one of a drain, as far as that is known.
fn retired_since(shared: &ControlShared, drain: &Drain<Pool>) -> Instant {
    let applied = shared.applied();
    let service = applied.state.services.get(drain.service());
    let retired_at = service.and_then(|it| it.pool(drain.color()).retired_at);
    let ago = retired_at.map(|it| Duration::from_millis(unix_millis().saturating_sub(it)));
    let now = Instant::now();
    ago.and_then(|it| now.checked_sub(it)).unwrap_or(now)
}

fn lock(drains: &Mutex<WatchedDrains>) -> MutexGuard<'_, WatchedDrains> {
    drains.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the streams that were pinned to a color until now.
fn end_pinned_streams(shared: &ControlShared, pools: &Pools, drain: &Drain<Pool>) {
    if drain.had_pins()
        && let Some(pools) = pools.get(drain.service())
    {
        let policies = pools.pool(drain.color()).policy().drain.streams;
        shared.endings.start_pinned(drain, policies);
    }
}

/// Ends the rescues that the new state does not allow any more: the watch is over, or the color before was changed, so that
/// what is there now was never active.
fn end_rescues(before: &Applied, after: &Applied, changed: &[ServiceName]) {
    for name in changed {
        let allows = |it: &ServiceState| {
            it.watch.is_some() && it.previous.is_some_and(|color| it.pool(color).served)
        };
        if after.state.services.get(name).is_some_and(|it| allows(it)) {
            continue;
        }
        for pools in [&before.pools, &after.pools].into_iter().filter_map(|it| it.get(name)) {
            Color::BOTH.iter().for_each(|it| pools.pool(*it).rescuer().set(None));
        }
    }
}

/// The configured services with different entries in the two states.
fn changed_services(before: &State, after: &State, catalog: &Catalog) -> Vec<ServiceName> {
    let services = before.services.differences(&after.services);
    let mut names: Vec<_> = services.into_iter().map(|it| name_of(&it).clone()).collect();
    names.extend(before.damaged.differences(&after.damaged).iter().map(|it| name_of(it).clone()));
    names.extend(before.holds.differences(&after.holds).iter().map(|it| name_of(it).clone()));
    let maintenance = before.maintenance.differences(&after.maintenance);
    names.extend(maintenance.iter().map(|it| name_of(it).clone()));
    names.retain(|it| catalog.services().contains_key(it));
    names.sort_unstable();
    names.dedup();
    names
}

fn name_of<'a, V>(difference: &Difference<'a, ServiceName, V>) -> &'a ServiceName {
    match difference {
        Difference::Added(name, _)
        | Difference::Changed(name, ..)
        | Difference::Removed(name, _) => name,
    }
}
