//! The rollouts of a state: what the rest of Flipgate has to know of them. How far a rollout is stands in its record, a
//! text that only `rollout` reads.

use std::sync::Arc;

use super::pool_state::PoolState;
use crate::model::{Color, Generation, ServiceName};

/// A rollout, as the state has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RolloutState {
    /// How many entries its record has: a rollout goes on only from the version that it was decided on.
    pub version: u64,
    /// The caller that began it, as the audit log names it.
    pub owner: Arc<str>,
    /// Its services. While it is not over, other promotions and pools of these services are refused.
    pub services: Vec<ServiceName>,
    /// When it was over, in milliseconds of Unix time.
    pub ended_at: Option<u64>,
    /// The generation of its promotion, until that is taken back by the rollout.
    pub promoted: Option<Generation>,
    /// The pools that it has set, as they were before.
    pub before: Vec<PoolBefore>,
    /// Its record.
    pub record: Arc<str>,
}

/// A pool before a rollout has set it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolBefore {
    /// The service.
    pub service: ServiceName,
    /// The color.
    pub color: Color,
    /// The pool.
    pub pool: PoolState,
}

// === impl RolloutState ===

impl RolloutState {
    /// The most rollouts that are kept after their end.
    pub const KEPT_MAX: usize = 100;

    /// For how long a rollout is kept after its end, in milliseconds.
    pub const KEPT_MS: u64 = 30 * 24 * 3600 * 1000;

    /// The longest record, in bytes.
    pub const RECORD_MAX: usize = 512 * 1024;

    /// Whether it may still change something.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ended_at.is_none()
    }
}
