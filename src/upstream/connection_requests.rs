//! Requests to workers: to close an idle connection to an endpoint at its limit, for a worker that waits for one, and to
//! open connections before a promotion.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::{Notify, oneshot};

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
    preconnects: Mutex<Vec<PreconnectRequest>>,
}

/// A request to open idle connections to the endpoints of a pool.
#[derive(Debug)]
pub(super) struct PreconnectRequest {
    pub(super) pool: Arc<Pool>,
    /// Idle connections to each endpoint.
    pub(super) per_endpoint: usize,
    /// Gets the number of connections that were opened.
    pub(super) done: oneshot::Sender<usize>,
}

// === impl WorkerRegistry ===

impl WorkerRegistry {
    pub(super) fn register(self: &Arc<Self>) -> WorkerHandle {
        let requests = Arc::<WorkerRequests>::default();
        self.all().push(Arc::downgrade(&requests));
        WorkerHandle { workers: Arc::clone(self), requests }
    }

    /// Opens idle connections to each healthy endpoint of a pool on every worker, unless there are as many already.
    /// Returns the number of connections that were opened within `timeout`. Dropping the future does not stop the
    /// workers.
    pub async fn preconnect(
        &self,
        pool: &Arc<Pool>,
        per_endpoint: usize,
        timeout: Duration,
    ) -> usize {
        let mut opened = Vec::new();
        for worker in self.all().iter().filter_map(Weak::upgrade) {
            let (done, wait) = oneshot::channel();
            let pool = Arc::clone(pool);
            worker.preconnects().push(PreconnectRequest { pool, per_endpoint, done });
            worker.notify.notify_one();
            opened.push(tokio::time::timeout(timeout, wait));
        }
        let opened = join_all(opened).await;
        opened.into_iter().map(|it| it.ok().and_then(Result::ok).unwrap_or_default()).sum()
    }

    /// The number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
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

    /// Takes the pending requests to open connections.
    pub(super) fn take_preconnects(&self) -> Vec<PreconnectRequest> {
        std::mem::take(&mut *self.requests.preconnects())
    }
}

// === impl WorkerRequests ===

impl WorkerRequests {
    fn pools(&self) -> MutexGuard<'_, BTreeMap<usize, Arc<Pool>>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn preconnects(&self) -> MutexGuard<'_, Vec<PreconnectRequest>> {
        self.preconnects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        let requests = Arc::downgrade(&self.requests);
        self.workers.all().retain(|it| !it.ptr_eq(&requests));
    }
}
