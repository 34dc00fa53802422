//! The hold of a service: new requests wait in its queue, and have no claim on any color meanwhile.
//!
//! The queue is shared by all workers, behind a lock that only held requests take. A request that is not held reads one
//! flag, and only while its service has a hold at all.

mod queue;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::Waker,
    time::{Duration, Instant},
};

pub use self::queue::Turn;
use self::queue::{EnterResult, HoldQueue};

/// A hold as an operator has asked for it: its part of the state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HoldTerm {
    /// Names the hold. An extension keeps it.
    pub id: u64,
    /// The caller that began it, as the audit log names it.
    pub owner: Arc<str>,
    /// When it began, in milliseconds of Unix time.
    pub began_ms: u64,
    /// When its end was set: at its begin, or at its last extension.
    pub set_ms: u64,
    /// When it ends by itself, in milliseconds of Unix time.
    pub until_ms: u64,
    /// How many requests may wait.
    pub places: usize,
}

/// The hold of a service. It stays while requests wait, also when it was released.
#[derive(Debug)]
pub struct Hold {
    queue: Mutex<Held>,
    /// Whether new requests do not wait. Set under the lock.
    is_open: AtomicBool,
    limits: Arc<HoldLimits>,
}

#[derive(Debug)]
struct Held {
    term: HoldTerm,
    queue: HoldQueue,
}

/// What all holds of the process share: the limit of memory, and whether it stops.
#[derive(Debug)]
pub struct HoldLimits {
    bytes: AtomicUsize,
    bytes_max: usize,
    is_stopping: AtomicBool,
}

/// A place in the queue. Dropping it gives the place up; after [`Turn::Go`], it lets the next request go.
#[derive(Debug)]
pub struct HoldTicket {
    hold: Arc<Hold>,
    number: u64,
    bytes: usize,
}

/// What happens to a new request of a service with a hold.
#[derive(Debug)]
pub enum Entry {
    /// It does not wait.
    Open,
    /// It waits.
    Wait(HoldTicket),
    /// There is no place for it.
    Refused,
}

/// A hold at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HoldSnapshot {
    /// What was asked for.
    pub term: HoldTerm,
    /// The time until it ends by itself; zero if it was released.
    pub remaining: Duration,
    /// The requests that wait.
    pub waiting: usize,
    /// Whether it was released, and lets its requests go.
    pub is_releasing: bool,
}

// === impl HoldTerm ===

impl HoldTerm {
    /// The time that is left by the wall clock. Never more than the length that was asked for: a clock that was set back
    /// does not lengthen the hold.
    #[must_use]
    pub fn left(&self, now_ms: u64) -> Duration {
        let length = self.until_ms.saturating_sub(self.set_ms);
        Duration::from_millis(self.until_ms.saturating_sub(now_ms).min(length))
    }
}

// === impl HoldLimits ===

impl HoldLimits {
    /// Held requests take at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let (bytes, is_stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { bytes, bytes_max, is_stopping }
    }

    /// From now on every request is refused that waits or would have to. Call [`Hold::wake_all`] for each hold then.
    pub fn stop(&self) {
        self.is_stopping.store(true, Release);
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Acquire)
    }

    fn try_take(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|it| *it <= self.bytes_max);
        self.bytes.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

// === impl Hold ===

impl Hold {
    /// A hold that ends at `until`.
    #[must_use]
    pub fn new(term: HoldTerm, until: Instant, limits: &Arc<HoldLimits>) -> Self {
        let queue = HoldQueue::holding(until, term.places);
        let queue = Mutex::new(Held { term, queue });
        Self { queue, is_open: AtomicBool::new(false), limits: Arc::clone(limits) }
    }

    /// Holds until then. Does nothing if it was begun with the same term before, unless [`Self::flush`] has emptied it.
    pub fn begin(&self, term: &HoldTerm, until: impl FnOnce() -> Instant, now: Instant) {
        self.change(|held| {
            if held.term == *term {
                return held.queue.resume(now);
            }
            held.term = term.clone();
            held.queue.hold(until(), term.places)
        });
    }

    /// Whether it was begun with this term.
    #[must_use]
    pub fn has_begun(&self, term: &HoldTerm) -> bool {
        self.held().term == *term
    }

    /// Ends the hold: requests go one after the other, at a bounded rate, and new ones behind them.
    pub fn release(&self, now: Instant) {
        self.change(|it| it.queue.release(now));
    }

    /// Lets all waiting requests go at once. The hold stays.
    pub fn flush(&self) {
        self.change(|it| it.queue.flush());
    }

    /// Wakes all waiting requests.
    pub fn wake_all(&self) {
        let wakers = self.held().queue.take_wakers();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether new requests do not wait.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Acquire)
    }

    /// A place for a request that takes so many bytes. With `client`: unless that client has its share already.
    #[must_use]
    pub fn enter(self: &Arc<Self>, client: Option<IpAddr>, bytes: usize, now: Instant) -> Entry {
        let mut held = self.held();
        match held.queue.admits(client, now) {
            _ if self.limits.is_stopping() => Entry::Refused,
            EnterResult::Open => {
                self.is_open.store(held.queue.is_open(), Release);
                Entry::Open
            }
            EnterResult::Wait if self.limits.try_take(bytes) => {
                let number = held.queue.enter(client);
                Entry::Wait(HoldTicket { hold: Arc::clone(self), number, bytes })
            }
            EnterResult::Wait | EnterResult::Full => Entry::Refused,
        }
    }

    /// Whether a request was let go before the hold began anew, and is not admitted yet. It passes the hold.
    #[must_use]
    pub fn is_letting_go(&self) -> bool {
        self.held().queue.is_letting_go()
    }

    /// The time after which a refused request should come again: when the hold is over, and its queue is empty.
    #[must_use]
    pub fn retry_after(&self, now: Instant) -> Duration {
        self.held().queue.left(now)
    }

    /// The hold now.
    #[must_use]
    pub fn snapshot(&self, now: Instant) -> HoldSnapshot {
        let mut held = self.held();
        let (remaining, is_releasing) = held.queue.remaining(now);
        let (term, waiting) = (held.term.clone(), held.queue.waiting());
        HoldSnapshot { term, remaining, waiting, is_releasing }
    }

    fn change(&self, change: impl FnOnce(&mut Held) -> Option<Waker>) {
        let waker = {
            let mut held = self.held();
            let waker = change(&mut held);
            self.is_open.store(held.queue.is_open(), Release);
            waker
        };
        // Not under the lock, which the woken task takes.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl HoldTicket ===

impl HoldTicket {
    /// Whether it is the request's turn. Otherwise `waker` is woken when that may have changed, but not by time.
    #[must_use]
    pub fn poll_turn(&self, waker: &Waker, now: Instant) -> Turn {
        let mut held = self.hold.held();
        // Under the lock: [`Hold::wake_all`] finds the waker of a request that has not seen this.
        match self.hold.limits.is_stopping() {
            true => Turn::Refused,
            false => held.queue.poll_turn(self.number, waker, now),
        }
    }

    /// The hold that it waits for.
    #[must_use]
    pub fn hold(&self) -> &Arc<Hold> {
        &self.hold
    }
}

impl Drop for HoldTicket {
    fn drop(&mut self) {
        self.hold.change(|it| it.queue.leave(self.number));
        self.hold.limits.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests;
