//! The limit on open connections, of all workers together.
//!
//! One limit for all workers: with a limit of its own, a worker that gets more connections from the kernel than others
//! would leave clients in its queue while other workers have room. When the limit is reached, an idle connection is
//! closed for each new one; the worker that owns it chooses which.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The limit on open connections. Shared by all workers.
#[derive(Debug)]
pub struct ConnectionCapacity {
    max: usize,
    free: Arc<Semaphore>,
    /// Connections that must be closed for new ones and that no worker has closed yet.
    pending_closes: AtomicUsize,
    /// One for each worker.
    workers: Box<[WorkerConnections]>,
    start: Instant,
}

/// What other workers know of a worker.
#[derive(Debug)]
struct WorkerConnections {
    /// Since when its longest idle connection has been idle, in milliseconds after `start`, as of its last report.
    /// [`NEVER`] if it has none or has reported nothing.
    idle_since: AtomicU64,
    /// Notified when the worker should close a connection.
    close_notify: Notify,
}

const NEVER: u64 = u64::MAX;

/// The time between two attempts to close an idle connection for one that waits. A connection that is busy at the first
/// attempt may be idle at the next.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

// === impl ConnectionCapacity ===

impl ConnectionCapacity {
    /// A limit of `max` connections for so many workers.
    #[must_use]
    pub fn new(max: usize, workers: usize) -> Arc<Self> {
        let max = max.min(Semaphore::MAX_PERMITS);
        let worker =
            || WorkerConnections { idle_since: AtomicU64::new(NEVER), close_notify: Notify::new() };
        Arc::new(Self {
            max,
            free: Arc::new(Semaphore::new(max)),
            pending_closes: AtomicUsize::new(0),
            workers: (0..workers).map(|_| worker()).collect(),
            start: Instant::now(),
        })
    }

    /// The maximum number of open connections.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// A permit, if one is available.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A permit, in order of the calls. While there is none, idle connections are closed to free one. Dropping the
    /// future takes no permit.
    pub(super) async fn acquire(&self) -> OwnedSemaphorePermit {
        let mut permit = std::pin::pin!(Arc::clone(&self.free).acquire_owned());
        self.request_close(false);
        loop {
            tokio::select! {
                biased;
                permit = &mut permit => return permit.expect("the semaphore is never closed"),
                () = tokio::time::sleep(RETRY_INTERVAL) => self.request_close(true),
            }
        }
    }

    /// Requests that one connection is closed, by the worker with the longest idle connection. With `is_retry`, the
    /// request of an earlier call goes to every worker.
    fn request_close(&self, is_retry: bool) {
        if is_retry {
            self.pending_closes.fetch_max(1, Relaxed);
        } else {
            self.pending_closes.fetch_add(1, Relaxed);
        }
        let longest = self.workers.iter().min_by_key(|it| it.idle_since.load(Relaxed));
        match longest {
            Some(longest) if !is_retry && longest.idle_since.load(Relaxed) != NEVER => {
                longest.close_notify.notify_one();
            }
            _ => self.workers.iter().for_each(|it| it.close_notify.notify_one()),
        }
    }

    /// Waits until worker number `worker` may have a connection to close. Cancel-safe.
    pub(super) async fn close_requested(&self, worker: usize) {
        self.workers[worker].close_notify.notified().await;
    }

    /// Calls `close`, which returns whether it closed a connection, once for each pending request, until it returns
    /// false.
    pub(super) fn serve_close_requests(&self, mut close: impl FnMut() -> bool) {
        while self.pending_closes.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(1)).is_ok() {
            if !close() {
                self.pending_closes.fetch_add(1, Relaxed);
                return;
            }
        }
    }

    /// Publishes since when a worker's longest idle connection has been idle.
    pub(super) fn set_longest_idle_since(&self, worker: usize, idle_since: Option<Instant>) {
        let since = idle_since.map_or(NEVER, |it| {
            u64::try_from(it.saturating_duration_since(self.start).as_millis()).unwrap_or(NEVER - 1)
        });
        self.workers[worker].idle_since.store(since, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_permit_that_one_worker_returns_goes_to_another() {
        let capacity = ConnectionCapacity::new(1, 2);
        let permit = capacity.try_acquire().expect("the only permit");
        assert!(capacity.try_acquire().is_none());
        let (taken, ()) = tokio::join!(capacity.acquire(), async { drop(permit) });
        assert!(capacity.try_acquire().is_none());
        drop(taken);
        assert!(capacity.try_acquire().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_worker_with_the_longest_idle_connection_closes_first_then_any_worker() {
        let capacity = ConnectionCapacity::new(1, 3);
        let _permit = capacity.try_acquire();
        capacity.set_longest_idle_since(1, Some(Instant::now() + Duration::from_secs(2)));
        capacity.set_longest_idle_since(2, Some(Instant::now() + Duration::from_secs(1)));
        let mut taking = std::pin::pin!(capacity.acquire());
        assert!(futures_util::poll!(&mut taking).is_pending());
        assert!(futures_util::poll!(std::pin::pin!(capacity.close_requested(1))).is_pending());
        capacity.close_requested(2).await;
        let mut closed = 0;
        // The connection is no longer idle.
        capacity.serve_close_requests(|| false);
        tokio::time::advance(RETRY_INTERVAL * 2).await;
        assert!(futures_util::poll!(&mut taking).is_pending());
        for worker in 0..3 {
            capacity.close_requested(worker).await;
            capacity.serve_close_requests(|| {
                closed += 1;
                true
            });
        }
        assert_eq!(closed, 1, "no more than requested");
    }
}
