//! A list of the pools with news, so that endpoint care does not have to poll all of them.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use tokio::sync::Notify;

use crate::model::{Color, ServiceName};

/// The pools that have something to tell. Each stands here at most once.
#[derive(Debug, Default)]
pub struct AlertQueue {
    queued: Mutex<Vec<(ServiceName, Color)>>,
    notify: Notify,
}

/// The way of one pool, and of those that follow it, onto the list.
#[derive(Debug)]
pub(super) struct PoolAlert {
    alerts: Arc<AlertQueue>,
    service: ServiceName,
    color: Color,
    is_queued: AtomicBool,
}

// === impl AlertQueue ===

impl AlertQueue {
    /// Waits until a pool has something to tell. Nothing is lost when the future is dropped.
    pub async fn notified(&self) {
        self.notify.notified().await;
    }

    /// Takes the list. A pool is listed again with its next news.
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

    /// Puts the pool on the list, unless it is there.
    pub(super) fn raise(&self) {
        if self.is_queued.load(SeqCst) || self.is_queued.swap(true, SeqCst) {
            return;
        }
        let queued = (self.service.clone(), self.color);
        self.alerts.queued.lock().unwrap_or_else(PoisonError::into_inner).push(queued);
        self.alerts.notify.notify_one();
    }

    /// What rings from now on is heard of again. To be called before looking at what there is to tell.
    pub(super) fn clear(&self) {
        self.is_queued.store(false, SeqCst);
    }
}
