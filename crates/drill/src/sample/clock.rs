//! A clock that all processes of a machine share.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock. Comparable between the processes of one machine only.
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (time.tv_sec, time.tv_nsec);
    // Neither is negative on this clock.
    u64::try_from(seconds).unwrap_or_default() * 1_000_000_000
        + u64::try_from(nanos).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_monotonic() {
        let before = now_ns();
        while now_ns() == before {}
        assert!(now_ns() > before);
    }
}
