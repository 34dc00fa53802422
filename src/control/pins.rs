//! Plans what pins need: the history of the active colors, and the keys. Pure, as `plan` is.

use std::{sync::Arc, time::Duration};

use super::{
    catalog::Catalog,
    change::Change,
    reasons::{ReasonKind, RefusalReason},
};
use crate::{
    continuity::PinKey,
    model::{Color, Difference, Generation, ServiceName},
    store::{PinKeyState, PoolState, ServiceState, State},
};

/// Writes what a change means for pins into the state after it, which has its generation already.
pub(super) fn note_changes(before: &State, next: &mut State, change: Option<&Change>, now_ms: u64) {
    let is_rollback = matches!(change, Some(Change::Rollback { .. }));
    let differences: Vec<(ServiceName, Option<Arc<ServiceState>>)> = before
        .services
        .differences(&next.services)
        .into_iter()
        .filter_map(|it| match it {
            Difference::Added(name, _) => Some((name.clone(), None)),
            Difference::Changed(name, old, _) => Some((name.clone(), Some(Arc::clone(old)))),
            Difference::Removed(..) => None,
        })
        .collect();
    let generation = next.generation;
    for (name, old) in differences {
        update(next, &name, |service| {
            note_service(service, old.as_deref(), (generation, is_rollback), now_ms);
        });
    }
    if let Some(Change::SetPool { service, color, .. }) = change {
        // Also if its content is the same: another version may run there now.
        update(next, service, |it| it.pool_mut(*color).pins_since = generation);
    }
}

fn note_service(
    service: &mut ServiceState,
    old: Option<&ServiceState>,
    (generation, is_rollback): (Generation, bool),
    now_ms: u64,
) {
    let Some(old) = old else {
        // Nothing is known of what was there before.
        for color in Color::BOTH {
            service.pool_mut(color).pins_since = generation;
        }
        return;
    };
    for color in Color::BOTH {
        let has_moved = |one: &PoolState, two: &PoolState| one.spec() != two.spec();
        if has_moved(old.pool(color), service.pool(color)) {
            service.pool_mut(color).pins_since = generation;
        }
    }
    if let Some(share) = old.share.as_ref().filter(|_| service.share.is_none())
        && service.active != share.color
    {
        // It was taken back.
        service.pool_mut(share.color).pins_since = generation;
    }
    if old.active != service.active {
        service.note_flip(generation, old.active, now_ms);
        if is_rollback {
            // No client stays on the version that is taken back.
            service.pool_mut(old.active).pins_since = generation;
        }
    }
}

fn update(state: &mut State, name: &ServiceName, change: impl FnOnce(&mut ServiceState)) {
    let Some(service) = state.services.get(name) else { return };
    let mut changed = ServiceState::clone(service);
    change(&mut changed);
    if changed != **service {
        state.services.insert(name.clone(), Arc::new(changed));
    }
}

/// Adds the first key if a service has pins and there is none.
pub(super) fn need_key(next: &mut State, catalog: &Catalog, secret: impl FnOnce() -> [u8; 16]) {
    if next.pin_keys.is_empty() && has_pins(catalog) {
        let key = PinKey { id: 1, secret: secret() };
        next.pin_keys.push(PinKeyState { key, retired_at: None });
    }
}

/// The state with a new key. Old ones go on verifying for as long as a pin can last, and then are forgotten.
pub(super) fn rotate(
    state: &State,
    catalog: &Catalog,
    secret: [u8; 16],
    now_ms: u64,
) -> Result<State, Vec<RefusalReason>> {
    if !has_pins(catalog) {
        return Err(vec![RefusalReason { service: None, problem: ReasonKind::NoPins }]);
    }
    let mut next = state.clone();
    let pins = catalog.services().values().filter_map(|it| it.pins.as_ref());
    let longest = pins.map(|it| it.max_age).max().unwrap_or_default();
    for it in &mut next.pin_keys {
        it.retired_at = it.retired_at.or(Some(now_ms));
    }
    next.pin_keys.retain(|it| is_valid(it, longest, now_ms));
    let id = next.pin_keys.iter().map(|it| it.key.id).max().unwrap_or_default();
    let key = PinKey { id: id.saturating_add(1), secret };
    next.pin_keys.push(PinKeyState { key, retired_at: None });
    Ok(next)
}

/// Whether a key verifies pins of a service with this `max_age`.
pub(super) fn is_valid(key: &PinKeyState, max_age: Duration, now_ms: u64) -> bool {
    let max_age = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
    key.retired_at.is_none_or(|it| now_ms < it.saturating_add(max_age))
}

fn has_pins(catalog: &Catalog) -> bool {
    catalog.services().values().any(|it| it.pins.is_some())
}
