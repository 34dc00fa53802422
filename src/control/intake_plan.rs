//! Plans holds and maintenance. Pure, as `plan` is.

use std::sync::Arc;

use super::{
    audited::caller, catalog::Catalog, change::Actor, holds::timestamp, intake::IntakeChange,
    reasons::ReasonKind,
};
use crate::{
    continuity::{HoldTerm, Maintenance},
    model::ServiceName,
    store::State,
};

/// The state after a change.
pub(super) fn plan_intake(
    state: &State,
    catalog: &Catalog,
    service: &ServiceName,
    change: &IntakeChange,
    actor: Option<&Actor>,
    now_ms: u64,
) -> Result<State, ReasonKind> {
    let is_known = state.holds.contains_key(service) || state.maintenance.contains_key(service);
    let spec = catalog.services().get(service);
    if spec.is_none() && !is_known {
        return Err(ReasonKind::UnknownService);
    }
    let owner = || caller(actor, Actor::INTERNAL).0.into();
    let mut next = state.clone();
    match change {
        IntakeChange::Hold { length, places, force } => {
            let settings = &spec.ok_or(ReasonKind::UnknownService)?.hold;
            let owner: Arc<str> = owner();
            let length = length.unwrap_or(settings.length);
            let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
            let until_ms = now_ms.saturating_add(length_ms);
            let places = places.unwrap_or(settings.places);
            // A hold that is over is not in the way; its end is written in a moment.
            let old = state.holds.get(service).filter(|it| !it.left(now_ms).is_zero());
            let (id, began_ms) = match old {
                Some(old) if old.owner == owner => (old.id, old.began_ms),
                Some(old) if !force => {
                    let (owner, until) = (old.owner.to_string(), timestamp(old.until_ms));
                    return Err(ReasonKind::HeldByOther { owner, until: until.to_string() });
                }
                // No other commit has this number.
                _ => (state.revision.next().0, now_ms),
            };
            let term = HoldTerm { id, owner, began_ms, set_ms: now_ms, until_ms, places };
            next.holds.insert(service.clone(), Arc::new(term));
        }
        IntakeChange::Release { id, is_over: _ } => {
            let is_meant = |it: &Arc<HoldTerm>| id.is_none_or(|id| it.id == id);
            if state.holds.get(service).is_some_and(is_meant) {
                next.holds.remove(service);
            }
        }
        IntakeChange::BeginMaintenance { page, retry_after, except_internal } => {
            spec.ok_or(ReasonKind::UnknownService)?;
            let (page, retry_after, except_internal) =
                (page.clone(), *retry_after, *except_internal);
            let maintenance = Maintenance {
                owner: owner(),
                since_ms: now_ms,
                page,
                retry_after,
                except_internal,
            };
            next.maintenance.insert(service.clone(), Arc::new(maintenance));
        }
        IntakeChange::EndMaintenance => drop(next.maintenance.remove(service)),
    }
    Ok(next)
}
