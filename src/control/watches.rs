//! Plans what follows a promotion: its watch and its confirmation. Pure, as `plan` is.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    catalog::Catalog,
    change::PromotionTerms,
    reasons::{ReasonKind, RefusalReason},
};
use crate::{
    model::{Color, Generation, ServiceName, WatchResult},
    store::{Confirmation, ServiceState, State, WatchEnd, WatchState},
};

/// Begins the watches and the confirmation of a promotion. `next` is the state after it, with the generation before.
pub(super) fn begin_watches(
    next: &mut State,
    catalog: &Catalog,
    colors: &BTreeMap<ServiceName, Color>,
    terms: &PromotionTerms,
    now_ms: u64,
) {
    let services: Vec<_> = colors.keys().cloned().collect();
    let generation = next.generation.next();
    for name in colors.keys() {
        let settings = catalog.services().get(name).and_then(|it| it.watch.as_ref());
        let watch = settings.map(|it| WatchState {
            generation,
            until: after(now_ms, it.time),
            services: services.clone(),
            before: terms.before.get(name).copied().unwrap_or_default(),
        });
        let confirmation = terms.confirm_within.map(|it| Confirmation {
            generation,
            until: after(now_ms, it),
            services: services.clone(),
        });
        change(next, name, |it| (it.watch, it.confirmation) = (watch, confirmation));
    }
}

/// The state with a later confirmation, if all of these colors are active already and wait for theirs. `None` for any
/// other call.
pub(super) fn extend_confirmation(
    state: &State,
    colors: &BTreeMap<ServiceName, Color>,
    terms: &PromotionTerms,
    now_ms: u64,
) -> Option<State> {
    let until = after(now_ms, terms.confirm_within?);
    let waits = |(name, color): (&ServiceName, &Color)| {
        let service = state.services.get(name);
        service.is_some_and(|it| it.active == *color && it.confirmation.is_some())
    };
    if colors.is_empty() || !colors.iter().all(waits) {
        return None;
    }
    let mut next = state.clone();
    for name in colors.keys() {
        change(&mut next, name, |it| {
            if let Some(confirmation) = &mut it.confirmation {
                confirmation.until = until;
            }
        });
    }
    Some(next)
}

/// Refuses a rollback that takes back a promotion which another change has replaced.
pub(super) fn check_takes_back(
    state: &State,
    colors: &BTreeMap<ServiceName, Color>,
    terms: &PromotionTerms,
) -> Result<(), Vec<RefusalReason>> {
    let Some(generation) = terms.takes_back else { return Ok(()) };
    let is_superseded =
        |name: &&ServiceName| !state.services.get(*name).is_some_and(|it| follows(it, generation));
    let reason = |name: &ServiceName| RefusalReason {
        service: Some(name.clone()),
        problem: ReasonKind::Superseded,
    };
    let superseded: Vec<_> = colors.keys().filter(is_superseded).map(reason).collect();
    if superseded.is_empty() { Ok(()) } else { Err(superseded) }
}

/// Whether a service has a watch or a confirmation of a promotion.
fn follows(service: &ServiceState, generation: Generation) -> bool {
    service.watch.as_ref().is_some_and(|it| it.generation == generation)
        || service.confirmation.as_ref().is_some_and(|it| it.generation == generation)
}

/// The state without the confirmations of these services, or of all.
pub(super) fn confirm(
    state: &State,
    services: &[ServiceName],
) -> Result<State, Vec<RefusalReason>> {
    let waits = |it: &ServiceState| it.confirmation.is_some();
    let mut names = services.to_vec();
    if names.is_empty() {
        names = state.services.iter().filter(|(_, it)| waits(it)).map(|it| it.0.clone()).collect();
    }
    let reason = |service, problem| RefusalReason { service, problem };
    if names.is_empty() {
        return Err(vec![reason(None, ReasonKind::NoConfirmations)]);
    }
    let mut next = state.clone();
    let mut reasons = Vec::new();
    for name in names {
        match state.services.get(&name) {
            Some(service) if waits(service) => {
                change(&mut next, &name, |it| it.confirmation = None);
            }
            Some(_) => reasons.push(reason(Some(name), ReasonKind::NothingToConfirm)),
            None => reasons.push(reason(Some(name), ReasonKind::UnknownService)),
        }
    }
    if reasons.is_empty() { Ok(next) } else { Err(reasons) }
}

/// The state without the watch of a service.
pub(super) fn end_watch(
    state: &State,
    name: &ServiceName,
    generation: Option<Generation>,
    result: WatchResult,
) -> Result<State, ReasonKind> {
    let service = state.services.get(name).ok_or(ReasonKind::UnknownService)?;
    let watch = service.watch.as_ref().ok_or(ReasonKind::NoWatch)?;
    if generation.is_some_and(|it| it != watch.generation) {
        return Err(ReasonKind::Superseded);
    }
    let mut next = state.clone();
    let end = WatchEnd { generation: watch.generation, result };
    change(&mut next, name, |it| (it.watch, it.last_watch) = (None, Some(end)));
    Ok(next)
}

/// The state without the confirmation of a promotion, which stays.
pub(super) fn give_up_confirmation(
    state: &State,
    name: &ServiceName,
    generation: Generation,
) -> Result<State, ReasonKind> {
    let service = state.services.get(name).ok_or(ReasonKind::UnknownService)?;
    match &service.confirmation {
        Some(it) if it.generation == generation => {}
        _ => return Err(ReasonKind::Superseded),
    }
    let mut next = state.clone();
    change(&mut next, name, |it| it.confirmation = None);
    Ok(next)
}

pub(super) fn change(
    state: &mut State,
    name: &ServiceName,
    change: impl FnOnce(&mut ServiceState),
) {
    if let Some(service) = state.services.get(name) {
        let mut service = ServiceState::clone(service);
        change(&mut service);
        state.services.insert(name.clone(), Arc::new(service));
    }
}

pub(super) fn after(now_ms: u64, time: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
