//! The outcomes of the public requests of a pool, for the watch of a promotion.
//!
//! A request that is answered well costs nothing here: the other counters of its pool count it. Only failures, requests
//! that do not count, and slow responses are counted.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// How a public request ended, as its application is judged by it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Outcome {
    /// The application has answered it.
    #[default]
    Answered,
    /// The application answered with a 5xx, not at all, or not to the end.
    Failed,
    /// It says nothing about the application: the client left, or Flipgate answered for another reason.
    Excluded,
}

/// The outcomes of the public requests of a pool.
#[derive(Debug)]
pub struct Outcomes {
    failed: AtomicU64,
    excluded: AtomicU64,
    rescued: AtomicU64,
    /// From so many nanoseconds on a response is slow.
    slow_after: AtomicU64,
    is_watched: AtomicBool,
    /// Failures since the last call of [`Outcomes::take_failures`].
    failing: ByClient,
    /// Slow responses since the last call of [`Outcomes::take_slow`].
    slow: ByClient,
}

/// Counts by client, while there is a watch.
#[derive(Debug, Default)]
struct ByClient(Mutex<HashMap<Option<IpAddr>, u64>>);

/// The most clients that are distinguished between two calls of [`Outcomes::take_failures`]. All others count as one.
const CLIENTS_MAX: usize = 1024;

// === impl Outcomes ===

impl Outcomes {
    pub(super) fn new() -> Self {
        Self {
            failed: AtomicU64::new(0),
            excluded: AtomicU64::new(0),
            rescued: AtomicU64::new(0),
            slow_after: AtomicU64::new(u64::MAX),
            is_watched: AtomicBool::new(false),
            failing: ByClient::default(),
            slow: ByClient::default(),
        }
    }

    /// Counts a request that was not answered well.
    pub fn count(&self, outcome: Outcome, client: Option<IpAddr>) {
        match outcome {
            Outcome::Answered => {}
            Outcome::Failed => {
                self.failed.fetch_add(1, Relaxed);
                if self.is_watched() {
                    self.failing.add(client);
                }
            }
            Outcome::Excluded => drop(self.excluded.fetch_add(1, Relaxed)),
        }
    }

    /// Counts a request that was rescued by another pool as failed here. It is not among the requests of this pool.
    #[cold]
    pub(super) fn count_rescued(&self, client: Option<IpAddr>) {
        self.rescued.fetch_add(1, Relaxed);
        self.count(Outcome::Failed, client);
    }

    /// Counts a response of which the head came after so long, if that is slow.
    #[inline]
    pub fn note_head(&self, took: Duration, client: Option<IpAddr>) {
        let slow_after = self.slow_after.load(Relaxed);
        if slow_after != u64::MAX && took.as_nanos() > u128::from(slow_after) {
            self.slow.add(client);
        }
    }

    /// Begins or ends a watch. With `slow_after`, slower responses are counted.
    pub fn watch(&self, is_watched: bool, slow_after: Option<Duration>) {
        let nanos = slow_after.filter(|_| is_watched).map(|it| it.as_nanos());
        let nanos = nanos.and_then(|it| u64::try_from(it).ok()).unwrap_or(u64::MAX);
        self.slow_after.store(nanos, Relaxed);
        self.is_watched.store(is_watched, Relaxed);
        drop((self.failing.take(), self.slow.take()));
    }

    /// Whether a watch is in progress.
    #[inline]
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.is_watched.load(Relaxed)
    }

    /// Failed requests.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Requests that another pool has served.
    #[must_use]
    pub fn rescued(&self) -> u64 {
        self.rescued.load(Relaxed)
    }

    /// Requests that say nothing about the application.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.excluded.load(Relaxed)
    }

    /// The failures since the last call, by client.
    #[must_use]
    pub fn take_failures(&self) -> Vec<(Option<IpAddr>, u64)> {
        self.failing.take()
    }

    /// The slow responses since the last call, by client.
    #[must_use]
    pub fn take_slow(&self) -> Vec<(Option<IpAddr>, u64)> {
        self.slow.take()
    }
}

// === impl ByClient ===

impl ByClient {
    #[cold]
    fn add(&self, client: Option<IpAddr>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client.map(crate::model::client_key);
        let is_known = counts.contains_key(&client) || counts.len() < CLIENTS_MAX;
        *counts.entry(if is_known { client } else { None }).or_default() += 1;
    }

    fn take(&self) -> Vec<(Option<IpAddr>, u64)> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *counts).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_listed_by_client_only_while_there_is_a_watch() {
        let outcomes = Outcomes::new();
        let client = |it: u8| Some(IpAddr::from([10, 0, 0, it]));
        outcomes.count(Outcome::Failed, client(1));
        assert_eq!((outcomes.failed(), outcomes.take_failures().len()), (1, 0));
        outcomes.watch(true, None);
        for (outcome, it) in [
            (Outcome::Failed, 1),
            (Outcome::Failed, 1),
            (Outcome::Failed, 2),
            (Outcome::Answered, 3),
            (Outcome::Excluded, 4),
        ] {
            outcomes.count(outcome, client(it));
        }
        let mut failures = outcomes.take_failures();
        failures.sort_unstable();
        assert_eq!(failures, [(client(1), 2), (client(2), 1)]);
        assert_eq!((outcomes.failed(), outcomes.excluded()), (4, 1));
        assert!(outcomes.take_failures().is_empty());
        for number in 0..3000_u32 {
            outcomes.count(Outcome::Failed, Some(IpAddr::from(number.to_be_bytes())));
        }
        let failures = outcomes.take_failures();
        assert_eq!(
            (failures.len(), failures.iter().map(|it| it.1).sum::<u64>()),
            (CLIENTS_MAX + 1, 3000)
        );
    }

    #[test]
    fn only_responses_above_the_bound_are_slow() {
        let outcomes = Outcomes::new();
        let ms = Duration::from_millis;
        outcomes.note_head(ms(5000), None);
        outcomes.watch(true, Some(ms(100)));
        [99, 100, 101, 5000].into_iter().for_each(|it| outcomes.note_head(ms(it), None));
        assert_eq!(outcomes.take_slow(), [(None, 2)]);
        outcomes.watch(false, Some(ms(100)));
        outcomes.note_head(ms(5000), None);
        assert_eq!(outcomes.take_slow(), []);
    }
}
