//! Endpoint care: health checks, name look-ups, the return of ejected endpoints, changed certificate files, and
//! the events and log lines about them.
//!
//! Knows pools and nothing of who changes them. Works on what has something to do: a pool that changed, that
//! rang, whose endpoint is due for a check. An idle process with ten thousand services has nothing else to
//! do than its checks.

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

/// Looks after all endpoints.
pub struct Care {
    pools: watch::Receiver<Pools>,
    alerts: Arc<AlertQueue>,
    tell: EventSink,
    metrics: Metrics,
    /// The pools that are looked after now.
    current: Pools,
    checks: CheckScheduler,
    names: ResolvedNames,
    told: PublishedEvents,
    /// Pools with an endpoint that is left out for a while.
    ejecting: HashSet<PoolKey>,
    /// Pools whose endpoints speak TLS, whose files may change.
    secured: HashSet<PoolKey>,
}

/// Who listens to what happens to endpoints.
pub type EventSink = Arc<dyn Fn(EndpointEvent) + Send + Sync>;

/// A pool, whichever one it is at the moment.
type PoolKey = (ServiceName, Color);

/// How much checking there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CareSettings {
    /// Health checks a second, of all endpoints together that are as they were, and again as many each of those
    /// that are down and of those that may be about to change. With more endpoints than that times their interval,
    /// each is checked less often.
    pub checks_per_second: u32,
}

/// The time between two looks at endpoints that are left out, and at limits that are met all the time.
const STEP: Duration = Duration::from_millis(250);

/// The time between two looks at the files of TLS.
const FILES: Duration = Duration::from_secs(2);

/// The time between two looks at pools that ring: one that is overloaded does so with every request.
const BREATH: Duration = Duration::from_millis(20);

impl Default for CareSettings {
    fn default() -> Self {
        Self { checks_per_second: 400 }
    }
}

// === impl Care ===

impl Care {
    /// Care for these pools, as they change.
    #[must_use]
    pub fn new(
        pools: watch::Receiver<Pools>,
        alerts: Arc<AlertQueue>,
        names: Resolver,
        settings: CareSettings,
        tell: EventSink,
        metrics: Metrics,
    ) -> Self {
        Self {
            pools,
            alerts,
            tell,
            current: Pools::default(),
            checks: CheckScheduler::new(settings.checks_per_second, metrics.clone()),
            names: ResolvedNames::new(names, metrics.clone()),
            metrics,
            told: PublishedEvents::default(),
            ejecting: HashSet::new(),
            secured: HashSet::new(),
        }
    }

    /// Looks after the endpoints until the pools cannot change any more. All that it has started ends
    /// when the future is dropped.
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
                heard = self.names.hear() => {
                    for which in heard {
                        self.resolve(&which);
                    }
                }
                _ = step.tick() => self.step(&mut files_at, &mut files),
            }
        }
    }

    /// Takes up pools that are new or have changed, and lets go of those that are gone.
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
                        self.told.forget(&which);
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
            // It may have rung before it was known here, and would not ring again.
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
            // Of an endpoint that an earlier life of this task has told of there is no news.
            if pool.has_ejected() {
                self.ejecting.insert(which);
            }
        }
    }

    /// Looks at the pools that rang.
    fn hear(&mut self) {
        let now = Instant::now();
        for which in self.alerts.take() {
            if let Some(pool) = self.pool(&which) {
                pool.clear_alert();
                self.checks.hurry(&which, &pool, now);
                self.tell_of(&which, now);
            }
        }
    }

    fn tell_of(&mut self, which: &PoolKey, now: Instant) {
        let Some(pools) = self.current.get(&which.0) else { return };
        let (pool, is_active) = (pools.pool(which.1), pools.active == which.1);
        for event in self.told.follow(which, pool, is_active, now) {
            if matches!(event, EndpointEvent::EndpointEjected { .. }) {
                self.ejecting.insert(which.clone());
            }
            (self.tell)(event);
        }
    }

    /// Gives a pool the addresses of its names, as far as they are known.
    fn resolve(&mut self, which: &PoolKey) {
        let Some(pool) = self.pool(which) else { return };
        let mut has_changed = false;
        for event in self.names.resolve(which, &pool) {
            (self.tell)(event);
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
        for which in self.told.untold(now) {
            self.tell_of(&which, now);
        }
        // A disk may take its time: endpoints must not wait for it, and one look at it is enough.
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
            Ok(true) => info!(%service, %color, "certificates read again"),
            Err(error) => warn!(%service, %color, %error, "certificates stay as they were"),
        }
    }
}
