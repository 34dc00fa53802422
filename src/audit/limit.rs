//! How many refused calls get a line: a flood of them must neither fill the disk nor push other lines out of the kept
//! files.

use std::time::{Duration, Instant};

/// Admits a burst of refused calls, then few, and counts those that it leaves out.
#[derive(Debug)]
pub struct RefusalLimit {
    /// How many more are admitted at once.
    left: u32,
    /// When one was added last.
    filled: Instant,
    left_out: u64,
}

// === impl RefusalLimit ===

impl RefusalLimit {
    /// Lines that may come at once.
    pub const BURST: u32 = 20;

    /// The time after which one more is admitted: at most 17,280 lines a day.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    /// A limit that nothing was counted against yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { left: Self::BURST, filled: now, left_out: 0 }
    }

    /// Whether a call that was refused at `now` gets a line. If not, it is counted.
    pub fn admit(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs();
        let more = u32::try_from(passed / Self::INTERVAL.as_secs()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(Self::BURST);
            self.filled += Self::INTERVAL * more;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.leave_out();
                false
            }
        }
    }

    /// Counts a call that gets no line for another reason.
    pub fn leave_out(&mut self) {
        self.left_out += 1;
    }

    /// Whether calls got no line since the last [`RefusalLimit::take_left_out`].
    #[must_use]
    pub fn has_left_out(&self) -> bool {
        self.left_out > 0
    }

    /// How many calls got no line since the last call of this, which is then 0.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_a_burst_of_lines_then_few_and_the_rest_is_counted() {
        let begin = Instant::now();
        let mut limit = RefusalLimit::new(begin);
        let admitted = |limit: &mut RefusalLimit, at: u64, count: usize| {
            let now = begin + Duration::from_secs(at);
            (0..count).filter(|_| limit.admit(now)).count()
        };
        assert_eq!(admitted(&mut limit, 0, 1000), 20);
        assert_eq!(limit.take_left_out(), 980);
        assert_eq!(limit.take_left_out(), 0);
        assert_eq!(admitted(&mut limit, 4, 10), 0);
        assert_eq!(admitted(&mut limit, 5, 10), 1);
        assert_eq!(admitted(&mut limit, 9, 10), 0);
        assert_eq!(admitted(&mut limit, 20, 10), 3);
        assert_eq!(admitted(&mut limit, 100_000, 1000), 20);
    }
}
