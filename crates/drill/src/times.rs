//! When the load, its measurement and the repeated steps begin and end.

use std::time::Duration;

use super::{options::Options, steps::When};
use crate::sample::now_ns;

/// The schedule of a drill, in times of [`now_ns`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// The load begins.
    pub(super) load_from: u64,
    /// The measurement begins.
    pub(super) measured_from: u64,
    /// Repeated steps begin.
    pub(super) flips_from: u64,
    /// Repeated steps end.
    pub(super) flips_until: u64,
    /// The load ends.
    pub(super) until: u64,
}

// === impl Times ===

impl Times {
    pub(super) fn of(options: &Options) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        let duration = nanos(options.duration);
        let steady = options.steady.map_or(duration / 5, nanos).min(duration);
        let load_from = now_ns() + nanos(Duration::from_millis(50));
        let measured_from = load_from + nanos(options.warm_up);
        let until = measured_from.saturating_add(duration);
        let (flips_from, flips_until) = (measured_from + steady / 2, until - steady / 2);
        Self { load_from, measured_from, flips_from, flips_until, until }
    }

    /// Whether a step is due at least once.
    pub(super) fn includes(self, when: When) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match when {
            When::At(time) => self.measured_from.saturating_add(nanos(time)) < self.until,
            When::Every(time) => self.flips_from.saturating_add(nanos(time)) < self.flips_until,
        }
    }
}
