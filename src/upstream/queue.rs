//! The queue of requests that wait for a permit of an endpoint.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

/// The requests that wait for a permit of a pool's endpoint, on all workers together.
///
/// A returned permit notifies the front of the queue, which then tries to take one. If it fails, it stays in front.
/// When it leaves, with a permit or without, the next one is notified, so that no permit stays free while a request
/// waits for it.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    /// The number of waiting requests. Raised before a request looks for a permit, read after one was returned: one of
    /// the two always sees the other.
    length: AtomicUsize,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    next: u64,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// The worker that the request belongs to.
    worker_id: usize,
    /// The revision of the pool that the request waits for; pools that replace each other share the queue.
    pool: u64,
    is_notified: bool,
    waker: Option<Waker>,
}

/// A position in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct QueueTicket {
    queue: Arc<RequestQueue>,
    number: u64,
}

// === impl RequestQueue ===

impl RequestQueue {
    /// Whether the queue is empty.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of waiting requests.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.length.load(SeqCst)
    }

    /// A position at the end of the queue for a request of this worker and pool, unless `max` requests wait.
    #[must_use]
    pub(super) fn enqueue(
        self: &Arc<Self>,
        max: usize,
        worker_id: usize,
        pool: u64,
    ) -> Option<QueueTicket> {
        let mut state = self.state();
        if state.waiting.len() >= max {
            return None;
        }
        let number = state.next;
        state.next += 1;
        // The first one must look once itself, since a permit may just have become free. What requests for another pool
        // found says nothing about this one.
        let is_notified = state.waiting.front().is_none_or(|it| it.pool != pool);
        state.waiting.push_back(Waiter { number, worker_id, pool, is_notified, waker: None });
        self.length.store(state.waiting.len(), SeqCst);
        Some(QueueTicket { queue: Arc::clone(self), number })
    }

    /// Whether the front waits for another pool.
    #[must_use]
    pub(super) fn is_front_of_other_pool(&self, pool: u64) -> bool {
        self.state().waiting.front().is_some_and(|it| it.pool != pool)
    }

    /// Whether the front belongs to another worker.
    #[must_use]
    pub(super) fn is_front_of_other_worker(&self, worker_id: usize) -> bool {
        !self.is_empty() && self.state().waiting.front().is_some_and(|it| it.worker_id != worker_id)
    }

    /// Notifies the front that a permit may be free.
    pub(super) fn notify_front(&self) {
        if !self.is_empty() {
            self.state().notify(0);
        }
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl QueueState ===

impl QueueState {
    fn notify(&mut self, position: usize) {
        if let Some(waiter) = self.waiting.get_mut(position) {
            waiter.is_notified = true;
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    fn position_of(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |it| it.number).ok()
    }
}

// === impl QueueTicket ===

impl QueueTicket {
    /// Ready when the request should look for a permit. Cancel-safe.
    pub fn poll_notified(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.queue.state();
        let position = state.position_of(self.number).unwrap_or_default();
        let Some(waiter) = state.waiting.get_mut(position) else { return Poll::Ready(()) };
        if std::mem::take(&mut waiter.is_notified) {
            return Poll::Ready(());
        }
        waiter.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Notifies the next one: the free permit is of no use for this request.
    pub fn notify_next(&self) {
        let mut state = self.queue.state();
        if let Some(position) = state.position_of(self.number) {
            state.notify(position + 1);
        }
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if let Some(position) = state.position_of(self.number) {
            state.waiting.remove(position);
            self.queue.length.store(state.waiting.len(), SeqCst);
            state.notify(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_notified(it: &QueueTicket) -> bool {
        it.poll_notified(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn requests_are_notified_in_order() {
        let queue = Arc::new(RequestQueue::default());
        let [one, two] =
            [queue.enqueue(2, 0, 0), queue.enqueue(2, 0, 0)].map(|it| it.expect("room"));
        assert!(queue.enqueue(2, 0, 0).is_none() && queue.len() == 2);
        assert!(is_notified(&one), "the first one is notified at once");
        assert!(!is_notified(&one) && !is_notified(&two));
        queue.notify_front();
        assert!(!is_notified(&two) && is_notified(&one));
        drop(one);
        assert!(is_notified(&two), "there may be more than one permit");
        drop(two);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_notification_is_not_lost_when_a_ticket_is_dropped() {
        let queue = Arc::new(RequestQueue::default());
        let [one, two, three] = [0; 3].map(|_| queue.enqueue(9, 0, 0).expect("room"));
        assert!(is_notified(&one) && !is_notified(&two));
        queue.notify_front();
        drop(one);
        assert!(is_notified(&two));
        two.notify_next();
        assert!(is_notified(&three) && !is_notified(&two));
        drop(two);
        assert!(is_notified(&three));
    }

    #[test]
    fn a_request_for_another_pool_is_notified_at_once() {
        let queue = Arc::new(RequestQueue::default());
        let old = queue.enqueue(2, 1, 1).expect("room");
        assert!(is_notified(&old));
        assert!(queue.is_front_of_other_pool(2) && !queue.is_front_of_other_pool(1));
        assert!(queue.is_front_of_other_worker(2) && !queue.is_front_of_other_worker(1));
        let new = queue.enqueue(2, 1, 2).expect("room");
        assert!(is_notified(&new));
    }
}
