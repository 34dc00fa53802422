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
    line: Mutex<QueueState>,
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
    owner: usize,
    /// Of which pool, of those that have the line in common.
    pool: u64,
    is_called: bool,
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
    pub(super) fn join(
        self: &Arc<Self>,
        max: usize,
        owner: usize,
        pool: u64,
    ) -> Option<QueueTicket> {
        let mut line = self.line();
        if line.waiting.len() >= max {
            return None;
        }
        let number = line.next;
        line.next += 1;
        // Whoever is the first may find that a place has become free just now; and what those before have
        // found of their pool says nothing of another.
        let is_called = line.waiting.front().is_none_or(|it| it.pool != pool);
        line.waiting.push_back(Waiter { number, owner, pool, is_called, waker: None });
        self.length.store(line.waiting.len(), SeqCst);
        Some(QueueTicket { queue: Arc::clone(self), number })
    }

    /// Whether somebody of another pool is in front.
    #[must_use]
    pub(super) fn is_front_of_other_pool(&self, pool: u64) -> bool {
        self.line().waiting.front().is_some_and(|it| it.pool != pool)
    }

    /// Whether somebody of another worker is in front.
    #[must_use]
    pub(super) fn is_front_of_other(&self, owner: usize) -> bool {
        !self.is_empty() && self.line().waiting.front().is_some_and(|it| it.owner != owner)
    }

    /// Tells whoever is in front that a place has become free.
    pub(super) fn call(&self) {
        if !self.is_empty() {
            self.line().call(0);
        }
    }

    fn line(&self) -> MutexGuard<'_, QueueState> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl QueueState ===

impl QueueState {
    fn call(&mut self, place: usize) {
        if let Some(waiter) = self.waiting.get_mut(place) {
            waiter.is_called = true;
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |it| it.number).ok()
    }
}

// === impl QueueTicket ===

impl QueueTicket {
    /// Ready when it is worth looking for a place. Nothing is lost when the waiting is given up.
    pub fn poll_called(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut line = self.queue.line();
        let place = line.place_of(self.number).unwrap_or_default();
        let Some(waiter) = line.waiting.get_mut(place) else { return Poll::Ready(()) };
        if std::mem::take(&mut waiter.is_called) {
            return Poll::Ready(());
        }
        waiter.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Calls the one behind: what has become free is nothing for this one, for reasons of its own.
    pub fn pass_on(&self) {
        let mut line = self.queue.line();
        if let Some(place) = line.place_of(self.number) {
            line.call(place + 1);
        }
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        if let Some(place) = line.place_of(self.number) {
            line.waiting.remove(place);
            self.queue.length.store(line.waiting.len(), SeqCst);
            line.call(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_called(it: &QueueTicket) -> bool {
        it.poll_called(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn who_came_first_is_called_first() {
        let queue = Arc::new(RequestQueue::default());
        let [one, two] = [queue.join(2, 0, 0), queue.join(2, 0, 0)].map(|it| it.expect("room"));
        assert!(queue.join(2, 0, 0).is_none() && queue.len() == 2);
        assert!(is_called(&one), "the first one looks at once");
        assert!(!is_called(&one) && !is_called(&two));
        queue.call();
        assert!(!is_called(&two) && is_called(&one));
        drop(one);
        assert!(is_called(&two), "there may be more than one place");
        drop(two);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_call_is_not_lost_with_whoever_leaves() {
        let queue = Arc::new(RequestQueue::default());
        let [one, two, three] = [0; 3].map(|_| queue.join(9, 0, 0).expect("room"));
        assert!(is_called(&one) && !is_called(&two));
        queue.call();
        drop(one);
        assert!(is_called(&two));
        two.pass_on();
        assert!(is_called(&three) && !is_called(&two));
        drop(two);
        assert!(is_called(&three));
    }

    #[test]
    fn who_is_of_another_pool_looks_at_once() {
        let queue = Arc::new(RequestQueue::default());
        let old = queue.join(2, 1, 1).expect("room");
        assert!(is_called(&old));
        assert!(queue.is_front_of_other_pool(2) && !queue.is_front_of_other_pool(1));
        assert!(queue.is_front_of_other(2) && !queue.is_front_of_other(1));
        let new = queue.join(2, 1, 2).expect("room");
        assert!(is_called(&new));
    }
}
