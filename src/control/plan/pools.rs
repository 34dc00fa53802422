//! Plans the content of pools: by a call, and by the configuration.

use std::sync::Arc;

use crate::{
    control::{
        catalog::Catalog,
        change::Change,
        reasons::{ReasonKind, RefusalReason},
        rollouts::RolloutChange,
    },
    model::{Color, OwnAddresses, PoolSpec, ServiceName},
    store::{ServiceState, State},
};

/// The endpoints of a change that are addresses of this process: their requests would come back.
pub(super) fn own_endpoints(own: &OwnAddresses, change: &Change) -> Vec<RefusalReason> {
    let found = |name: &ServiceName, spec: &PoolSpec| {
        let own = spec.endpoints.iter().find_map(|it| own.find(&it.endpoint))?;
        Some(RefusalReason { service: Some(name.clone()), problem: ReasonKind::OwnAddress(own) })
    };
    match change {
        Change::Promote(_)
        | Change::Rollback { .. }
        | Change::Approve { .. }
        | Change::Confirm(_)
        | Change::EndWatch { .. }
        | Change::GiveUpConfirmation { .. }
        | Change::RaiseShare { .. }
        | Change::TakeBackShare { .. }
        | Change::RotatePinKeys { .. }
        | Change::Intake { .. } => Vec::new(),
        Change::SetPool { service, spec, .. } => found(service, spec).into_iter().collect(),
        Change::Rollout(RolloutChange::SetPools(pools)) => {
            pools.iter().filter_map(|(name, (_, spec))| found(name, spec)).collect()
        }
        Change::Rollout(_) => Vec::new(),
        Change::Reconfigure(new) => {
            let pools = new.services().iter();
            let pools = pools.flat_map(|(name, it)| [(name, &it.blue), (name, &it.green)]);
            pools.filter_map(|(name, spec)| found(name, spec)).collect()
        }
    }
}

/// The state that follows from the state before and a configuration.
pub(in crate::control) fn reconfigure(state: &State, catalog: &Catalog) -> State {
    let mut next = state.clone();
    for (name, spec) in catalog.services() {
        if next.damaged.contains_key(name) {
            continue;
        }
        let mut service = match next.services.get(name) {
            Some(known) => {
                let differs = |color| known.differs_from_file(color, spec.pool(color));
                if !Color::BOTH.into_iter().any(differs) {
                    continue;
                }
                ServiceState::clone(known)
            }
            None => ServiceState::fresh(spec.active, spec.blue.clone(), spec.green.clone()),
        };
        for color in Color::BOTH {
            service.follow_file(color, spec.pool(color));
        }
        next.services.insert(name.clone(), Arc::new(service));
    }
    next
}

/// The services with an active pool that a configuration would leave without endpoints.
pub(super) fn services_without_endpoints(
    state: &State,
    next: &State,
    new: &Catalog,
) -> Vec<RefusalReason> {
    let active = |state: &State, name: &ServiceName| {
        let service = state.services.get(name)?;
        let has_none = service.pool(service.active).spec().endpoints.is_empty();
        Some((service.active, has_none))
    };
    let names = new.services().keys();
    names
        .filter_map(|name| match (active(state, name)?, active(next, name)?) {
            ((_, false), (color, true)) => {
                let problem = ReasonKind::ActiveEmptied(color);
                Some(RefusalReason { service: Some(name.clone()), problem })
            }
            _ => None,
        })
        .collect()
}

pub(super) fn set_pool(
    state: &State,
    catalog: &Catalog,
    name: &ServiceName,
    (color, spec, set_by): (Color, &PoolSpec, Option<Arc<str>>),
    force: bool,
) -> Result<State, ReasonKind> {
    if state.damaged.contains_key(name) {
        return Err(ReasonKind::Damaged);
    }
    let service = state.services.get(name).filter(|_| catalog.services().contains_key(name));
    let mut service = ServiceState::clone(service.ok_or(ReasonKind::UnknownService)?);
    let is_active = service.active == color;
    if is_active && !force {
        return Err(ReasonKind::PoolIsActive(color));
    }
    let is_candidate = service.share.as_ref().is_some_and(|it| it.color == color);
    if is_candidate && !force {
        return Err(ReasonKind::ShareInProgress(color));
    }
    if is_candidate {
        service.share = None;
    }
    if is_active && spec.endpoints.is_empty() {
        return Err(ReasonKind::ActiveEmptied(color));
    }
    let pool = service.pool_mut(color);
    // Version and endpoints change with every deployment; protocol and TLS are those of the file.
    pool.runtime = Some(PoolSpec { link: pool.file.link.clone(), ..spec.clone() });
    (pool.served, pool.shared, pool.set_by) = (is_active, false, set_by);
    service.revoke_approvals(color);
    let mut next = state.clone();
    next.services.insert(name.clone(), Arc::new(service));
    Ok(next)
}
