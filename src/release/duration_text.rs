//! Durations in messages.

use std::time::Duration;

/// A duration in a message, such as `2 min`, `500 ms`.
#[must_use]
pub fn written(duration: Duration) -> String {
    match (duration.as_millis(), duration.as_secs()) {
        (ms, _) if ms % 1000 != 0 => format!("{ms} ms"),
        (_, secs) if secs >= 3600 && secs % 3600 == 0 => format!("{} h", secs / 3600),
        (_, secs) if secs >= 60 && secs % 60 == 0 => format!("{} min", secs / 60),
        (_, secs) => format!("{secs} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_the_largest_unit_that_is_exact() {
        let of = |ms| written(Duration::from_millis(ms));
        assert_eq!([of(0), of(500), of(1500), of(2000)], ["0 s", "500 ms", "1500 ms", "2 s"]);
        assert_eq!([of(90_000), of(120_000), of(7_200_000)], ["90 s", "2 min", "2 h"]);
    }
}
