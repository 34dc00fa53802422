//! The stages about Flipgate's own state: pools, gates, promotion, drain, watch, hold. Each change and the position of the
//! rollout are one commit.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    event::{Direction, Event, Failure},
    handle::{RolloutError, unix_millis},
    machine::Progress,
    plan::{Action, AfterPatience, Drain, DrainGoal, Hold, Promote, SetPool, Watch},
    running::{Found, Running},
};
use crate::{
    continuity::ShareSecret,
    control::{
        Actor, Applied, Change, ChangeError, ChangeRequest, Control, DrainGoal as Goal,
        IntakeChange, PromotionTerms, ReasonKind, RolloutChange, ShareSteps, is_as_set,
        random_secret, still_promoted,
    },
    model::{Color, Health, PoolSpec, ServiceName, WatchResult},
    release::{ReleaseError, written},
};

/// How often a stage reads the health of endpoints that it waits for.
const POLL: Duration = Duration::from_millis(100);

/// How long a step of a gradual promotion lasts, by default.
const STEP_FOR: Duration = Duration::from_secs(120);

/// One wait of a drain, after which the stage reads again what holds the color.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// How often a stage reads whether a watch is overdue.
const WATCH_POLL: Duration = Duration::from_secs(1);

/// A watch without an end so long after it is not continued, in milliseconds.
const OVERDUE_MS: u64 = 60_000;

/// Runs a stage.
pub(super) async fn run(stage: &Running<'_>, action: &Action) -> Result<Found, Failure> {
    match (stage.step.direction, action) {
        (Direction::Do, Action::Pool(pool)) => set_pools(stage, pool).await,
        (Direction::Undo, Action::Pool(_)) => restore_pools(stage).await,
        (Direction::Do, Action::Promote(promote)) => self::promote(stage, promote).await,
        (Direction::Undo, Action::Promote(_)) => roll_back(stage).await,
        (Direction::Do, Action::Hold(hold)) => self::hold(stage, hold).await,
        (Direction::Undo, Action::Hold(_)) => release_own(stage).await,
        (_, Action::Release) => release(stage).await,
        (_, Action::Gate) => gates(stage).await,
        (_, Action::Approve) => approved(stage).await,
        (_, Action::Drain(drain)) => self::drain(stage, drain).await,
        (_, Action::Watch(watch)) => self::watch(stage, watch).await,
        // They are no stages of this kind.
        (_, Action::Call(_) | Action::Until(_) | Action::Exec(_)) => Ok(Found::default()),
    }
}

/// Makes a change that is a part of a stage, unless it was made.
async fn make(
    stage: &Running<'_>,
    change: Change,
    terms: PromotionTerms,
) -> Result<(), RolloutError> {
    let event = Event::Made(stage.step);
    stage.rollouts.write_with(stage.id, event, None, (change, terms)).await.map(drop)
}

async fn set_pools(stage: &Running<'_>, pool: &SetPool) -> Result<Found, Failure> {
    let services = stage.services();
    let candidates: Vec<(ServiceName, Color)> = candidates(stage, &services);
    if !stage.is_made {
        let spec = |name: &ServiceName| {
            let it = stage.record.services.get(name)?;
            let spec = PoolSpec::new(it.version.clone(), it.endpoints.clone()).ok()?;
            Some((name.clone(), (it.candidate, spec)))
        };
        let pools: BTreeMap<_, _> = services.iter().filter_map(spec).collect();
        let change = Change::Rollout(RolloutChange::SetPools(pools));
        make(stage, change, PromotionTerms::default()).await?;
    }
    let Some(within) = pool.healthy_within else { return Ok(Found::default()) };
    match tokio::time::timeout(within, healthy(stage, &candidates)).await {
        Ok(()) => Ok(Found::default()),
        Err(_elapsed) => {
            let down = unhealthy(stage, &candidates).join("; ");
            let time = written(within);
            Err(Failure::maybe_done(format!(
                "not healthy within {time} (`healthy_within`): {down}"
            )))
        }
    }
}

fn candidates(stage: &Running<'_>, services: &[ServiceName]) -> Vec<(ServiceName, Color)> {
    let candidate = |it: &ServiceName| Some((it.clone(), stage.record.services.get(it)?.candidate));
    services.iter().filter_map(candidate).collect()
}

async fn healthy(stage: &Running<'_>, candidates: &[(ServiceName, Color)]) {
    loop {
        let down = unhealthy(stage, candidates);
        let Some(first) = down.first() else { return };
        stage.rollouts.board().note(stage.id, first);
        tokio::time::sleep(POLL).await;
    }
}

/// The endpoints of the candidates that are not up, and why.
fn unhealthy(stage: &Running<'_>, candidates: &[(ServiceName, Color)]) -> Vec<String> {
    let applied = stage.rollouts.control().applied();
    let mut down = Vec::new();
    for (service, color) in candidates {
        let Some(pools) = applied.pools.get(service) else {
            down.push(format!("service `{service}` is not configured any more"));
            continue;
        };
        let endpoints = pools.pool(*color).endpoints();
        if endpoints.is_empty() {
            down.push(format!("service `{service}` has no endpoint in {color}"));
        }
        for endpoint in endpoints {
            let details = endpoint.health_details();
            let why = match (details.health, details.failure) {
                (Health::Up, _) => continue,
                (_, Some(failure)) => failure.detail.to_string(),
                (_, None) => "not checked yet".to_owned(),
            };
            down.push(format!("{service}.{color} {}: {why}", endpoint.configured()));
        }
    }
    down
}

async fn restore_pools(stage: &Running<'_>) -> Result<Found, Failure> {
    let set = stage.record.set_pools(stage.record.services.keys());
    let applied = stage.rollouts.control().applied();
    let changed = set.iter().filter(|(name, (color, spec))| {
        applied.state.services.get(*name).is_some_and(|it| !is_as_set(it, *color, spec))
    });
    let changed: Vec<_> = changed
        .map(|(name, (color, _))| format!("{name}.{color} was set again by another call: it stays"))
        .collect();
    let note = (!changed.is_empty()).then(|| changed.join("; "));
    let change = Change::Rollout(RolloutChange::RestorePools(set));
    make(stage, change, PromotionTerms::default()).await?;
    Ok(Found { note, ..Found::default() })
}

async fn promote(stage: &Running<'_>, promote: &Promote) -> Result<Found, Failure> {
    let services = stage.services();
    let colors: BTreeMap<_, _> = candidates(stage, &services).into_iter().collect();
    if !stage.is_made {
        let steps = (!promote.steps.is_empty()).then(|| ShareSteps {
            percents: promote.steps.clone(),
            step_for: promote.step_for.unwrap_or(STEP_FOR),
            has_first: false,
            secret: ShareSecret(random_secret()),
        });
        let confirm_within = stage.record.confirm_within.or(promote.confirm_within);
        let terms = PromotionTerms { confirm_within, steps, ..PromotionTerms::default() };
        let made = make(stage, Change::Promote(colors.clone()), terms).await;
        made.map_err(|error| refused(&error))?;
    }
    if promote.steps.is_empty() {
        return Ok(Found::default());
    }
    // The watch of each step makes the next one, or takes all of it back.
    let mut changes = stage.rollouts.control().changes();
    loop {
        let applied = changes.borrow_and_update().clone();
        let mut are_active = true;
        for (name, color) in &colors {
            let Some(service) = applied.state.services.get(name) else { continue };
            let is_active = service.active == *color;
            if !is_active && service.share.is_none() {
                let reason = service.share_end.as_ref().and_then(|it| it.reason.as_deref());
                let reason = reason.unwrap_or("by hand");
                let error = format!("the gradual promotion of `{name}` was taken back: {reason}");
                return Err(Failure::maybe_done(error));
            }
            are_active &= is_active;
        }
        if are_active {
            return Ok(Found::default());
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A promotion that was refused has changed nothing.
fn refused(error: &RolloutError) -> Failure {
    let by_gate = matches!(error, RolloutError::Release(ReleaseError::Gates(_)));
    Failure { by_gate, ..Failure::before_anything(error.to_string()) }
}

/// Takes the promotion back for the services that are still at it. One that cannot be rolled back is in the way of no
/// other.
async fn roll_back(stage: &Running<'_>) -> Result<Found, Failure> {
    let mut refused: BTreeMap<ServiceName, String> = BTreeMap::new();
    loop {
        let applied = stage.rollouts.control().applied();
        let at_it = still_at_it(stage, &applied);
        let (configured, removed): (Vec<_>, Vec<_>) =
            at_it.into_iter().partition(|it| applied.catalog.services().contains_key(it));
        let left: Vec<_> = configured.into_iter().filter(|it| !refused.contains_key(it)).collect();
        let failed = || {
            let refused: Vec<&str> = refused.values().map(String::as_str).collect();
            Failure::maybe_done(refused.join("; "))
        };
        let back = Change::Rollback { services: left.clone(), force: false };
        let made = match (left.is_empty(), refused.is_empty()) {
            (true, true) => {
                let change = Change::Rollout(RolloutChange::Advance);
                make(stage, change, PromotionTerms::default()).await
            }
            (false, true) => make(stage, back, PromotionTerms::default()).await,
            (true, false) => return Err(failed()),
            // Not all of it: the position of the rollout stays.
            (false, false) => {
                let made = stage.rollouts.release().make(own_call(stage, back), false).await;
                made.map(drop).map_err(RolloutError::from)
            }
        };
        let reasons = match made {
            Ok(()) if refused.is_empty() => {
                let removed: Vec<_> = removed
                    .iter()
                    .map(|it| format!("`{it}` is not configured any more: it was not rolled back"))
                    .collect();
                let note = (!removed.is_empty()).then(|| removed.join("; "));
                return Ok(Found { note, ..Found::default() });
            }
            Ok(()) => return Err(failed()),
            Err(
                RolloutError::Change(ChangeError::Refused(reasons))
                | RolloutError::Release(ReleaseError::Change(ChangeError::Refused(reasons))),
            ) if reasons
                .iter()
                .any(|it| it.service.as_ref().is_some_and(|it| left.contains(it))) =>
            {
                reasons
            }
            Err(error) => return Err(Failure::maybe_done(error.to_string())),
        };
        let now = stage.rollouts.control().applied().state.generation;
        for reason in reasons {
            // Another caller has just rolled it back.
            let is_moved = matches!(reason.problem, ReasonKind::NeverPromoted)
                && applied.state.generation != now;
            let text = reason.to_string();
            refused.extend(reason.service.filter(|_| !is_moved).map(|it| (it, text)));
        }
    }
}

/// The services that this rollout has promoted, and that are still so.
fn still_at_it(stage: &Running<'_>, applied: &Applied) -> Vec<ServiceName> {
    let has_steps = stage.record.has_steps();
    let promoted = stage.rollouts.state(stage.id).and_then(|it| it.promoted);
    let is_at_it = |(name, color): &(ServiceName, Color)| {
        applied.state.services.get(name).is_some_and(|it| match has_steps {
            true => it.active == *color || it.share.as_ref().is_some_and(|it| it.color == *color),
            // Another caller may have promoted the same color since.
            false => promoted.is_some_and(|promoted| still_promoted(it, *color, promoted)),
        })
    };
    let candidates = candidates(stage, &stage.services()).into_iter();
    candidates.filter(is_at_it).map(|it| it.0).collect()
}

async fn hold(stage: &Running<'_>, hold: &Hold) -> Result<Found, Failure> {
    for (place, service) in stage.services().into_iter().enumerate() {
        let change = IntakeChange::Hold { length: hold.length, places: None, force: false };
        let change = Change::Intake { service, change };
        let made = match place {
            0 if !stage.is_made => make(stage, change, PromotionTerms::default()).await,
            _ => change_only(stage, change).await,
        };
        made.map_err(|error| match place {
            0 if !stage.is_made => Failure::before_anything(error.to_string()),
            _ => Failure::maybe_done(error.to_string()),
        })?;
    }
    Ok(Found::default())
}

/// Lets held requests go. Without a hold nothing changes, so that it can be repeated.
async fn release(stage: &Running<'_>) -> Result<Found, Failure> {
    for service in stage.services() {
        let change = IntakeChange::Release { id: None, is_over: false };
        change_only(stage, Change::Intake { service, change })
            .await
            .map_err(|error| Failure::maybe_done(error.to_string()))?;
    }
    Ok(Found::default())
}

/// Undoes a hold: lets the requests go that this rollout holds. A hold of another caller stays.
async fn release_own(stage: &Running<'_>) -> Result<Found, Failure> {
    let began = stage.record.machine().ok().and_then(|it| {
        match it.stages().get(stage.step.stage)?.forward {
            Progress::Running { since, .. } => Some(since),
            Progress::Done { time, .. } | Progress::Failed { time, .. } => Some(time.0),
            Progress::Pending | Progress::Skipped => None,
        }
    });
    let owner = Actor::from(&stage.record.owner).shown();
    for service in stage.services() {
        let applied = stage.rollouts.control().applied();
        let hold = applied.state.holds.get(&service);
        let own =
            hold.filter(|it| *it.owner == *owner && began.is_some_and(|at| it.began_ms >= at));
        let Some(id) = own.map(|it| it.id) else { continue };
        let change = IntakeChange::Release { id: Some(id), is_over: false };
        change_only(stage, Change::Intake { service, change })
            .await
            .map_err(|error| Failure::maybe_done(error.to_string()))?;
    }
    Ok(Found::default())
}

/// Makes a change without a new position of the rollout: it can be repeated.
async fn change_only(stage: &Running<'_>, change: Change) -> Result<(), RolloutError> {
    Ok(stage.rollouts.control().propose(own_call(stage, change)).await.map(drop)?)
}

fn own_call(stage: &Running<'_>, change: Change) -> ChangeRequest {
    let actor = Some(Actor::from(&stage.record.owner));
    let reason = Some(format!("rollout {}", stage.id));
    ChangeRequest { actor, reason, ..ChangeRequest::unconditional(change) }
}

async fn gates(stage: &Running<'_>) -> Result<Found, Failure> {
    let services = stage.services();
    let mut refusals = Vec::new();
    for (service, color) in candidates(stage, &services) {
        let change = Change::Promote(BTreeMap::from([(service.clone(), color)]));
        let call = ChangeRequest {
            actor: Some(Actor::from(&stage.record.owner)),
            reason: stage.record.reason.clone(),
            ..ChangeRequest::unconditional(change)
        };
        let report = stage.rollouts.release().check(&service, color, call).await;
        let report = report.map_err(|error| Failure::before_anything(error.to_string()))?;
        refusals.extend(
            report.refusals().map(|it| {
                format!("service `{service}`: gate {}: {}", it.gate, it.reasons.join("; "))
            }),
        );
    }
    match refusals.is_empty() {
        true => Ok(Found::default()),
        false => {
            let error = refusals.join("; ");
            Err(Failure { by_gate: true, ..Failure::before_anything(error) })
        }
    }
}

async fn approved(stage: &Running<'_>) -> Result<Found, Failure> {
    let mut changes = stage.rollouts.control().changes();
    loop {
        changes.borrow_and_update();
        let known = stage.rollouts.find(stage.id)?;
        let is_approved = known
            .record
            .machine()
            .is_ok_and(|it| it.stages().get(stage.step.stage).is_some_and(|it| it.is_approved));
        if is_approved {
            return Ok(Found::default());
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn drain(stage: &Running<'_>, drain: &Drain) -> Result<Found, Failure> {
    let goal = match drain.until {
        DrainGoal::Drained => Goal::Drained,
        DrainGoal::SafeToStop => Goal::SafeToStop,
    };
    let control = stage.rollouts.control();
    // `None` after the patience, when it waits for as long as it takes.
    let mut until = drain.patience.map(|it| Instant::now() + it);
    let candidates = candidates(stage, &stage.services()).into_iter();
    let mut open: Vec<_> = candidates.map(|(service, color)| (service, color.other())).collect();
    loop {
        let left = until.map(|it| it.saturating_duration_since(Instant::now()));
        let wait = left.unwrap_or(DRAIN_WAIT).min(DRAIN_WAIT);
        let held = open.iter().map(|it| holds(control, it, wait, goal));
        let held = join_all(held).await;
        let held: Vec<_> =
            open.into_iter().zip(held).filter_map(|(it, why)| Some((it, why?))).collect();
        let Some((_, first)) = held.first() else { return Ok(Found::default()) };
        stage.rollouts.board().note(stage.id, first);
        let (next, held): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        open = next;
        if until.is_none_or(|it| Instant::now() < it) {
            continue;
        }
        until = None;
        let held = held.join("; ");
        match drain.then {
            AfterPatience::GoOn => {
                let note = Some(format!("went on: {held}"));
                return Ok(Found { note, ..Found::default() });
            }
            AfterPatience::Fail => {
                let time = written(drain.patience.unwrap_or_default());
                let error = format!("not done within {time} (`patience`): {held}");
                return Err(Failure::maybe_done(error));
            }
            AfterPatience::EndStreams => {
                for (service, old) in &open {
                    // An active color has nothing to end.
                    let _ = control.end_streams(service, *old);
                }
            }
            AfterPatience::Wait => {}
        }
    }
}

/// What holds a color after this wait. `None` if the drain has reached its goal, or there is nothing to drain.
async fn holds(
    control: &Control,
    (service, color): &(ServiceName, Color),
    wait: Duration,
    goal: Goal,
) -> Option<String> {
    let state = control.wait_for_drain(service, Some(*color), wait, goal).await?;
    let is_reached = match goal {
        Goal::Drained => state.is_drained,
        Goal::SafeToStop => state.is_safe_to_stop(),
    };
    if is_reached || state.is_active {
        return None;
    }
    let by = match state.holds.by.is_empty() {
        true => "nothing else holds it".to_owned(),
        false => format!("held by {}", state.holds.by.join(", ")),
    };
    Some(format!("{service}.{color} has {} requests in flight; {by}", state.in_flight))
}

async fn watch(stage: &Running<'_>, watch: &Watch) -> Result<Found, Failure> {
    let known = stage.rollouts.find(stage.id)?;
    let promoted = known.state.promoted;
    let candidates = candidates(stage, &stage.services());
    let mut changes = stage.rollouts.control().changes();
    loop {
        let applied = changes.borrow_and_update().clone();
        let (mut waits, mut notes) = (false, Vec::new());
        for (name, color) in &candidates {
            let Some(service) = applied.state.services.get(name) else { continue };
            // The executor notices that the promotion was taken back.
            if service.active != *color {
                waits = true;
                continue;
            }
            let has_settings =
                applied.catalog.services().get(name).is_some_and(|it| it.watch.is_some());
            let is_late = |until: u64| until.saturating_add(OVERDUE_MS) < unix_millis();
            if let Some(watched) = &service.watch
                && (!has_settings || is_late(watched.until))
            {
                let error = format!("the watch of `{name}` has come to no verdict");
                match watch.accept_inconclusive {
                    true => notes.push(error),
                    false => return Err(Failure::maybe_done(error)),
                }
            } else if let Some(watched) = &service.watch {
                waits = true;
                let until = crate::control::timestamp(watched.until);
                stage.rollouts.board().note(stage.id, &format!("{name} is watched until {until}"));
            }
            if let Some(confirmation) = &service.confirmation {
                waits = true;
                let until = crate::control::timestamp(confirmation.until);
                let text = format!("{name} waits for its confirmation until {until}");
                stage.rollouts.board().note(stage.id, &text);
            }
            let is_of_it = |it: &crate::store::WatchEnd| {
                promoted.is_some_and(|promoted| it.generation >= promoted)
            };
            match service.last_watch.filter(is_of_it).map(|it| it.result) {
                Some(WatchResult::Failed) => {
                    let error = format!("the watch of `{name}` has found {color} bad");
                    return Err(Failure::maybe_done(error));
                }
                Some(WatchResult::Inconclusive) if !watch.accept_inconclusive => {
                    let error = format!("the watch of `{name}` had too few requests for a verdict");
                    return Err(Failure::maybe_done(error));
                }
                Some(WatchResult::Inconclusive) => {
                    notes.push(format!("{name}: too few requests for a verdict"));
                }
                Some(WatchResult::Stopped) => {
                    notes.push(format!("{name}: the watch was ended by hand"));
                }
                Some(WatchResult::Passed) | None => {}
            }
        }
        if !waits {
            let note = (!notes.is_empty()).then(|| notes.join("; "));
            return Ok(Found { note, ..Found::default() });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = tokio::time::sleep(WATCH_POLL) => {}
        }
    }
}
