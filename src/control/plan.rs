//! Plans the next state of a change. Pure: nothing is written or applied here.

mod pools;
mod promotions;
mod rollouts;
mod share_ends;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

pub(super) use self::pools::reconfigure;
use self::{
    pools::{own_endpoints, services_without_endpoints, set_pool},
    promotions::{check_known, colors_before, promote},
    rollouts::{advance, check_running, check_version, plan_rollout},
    share_ends::{end_together, note_share_ends},
};
use super::{
    catalog::Catalog,
    change::{Actor, Change, ChangeRequest},
    intake_plan::plan_intake,
    pins::{note_changes, rotate},
    reasons::{ReasonKind, RefusalReason},
    rollouts::RolloutChange,
    shares,
    watches::{
        begin_watches, check_takes_back, confirm, end_watch, extend_confirmation,
        give_up_confirmation,
    },
};
use crate::{
    model::{Color, Difference, OwnAddresses, ServiceName, Version},
    store::{Approval, ManifestKey, Promotion, ServiceState, State},
};

/// The state after `change`, or all reasons against it.
pub(super) fn plan(
    state: &State,
    catalog: &Catalog,
    own: &OwnAddresses,
    call: &ChangeRequest,
    now_ms: u64,
) -> Result<State, Vec<RefusalReason>> {
    let reasons = own_endpoints(own, &call.change);
    if !reasons.is_empty() {
        return Err(reasons);
    }
    check_version(state, call)?;
    check_running(state, call)?;
    let mut next = plan_change(state, catalog, call, now_ms)?;
    note_share_ends(state, &mut next, call, now_ms);
    advance(state, &mut next, call, now_ms);
    Ok(next)
}

/// The state after the change itself.
fn plan_change(
    state: &State,
    catalog: &Catalog,
    call: &ChangeRequest,
    now_ms: u64,
) -> Result<State, Vec<RefusalReason>> {
    let ChangeRequest { change, reason, actor, terms, .. } = call;
    let mut next = match change {
        Change::Promote(colors) => {
            if let Some(extended) = extend_confirmation(state, colors, terms, now_ms) {
                return Ok(extended);
            }
            if let Some(generation) = terms.completes {
                let services: Vec<_> = colors.keys().cloned().collect();
                shares::check(state, &services, Some(generation))?;
            }
            let mut next = promote(state, catalog, colors)?;
            match &terms.steps {
                Some(steps) => {
                    // The checks are those of a promotion.
                    check_known(state, colors)?;
                    next = State { promotion: next.promotion, ..state.clone() };
                    shares::begin(&mut next, colors, steps, now_ms);
                }
                None => begin_watches(&mut next, catalog, colors, terms, now_ms),
            }
            next
        }
        Change::Rollback { services, force } => {
            let names = if services.is_empty() { &state.promotion.services } else { services };
            // What is promoted gradually is not active yet. A watch takes back what is.
            let is_share = |it: &ServiceName| {
                terms.takes_back.is_none()
                    && state.services.get(it).is_some_and(|it| it.share.is_some())
            };
            let (shared, names): (Vec<_>, Vec<_>) = names.iter().cloned().partition(is_share);
            let (mut next, colors) = match names.is_empty() && !shared.is_empty() {
                true => (state.clone(), BTreeMap::new()),
                false => {
                    let colors = colors_before(state, catalog, &names, *force)?;
                    check_takes_back(state, &colors, terms)?;
                    (promote(state, catalog, &colors)?, colors)
                }
            };
            if !shared.is_empty() {
                next = shares::take_back(&next, &shared, None)?;
                let services = colors.keys().chain(&shared).cloned().collect();
                next.promotion = Arc::new(Promotion { services, ..Promotion::default() });
            }
            // A rollback is not taken back by another rollback: a repeated call must not bring back what the first one
            // removed.
            for name in colors.keys() {
                if let Some(mut service) = next.services.get(name).map(|it| ServiceState::clone(it))
                {
                    service.previous = None;
                    next.services.insert(name.clone(), Arc::new(service));
                }
            }
            next
        }
        Change::SetPool { service, color, spec, force } => {
            let set_by = actor.as_ref().filter(|it| it.is_authenticated);
            let set_by = set_by.map(|it| it.name.as_str().into());
            let pool = (*color, spec, set_by);
            set_pool(state, catalog, service, pool, *force).map_err(|it| about(service, it))?
        }
        Change::Approve { service, color, version } => {
            let pool = (*color, version.as_ref());
            let approved = approve(state, catalog, service, pool, actor.as_ref(), now_ms / 1000);
            // The routing table stays as it is.
            return approved.map_err(|it| about(service, it));
        }
        Change::Confirm(services) => return confirm(state, services),
        Change::EndWatch { service, generation, result } => {
            return end_watch(state, service, *generation, *result)
                .map_err(|it| about(service, it));
        }
        Change::GiveUpConfirmation { service, generation } => {
            return give_up_confirmation(state, service, *generation)
                .map_err(|it| about(service, it));
        }
        Change::RaiseShare { services, generation } => {
            shares::raise(state, services, *generation, now_ms)?
        }
        Change::TakeBackShare { services, generation } => {
            shares::take_back(state, services, Some(*generation))?
        }
        Change::RotatePinKeys { secret } => {
            // The routing table stays as it is, but for the keys.
            return rotate(state, catalog, *secret, now_ms);
        }
        Change::Intake { service, change } => {
            // The routing table stays as it is, but for what requests have to wait for.
            return plan_intake(state, catalog, service, change, actor.as_ref(), now_ms)
                .map_err(|it| about(service, it));
        }
        Change::Rollout(change) => {
            let next = plan_rollout(state, catalog, call, change)?;
            if let RolloutChange::Begin { .. } | RolloutChange::Advance = change {
                // The routing table stays as it is.
                return Ok(next);
            }
            next
        }
        Change::Reconfigure(new) => {
            let next = reconfigure(state, new);
            let emptied = services_without_endpoints(state, &next, new);
            if !emptied.is_empty() {
                return Err(emptied);
            }
            next
        }
    };
    next.generation = state.generation.next();
    if let Change::Promote(_) | Change::Rollback { .. } = change {
        let promotion = Arc::make_mut(&mut next.promotion);
        promotion.generation = next.generation;
        promotion.is_rollback = matches!(change, Change::Rollback { .. });
        promotion.reason.clone_from(reason);
        if terms.skips_gates {
            // Nothing is known of what runs there now.
            let services = changed_colors(state, &next);
            forget_manifests(&mut next, &services);
        }
        for (key, json) in &terms.manifests {
            next.manifests.insert(key.clone(), Arc::clone(json));
        }
    }
    // Also if its content is the same: another version may run there now.
    for (service, color) in set_pools(change) {
        next.manifests.remove(&ManifestKey { service, color });
    }
    forget_changed_manifests(state, &mut next);
    end_together(state, &mut next);
    note_changes(state, &mut next, Some(change), now_ms);
    Ok(next)
}

fn about(service: &ServiceName, problem: ReasonKind) -> Vec<RefusalReason> {
    vec![RefusalReason { service: Some(service.clone()), problem }]
}

/// The pools that a change sets.
fn set_pools(change: &Change) -> Vec<(ServiceName, Color)> {
    match change {
        Change::SetPool { service, color, .. } => vec![(service.clone(), *color)],
        Change::Rollout(RolloutChange::SetPools(pools)) => {
            pools.iter().map(|(service, (color, _))| (service.clone(), *color)).collect()
        }
        _ => Vec::new(),
    }
}

/// The services with another active color.
fn changed_colors(before: &State, next: &State) -> Vec<ServiceName> {
    let has_moved = |it: &Difference<'_, ServiceName, Arc<ServiceState>>| match it {
        Difference::Changed(_, old, new) => old.active != new.active,
        Difference::Added(..) | Difference::Removed(..) => true,
    };
    let differences = before.services.differences(&next.services);
    let moved = differences.into_iter().filter(has_moved);
    let name = |it| match it {
        Difference::Added(name, _)
        | Difference::Changed(name, ..)
        | Difference::Removed(name, _) => ServiceName::clone(name),
    };
    moved.map(name).collect()
}

/// Removes the manifests of both pools of these services.
fn forget_manifests(next: &mut State, services: &[ServiceName]) {
    for service in services {
        for color in Color::BOTH {
            next.manifests.remove(&ManifestKey { service: service.clone(), color });
        }
    }
}

/// Removes the manifests of the pools that have changed: another version may run there now.
fn forget_changed_manifests(before: &State, next: &mut State) {
    for difference in before.services.differences(&next.services) {
        let (name, old, new) = match difference {
            Difference::Changed(name, old, new) => (name.clone(), old.clone(), Some(new.clone())),
            Difference::Removed(name, old) => (name.clone(), old.clone(), None),
            Difference::Added(..) => continue,
        };
        for color in Color::BOTH {
            let is_same =
                new.as_ref().is_some_and(|it| it.pool(color).spec() == old.pool(color).spec());
            if !is_same {
                next.manifests.remove(&ManifestKey { service: name.clone(), color });
            }
        }
    }
}

/// The state with an approval of a pool.
fn approve(
    state: &State,
    catalog: &Catalog,
    name: &ServiceName,
    (color, version): (Color, Option<&Version>),
    actor: Option<&Actor>,
    now: u64,
) -> Result<State, ReasonKind> {
    let spec = catalog.services().get(name).ok_or(ReasonKind::UnknownService)?;
    if state.damaged.contains_key(name) {
        return Err(ReasonKind::Damaged);
    }
    let service = state.services.get(name).ok_or(ReasonKind::UnknownService)?;
    if spec.gate.approval.is_none() {
        return Err(ReasonKind::NoApprovalGate(name.clone()));
    }
    if service.active == color {
        return Err(ReasonKind::AlreadyActive(color));
    }
    let pool = service.pool(color).spec();
    if pool.endpoints.is_empty() {
        return Err(ReasonKind::NoEndpoints(color));
    }
    if let Some(wanted) = version.filter(|it| pool.version.as_ref() != Some(*it)) {
        let found = pool.version.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        return Err(ReasonKind::OtherVersion { color, wanted: wanted.clone(), found });
    }
    let by = actor.map_or("flipgate", |it| it.name.as_str()).into();
    let is_authenticated = actor.is_some_and(|it| it.is_authenticated);
    let mut service = ServiceState::clone(service);
    service.approve(Approval { color, by, is_authenticated, at: now });
    let mut next = state.clone();
    next.services.insert(name.clone(), Arc::new(service));
    Ok(next)
}
