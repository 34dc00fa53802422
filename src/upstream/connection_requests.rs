//! Lets a worker that waits for a connection ask other workers to close idle connections to the endpoint,
//! which is at its connection limit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use super::pool::Pool;

/// The workers of a process, which can send requests to each other.
#[derive(Debug, Default)]
pub struct WorkerRegistry(Mutex<Vec<Weak<WorkerRequests>>>);

/// One worker's entry in the registry. Dropping it removes the worker.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    workers: Arc<WorkerRegistry>,
    requests: Arc<WorkerRequests>,
}

/// Requests of other workers that this worker has not taken yet.
#[derive(Debug, Default)]
struct WorkerRequests {
    notify: Notify,
    /// By address in memory, so that each pool is listed once.
    pools: Mutex<BTreeMap<usize, Arc<Pool>>>,
}

// === impl WorkerRegistry ===

impl WorkerRegistry {
    pub(super) fn register(self: &Arc<Self>) -> WorkerHandle {
        let requests = Arc::<WorkerRequests>::default();
        self.all().push(Arc::downgrade(&requests));
        WorkerHandle { workers: Arc::clone(self), requests }
    }

    /// The number of workers.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<WorkerRequests>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl WorkerHandle ===

impl WorkerHandle {
    /// Asks all other workers to close idle connections to the endpoints of a pool, or to any endpoint. Call it after
    /// the waiting request is in the queue, so that the workers see it there.
    pub(super) fn request_from_others(&self, pool: Option<&Arc<Pool>>) {
        for other in self.workers.all().iter().filter_map(Weak::upgrade) {
            if Arc::ptr_eq(&other, &self.requests) {
                continue;
            }
            if let Some(pool) = pool {
                other.pools().insert(Arc::as_ptr(pool).addr(), Arc::clone(pool));
            }
            other.notify.notify_one();
        }
    }

    /// Waits for requests of other workers, and returns the pools of all pending ones. Cancel-safe.
    pub(super) async fn requested(&self) -> impl Iterator<Item = Arc<Pool>> {
        self.requests.notify.notified().await;
        std::mem::take(&mut *self.requests.pools()).into_values()
    }
}

// === impl WorkerRequests ===

impl WorkerRequests {
    fn pools(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        let requests = Arc::downgrade(&self.requests);
        self.workers.all().retain(|it| !it.ptr_eq(&requests));
    }
}
