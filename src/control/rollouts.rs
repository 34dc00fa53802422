//! What a rollout does to the state: its own position, and the pools of its services.
//!
//! A change that a rollout makes and the rollout's new position are one commit, so that a restarted process knows what
//! was done.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    model::{Color, Generation, PoolSpec, RolloutId, ServiceName},
    store::ServiceState,
};

/// A change of a rollout that no other caller makes.
#[derive(Clone, Debug)]
pub enum RolloutChange {
    /// It begins.
    Begin {
        /// The caller.
        owner: Arc<str>,
        /// Its services.
        services: Vec<ServiceName>,
    },
    /// It goes on. Nothing but its position changes.
    Advance,
    /// It sets the pools of its services, all in one step.
    SetPools(BTreeMap<ServiceName, (Color, PoolSpec)>),
    /// It puts all pools back that it has set to this, and that are still so.
    RestorePools(BTreeMap<ServiceName, (Color, PoolSpec)>),
}

/// The next position of a rollout, which is committed together with a change.
#[derive(Clone, Debug)]
pub struct RolloutStep {
    /// The rollout.
    pub id: RolloutId,
    /// The version that the step was decided on.
    pub expected: u64,
    /// The next record.
    pub record: Arc<str>,
    /// Whether the rollout is over then.
    pub is_over: bool,
    /// Pools that have to be like this, or nothing is done: what is promoted is what was deployed.
    pub pools: BTreeMap<ServiceName, (Color, PoolSpec)>,
}

/// Whether a pool has the version and the endpoints that a rollout has set.
#[must_use]
pub fn is_as_set(service: &ServiceState, color: Color, set: &PoolSpec) -> bool {
    let spec = service.pool(color).spec();
    (&spec.version, &spec.endpoints) == (&set.version, &set.endpoints)
}

/// Whether the promotion of a rollout still stands for a service: the candidate is active, and no other promotion came
/// after it.
#[must_use]
pub fn still_promoted(service: &ServiceState, candidate: Color, promoted: Generation) -> bool {
    let since = service.history.last().map(|it| it.from);
    service.active == candidate && since.is_none_or(|it| it <= promoted)
}
