//! Endpoint care: health checks, name look-ups, the end of ejections, changed certificate files, and the events and log
//! lines about them.
//!
//! Knows pools, but not who changes them. It works only on pools with something to do: a pool that changed, that raised
//! an alert, or with an endpoint that is due for a check. An idle process with ten thousand services costs almost
//! nothing.

mod checks;
mod names;
mod published;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};
use tracing::{info, warn};

use self::{checks::CheckScheduler, names::ResolvedNames, published::PublishedEvents};
use crate::{
    metrics::Metrics,
    model::{Color, Difference, ServiceName},
    upstream::{AlertQueue, EndpointEvent, Pool, Pools, Resolver, ServicePools},
};

/// Cares for all endpoints.
pub struct Care {
    pools: watch::Receiver<Pools>,
    alerts: Arc<AlertQueue>,
    sink: EventSink,
    metrics: Metrics,
    /// The current pools.
    current: Pools,
    checks: CheckScheduler,
    names: ResolvedNames,
    published: PublishedEvents,
    /// Pools with an ejected endpoint.
    ejecting: HashSet<PoolKey>,
    /// Pools with TLS endpoints, with files that may change.
    secured: HashSet<PoolKey>,
}

/// Receives the events of endpoints.
pub type EventSink = Arc<dyn Fn(EndpointEvent) + Send + Sync>;

/// The name of a pool, whatever its content.
type PoolKey = (ServiceName, Color);

/// The limit of health checks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CareSettings {
    /// Health checks per second: of all stable endpoints together, and as many each of those that are down and of those
    /// that may be about to change. With more endpoints than that allows, each is checked less often.
    pub checks_per_second: u32,
}

/// The time between two checks of ejections and at limits.
const STEP: Duration = Duration::from_millis(250);

/// The time between two checks of TLS files.
const FILES: Duration = Duration::from_secs(2);

/// The time between two rounds of alerts: an overloaded pool raises one with every request.
const BREATH: Duration = Duration::from_millis(20);

impl Default for CareSettings {
    fn default() -> Self {
        Self { checks_per_second: 400 }
    }
}

// === impl Care ===

impl Care {
    /// Care for these pools.
    #[must_use]
    pub fn new(
        pools: watch::Receiver<Pools>,
        alerts: Arc<AlertQueue>,
        names: Resolver,
        settings: CareSettings,
        sink: EventSink,
        metrics: Metrics,
    ) -> Self {
        Self {
            pools,
            alerts,
            sink,
            current: Pools::default(),
            checks: CheckScheduler::new(settings.checks_per_second, metrics.clone()),
            names: ResolvedNames::new(names, metrics.clone()),
            metrics,
            published: PublishedEvents::default(),
            ejecting: HashSet::new(),
            secured: HashSet::new(),
        }
    }

    /// Cares for the endpoints until the pools cannot change any more. Everything that it started ends when the future
    /// is dropped.
    pub async fn run(mut self) {
        let mut step = tokio::time::interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut files_at, mut files) = (Instant::now(), None::<JoinHandle<()>>);
        let mut hear_at = Instant::now();
        self.follow();
        loop {
            tokio::select! {
                changed = self.pools.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return,
                },
                () = called(&self.alerts, hear_at) => {
                    self.hear();
                    hear_at = Instant::now() + BREATH;
                }
                checked = self.checks.next() => self.checks.done(checked, &self.current),
                heard = self.names.receive() => {
                    for which in heard {
                        self.resolve(&which);
                    }
                }
                _ = step.tick() => self.step(&mut files_at, &mut files),
            }
        }
    }

    /// Adds new and changed pools, and removes those that are gone.
    fn follow(&mut self) {
        let new = self.pools.borrow_and_update().clone();
        let old = std::mem::replace(&mut self.current, new.clone());
        let now = Instant::now();
        for difference in old.differences(&new) {
            match difference {
                Difference::Added(name, pools) => self.take_up(name, None, pools, now),
                Difference::Changed(name, before, pools) => {
                    self.take_up(name, Some(before), pools, now);
                }
                Difference::Removed(name, _) => {
                    for color in Color::BOTH {
                        let which = (name.clone(), color);
                        self.checks.forget(&which);
                        self.names.forget(&which);
                        self.published.forget(&which);
                        self.ejecting.remove(&which);
                        self.secured.remove(&which);
                    }
                }
            }
        }
    }

    fn take_up(
        &mut self,
        name: &ServiceName,
        before: Option<&ServicePools>,
        pools: &ServicePools,
        now: Instant,
    ) {
        for color in Color::BOTH {
            let (which, pool) = ((name.clone(), color), pools.pool(color));
            if before.is_some_and(|it| Arc::ptr_eq(it.pool(color), pool)) {
                continue;
            }
            // It may have raised an alert before it was known here, and would not raise another one.
            pool.clear_alert();
            self.names.follow(&which, pool, now);
            let is_secured = pool.spec().endpoints.iter().any(|it| it.endpoint.is_tls);
            match is_secured {
                true => self.secured.insert(which.clone()),
                false => self.secured.remove(&which),
            };
            self.resolve(&which);
            self.checks.follow(&which, pool, now);
            self.tell_of(&which, now);
            // An earlier run of this task may have published this already.
            if pool.has_ejected() {
                self.ejecting.insert(which);
            }
        }
    }

    /// Handles the pools that raised an alert.
    fn hear(&mut self) {
        let now = Instant::now();
        for which in self.alerts.take() {
            if let Some(pool) = self.pool(&which) {
                pool.clear_alert();
                self.checks.schedule_soon(&which, &pool, now);
                self.tell_of(&which, now);
            }
        }
    }

    fn tell_of(&mut self, which: &PoolKey, now: Instant) {
        let Some(pools) = self.current.get(&which.0) else { return };
        let (pool, is_active) = (pools.pool(which.1), pools.active == which.1);
        for event in self.published.known(which, pool, is_active, now) {
            if matches!(event, EndpointEvent::EndpointEjected { .. }) {
                self.ejecting.insert(which.clone());
            }
            (self.sink)(event);
        }
    }

    /// Gives a pool the known addresses of its names.
    fn resolve(&mut self, which: &PoolKey) {
        let Some(pool) = self.pool(which) else { return };
        let mut has_changed = false;
        for event in self.names.resolve(which, &pool) {
            (self.sink)(event);
            has_changed = true;
        }
        if has_changed {
            self.checks.follow(which, &pool, Instant::now());
        }
    }

    fn step(&mut self, files_at: &mut Instant, files: &mut Option<JoinHandle<()>>) {
        let now = Instant::now();
        self.names.ask(now);
        for which in self.ejecting.clone() {
            let pool = self.pool(&which);
            let is_waiting = pool.is_some_and(|it| {
                it.release_ejected(now);
                it.has_ejected()
            });
            if !is_waiting {
                self.ejecting.remove(&which);
            }
        }
        for which in self.published.unpublished(now) {
            self.tell_of(&which, now);
        }
        // A disk may be slow: endpoints must not wait for it, and one check at a time is enough.
        let is_done = files.as_ref().is_none_or(JoinHandle::is_finished);
        if is_done && !self.secured.is_empty() && now.saturating_duration_since(*files_at) >= FILES
        {
            *files_at = now;
            let pools: Vec<_> = self.secured.iter().filter_map(|it| self.pool(it)).collect();
            let guard = self.metrics.guard_task("files");
            *files = Some(tokio::task::spawn_blocking(move || {
                refresh_tls(&pools);
                drop(guard);
            }));
        }
    }

    fn pool(&self, (service, color): &PoolKey) -> Option<Arc<Pool>> {
        self.current.get(service).map(|it| Arc::clone(it.pool(*color)))
    }
}

async fn called(alerts: &AlertQueue, not_before: Instant) {
    tokio::time::sleep_until(not_before.into()).await;
    alerts.notified().await;
}

/// Reads changed TLS files of these pools again.
fn refresh_tls(pools: &[Arc<Pool>]) {
    for pool in pools {
        let (service, color) = (pool.service(), pool.color());
        match pool.reload_tls() {
            Ok(false) => {}
            Ok(true) => info!(%service, %color, "certificates reloaded"),
            Err(error) => {
                warn!(%service, %color, %error, "cannot reload certificates; the current ones stay");
            }
        }
    }
}
