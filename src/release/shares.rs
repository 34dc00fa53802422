//! Gradual promotions: each step is judged by a watch of the candidate, and the next one follows, or all is taken back.
//!
//! A step is over when its time is over and the watch has proved that the candidate is good. Without a verdict it goes on.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tracing::{error, info, warn};

use super::{
    handle::{Release, ReleaseError},
    rollbacks::{RETRY, unix_millis},
    watch::{Outcome, RunningWatch, ShareProgress},
};
use crate::{
    control::{
        Actor, Applied, Change, ChangeError, ChangeOutcome, ChangeRequest, EventKind,
        PromotionTerms, ShareEvent,
    },
    metrics::PromotionKind,
    model::{Generation, ServiceName, WatchSettings},
    store::{ShareState, WatchState},
};

/// Follows the gradual promotions of all services. Driven by the watcher.
#[derive(Debug)]
pub(super) struct ShareKeeper {
    release: Release,
    shares: HashMap<ServiceName, RunningShare>,
    /// The services with a change in progress.
    busy: HashSet<ServiceName>,
    changing: FuturesUnordered<BoxFuture<'static, Vec<ServiceName>>>,
}

/// One step of one service.
#[derive(Debug)]
struct RunningShare {
    state: ShareState,
    watch: RunningWatch,
    has_passed: bool,
    /// Whether it was published that the step goes on.
    has_waited: bool,
}

/// Services that move together, and where they are.
#[derive(Clone, Debug)]
struct Group {
    services: Vec<ServiceName>,
    /// Each service with its step.
    steps: BTreeMap<ServiceName, ShareState>,
    generation: Generation,
    /// The share of the next step; `None` if the candidates become active.
    next: Option<u8>,
}

// === impl ShareKeeper ===

impl ShareKeeper {
    pub(super) fn new(release: Release) -> Self {
        let (shares, busy, changing) = (HashMap::new(), HashSet::new(), FuturesUnordered::new());
        Self { release, shares, busy, changing }
    }

    /// Whether no service is promoted gradually.
    pub(super) fn is_empty(&self) -> bool {
        self.shares.is_empty()
    }

    /// Waits until a change has been made, for ever if there is none. Cancel-safe.
    pub(super) async fn settle(&mut self) {
        match self.changing.next().await {
            Some(services) => self.busy.retain(|it| !services.contains(it)),
            None => std::future::pending().await,
        }
    }

    /// Follows the state and the pools of a service.
    pub(super) fn follow(
        &mut self,
        applied: &Applied,
        name: &ServiceName,
        share: Option<&ShareState>,
    ) {
        let pools = applied.pools.get(name);
        let is_same = match (self.shares.get(name), share, pools) {
            (None, None, _) | (None, _, None) => true,
            // A service that was removed and came back has other counters.
            (Some(known), Some(share), Some(pools)) => {
                known.state == *share && known.watch.is_of(pools.pool(share.color))
            }
            _ => false,
        };
        if is_same {
            return;
        }
        // Dropped before the next one begins: both may be of the same pool.
        let before = self.shares.remove(name).map(|it| (it.state, it.watch.since()));
        self.release.share_board().remove(name);
        let (Some(share), Some(pools)) = (share, pools) else { return };
        let settings = applied.catalog.services().get(name).and_then(|it| it.watch.as_deref());
        let settings = settings.cloned().unwrap_or_default();
        // The active color serves the others: none of them needs a rescue.
        let settings = WatchSettings { rescue: false, ..settings };
        let left = Duration::from_millis(share.until.saturating_sub(unix_millis()));
        let state = WatchState {
            generation: share.generation,
            until: share.until,
            services: share.services.clone(),
            before: self.release.baselines().of(name, pools.pool(pools.active)),
        };
        let pool = pools.pool(share.color);
        let mut watch = RunningWatch::begin(name, &state, &settings, pool, left, true);
        // Requests of an earlier step may still wait for their response, and count when they are overdue.
        let is_same =
            |it: &ShareState| (it.generation, it.color) == (share.generation, share.color);
        if let Some((_, since)) = before.filter(|it| is_same(&it.0)) {
            watch.count_since(since);
        }
        let state = share.clone();
        let running = RunningShare { state, watch, has_passed: false, has_waited: false };
        self.release.share_board().put(name, running.progress(unix_millis()));
        self.shares.insert(name.clone(), running);
    }

    /// Judges all candidates, and begins the changes that are due.
    pub(super) fn tick(&mut self, now: Instant, now_ms: u64) {
        let control = self.release.control().clone();
        let mut failed = Vec::new();
        for (name, share) in &mut self.shares {
            if share.has_passed {
                // It waits for other services or for gates, and can still turn bad.
                share.watch.judge_again();
            }
            let is_over = share.state.until <= now_ms;
            let outcome = match share.watch.tick(&control, now) {
                Outcome::Running if is_over => share.watch.end(),
                it => it,
            };
            match outcome {
                Outcome::Fired(reason) if !share.watch.has_fired => {
                    share.watch.has_fired = true;
                    failed.push((name.clone(), share.watch.describe(reason)));
                }
                Outcome::Fired(_) | Outcome::Running | Outcome::Inconclusive(_) => {}
                Outcome::Passed => share.has_passed |= is_over,
            }
            let progress = share.progress(now_ms);
            if let Some(reason) = progress.waiting.clone().filter(|_| !share.has_waited) {
                share.has_waited = true;
                let (service, color, percent) =
                    (name.clone(), share.state.color, share.state.percent());
                info!(%service, %color, percent, reason, "share waits for a verdict");
                let event = ShareEvent::ShareWaiting { service, color, percent, reason };
                control.events().publish(EventKind::Share(event));
            }
            self.release.share_board().put(name, progress);
        }
        for (name, reason) in failed {
            self.fail(&name, reason);
        }
        self.advance();
    }

    /// A candidate is bad: all of its promotion is taken back, whatever else is in progress.
    fn fail(&mut self, name: &ServiceName, reason: String) {
        let Some(share) = self.shares.get(name) else { return };
        let (service, color, percent) = (name.clone(), share.state.color, share.state.percent());
        error!(%service, %color, percent, reason, "share failed");
        let event = ShareEvent::ShareFailed { service, color, percent, reason: reason.clone() };
        self.release.control().events().publish(EventKind::Share(event));
        let group = self.group(&share.state);
        self.busy.extend(group.services.iter().cloned());
        self.changing.push(Box::pin(take_back(self.release.clone(), group, reason)));
    }

    /// Begins the next step of the promotions of which all services have passed.
    fn advance(&mut self) {
        let passed =
            self.shares.iter().filter(|(name, it)| it.is_ready() && !self.busy.contains(*name));
        let passed: Vec<ShareState> = passed.map(|it| it.1.state.clone()).collect();
        for state in passed {
            let group = self.group(&state);
            let is_ready = |it: &ServiceName| {
                !self.busy.contains(it) && self.shares.get(it).is_some_and(RunningShare::is_ready)
            };
            if group.services.iter().all(is_ready) {
                self.busy.extend(group.services.iter().cloned());
                self.changing.push(Box::pin(next_step(self.release.clone(), group)));
            }
        }
    }

    /// The services that are promoted together with one of this state.
    fn group(&self, state: &ShareState) -> Group {
        let is_of_it = |it: &RunningShare| {
            it.state.generation == state.generation && it.state.services == state.services
        };
        let members = self.shares.iter().filter(|(_, it)| is_of_it(it));
        let steps: BTreeMap<_, _> =
            members.map(|(name, it)| (name.clone(), it.state.clone())).collect();
        let services = steps.keys().cloned().collect();
        Group { services, steps, generation: state.generation, next: state.next_percent() }
    }
}

// === impl RunningShare ===

impl RunningShare {
    /// Whether the next step may follow.
    fn is_ready(&self) -> bool {
        self.has_passed && !self.watch.has_fired && !self.watch.is_doubtful()
    }

    fn progress(&self, now_ms: u64) -> ShareProgress {
        let is_over = self.state.until <= now_ms && !self.has_passed && !self.watch.has_fired;
        let waiting = || match self.watch.has_endpoint_up() {
            true => self.watch.missing(),
            false => {
                let (color, active) = (self.state.color, self.state.color.other());
                Some(format!("no endpoint of {color} is up, so its clients get {active}"))
            }
        };
        let waiting = is_over.then(waiting).flatten();
        ShareProgress { watch: self.watch.progress(), waiting }
    }
}

/// Makes the next step. Returns its services.
async fn next_step(release: Release, group: Group) -> Vec<ServiceName> {
    let Group { services, steps, generation, next } = group.clone();
    let color = steps.iter().map(|(name, it)| (name.clone(), it.color)).collect();
    let mut call = match next {
        Some(_) => {
            let services = services.clone();
            ChangeRequest::unconditional(Change::RaiseShare { services, generation })
        }
        None => ChangeRequest {
            terms: PromotionTerms { completes: Some(generation), ..PromotionTerms::default() },
            reason: Some("all steps have passed".to_owned()),
            actor: Some(Actor::internal("share")),
            ..ChangeRequest::unconditional(Change::Promote(color))
        },
    };
    let is_last = next.is_none();
    loop {
        // The generation stays the same when a call gives new steps, which have not been judged.
        let applied = release.control().applied();
        let is_there = |(name, step): (&ServiceName, &ShareState)| {
            applied.state.services.get(name).is_some_and(|it| it.share.as_ref() == Some(step))
        };
        if !steps.iter().all(is_there) {
            info!("a gradual promotion does not go on: another change was applied");
            return services;
        }
        call.if_generation = Some(vec![applied.state.generation]);
        let made = match is_last {
            // The last step is a promotion like any other, with its gates.
            true => release.decide(call.clone(), false).await,
            false => release.control().propose(call.clone()).await.map_err(ReleaseError::from),
        };
        if is_last && !is_stale(&made) {
            release.count(PromotionKind::Automatic, &made);
        }
        match made {
            Ok(_) => return services,
            Err(ReleaseError::Change(ChangeError::Stale { .. })) => {}
            Err(ReleaseError::Change(ChangeError::Store(error))) => {
                error!(%error, "a gradual promotion cannot go on: the state cannot be written");
                tokio::time::sleep(RETRY).await;
            }
            // Another change has ended it.
            Err(ReleaseError::Change(error)) => {
                info!(%error, "a gradual promotion does not go on");
                return services;
            }
            Err(error @ ReleaseError::Gates(_)) => {
                let reason = error.to_string();
                warn!(reason, "a gate has refused the last step of a gradual promotion");
                for (service, step) in &group.steps {
                    let (service, color, reason) = (service.clone(), step.color, reason.clone());
                    let event = ShareEvent::ShareFailed { service, color, percent: 100, reason };
                    release.control().events().publish(EventKind::Share(event));
                }
                return take_back(release, group, reason).await;
            }
        }
    }
}

fn is_stale(made: &Result<ChangeOutcome, ReleaseError>) -> bool {
    matches!(made, Err(ReleaseError::Change(ChangeError::Stale { .. } | ChangeError::Store(_))))
}

/// Takes a gradual promotion back, unless another change has ended it. Returns its services.
async fn take_back(release: Release, group: Group, reason: String) -> Vec<ServiceName> {
    let Group { services, generation, .. } = group;
    let call = ChangeRequest {
        reason: Some(reason),
        actor: Some(Actor::internal("watch")),
        ..ChangeRequest::unconditional(Change::TakeBackShare {
            services: services.clone(),
            generation,
        })
    };
    while let Err(error) = release.control().propose(call.clone()).await {
        match error {
            ChangeError::Store(error) => {
                error!(%error, "a gradual promotion cannot be taken back: the state cannot be written");
                tokio::time::sleep(RETRY).await;
            }
            error => {
                info!(%error, "a gradual promotion was not taken back");
                break;
            }
        }
    }
    services
}
