//! The places for open connections, of all workers together.
//!
//! One limit for all workers: with a limit of its own, a worker that the kernel gives more connections
//! than others would leave clients in its queue while others have room. When every place is taken, a
//! connection that waits for its client is closed for the next one; which one, its worker decides.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places for open connections. Shared by all workers.
#[derive(Debug)]
pub struct ConnectionCapacity {
    max: usize,
    free: Arc<Semaphore>,
    /// Connections that are to be closed, and that no worker has closed yet.
    wanted: AtomicUsize,
    /// One of each worker.
    workers: Box<[WorkerConnections]>,
    start: Instant,
}

/// What the others know of a worker.
#[derive(Debug)]
struct WorkerConnections {
    /// Since when its longest idle connection has been idle, in milliseconds after the start, as it last
    /// told; [`NEVER`] if it has none, or has told nothing.
    idle_since: AtomicU64,
    /// Rung when a connection is to be closed.
    bell: Notify,
}

const NEVER: u64 = u64::MAX;

/// The time between two attempts to close an idle connection for one that waits for a place. A connection
/// that was busy at the first attempt may be idle at the next.
const AGAIN: Duration = Duration::from_millis(50);

// === impl ConnectionCapacity ===

impl ConnectionCapacity {
    /// At most so many connections at once, of so many workers.
    #[must_use]
    pub fn new(max: usize, workers: usize) -> Arc<Self> {
        let max = max.min(Semaphore::MAX_PERMITS);
        let worker =
            || WorkerConnections { idle_since: AtomicU64::new(NEVER), bell: Notify::new() };
        Arc::new(Self {
            max,
            free: Arc::new(Semaphore::new(max)),
            wanted: AtomicUsize::new(0),
            workers: (0..workers).map(|_| worker()).collect(),
            start: Instant::now(),
        })
    }

    /// How many connections there may be at once.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// A place, if one is free.
    pub(super) fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// A place, in the order in which they are asked for. While there is none, idle connections are closed
    /// for it. Dropping the future takes none.
    pub(super) async fn take(&self) -> OwnedSemaphorePermit {
        let mut place = std::pin::pin!(Arc::clone(&self.free).acquire_owned());
        self.want(false);
        loop {
            tokio::select! {
                biased;
                place = &mut place => return place.expect("the semaphore is never closed"),
                () = tokio::time::sleep(AGAIN) => self.want(true),
            }
        }
    }

    /// Has one connection more closed, by the worker whose connection has been idle longest; again, for one
    /// that was not closed, by whichever worker has one.
    fn want(&self, again: bool) {
        if again {
            self.wanted.fetch_max(1, Relaxed);
        } else {
            self.wanted.fetch_add(1, Relaxed);
        }
        let longest = self.workers.iter().min_by_key(|it| it.idle_since.load(Relaxed));
        match longest {
            Some(longest) if !again && longest.idle_since.load(Relaxed) != NEVER => {
                longest.bell.notify_one();
            }
            _ => self.workers.iter().for_each(|it| it.bell.notify_one()),
        }
    }

    /// Waits until worker number `worker` may have a connection to close. Dropping the future loses
    /// nothing.
    pub(super) async fn rung(&self, worker: usize) {
        self.workers[worker].bell.notified().await;
    }

    /// Has a worker close connections with `close`, which returns whether it had one, for as long as more
    /// are to be closed.
    pub(super) fn close_wanted(&self, mut close: impl FnMut() -> bool) {
        while self.wanted.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(1)).is_ok() {
            if !close() {
                self.wanted.fetch_add(1, Relaxed);
                return;
            }
        }
    }

    /// Tells the others since when a worker's longest idle connection has been idle.
    pub(super) fn tell(&self, worker: usize, idle_since: Option<Instant>) {
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
    async fn a_place_that_one_worker_gives_back_is_taken_by_another() {
        let capacity = ConnectionCapacity::new(1, 2);
        let place = capacity.try_take().expect("the only one");
        assert!(capacity.try_take().is_none());
        let (taken, ()) = tokio::join!(capacity.take(), async { drop(place) });
        assert!(capacity.try_take().is_none());
        drop(taken);
        assert!(capacity.try_take().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_worker_with_the_longest_idle_connection_is_asked_first_and_then_all() {
        let capacity = ConnectionCapacity::new(1, 3);
        let _place = capacity.try_take();
        capacity.tell(1, Some(Instant::now() + Duration::from_secs(2)));
        capacity.tell(2, Some(Instant::now() + Duration::from_secs(1)));
        let mut taking = std::pin::pin!(capacity.take());
        assert!(futures_util::poll!(&mut taking).is_pending());
        assert!(futures_util::poll!(std::pin::pin!(capacity.rung(1))).is_pending());
        capacity.rung(2).await;
        let mut closed = 0;
        // It has none after all.
        capacity.close_wanted(|| false);
        tokio::time::advance(AGAIN * 2).await;
        assert!(futures_util::poll!(&mut taking).is_pending());
        for worker in 0..3 {
            capacity.rung(worker).await;
            capacity.close_wanted(|| {
                closed += 1;
                true
            });
        }
        assert_eq!(closed, 1, "no more than are wanted");
    }
}
