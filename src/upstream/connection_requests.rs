//! Has other workers give up idle connections to an endpoint that has as many as it may, when a request of this
//! worker waits for one.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::Notify;

use super::pool::Pool;

/// The workers of a process, to be called by each other.
#[derive(Debug, Default)]
pub struct WorkerRegistry(Mutex<Vec<Weak<WorkerRequests>>>);

/// One of the workers. Leaves them when it is dropped.
#[derive(Debug)]
pub(super) struct WorkerHandle {
    workers: Arc<WorkerRegistry>,
    requests: Arc<WorkerRequests>,
}

/// What a worker was called for and has not heard yet.
#[derive(Debug, Default)]
struct WorkerRequests {
    notify: Notify,
    /// By their places in memory, so that each is there once, however often it is called for.
    pools: Mutex<BTreeMap<usize, Arc<Pool>>>,
}

// === impl WorkerRegistry ===

impl WorkerRegistry {
    pub(super) fn register(self: &Arc<Self>) -> WorkerHandle {
        let requests = Arc::<WorkerRequests>::default();
        self.all().push(Arc::downgrade(&requests));
        WorkerHandle { workers: Arc::clone(self), requests }
    }

    /// How many there are.
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
    /// Calls all other workers, for idle connections to the endpoints of a pool, or for any. Called after it was
    /// noted what is wanted, so that whoever hears it sees that.
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

    /// Waits until other workers call, and returns the pools that they call for; many calls may be heard as one.
    /// Dropping the future loses none.
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
