//! Refused calls on their way to the audit log. The reply of a call does not wait for its entry: the control task adds
//! it to the next change, or commits it by itself when there is none.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    audit::{AuditEntry, RefusalLimit},
    model::Generation,
};

/// The entries that wait to be committed.
#[derive(Debug)]
pub(super) struct Refusals {
    inner: Mutex<RefusalQueue>,
    /// Notified when an entry waits.
    added: Notify,
    /// Notified when no entry waits any more, or when a commit of them has failed.
    settled: Notify,
}

#[derive(Debug)]
struct RefusalQueue {
    waiting: VecDeque<AuditEntry>,
    /// Callers without a valid token have a limit of their own, so that they cannot hide the refused calls of others.
    known: RefusalLimit,
    unknown: RefusalLimit,
    /// When entries may be committed by themselves again.
    next: Instant,
    /// When the calls without an entry may be counted in one again.
    next_count: Instant,
    is_urgent: bool,
}

/// The most entries that wait: more than both bursts, while the state cannot be written.
const WAITING_MAX: usize = 64;

/// Between two commits of refused calls alone, which changes have to wait for.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two entries that count calls without an entry.
const COUNT_PAUSE: Duration = Duration::from_secs(60);

// === impl Refusals ===

impl Refusals {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let inner = Mutex::new(RefusalQueue {
            waiting: VecDeque::new(),
            known: RefusalLimit::new(now),
            unknown: RefusalLimit::new(now),
            next: now,
            next_count: now,
            is_urgent: false,
        });
        Self { inner, added: Notify::new(), settled: Notify::new() }
    }

    /// Takes a refused call, or counts it if there are too many. Returns at once. `is_known` is for callers that may
    /// make calls at all.
    pub(super) fn add(&self, entry: AuditEntry, is_known: bool) {
        let mut queue = self.lock();
        let is_full = queue.waiting.len() >= WAITING_MAX;
        let limit = if is_known { &mut queue.known } else { &mut queue.unknown };
        if is_full {
            limit.leave_out();
        } else if limit.admit(Instant::now()) {
            queue.waiting.push_back(entry);
        }
        drop(queue);
        self.added.notify_one();
    }

    /// The entries to commit now, the oldest first. They stay until [`Refusals::committed`].
    pub(super) fn waiting(&self, generation: Generation) -> Vec<AuditEntry> {
        let mut queue = self.lock();
        let now = Instant::now();
        // While nothing can be committed, the numbers grow, not the queue.
        let has_room = queue.waiting.len() <= WAITING_MAX;
        if queue.has_left_out() && has_room && (queue.is_urgent || queue.next_count <= now) {
            let left_out = queue.known.take_left_out() + queue.unknown.take_left_out();
            queue.waiting.push_back(AuditEntry::left_out(left_out, generation.0));
            queue.next_count = now + COUNT_PAUSE;
        }
        queue.waiting.iter().cloned().collect()
    }

    /// Forgets the oldest entries, which were committed.
    pub(super) fn committed(&self, count: usize) {
        let mut queue = self.lock();
        queue.waiting.drain(..count);
        queue.is_urgent = false;
        queue.next = Instant::now() + PAUSE;
        drop(queue);
        self.settled.notify_waiters();
    }

    /// Notes that a commit of entries has failed: they wait for the next try.
    pub(super) fn failed(&self) {
        let mut queue = self.lock();
        (queue.next, queue.is_urgent) = (Instant::now() + PAUSE, false);
        drop(queue);
        self.settled.notify_waiters();
    }

    /// Waits until entries should be committed without a change. Cancel-safe.
    pub(super) async fn due(&self) {
        loop {
            let added = self.added.notified();
            let next = {
                let queue = self.lock();
                match (queue.waiting.is_empty(), queue.has_left_out()) {
                    (true, false) => None,
                    _ if queue.is_urgent => return,
                    (false, _) => Some(queue.next),
                    (true, true) => Some(queue.next.max(queue.next_count)),
                }
            };
            match next {
                None => added.await,
                Some(next) if next <= Instant::now() => return,
                Some(next) => tokio::select! {
                    () = tokio::time::sleep_until(next.into()) => {}
                    () = added => {}
                },
            }
        }
    }

    /// Has all entries committed at once, and waits until they are or cannot be. Cancel-safe.
    pub(super) async fn flush(&self) {
        let settled = self.settled.notified();
        let mut settled = std::pin::pin!(settled);
        settled.as_mut().enable();
        {
            let mut queue = self.lock();
            if queue.waiting.is_empty() && !queue.has_left_out() {
                return;
            }
            queue.is_urgent = true;
        }
        self.added.notify_one();
        settled.await;
    }

    fn lock(&self) -> MutexGuard<'_, RefusalQueue> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl RefusalQueue ===

impl RefusalQueue {
    fn has_left_out(&self) -> bool {
        self.known.has_left_out() || self.unknown.has_left_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::AuditResult;

    fn refused(number: usize) -> AuditEntry {
        AuditEntry {
            action: format!("call {number}"),
            result: AuditResult::Refused { status: Some(403), code: "scope".to_owned() },
            ..AuditEntry::left_out(0, 1)
        }
    }

    fn actions(entries: &[AuditEntry]) -> Vec<&str> {
        entries.iter().map(|it| &*it.action).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_unknown_callers_is_counted_and_does_not_hide_known_callers() {
        let refusals = Refusals::new();
        (0..1000).for_each(|it| refusals.add(refused(it), false));
        refusals.add(refused(1000), true);
        refusals.due().await;
        let waiting = refusals.waiting(Generation(1));
        let actions = actions(&waiting);
        assert_eq!(actions.len(), 22);
        assert_eq!((actions[0], actions[20]), ("call 0", "call 1000"));
        assert_eq!(actions[21], "980 more refused calls, which have no line of their own");
        refusals.committed(waiting.len());
        // More of them are counted once a minute, not once a second.
        refusals.add(refused(1001), false);
        assert!(refusals.waiting(Generation(1)).is_empty());
        let waited = tokio::time::timeout(Duration::from_millis(1), refusals.due()).await;
        assert!(waited.is_err(), "nothing is due");
    }

    #[test]
    fn entries_that_cannot_be_committed_stay_and_do_not_grow_without_a_limit() {
        let refusals = Refusals::new();
        for number in 0..10 * WAITING_MAX {
            refusals.add(refused(number), number % 2 == 0);
            refusals.lock().next_count = Instant::now();
            refusals.waiting(Generation(1));
            refusals.failed();
        }
        let waiting = refusals.waiting(Generation(1));
        assert_eq!(waiting.len(), WAITING_MAX + 1);
        assert_eq!(refusals.waiting(Generation(1)), waiting, "they wait for the next try");
        refusals.committed(waiting.len());
        assert!(refusals.lock().waiting.is_empty());
    }
}
