//! Plans promotions and rollbacks.

use std::{collections::BTreeMap, sync::Arc};

use super::about;
use crate::{
    control::{
        catalog::Catalog,
        reasons::{ReasonKind, RefusalReason},
    },
    model::{Color, ServiceName},
    store::{Promotion, ServiceState, State},
};

pub(super) fn promote(
    state: &State,
    catalog: &Catalog,
    colors: &BTreeMap<ServiceName, Color>,
) -> Result<State, Vec<RefusalReason>> {
    let mut next = state.clone();
    let mut reasons = Vec::new();
    if colors.is_empty() {
        reasons.push(RefusalReason { service: None, problem: ReasonKind::NothingNamed });
    }
    for (name, color) in colors {
        if let Err(problem) = promote_one(&mut next, catalog, name, *color) {
            reasons.push(RefusalReason { service: Some(name.clone()), problem });
        }
    }
    let services = colors.keys().cloned().collect();
    next.promotion = Arc::new(Promotion { services, ..Promotion::default() });
    if reasons.is_empty() { Ok(next) } else { Err(reasons) }
}

fn promote_one(
    next: &mut State,
    catalog: &Catalog,
    name: &ServiceName,
    color: Color,
) -> Result<(), ReasonKind> {
    let spec = catalog.services().get(name).ok_or(ReasonKind::UnknownService)?;
    if next.damaged.contains_key(name) {
        // The active color is all that was lost for good, and the operator names it.
        if spec.pool(color).endpoints.is_empty() {
            return Err(ReasonKind::NoEndpoints(color));
        }
        let fresh = ServiceState::fresh(color, spec.blue.clone(), spec.green.clone());
        next.damaged.remove(name);
        next.services.insert(name.clone(), Arc::new(fresh));
        return Ok(());
    }
    let service = next.services.get(name).ok_or(ReasonKind::UnknownService)?;
    if service.active == color {
        return Err(ReasonKind::AlreadyActive(color));
    }
    if service.pool(color).spec().endpoints.is_empty() {
        return Err(ReasonKind::NoEndpoints(color));
    }
    let mut service = ServiceState::clone(service);
    service.promote(color);
    next.services.insert(name.clone(), Arc::new(service));
    Ok(())
}

/// Refuses a gradual promotion of a service with a damaged state: its active color is not known.
pub(super) fn check_known(
    state: &State,
    colors: &BTreeMap<ServiceName, Color>,
) -> Result<(), Vec<RefusalReason>> {
    let damaged = colors.keys().filter(|it| state.damaged.contains_key(*it));
    let reasons: Vec<_> = damaged.flat_map(|it| about(it, ReasonKind::Damaged)).collect();
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// The color of each service before its last promotion.
pub(super) fn colors_before(
    state: &State,
    catalog: &Catalog,
    names: &[ServiceName],
    force: bool,
) -> Result<BTreeMap<ServiceName, Color>, Vec<RefusalReason>> {
    if names.is_empty() {
        return Err(vec![RefusalReason { service: None, problem: ReasonKind::NothingPromoted }]);
    }
    let mut colors = BTreeMap::new();
    let mut reasons = Vec::new();
    for name in names {
        let known = state.services.get(name).filter(|_| catalog.services().contains_key(name));
        let problem = match known {
            None if state.damaged.contains_key(name) => ReasonKind::Damaged,
            None => ReasonKind::UnknownService,
            Some(service) => match service.previous {
                Some(color) if service.pool(color).served || force => {
                    colors.insert(name.clone(), color);
                    continue;
                }
                Some(color) => ReasonKind::ChangedSince(color),
                None => ReasonKind::NeverPromoted,
            },
        };
        reasons.push(RefusalReason { service: Some(name.clone()), problem });
    }
    if reasons.is_empty() { Ok(colors) } else { Err(reasons) }
}
