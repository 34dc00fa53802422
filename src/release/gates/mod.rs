//! The gates, one per file, and the order in which they run.

mod approval;
mod compatible;
mod healthy;
mod hook;
mod shadow;
mod smoke;
mod warm_up;

use super::{
    candidate::Direction,
    gate::{Gate, GateName},
};
use crate::model::GateSettings;

/// The gate for the health of the candidate, which always runs.
pub(super) fn healthy() -> Box<dyn Gate> {
    Box::new(healthy::Healthy)
}

/// The gate for the compatibility of both versions, if it is configured.
pub(super) fn compatible(settings: &GateSettings) -> Vec<Box<dyn Gate>> {
    let mut gates = gates(settings, Direction::Rollback);
    gates.retain(|it| it.name() == GateName::Compatible);
    gates
}

/// The gates that are configured, in the order in which they run. A rollback runs only `healthy` and `compatible`.
pub(super) fn gates(settings: &GateSettings, direction: Direction) -> Vec<Box<dyn Gate>> {
    let mut gates: Vec<Box<dyn Gate>> = vec![healthy()];
    let GateSettings {
        deadline: _,
        healthy: _,
        approval,
        compatible,
        smoke,
        warm_up,
        shadow,
        hook,
        preconnect: _,
    } = settings;
    gates.extend(approval.clone().map(|it| Box::new(approval::Approved(it)) as _));
    gates.extend(compatible.clone().map(|it| Box::new(compatible::Compatible(it)) as _));
    if !smoke.is_empty() {
        gates.push(Box::new(smoke::Smoke(smoke.clone())));
    }
    gates.extend(warm_up.clone().map(|it| Box::new(warm_up::WarmUp(it)) as _));
    gates.extend(shadow.clone().map(|it| Box::new(shadow::Shadow(it)) as _));
    gates.extend(hook.clone().map(|it| Box::new(hook::Hook(it)) as _));
    gates.retain(|it| match direction {
        Direction::Promote => true,
        Direction::Rollback => matches!(it.name(), GateName::Healthy | GateName::Compatible),
    });
    debug_assert!(gates.is_sorted_by_key(|it| it.name()), "the order of `GateName`");
    gates
}
