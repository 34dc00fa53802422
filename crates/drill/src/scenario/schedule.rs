//! When steps run, and when repeated flips pause.
//!
//! With a flip every 50 ms and streams of a second, both colors always have requests in flight, and no color is ever
//! drained. So flips pause now and then, until the `drained` events of the last flip have come.

use super::{
    super::{
        steps::{ScriptLine, Step, When},
        times::Times,
    },
    nanos,
};
use crate::sample::now_ns;

/// A step and the time of its next run.
#[derive(Debug)]
pub(super) struct ScheduledStep<'a> {
    /// When it runs next.
    pub(super) at: u64,
    pub(super) line: &'a ScriptLine,
    /// The flip that it pauses for, if it pauses: its `drained` events end the pause.
    pub(super) pause: Option<usize>,
    until: u64,
    /// When the last pause ended, and the number of flips since then.
    began: u64,
    flips_since_pause: u32,
}

/// The smallest number of flips between two pauses.
const FLIPS_MIN: u32 = 5;

/// The longest pause, beyond the duration of a stream: 1.5 s, in nanoseconds. Long enough to find a missing event.
const PAUSE_MAX: u64 = 1_500_000_000;

impl<'a> ScheduledStep<'a> {
    pub(super) fn new(line: &'a ScriptLine, times: Times) -> Self {
        let (at, until) = match line.when {
            When::At(time) => (times.measured_from.saturating_add(nanos(time)), times.until),
            When::Every(time) => (times.flips_from.saturating_add(nanos(time)), times.flips_until),
        };
        Self { at, line, pause: None, until, began: at, flips_since_pause: 0 }
    }

    /// Whether it will run again. The end of a pause can make it due earlier.
    pub(super) fn is_pending(&self) -> bool {
        self.at < self.until || self.pause.is_some()
    }

    /// Whether it is due before the end of its time. A pause can last until then.
    pub(super) fn is_before_end(&self) -> bool {
        self.at < self.until
    }

    /// Sets the next time after a run, which made the flip with this index. Returns false if the step does not repeat.
    pub(super) fn reschedule(&mut self, flip: Option<usize>, stream_time: u64) -> bool {
        let When::Every(every) = self.line.when else { return false };
        let (every, now) = (nanos(every), now_ns());
        if self.pause.take().is_some() {
            // The pause has reached its longest time.
            (self.began, self.flips_since_pause) = (self.at, 0);
        }
        self.flips_since_pause += 1;
        // A run that takes longer than the interval skips the runs that it delays.
        let intervals = now.saturating_sub(self.at) / every + 1;
        self.at = self.at.saturating_add(every.saturating_mul(intervals));
        let pause = stream_time.saturating_add(PAUSE_MAX);
        // The interval is long enough without a pause.
        let is_slow = every >= pause;
        let is_time = self.flips_since_pause >= FLIPS_MIN
            && now.saturating_sub(self.began) >= stream_time / 4 * 3;
        if matches!(self.line.step, Step::Flip(_)) && !is_slow && is_time && flip.is_some() {
            self.pause = flip;
            self.at = self.at.max(now.saturating_add(pause)).min(self.until);
        }
        true
    }

    /// Ends a pause.
    pub(super) fn resume(&mut self) {
        let When::Every(every) = self.line.when else { return };
        let now = now_ns();
        self.pause = None;
        self.at = now.saturating_add(nanos(every)).min(self.at);
        (self.began, self.flips_since_pause) = (self.at, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn line(every: Duration) -> ScriptLine {
        ScriptLine { when: When::Every(every), step: Step::Flip(Vec::new()) }
    }

    fn scheduled(line: &ScriptLine) -> ScheduledStep<'_> {
        let now = now_ns();
        let (until, flips_until) = (u64::MAX, u64::MAX);
        let times =
            Times { load_from: now, measured_from: now, flips_from: now, flips_until, until };
        ScheduledStep::new(line, times)
    }

    #[test]
    fn flips_pause_after_three_quarters_of_the_stream_time() {
        let line = line(Duration::from_millis(50));
        let mut scheduled = scheduled(&line);
        scheduled.began = now_ns();
        for flip in 0..FLIPS_MIN as usize {
            assert!(scheduled.reschedule(Some(flip), 60 * SECOND) && scheduled.pause.is_none());
        }
        scheduled.began -= 46 * SECOND;
        // A failed flip replaces no color.
        assert!(scheduled.reschedule(None, 60 * SECOND) && scheduled.pause.is_none());
        assert!(scheduled.reschedule(Some(7), 60 * SECOND));
        assert!(scheduled.pause == Some(7) && scheduled.at >= now_ns() + 60 * SECOND);
        scheduled.resume();
        assert!(
            scheduled.pause.is_none()
                && scheduled.at <= now_ns() + SECOND
                && scheduled.flips_since_pause == 0
        );
        assert!(scheduled.reschedule(Some(8), 60 * SECOND) && scheduled.pause.is_none());
    }

    #[test]
    fn slow_flips_do_not_pause_and_single_steps_do_not_repeat() {
        let slow = line(Duration::from_secs(3));
        let mut scheduled = scheduled(&slow);
        scheduled.began = 0;
        for flip in 0..20 {
            assert!(scheduled.reschedule(Some(flip), SECOND) && scheduled.pause.is_none());
        }
        let once = ScriptLine { when: When::At(Duration::ZERO), step: Step::Reload };
        assert!(!self::scheduled(&once).reschedule(None, SECOND));
    }
    #[test]
    fn a_pause_ends_with_the_flips_and_does_not_end_them_early() {
        let line = line(Duration::from_millis(50));
        let mut scheduled = scheduled(&line);
        scheduled.until = now_ns() + 30 * SECOND;
        (scheduled.began, scheduled.flips_since_pause) = (0, FLIPS_MIN);
        assert!(scheduled.reschedule(Some(7), 60 * SECOND));
        assert!(
            scheduled.at == scheduled.until && scheduled.is_pending() && !scheduled.is_before_end()
        );
        scheduled.resume();
        assert!(
            scheduled.at < scheduled.until && scheduled.is_pending() && scheduled.is_before_end()
        );
    }
}
