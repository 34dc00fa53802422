//! Plans gradual promotions: they begin, are raised step by step, and are taken back. Pure, as `plan` is.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    reasons::{ReasonKind, RefusalReason},
    share_steps::ShareSteps,
    watches::{after, change},
};
use crate::{
    model::{Color, Generation, ServiceName},
    store::{ServiceState, ShareState, State},
};

/// Begins a gradual promotion of colors that may be promoted. One in progress of the same color goes on with these steps, and
/// with the clients that it has moved. `next` is the state before, with its generation.
pub(super) fn begin(
    next: &mut State,
    colors: &BTreeMap<ServiceName, Color>,
    steps: &ShareSteps,
    now_ms: u64,
) {
    let ShareSteps { percents, step_for, has_first, secret } = steps;
    let services: Vec<_> = colors.keys().cloned().collect();
    let generation = next.generation.next();
    // Services that join others move with them: the same clients, and as one promotion.
    let known = colors.iter().filter_map(|(name, color)| {
        let share = next.services.get(name)?.share.as_ref().filter(|it| it.color == *color)?;
        Some((share.generation, share.secret))
    });
    let known: Vec<_> = known.collect();
    let joined = known.iter().min_by_key(|it| it.0).map_or(*secret, |it| it.1);
    // One promotion has one generation. It goes on as the one that it was, if no other joins it.
    let goes_on = known.len() == colors.len() && known.iter().all(|it| it.0 == known[0].0);
    let generation = if goes_on { known[0].0 } else { generation };
    for (name, color) in colors {
        change(next, name, |service| {
            let before = service.share.take().filter(|it| it.color == *color);
            let secret = before.map_or(joined, |it| it.secret);
            service.share = Some(ShareState {
                generation,
                color: *color,
                steps: percents.clone(),
                step: 0,
                step_for: *step_for,
                until: after(now_ms, *step_for),
                services: services.clone(),
                has_first: *has_first,
                secret,
            });
            service.note_share();
        });
    }
}

/// The state with the next step of these services, which are at the gradual promotion of this generation.
pub(super) fn raise(
    state: &State,
    services: &[ServiceName],
    generation: Generation,
    now_ms: u64,
) -> Result<State, Vec<RefusalReason>> {
    check(state, services, Some(generation))?;
    let mut next = state.clone();
    for name in services {
        change(&mut next, name, |service| {
            if let Some(share) = service.share.as_mut().filter(|it| it.next_percent().is_some()) {
                share.step += 1;
                share.until = after(now_ms, share.step_for);
                service.note_share();
            }
        });
    }
    Ok(next)
}

/// The state without the gradual promotions of these services: every client is back on the active color. Refused if none of
/// them is at the one of this generation, or at any.
pub(super) fn take_back(
    state: &State,
    services: &[ServiceName],
    generation: Option<Generation>,
) -> Result<State, Vec<RefusalReason>> {
    let is_at = |it: &ShareState| generation.is_none_or(|generation| it.generation == generation);
    let mut next = state.clone();
    let mut has_ended = false;
    for name in services {
        change(&mut next, name, |it| {
            if it.share.as_ref().is_some_and(is_at) {
                has_ended = true;
                it.share = None;
                // A rollback must not bring back what was taken back, as after a rollback. But the promotion before may
                // still have to be taken back.
                if it.watch.is_none() && it.confirmation.is_none() {
                    it.previous = None;
                }
            }
        });
    }
    if has_ended { Ok(next) } else { check(state, services, generation).map(|()| next) }
}

/// Refuses a change of services that are not at the gradual promotion of this generation, or at any.
pub(super) fn check(
    state: &State,
    services: &[ServiceName],
    generation: Option<Generation>,
) -> Result<(), Vec<RefusalReason>> {
    let is_at = |it: &Arc<ServiceState>| {
        it.share.as_ref().is_some_and(|it| generation.is_none_or(|other| it.generation == other))
    };
    let others = services.iter().filter(|it| !state.services.get(*it).is_some_and(is_at));
    let problem = if generation.is_some() { ReasonKind::Superseded } else { ReasonKind::NoShare };
    let reason = |name: &ServiceName| RefusalReason {
        service: Some(name.clone()),
        problem: problem.clone(),
    };
    let reasons: Vec<_> = others.map(reason).collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

#[cfg(test)]
mod tests;
