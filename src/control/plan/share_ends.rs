//! What it means that a gradual promotion has ended without its last step: the others of it end too, and the state says so.

use std::sync::Arc;

use crate::{
    control::{
        audited::caller,
        change::{Actor, ChangeRequest},
        shares::take_back,
    },
    model::{Difference, ServiceName},
    store::{ServiceState, ShareEnd, State},
};

/// Notes the gradual promotions that `call` has taken back, and forgets those that are of no interest any more: another
/// promotion has begun, or other endpoints are there.
pub(super) fn note_share_ends(before: &State, next: &mut State, call: &ChangeRequest, now_ms: u64) {
    let changed = before.services.differences(&next.services).into_iter();
    let changed: Vec<(ServiceName, Arc<ServiceState>)> = changed
        .filter_map(|it| match it {
            Difference::Changed(name, old, _) => Some((name.clone(), Arc::clone(old))),
            Difference::Added(..) | Difference::Removed(..) => None,
        })
        .collect();
    for (name, old) in changed {
        let Some(new) = next.services.get(&name) else { continue };
        let is_over = old.share.is_some() && new.share.is_none() && new.active == old.active;
        let ended = old.share.as_ref().filter(|_| is_over).map(|share| {
            let (actor, from) = caller(call.actor.as_ref(), "reload");
            let by = if call.actor.as_ref().is_some_and(Actor::is_internal) { from } else { actor };
            let reason = call.reason.as_deref().map(Into::into);
            ShareEnd { color: share.color, at: now_ms, by: by.into(), reason }
        });
        let is_of_interest = |it: &ShareEnd| {
            let is_same = old.pool(it.color).spec() == new.pool(it.color).spec();
            is_same && new.share.is_none() && new.active == old.active
        };
        let share_end = ended.or_else(|| new.share_end.clone().filter(is_of_interest));
        if share_end != new.share_end {
            let service = ServiceState { share_end, ..ServiceState::clone(new) };
            next.services.insert(name, Arc::new(service));
        }
    }
}

/// Takes back the gradual promotions of services that are promoted together with one that has other endpoints now.
pub(super) fn end_together(before: &State, next: &mut State) {
    let ended = before.services.differences(&next.services).into_iter().filter_map(|it| match it {
        Difference::Changed(_, old, new) => {
            let share = old.share.as_ref().filter(|_| new.share.is_none())?;
            let is_replaced = old.pool(share.color).spec() != new.pool(share.color).spec();
            is_replaced.then(|| (share.generation, share.services.clone()))
        }
        Difference::Added(..) | Difference::Removed(..) => None,
    });
    let ended: Vec<_> = ended.collect();
    for (generation, services) in ended {
        // None of them may be left.
        if let Ok(taken_back) = take_back(next, &services, Some(generation)) {
            *next = taken_back;
        }
    }
}
