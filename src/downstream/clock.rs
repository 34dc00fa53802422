//! Timeouts of connections.
//!
//! A timer for each read and write would cost more than the requests. A timeout is therefore only the number of the
//! half second in which it expires; the connection table looks for expired ones twice a second. Timeouts are accurate
//! to one second, which suits limits of seconds.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant, SystemTime},
};

use super::timeout::{STEP, Timeout, Timeouts};

/// A point in time, counted in half seconds from the worker's start. Never 0.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Tick(u32);

/// When each timeout of a connection expires; 0 if it is not armed.
#[derive(Debug, Default)]
pub(super) struct Deadlines([Cell<u32>; Timeout::COUNT]);

/// The time of a worker as of its last step: accurate enough for limits of seconds, and free to read.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    /// Time in which the process could not run. It does not count.
    lost: Cell<Duration>,
    now: Cell<Instant>,
    tick: Cell<u32>,
    limits: [u32; Timeout::COUNT],
    date: RefCell<[u8; DATE_LENGTH]>,
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: RFC 9110, section 5.6.7.
pub const DATE_LENGTH: usize = 29;

// === impl Deadlines ===

impl Deadlines {
    /// Starts a timeout with the limit from [`Timeouts`].
    pub(super) fn arm(&self, timeout: Timeout, clock: &Clock) {
        let limit = clock.limits[timeout as usize];
        let at = if limit == NEVER { 0 } else { clock.tick.get().saturating_add(limit) };
        self.0[timeout as usize].set(at);
    }

    /// Starts a timeout with this limit.
    pub(super) fn arm_for(&self, timeout: Timeout, clock: &Clock, limit: Duration) {
        self.0[timeout as usize].set(clock.tick.get().saturating_add(steps(limit)));
    }

    /// When a timeout expires, so that it can be resumed with [`Self::set`].
    pub(super) fn get(&self, timeout: Timeout) -> Option<Tick> {
        Some(self.0[timeout as usize].get()).filter(|it| *it != 0).map(Tick)
    }

    pub(super) fn set(&self, timeout: Timeout, until: Tick) {
        self.0[timeout as usize].set(until.0);
    }

    pub(super) fn disarm(&self, timeout: Timeout) {
        self.0[timeout as usize].set(0);
    }

    pub(super) fn is_armed(&self, timeout: Timeout) -> bool {
        self.0[timeout as usize].get() != 0
    }

    pub(super) fn disarm_all(&self) {
        for deadline in &self.0 {
            deadline.set(0);
        }
    }

    /// The armed timeout of a connection without a request in progress, and when it started.
    pub(super) fn idle_timeout(&self, clock: &Clock) -> Option<(Timeout, Tick)> {
        let timeout = Timeout::WHILE_IDLE.into_iter().find(|it| self.is_armed(*it))?;
        let until = self.0[timeout as usize].get();
        Some((timeout, Tick(until.saturating_sub(clock.limits[timeout as usize]))))
    }

    /// A timeout that has expired.
    pub(super) fn expired(&self, now: Tick) -> Option<Timeout> {
        let is_expired = |it: &Timeout| (1..=now.0).contains(&self.0[*it as usize].get());
        Timeout::ALL.into_iter().find(is_expired)
    }
}

// === impl Clock ===

const NEVER: u32 = u32::MAX;

impl Clock {
    /// The time between two steps.
    pub(super) const STEP: Duration = STEP;

    /// The longest time between two steps of a worker that is merely busy.
    const STEP_MAX: Duration = Duration::from_secs(2);

    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let now = Instant::now();
        let limits = Timeout::ALL.map(|it| it.limit(timeouts).map_or(NEVER, steps));
        let date = RefCell::new([b' '; DATE_LENGTH]);
        let lost = Cell::default();
        let clock =
            Self { start: now, lost, now: Cell::new(now), tick: Cell::new(1), limits, date };
        clock.set(now);
        clock
    }

    /// Moves to `now`, one step after the last time. If much more time has passed, the process or the machine was
    /// stopped, and clients and upstreams probably too. That time does not count against any timeout.
    pub(super) fn step_to(&self, now: Instant) {
        let passed = now.saturating_duration_since(self.now.get());
        if passed > Self::STEP_MAX {
            self.lost.set(self.lost.get() + (passed - Self::STEP));
        }
        self.set(now);
    }

    /// Moves to `now`.
    pub(super) fn set(&self, now: Instant) {
        self.now.set(now);
        let passed = now.saturating_duration_since(self.start).saturating_sub(self.lost.get());
        let steps = passed.as_millis() / Self::STEP.as_millis();
        self.tick.set(u32::try_from(steps).unwrap_or(NEVER - 1).saturating_add(1));
        let text = jiff::Timestamp::try_from(SystemTime::now()).ok().and_then(|it| {
            jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&it).ok()
        });
        // A clock before 1970 or after 9999 has no valid date.
        if let Some(text) = text
            && let Ok(text) = text.as_bytes().try_into()
        {
            *self.date.borrow_mut() = text;
        }
    }

    pub(super) fn tick(&self) -> Tick {
        Tick(self.tick.get())
    }

    /// Whether at least a second has passed since this tick.
    pub(super) fn is_a_second_after(&self, tick: Tick) -> bool {
        // Part of the first step had already passed.
        self.tick.get() > tick.0.saturating_add(2)
    }

    /// The start of a tick.
    pub(super) fn time_of(&self, tick: Tick) -> Instant {
        self.start + self.lost.get() + Self::STEP * tick.0.saturating_sub(1)
    }

    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(super) fn date(&self) -> [u8; DATE_LENGTH] {
        *self.date.borrow()
    }
}

/// Rounded up, plus one step, because part of the current one has already passed.
fn steps(limit: Duration) -> u32 {
    // Avoids a 128-bit division: this runs for each request.
    const NANOS: u32 = STEP.subsec_nanos();
    const { assert!(NANOS == 500_000_000, "two steps are a second") }
    let part = u64::from(limit.subsec_nanos().div_ceil(NANOS));
    let steps = limit.as_secs().saturating_mul(2).saturating_add(part + 1);
    u32::try_from(steps).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn timeouts() -> Timeouts {
        Timeouts {
            handshake: MINUTE,
            head: MINUTE,
            keep_alive: MINUTE,
            stall: MINUTE,
            upstream: MINUTE,
            request: None,
            tunnel: MINUTE,
        }
    }

    #[test]
    fn a_timeout_expires_after_its_limit_and_not_before() {
        let clock = Clock::new(&timeouts());
        let begin = clock.now();
        for timeout in Timeout::ALL {
            let deadlines = Deadlines::default();
            clock.set(begin);
            deadlines.arm_for(timeout, &clock, MINUTE);
            for (ms, over) in [(0, false), (60_000, false), (60_499, false), (61_000, true)] {
                clock.set(begin + Duration::from_millis(ms));
                assert_eq!(
                    deadlines.expired(clock.tick()),
                    over.then_some(timeout),
                    "{timeout:?} {ms}"
                );
            }
            deadlines.disarm(timeout);
            assert_eq!(deadlines.expired(clock.tick()), None);
        }
    }

    /// A process that was stopped for longer than a limit (SIGSTOP, a suspended machine) cut every connection when it
    /// resumed.
    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let clock = Clock::new(&timeouts());
        let deadlines = Deadlines::default();
        deadlines.arm(Timeout::Write, &clock);
        let mut now = clock.now() + MINUTE * 60;
        clock.step_to(now);
        assert_eq!(deadlines.expired(clock.tick()), None, "the process was stopped");
        let mut steps = 0;
        while deadlines.expired(clock.tick()).is_none() {
            now += Clock::STEP;
            clock.step_to(now);
            steps += 1;
        }
        assert_eq!(steps, 2 * 60, "the step after the pause counts as one");
    }

    #[test]
    fn the_idle_timeout_comes_with_its_start() {
        let clock = Clock::new(&timeouts());
        let deadlines = Deadlines::default();
        assert_eq!(deadlines.idle_timeout(&clock), None);
        clock.set(clock.now() + MINUTE);
        let since = clock.tick();
        deadlines.arm(Timeout::Idle, &clock);
        clock.set(clock.now() + Duration::from_secs(1));
        assert_eq!(deadlines.idle_timeout(&clock), Some((Timeout::Idle, since)));
        assert!(!clock.is_a_second_after(since), "part of its first step may have passed");
        clock.set(clock.now() + Clock::STEP);
        assert!(clock.is_a_second_after(since));
        deadlines.disarm_all();
        for busy in [
            Timeout::RequestBody,
            Timeout::Write,
            Timeout::ResponseHead,
            Timeout::Tunnel,
            Timeout::Http2KeepAlive,
        ] {
            deadlines.arm_for(busy, &clock, MINUTE);
        }
        assert_eq!(deadlines.idle_timeout(&clock), None);
    }

    #[test]
    fn every_timeout_has_its_index_and_its_limit() {
        let clock = Clock::new(&timeouts());
        for (index, timeout) in Timeout::ALL.into_iter().enumerate() {
            assert_eq!(timeout as usize, index);
            let deadlines = Deadlines::default();
            deadlines.arm(timeout, &clock);
            let is_limited = !matches!(
                timeout,
                Timeout::ResponseHead | Timeout::Queue | Timeout::Exchange | Timeout::StreamEnd
            );
            assert_eq!(deadlines.is_armed(timeout), is_limited, "{timeout:?}");
        }
        let limited = Clock::new(&Timeouts { request: Some(MINUTE), ..timeouts() });
        let deadlines = Deadlines::default();
        deadlines.arm(Timeout::Exchange, &limited);
        assert!(deadlines.is_armed(Timeout::Exchange));
        deadlines.disarm_all();
        assert!(!deadlines.is_armed(Timeout::Exchange));
    }

    #[test]
    fn the_date_is_an_imf_fixdate() {
        let date = Clock::new(&timeouts()).date();
        let text = std::str::from_utf8(&date).expect("ASCII");
        assert!(text.ends_with(" GMT") && text.as_bytes()[3] == b',', "{text}");
    }
}
