//! The stages that change Flipgate's own state: pools, promotion, hold. Each change and the position of the
//! rollout are one commit.

use std::{collections::BTreeMap, time::Duration};

use super::{
    event::{Direction, Event, Failure},
    handle::RolloutError,
    machine::Progress,
    plan::{Action, Hold, Promote, SetPool},
    running::{Found, Running},
    waits,
};
use crate::{
    continuity::ShareSecret,
    control::{
        Actor, Applied, Change, ChangeError, ChangeRequest, IntakeChange, PromotionTerms,
        ReasonKind, RolloutChange, ShareSteps, is_as_set, random_secret, still_promoted,
    },
    model::{Color, Health, PoolSpec, ServiceName},
    release::{ReleaseError, written},
};

/// How often a stage reads the health of endpoints that it waits for.
const POLL: Duration = Duration::from_millis(100);

/// How long a step of a gradual promotion lasts, by default.
const STEP_FOR: Duration = Duration::from_secs(120);

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
        (_, Action::Approve) => waits::approved(stage).await,
        (_, Action::Drain(drain)) => waits::drain(stage, drain).await,
        (_, Action::Watch(watch)) => waits::watch(stage, watch).await,
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
    let candidates: Vec<(ServiceName, Color)> = stage.candidates();
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
    let colors: BTreeMap<_, _> = stage.candidates().into_iter().collect();
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
    let candidates = stage.candidates().into_iter();
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
    let mut refusals = Vec::new();
    for (service, color) in stage.candidates() {
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
