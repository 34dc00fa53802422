//! Plans what a rollout does to the state.

use std::sync::Arc;

use super::pools::set_pool;
use crate::{
    control::{
        catalog::Catalog,
        change::{Change, ChangeRequest},
        reasons::{ReasonKind, RefusalReason},
        rollouts::{RolloutChange, RolloutStep, is_as_set},
    },
    model::{Color, PoolSpec, RolloutId, ServiceName},
    store::{PoolBefore, RolloutState, ServiceState, State},
};

/// Refuses a change that would disturb a rollout in progress: another promotion or pool of its services, and a second
/// rollout of them. A rollback is always possible, and so is what Flipgate does by itself.
pub(super) fn check_running(state: &State, call: &ChangeRequest) -> Result<(), Vec<RefusalReason>> {
    let ChangeRequest { change, rollout, terms, .. } = call;
    let services: Vec<&ServiceName> = match change {
        Change::Promote(_) if terms.skips_gates || terms.completes.is_some() => return Ok(()),
        Change::Promote(colors) => colors.keys().collect(),
        Change::SetPool { service, force: false, .. } => vec![service],
        Change::Rollout(RolloutChange::Begin { services, .. }) => services.iter().collect(),
        _ => return Ok(()),
    };
    let own = rollout.as_ref().map(|it| &it.id);
    let running = |it: &(&RolloutId, &Arc<RolloutState>)| it.1.is_running() && Some(it.0) != own;
    let reasons = state.rollouts.iter().filter(running).flat_map(|(id, it)| {
        let taken = services.iter().filter(|service| it.services.contains(service));
        taken.map(|service| {
            let (id, owner) = (id.clone(), it.owner.to_string());
            let service = Some(ServiceName::clone(service));
            RefusalReason { service, problem: ReasonKind::InRollout { id, owner } }
        })
    });
    let reasons: Vec<_> = reasons.collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Refuses a step that was decided on another version of the rollout.
pub(super) fn check_version(state: &State, call: &ChangeRequest) -> Result<(), Vec<RefusalReason>> {
    let Some(RolloutStep { id, expected, pools, .. }) = &call.rollout else { return Ok(()) };
    let begins = matches!(call.change, Change::Rollout(RolloutChange::Begin { .. }));
    let is_expected = match state.rollouts.get(id) {
        Some(it) => it.version == *expected && it.is_running() && !begins,
        None => begins,
    };
    if !is_expected {
        let problem = ReasonKind::RolloutMoved(id.clone());
        return Err(vec![RefusalReason { service: None, problem }]);
    }
    let other = pools.iter().filter(|(service, (color, set))| {
        state.services.get(*service).is_some_and(|it| !is_as_set(it, *color, set))
    });
    let refused = other.map(|(service, (color, _))| RefusalReason {
        service: Some(service.clone()),
        problem: ReasonKind::OtherPool(*color),
    });
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() { Ok(()) } else { Err(refused) }
}

/// The state after a change of a rollout, but for the position of the rollout.
pub(super) fn plan_rollout(
    state: &State,
    catalog: &Catalog,
    call: &ChangeRequest,
    change: &RolloutChange,
) -> Result<State, Vec<RefusalReason>> {
    let mut reasons = Vec::new();
    let mut next = state.clone();
    let mut refuse = |service: &ServiceName, problem| {
        reasons.push(RefusalReason { service: Some(service.clone()), problem });
    };
    match change {
        RolloutChange::Begin { services, .. } => {
            for service in services {
                if state.damaged.contains_key(service) {
                    refuse(service, ReasonKind::Damaged);
                } else if !catalog.services().contains_key(service) {
                    refuse(service, ReasonKind::UnknownService);
                }
            }
        }
        RolloutChange::Advance => {}
        RolloutChange::SetPools(pools) => {
            let set_by = call.actor.as_ref().filter(|it| it.is_authenticated);
            let set_by: Option<Arc<str>> = set_by.map(|it| it.name.as_str().into());
            for (service, (color, spec)) in pools {
                match set_pool(&next, catalog, service, (*color, spec, set_by.clone()), false) {
                    Ok(set) => next = set,
                    Err(problem) => refuse(service, problem),
                }
            }
        }
        RolloutChange::RestorePools(set) => {
            let rollout = call.rollout.as_ref().and_then(|it| state.rollouts.get(&it.id));
            for before in rollout.into_iter().flat_map(|it| &it.before) {
                let known = next.services.get(&before.service);
                let is_changed = |it: &Arc<ServiceState>| {
                    let set = set.get(&before.service);
                    set.is_some_and(|(color, spec)| !is_as_set(it, *color, spec))
                };
                // Another caller has set it since, with force.
                if known.is_some_and(is_changed) {
                    continue;
                }
                let Some(service) = known.filter(|it| it.active != before.color) else {
                    let problem = match known {
                        Some(_) => ReasonKind::PoolIsActive(before.color),
                        None => ReasonKind::UnknownService,
                    };
                    refuse(&before.service, problem);
                    continue;
                };
                let mut service = ServiceState::clone(service);
                restore(&mut service, before);
                next.services.insert(before.service.clone(), Arc::new(service));
            }
        }
    }
    if reasons.is_empty() { Ok(next) } else { Err(reasons) }
}

/// Puts a pool back. If the configuration file has another entry for it since, that counts.
fn restore(service: &mut ServiceState, before: &PoolBefore) {
    let PoolBefore { color, pool, .. } = before;
    let now = service.pool_mut(*color);
    if now.file != pool.file {
        return;
    }
    now.runtime.clone_from(&pool.runtime);
    (now.served, now.shared) = (pool.served, pool.shared);
    now.set_by.clone_from(&pool.set_by);
    service.revoke_approvals(*color);
    service.share = service.share.take().filter(|it| it.color != *color);
}

/// Notes the position of the rollout that has made a change, and forgets rollouts that were over long ago.
pub(super) fn advance(before: &State, next: &mut State, call: &ChangeRequest, now_ms: u64) {
    let Some(RolloutStep { id, expected: _, record, is_over, pools: _ }) = &call.rollout else {
        return;
    };
    let begun = match &call.change {
        Change::Rollout(RolloutChange::Begin { owner, services }) => Some(RolloutState {
            version: 0,
            owner: Arc::clone(owner),
            services: services.clone(),
            ended_at: None,
            promoted: None,
            before: Vec::new(),
            record: Arc::clone(record),
        }),
        _ => before.rollouts.get(id).map(|it| RolloutState::clone(it)),
    };
    // It was checked before.
    let Some(mut rollout) = begun else { return };
    rollout.version += 1;
    rollout.record = Arc::clone(record);
    rollout.ended_at = is_over.then_some(now_ms);
    match &call.change {
        Change::Promote(_) => rollout.promoted = Some(next.generation),
        Change::Rollback { .. } => rollout.promoted = None,
        Change::Rollout(RolloutChange::SetPools(pools)) => {
            let pool = |(service, (color, _)): (&ServiceName, &(Color, PoolSpec))| {
                let pool = before.services.get(service)?.pool(*color).clone();
                Some(PoolBefore { service: service.clone(), color: *color, pool })
            };
            rollout.before = pools.iter().filter_map(pool).collect();
        }
        Change::Rollout(RolloutChange::RestorePools(_)) => rollout.before.clear(),
        _ => {}
    }
    next.rollouts.insert(id.clone(), Arc::new(rollout));
    forget(next, now_ms);
}

/// Forgets the rollouts that were over first, beyond the limits.
fn forget(next: &mut State, now_ms: u64) {
    let mut over: Vec<_> =
        next.rollouts.iter().filter_map(|(id, it)| Some((it.ended_at?, id.clone()))).collect();
    over.sort();
    let surplus = over.len().saturating_sub(RolloutState::KEPT_MAX);
    for (place, (ended_at, id)) in over.into_iter().enumerate() {
        if place < surplus || now_ms.saturating_sub(ended_at) > RolloutState::KEPT_MS {
            next.rollouts.remove(&id);
        }
    }
}
