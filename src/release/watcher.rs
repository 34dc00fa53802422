//! The task that runs all watches and waits for all confirmations.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{error, info, warn};

use super::{
    handle::{Release, ReleaseError},
    rollbacks::{RETRY, unix_millis},
    shares::ShareKeeper,
    watch::{Outcome, RunningWatch, TICK},
};
use crate::{
    control::{Applied, Catalog, Change, ChangeError, ChangeRequest, EventKind},
    model::{Color, Difference, Generation, ServiceName, VersionedMap, WatchAction, WatchResult},
    store::{Confirmation, ServiceState, WatchState},
    upstream::Pool,
};

/// Runs the watches and the confirmations of all services.
#[derive(Debug)]
pub struct Watcher {
    release: Release,
    changes: watch::Receiver<Arc<Applied>>,
    /// The services of the state that is followed.
    followed: VersionedMap<ServiceName, Arc<ServiceState>>,
    /// Its configuration.
    catalog: Arc<Catalog>,
    watches: HashMap<ServiceName, RunningWatch>,
    confirmations: HashMap<ServiceName, Confirmation>,
    /// Promotions that are being taken back.
    taking_back: FuturesUnordered<BoxFuture<'static, TakenBack>>,
    /// Ends of watches and confirmations that are being written.
    ending: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Watches for which the pool of the color before is looked up.
    looking_up: FuturesUnordered<BoxFuture<'static, FoundRescuer>>,
    /// Gradual promotions.
    shares: ShareKeeper,
    sampled: Instant,
}

/// The pool that may rescue requests of a watched color, or why there is none.
#[derive(Debug)]
struct FoundRescuer {
    service: ServiceName,
    generation: Generation,
    pool: Result<Arc<Pool>, String>,
}

/// Why a promotion is taken back.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Cause {
    Watch { color: Color, reason: String },
    Confirmation,
}

/// The attempt to take a promotion back.
#[derive(Debug)]
struct TakenBack {
    cause: Cause,
    service: ServiceName,
    generation: Generation,
    /// Why the promotion stays; `None` if it was taken back.
    stays: Option<String>,
}

// === impl Watcher ===

impl Watcher {
    /// Watches the promotions that `release` makes, and those that the state has from before.
    #[must_use]
    pub fn new(release: Release) -> Self {
        let changes = release.control().changes();
        let shares = ShareKeeper::new(release.clone());
        let catalog = release.control().catalog();
        Self {
            release,
            changes,
            followed: VersionedMap::default(),
            catalog,
            watches: HashMap::new(),
            confirmations: HashMap::new(),
            taking_back: FuturesUnordered::new(),
            ending: FuturesUnordered::new(),
            looking_up: FuturesUnordered::new(),
            shares,
            sampled: Instant::now(),
        }
    }

    /// Runs until the control task ends. Dropping the future loses the statistics of the watches; the next run goes on
    /// with the time that is left.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(TICK);
        // Each tick is judged apart: a late one must not be followed by several at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let applied = self.changes.borrow_and_update().clone();
            self.follow(&applied);
            let has_baselines = applied.catalog.services().values().any(|it| it.watch.is_some());
            let is_busy = has_baselines
                || !self.watches.is_empty()
                || !self.confirmations.is_empty()
                || !self.shares.is_empty();
            tokio::select! {
                changed = self.changes.changed() => if changed.is_err() { return },
                _ = ticks.tick(), if is_busy => self.tick().await,
                Some(done) = self.taking_back.next() => self.taken_back(done),
                Some(()) = self.ending.next() => {}
                Some(found) = self.looking_up.next() => self.begin_rescue(found),
                () = self.shares.settle() => {}
            }
        }
    }

    /// Follows what the state says: begins new watches and confirmations, and forgets those that are over.
    fn follow(&mut self, applied: &Applied) {
        let services = &applied.state.services;
        if !Arc::ptr_eq(&self.catalog, &applied.catalog) {
            // A configuration that removes a service, or has it again, leaves its state as it is.
            self.catalog = Arc::clone(&applied.catalog);
            for (name, service) in services.iter() {
                self.shares.follow(applied, name, service.share.as_ref());
            }
        }
        if self.followed.is_same_version(services) {
            return;
        }
        let before = std::mem::replace(&mut self.followed, services.clone());
        for difference in before.differences(services) {
            let (name, service) = match difference {
                Difference::Added(name, service) | Difference::Changed(name, _, service) => {
                    (name, Some(service))
                }
                Difference::Removed(name, _) => (name, None),
            };
            // Before the watch: both may be of the same pool.
            self.shares.follow(applied, name, service.and_then(|it| it.share.as_ref()));
            let watch = service.and_then(|it| it.watch.as_ref());
            self.follow_watch(applied, name, watch);
            match service.and_then(|it| it.confirmation.clone()) {
                Some(it) => drop(self.confirmations.insert(name.clone(), it)),
                None => drop(self.confirmations.remove(name)),
            }
        }
    }

    fn follow_watch(&mut self, applied: &Applied, name: &ServiceName, watch: Option<&WatchState>) {
        let known = self.watches.get(name).map(|it| &it.state);
        if known == watch {
            return;
        }
        self.watches.remove(name);
        self.release.board().remove(name);
        let Some(watch) = watch else { return };
        let settings = applied.catalog.services().get(name).and_then(|it| it.watch.as_ref());
        let pools = applied.pools.get(name);
        let (Some(settings), Some(pools)) = (settings, pools) else {
            warn!(service = %name, "a watch is not continued: the service has no watch settings any more");
            return;
        };
        let left = Duration::from_millis(watch.until.saturating_sub(unix_millis()));
        let pool = pools.pool(pools.active);
        let running = RunningWatch::begin(name, watch, settings, pool, left, false);
        let (generation, color) = (watch.generation, pool.color());
        let time_s = left.as_secs();
        info!(service = %name, %color, generation = generation.0, time_s, "watch started");
        let service = name.clone();
        let until = timestamp(watch.until);
        self.publish(EventKind::WatchStarted { service, color, generation, until });
        self.watches.insert(name.clone(), running);
        if settings.rescue {
            let (release, service) = (self.release.clone(), name.clone());
            self.looking_up.push(Box::pin(async move {
                let pool = release.rescuer(&service, generation).await;
                FoundRescuer { service, generation, pool }
            }));
        }
    }

    /// From now on the color before serves requests that cannot be connected, if it may.
    fn begin_rescue(&mut self, found: FoundRescuer) {
        let FoundRescuer { service, generation, pool } = found;
        let Some(watch) = self.watches.get_mut(&service) else { return };
        // The state may have changed since. It cannot change between this and the next lines: the task that applies
        // changes runs on the same thread.
        let applied = self.release.control().applied();
        let state = applied.state.services.get(&service);
        let is_allowed = |it: &ServiceState| {
            let before = it.previous.is_some_and(|color| it.pool(color).served);
            before && it.watch.as_ref().is_some_and(|it| it.generation == generation)
        };
        match pool {
            Ok(_) if !state.is_some_and(|it| is_allowed(it)) => {}
            Ok(pool) if watch.generation() == generation => {
                watch.rescue_by(pool);
                self.release.board().put(&service, watch.progress());
            }
            Ok(_) => {}
            Err(reason) => warn!(%service, reason, "no rescue by the color before"),
        }
    }

    /// Judges all watches, and finds what is due.
    async fn tick(&mut self) {
        let (now, now_ms) = (Instant::now(), unix_millis());
        self.sample(now);
        self.shares.tick(now, now_ms);
        let control = self.release.control().clone();
        let mut fired = Vec::new();
        let mut ended = Vec::new();
        for (name, watch) in self.watches.iter_mut().filter(|(_, it)| !it.has_fired) {
            let outcome = match watch.tick(&control, now) {
                Outcome::Running if watch.state.until <= now_ms => watch.end(),
                it => it,
            };
            match outcome {
                Outcome::Running => {}
                Outcome::Fired(reason) => {
                    watch.has_fired = true;
                    fired.push((name.clone(), watch.describe(reason)));
                }
                Outcome::Passed => ended.push((name.clone(), None)),
                Outcome::Inconclusive(reason) => {
                    ended.push((name.clone(), Some(reason.to_string())));
                }
            }
            self.release.board().put(name, watch.progress());
        }
        for (name, reason) in fired {
            self.fire(&name, reason);
        }
        for (name, reason) in ended {
            self.end(&name, reason).await;
        }
        let due = self.confirmations.iter().filter(|(_, it)| it.until <= now_ms);
        let due: Vec<_> = due.map(|(name, it)| (name.clone(), it.clone())).collect();
        for (name, confirmation) in due {
            self.confirmations.remove(&name);
            let Confirmation { generation, services, .. } = confirmation;
            self.take_back(Cause::Confirmation, name, generation, services);
        }
    }

    /// Takes samples of the active colors, for the watches of later promotions.
    fn sample(&mut self, now: Instant) {
        if now.saturating_duration_since(self.sampled) < Duration::from_secs(1) {
            return;
        }
        self.sampled = now;
        let applied = self.release.control().applied();
        let watched = applied.catalog.services().iter().filter(|(_, it)| it.watch.is_some());
        for (name, _) in watched {
            if let Some(pools) = applied.pools.get(name) {
                self.release.baselines().sample(name, pools.pool(pools.active), now);
            }
        }
        let services = applied.catalog.services();
        let is_watched = |it: &ServiceName| services.get(it).is_some_and(|it| it.watch.is_some());
        self.release.baselines().retain(is_watched);
    }

    /// The color is bad.
    fn fire(&mut self, name: &ServiceName, reason: String) {
        let Some(watch) = self.watches.get(name) else { return };
        let (color, generation, action) = (watch.color, watch.generation(), watch.action);
        let services = watch.state.services.clone();
        error!(service = %name, %color, generation = generation.0, reason, "watch failed");
        let cause = Cause::Watch { color, reason };
        let service = name.clone();
        match action {
            WatchAction::Rollback => self.take_back(cause, service, generation, services),
            WatchAction::Alert => {
                let stays = Some("the action of the watch is `alert`".to_owned());
                let done = TakenBack { cause, service, generation, stays };
                self.taking_back.push(Box::pin(async move { done }));
            }
        }
    }

    /// The time of a watch is over. Without a reason why it is inconclusive, it has passed.
    async fn end(&mut self, name: &ServiceName, inconclusive: Option<String>) {
        let Some(watch) = self.watches.get(name) else { return };
        let (color, generation) = (watch.color, watch.generation());
        let summary = watch.summary();
        let result = match inconclusive {
            None => WatchResult::Passed,
            Some(_) => WatchResult::Inconclusive,
        };
        if !self.end_watch(name, generation, result).await {
            // The next tick tries again.
            return;
        }
        let service = name.clone();
        let number = generation.0;
        let event = match inconclusive {
            None => {
                info!(%service, %color, generation = number, summary, "watch passed");
                EventKind::WatchPassed { service, color, generation, summary }
            }
            Some(reason) => {
                warn!(%service, %color, generation = number, reason, "watch inconclusive");
                EventKind::WatchInconclusive { service, color, generation, reason }
            }
        };
        self.publish(event);
    }

    /// Rolls back the services that were promoted together, as far as they still are at that promotion.
    fn take_back(
        &mut self,
        cause: Cause,
        service: ServiceName,
        generation: Generation,
        mut services: Vec<ServiceName>,
    ) {
        services.retain(|it| self.is_pending(it, generation));
        let release = self.release.clone();
        self.taking_back.push(Box::pin(async move {
            let (by, reason) = match &cause {
                Cause::Watch { reason, .. } => ("watch", reason.as_str()),
                Cause::Confirmation => ("confirm", "not confirmed in time"),
            };
            let stays = loop {
                match release.take_back(services.clone(), generation, by, reason).await {
                    Ok(()) => break None,
                    Err(ReleaseError::Change(ChangeError::Store(error))) => {
                        error!(%service, %error, "a promotion cannot be taken back: the state cannot be written");
                        tokio::time::sleep(RETRY).await;
                    }
                    Err(error) => break Some(error.to_string()),
                }
            };
            TakenBack { cause, service, generation, stays }
        }));
    }

    /// A promotion was taken back, or cannot be.
    fn taken_back(&mut self, done: TakenBack) {
        let TakenBack { cause, service, generation, stays } = done;
        // A promotion of several services is taken back once, whichever of their watches fires.
        let stays = stays.filter(|_| self.is_pending(&service, generation));
        let rollback = stays.is_none();
        if let Some(reason) = &stays {
            let generation = generation.0;
            error!(%service, generation, reason, "the promotion stays: look at the service now");
        }
        let (end, event) = match cause {
            Cause::Watch { color, reason } => (
                Change::EndWatch {
                    service: service.clone(),
                    generation: Some(generation),
                    result: WatchResult::Failed,
                },
                EventKind::WatchFailed { service, color, generation, reason, rollback, stays },
            ),
            Cause::Confirmation => (
                Change::GiveUpConfirmation { service: service.clone(), generation },
                EventKind::ConfirmExpired { service, generation, rollback, stays },
            ),
        };
        self.publish(event);
        // After a rollback there is nothing to end.
        if !rollback {
            let release = self.release.clone();
            self.ending.push(Box::pin(async move {
                while !propose(&release, end.clone()).await {
                    tokio::time::sleep(RETRY).await;
                }
            }));
        }
    }

    /// Whether the service still is at this promotion, and the promotion is not over.
    fn is_pending(&self, service: &ServiceName, generation: Generation) -> bool {
        let applied = self.release.control().applied();
        let state = applied.state.services.get(service);
        state.is_some_and(|it| {
            let of_watch = it.watch.as_ref().map(|it| it.generation);
            let of_confirmation = it.confirmation.as_ref().map(|it| it.generation);
            of_watch == Some(generation) || of_confirmation == Some(generation)
        })
    }

    async fn end_watch(
        &mut self,
        service: &ServiceName,
        generation: Generation,
        result: WatchResult,
    ) -> bool {
        let (service, generation) = (service.clone(), Some(generation));
        propose(&self.release, Change::EndWatch { service, generation, result }).await
    }

    fn publish(&self, event: EventKind) {
        self.release.control().events().publish(event);
    }
}

/// Whether a change was made, or has become unnecessary.
async fn propose(release: &Release, change: Change) -> bool {
    match release.control().propose(ChangeRequest::unconditional(change)).await {
        Ok(_) | Err(ChangeError::Refused(_)) => true,
        Err(error) => {
            warn!(%error, "the end of a watch cannot be written");
            false
        }
    }
}

fn timestamp(unix_ms: u64) -> jiff::Timestamp {
    let millis = i64::try_from(unix_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
}
