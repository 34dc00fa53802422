//! What the handle and the control task share.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::watch;

use super::{
    catalog::Catalog, endings::Endings, events::Events, refusals::Refusals,
    removed::RemovedServices,
};
use crate::{
    continuity::HoldLimits,
    metrics::Metrics,
    store::{State, Store},
    switch::Ledger,
    upstream::{PoolContext, Pools, ServiceSwitch},
};

/// The applied state, the configuration, and the pools that follow from both.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The state.
    pub state: State,
    /// The configuration.
    pub catalog: Arc<Catalog>,
    /// The pools of all configured services.
    pub pools: Pools,
}

#[derive(Debug)]
pub(super) struct ControlShared {
    pub(super) store: Arc<dyn Store>,
    pub(super) switch: Arc<ServiceSwitch>,
    pub(super) ledger: Arc<Ledger<Instant>>,
    pub(super) metrics: Metrics,
    pub(super) parts: PoolContext,
    pub(super) events: Arc<Events>,
    pub(super) endings: Arc<Endings>,
    pub(super) removed: Arc<RemovedServices>,
    pub(super) refusals: Refusals,
    pub(super) hold_limits: Arc<HoldLimits>,
    /// What the switch has. Both are replaced together, under the lock of this channel.
    pub(super) applied: watch::Sender<Arc<Applied>>,
    pub(super) pools: watch::Sender<Pools>,
    /// Since when the control task has been working on a change; `None` while it waits for one.
    pub(super) busy: Mutex<Option<Instant>>,
    /// When the state was read, in Unix seconds: the age of keys without a time counts from here.
    pub(super) began: u64,
}

// === impl ControlShared ===

impl ControlShared {
    pub(super) fn applied(&self) -> Arc<Applied> {
        Arc::clone(&self.applied.borrow())
    }

    pub(super) fn set_busy(&self, since: Option<Instant>) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    pub(super) fn busy_for(&self) -> Option<Duration> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).map(|it| it.elapsed())
    }
}

/// The time, in seconds of Unix time.
pub(super) fn unix_seconds() -> u64 {
    unix_millis() / 1000
}

/// The time, in milliseconds of Unix time.
pub(super) fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
