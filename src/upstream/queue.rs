//! Requests that wait for a place at an endpoint, in the order in which they came.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

/// Who waits for a place at an endpoint of a pool, on all workers together.
///
/// Whoever gives a place back calls the one in front, who then looks for himself. He may find
/// nothing, and stays in front. When he leaves, with a place or without, the next one is called, so
/// that no place that has become free stays so while somebody waits for it.
#[derive(Debug, Default)]
pub(super) struct RequestQueue {
    /// How many wait. Raised before a place is looked for, read after one was given back: one of the
    /// two always sees the other.
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
    /// Of which worker it is.
    worker_id: usize,
    /// Of which pool, of those that have the line in common.
    pool: u64,
    is_notified: bool,
    waker: Option<Waker>,
}

/// A place in the line. Left when this is dropped.
#[derive(Debug)]
pub struct QueueTicket {
    queue: Arc<RequestQueue>,
    number: u64,
}

// === impl RequestQueue ===

impl RequestQueue {
    /// Whether nobody waits.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.length.load(SeqCst)
    }

    /// A place at the end of the line for somebody of this worker and pool, unless `max` wait already.
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
        // Whoever is the first may find that a place has become free just now; and what those before have
        // found of their pool says nothing of another.
        let is_notified = state.waiting.front().is_none_or(|it| it.pool != pool);
        state.waiting.push_back(Waiter { number, worker_id, pool, is_notified, waker: None });
        self.length.store(state.waiting.len(), SeqCst);
        Some(QueueTicket { queue: Arc::clone(self), number })
    }

    /// Whether somebody of another pool is in front.
    #[must_use]
    pub(super) fn is_front_of_other_pool(&self, pool: u64) -> bool {
        self.state().waiting.front().is_some_and(|it| it.pool != pool)
    }

    /// Whether somebody of another worker is in front.
    #[must_use]
    pub(super) fn is_front_of_other_worker(&self, worker_id: usize) -> bool {
        !self.is_empty() && self.state().waiting.front().is_some_and(|it| it.worker_id != worker_id)
    }

    /// Tells whoever is in front that a place has become free.
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
    /// Ready when it is worth looking for a place. Nothing is lost when the waiting is given up.
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

    /// Calls the one behind: what has become free is nothing for this one, for reasons of its own.
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
        assert!(is_notified(&one), "the first one looks at once");
        assert!(!is_notified(&one) && !is_notified(&two));
        queue.notify_front();
        assert!(!is_notified(&two) && is_notified(&one));
        drop(one);
        assert!(is_notified(&two), "there may be more than one place");
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
