//! A list of pools with changes, so that the care task does not poll all of them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use tokio::sync::Notify;

use crate::model::{Color, ServiceName};

/// The pools with changes. Each is listed at most once.
#[derive(Debug, Default)]
pub struct AlertQueue {
    queued: Mutex<Vec<(ServiceName, Color)>>,
    notify: Notify,
}

/// Lists one pool, and the pools that replace it, as changed.
#[derive(Debug)]
pub(super) struct PoolAlert {
    alerts: Arc<AlertQueue>,
    service: ServiceName,
    color: Color,
    is_queued: AtomicBool,
}

// === impl AlertQueue ===

impl AlertQueue {
    /// Waits until a pool has changes. Cancel-safe.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Takes the list. A pool is listed again at its next change.
    #[must_use]
    pub fn take(&self) -> Vec<(ServiceName, Color)> {
        std::mem::take(&mut *self.queued.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
impl AlertQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

// === impl PoolAlert ===

impl PoolAlert {
    pub(super) fn new(alerts: &Arc<AlertQueue>, service: ServiceName, color: Color) -> Self {
        Self { alerts: Arc::clone(alerts), service, color, is_queued: AtomicBool::new(false) }
    }

    /// Lists the pool, unless it is listed.
    pub(super) fn raise(&self) {
        if self.is_queued.load(SeqCst) || self.is_queued.swap(true, SeqCst) {
            return;
        }
        let queued = (self.service.clone(), self.color);
        self.alerts.queued.lock().unwrap_or_else(PoisonError::into_inner).push(queued);
        self.alerts.notify.notify_one();
    }

    /// The next change lists the pool again. Call it before reading the changes.
    pub(super) fn clear(&self) {
        self.is_queued.store(false, SeqCst);
    }
}
