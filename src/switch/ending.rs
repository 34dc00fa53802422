//! The end of the streams on a replaced side: which of them ends when, and how many have ended.
//!
//! A side has one [`EndingSignal`]. Its version is all that a request reads until streams have to end, so that a request
//! pays one comparison. Nothing is registered for a stream, and no timer runs for it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use crate::model::{StreamEnd, StreamKind, StreamPolicies};

/// One ending of the streams of a color: from a flip, or by hand.
#[derive(Debug)]
pub struct StreamEnding {
    policies: StreamPolicies,
    /// When it began, by the clock of the caller.
    began: Instant,
    /// Where in the spread the first stream of a kind ends, in parts of 2^32.
    phase: u32,
    /// How many streams of each kind have asked for their time.
    streams: [AtomicU32; StreamKind::ALL.len()],
    /// How many were ended, by kind and way.
    ended: [[AtomicU64; StreamEnd::ALL.len()]; StreamKind::ALL.len()],
    is_stopped: AtomicBool,
}

/// Says whether the streams of a side have to end.
#[derive(Debug, Default)]
pub(super) struct EndingSignal {
    /// 0 until the first ending; one more with each start and stop.
    version: AtomicU32,
    current: Mutex<Option<Arc<StreamEnding>>>,
}

// === impl StreamEnding ===

impl StreamEnding {
    /// An ending that begins at `began`. `phase` should be random, so that clients which came in a row do not find the
    /// same order each time.
    #[must_use]
    pub fn new(policies: StreamPolicies, began: Instant, phase: u32) -> Self {
        Self {
            policies,
            began,
            phase,
            streams: Default::default(),
            ended: Default::default(),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// The policy of each kind, as it was when the ending began.
    #[must_use]
    pub fn policies(&self) -> &StreamPolicies {
        &self.policies
    }

    /// When one more stream of this kind ends; `None` if streams of this kind do not.
    ///
    /// The times are evenly distributed over the spread however many streams there are, without knowing how many: each
    /// one is a golden section of the spread after the one before, which is the sequence with the most even gaps (the
    /// three-distance theorem).
    #[must_use]
    pub fn next_end(&self, kind: StreamKind) -> Option<Instant> {
        /// 2^32 divided by the golden ratio.
        const SECTION: u32 = 2_654_435_769;
        let policy = self.policies.get(kind)?;
        let number = self.streams[kind as usize].fetch_add(1, Relaxed);
        let place = self.phase.wrapping_add(number.wrapping_mul(SECTION));
        let share = policy.spread.mul_f64(f64::from(place) / 4_294_967_296.0);
        self.began.checked_add(policy.patience.saturating_add(share))
    }

    /// Counts a stream that was ended.
    pub fn count(&self, kind: StreamKind, how: StreamEnd) {
        self.ended[kind as usize][how as usize].fetch_add(1, Relaxed);
    }

    /// How many streams were ended, by kind and way, without zeros.
    #[must_use]
    pub fn ended(&self) -> Vec<(StreamKind, StreamEnd, u64)> {
        let all = StreamKind::ALL.into_iter().flat_map(|kind| {
            StreamEnd::ALL
                .map(|how| (kind, how, self.ended[kind as usize][how as usize].load(Relaxed)))
        });
        all.filter(|(.., count)| *count > 0).collect()
    }

    /// The time left until the last ending, as of `now`.
    #[must_use]
    pub fn left(&self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.began);
        self.policies.longest().saturating_sub(passed)
    }

    /// Notes that no more streams are ended.
    pub fn stop(&self) {
        self.is_stopped.store(true, Relaxed);
    }

    /// Whether it was stopped, because the color became active again or another ending began.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Relaxed)
    }
}

// === impl EndingSignal ===

impl EndingSignal {
    /// Changes with each start and stop.
    pub(super) fn version(&self) -> u32 {
        self.version.load(Acquire)
    }

    /// The ending in progress, with the version that it belongs to.
    pub(super) fn current(&self) -> (u32, Option<Arc<StreamEnding>>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that both belong together.
        (self.version(), current.clone())
    }

    /// Starts an ending in place of the one before, or stops that.
    pub(super) fn set(&self, ending: Option<Arc<StreamEnding>>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_none() && ending.is_none() {
            return;
        }
        *current = ending;
        // 0 is for sides that never had one.
        let next = self.version.load(Relaxed).wrapping_add(1).max(1);
        self.version.store(next, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StreamPolicy;

    const SPREAD: Duration = Duration::from_secs(30);

    fn ending(phase: u32) -> StreamEnding {
        let mut policies = StreamPolicies::default();
        let policy =
            StreamPolicy { spread: SPREAD, ..StreamPolicy::after(Duration::from_secs(10)) };
        policies.set(StreamKind::WebSocket, Some(policy));
        StreamEnding::new(policies, Instant::now(), phase)
    }

    /// How many streams of `total` end in each second of the spread.
    fn by_second(ending: &StreamEnding, total: usize) -> Vec<usize> {
        let mut seconds = vec![0; 30];
        for _ in 0..total {
            let at = ending.next_end(StreamKind::WebSocket).expect("a policy");
            let after = at.duration_since(ending.began + Duration::from_secs(10));
            seconds[usize::try_from(after.as_secs()).expect("seconds")] += 1;
        }
        seconds
    }

    #[test]
    fn five_thousand_streams_end_at_167_a_second() {
        for phase in [0, 1, u32::MAX, 0x8765_4321] {
            let seconds = by_second(&ending(phase), 5000);
            assert!(seconds.iter().all(|it| (162..=172).contains(it)), "{phase}: {seconds:?}");
        }
    }

    #[test]
    fn a_few_streams_are_as_even_as_many() {
        for total in [30, 90, 300] {
            let seconds = by_second(&ending(7), total);
            let even = total / 30;
            assert!(
                seconds.iter().all(|it| (even.saturating_sub(1)..=even + 2).contains(it)),
                "{total}: {seconds:?}"
            );
        }
    }

    #[test]
    fn a_kind_without_a_policy_does_not_end() {
        for kind in [StreamKind::Sse, StreamKind::Grpc, StreamKind::Download, StreamKind::Upload] {
            assert_eq!(ending(0).next_end(kind), None);
        }
    }

    #[test]
    fn a_signal_changes_with_each_start_and_stop_and_not_without() {
        let signal = EndingSignal::default();
        assert_eq!(signal.version(), 0);
        signal.set(None);
        assert_eq!(signal.version(), 0, "there was nothing to stop");
        let first = Arc::new(ending(0));
        signal.set(Some(Arc::clone(&first)));
        let (version, current) = signal.current();
        assert!(version == 1 && current.is_some_and(|it| Arc::ptr_eq(&it, &first)));
        signal.set(None);
        assert!(matches!(signal.current(), (2, None)));
        signal.version.store(u32::MAX, Relaxed);
        signal.set(Some(first));
        assert_eq!(signal.version(), 1, "never 0 again");
    }

    #[test]
    fn what_was_ended_is_counted_by_kind_and_way() {
        let ending = ending(0);
        assert_eq!(ending.ended(), []);
        ending.count(StreamKind::WebSocket, StreamEnd::Closed);
        ending.count(StreamKind::WebSocket, StreamEnd::Closed);
        ending.count(StreamKind::Upload, StreamEnd::Cut);
        assert_eq!(
            ending.ended(),
            [
                (StreamKind::WebSocket, StreamEnd::Closed, 2),
                (StreamKind::Upload, StreamEnd::Cut, 1)
            ]
        );
        assert_eq!(ending.left(ending.began), Duration::from_secs(40));
        assert_eq!(ending.left(ending.began + Duration::from_secs(41)), Duration::ZERO);
    }
}
