//! The connections of the API, up to a limit.
//!
//! A connection can be closed for a new one while it waits for its caller: for a head, a body, or for a response to be
//! read. While a call is in progress, it cannot. Such times are short, except for calls that wait for events or drains,
//! of which there are at most half as many as connections. So a new connection always gets a place soon.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The open connections.
#[derive(Debug)]
pub(super) struct AdminConnections {
    max: usize,
    open: Mutex<Slab<Arc<AdminConnection>>>,
    /// Permits for calls that wait for events or drains.
    waiting: Arc<Semaphore>,
}

/// An open connection, as its requests see it.
#[derive(Debug)]
pub(super) struct AdminConnection {
    /// Canceled when it is closed for another one.
    closed: CancellationToken,
    /// Calls in progress.
    at_work: AtomicUsize,
    /// Whether it has sent a valid token.
    is_authorized: AtomicBool,
    /// Since when it has been waiting for its caller.
    since: Mutex<Instant>,
    /// Why its request is malformed.
    rejected: Mutex<Option<String>>,
    waiting: Arc<Semaphore>,
}

/// A place for a connection; released when this is dropped.
#[derive(Debug)]
pub(super) struct AdminConnectionGuard {
    callers: Arc<AdminConnections>,
    key: usize,
    pub(super) caller: Arc<AdminConnection>,
}

/// A call in progress, until this is dropped.
#[derive(Debug)]
pub(super) struct ActiveCall(Arc<AdminConnection>);

/// A call that waits for events or a drain, until this is dropped.
#[derive(Debug)]
pub(super) struct WaitingCall {
    _at_work: ActiveCall,
    _place: OwnedSemaphorePermit,
}

// === impl AdminConnections ===

impl AdminConnections {
    /// At most `max` connections, of which at most half may wait for events or drains.
    pub(super) fn new(max: usize) -> Arc<Self> {
        let waiting = Arc::new(Semaphore::new(max / 2));
        Arc::new(Self { max, open: Mutex::default(), waiting })
    }

    /// A place for a connection. At the limit, the connection that has waited longest for its caller is closed, those
    /// without a valid token first. `None` if all have calls in progress.
    pub(super) fn open(self: &Arc<Self>) -> Option<AdminConnectionGuard> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.max {
            let idle = open.iter().filter(|(_, it)| it.at_work.load(Relaxed) == 0);
            let first = idle.min_by_key(|(_, it)| (it.is_authorized.load(Relaxed), it.since()));
            let key = first.map(|(key, _)| key)?;
            open.remove(key).closed.cancel();
        }
        let caller = Arc::new(AdminConnection {
            closed: CancellationToken::new(),
            at_work: AtomicUsize::new(0),
            is_authorized: AtomicBool::new(false),
            since: Mutex::new(Instant::now()),
            rejected: Mutex::default(),
            waiting: Arc::clone(&self.waiting),
        });
        let key = open.insert(Arc::clone(&caller));
        Some(AdminConnectionGuard { callers: Arc::clone(self), key, caller })
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.open.lock().expect("no panic inside").len()
    }
}

// === impl AdminConnection ===

impl AdminConnection {
    /// Waits until the connection should be closed for another one.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Notes that a valid token was sent.
    pub(super) fn authorize(&self) {
        self.is_authorized.store(true, Relaxed);
    }

    /// Begins a call.
    pub(super) fn work(self: &Arc<Self>) -> ActiveCall {
        self.at_work.fetch_add(1, Relaxed);
        ActiveCall(Arc::clone(self))
    }

    /// Begins to wait for events or a drain, unless the limit is reached.
    pub(super) fn wait(self: &Arc<Self>) -> Option<WaitingCall> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Some(WaitingCall { _at_work: self.work(), _place: place })
    }

    /// Notes why the request is malformed.
    pub(super) fn reject(&self, why: String) {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).replace(why);
    }

    /// Why the request is malformed.
    pub(super) fn rejected(&self) -> Option<String> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveCall {
    fn drop(&mut self) {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.0.at_work.fetch_sub(1, Relaxed);
    }
}

impl Drop for AdminConnectionGuard {
    fn drop(&mut self) {
        let mut open = self.callers.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A connection that was closed for another one has lost its place already.
        if open.get(self.key).is_some_and(|it| Arc::ptr_eq(it, &self.caller)) {
            open.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closed(place: &AdminConnectionGuard) -> bool {
        place.caller.closed.is_cancelled()
    }

    #[test]
    fn the_connection_that_waits_longest_makes_room_and_one_with_a_token_last() {
        let callers = AdminConnections::new(3);
        let enter = || callers.open().expect("a place");
        let (known, first, second) = (enter(), enter(), enter());
        known.caller.authorize();
        // The first connection was used after the second one.
        drop(first.caller.work());
        let _fourth = enter();
        assert_eq!([&known, &first, &second].map(is_closed), [false, false, true]);
        drop(second);
        assert_eq!(callers.count(), 3, "its place has a new owner");
        let _fifth = enter();
        assert_eq!([&known, &first].map(is_closed), [false, true]);
    }

    #[test]
    fn a_call_that_is_worked_on_is_not_closed_and_those_that_wait_are_few() {
        let callers = AdminConnections::new(4);
        let places = [(); 4].map(|()| callers.open().expect("a place"));
        let waiting = [0, 1].map(|it: usize| places[it].caller.wait().expect("half may"));
        assert!(places[2].caller.wait().is_none());
        let working = [2, 3].map(|it: usize| places[it].caller.work());
        assert!(callers.open().is_none(), "none is idle");
        drop(working);
        assert!(callers.open().is_some());
        drop(waiting);
        assert!(places[3].caller.wait().is_some());
    }
}
