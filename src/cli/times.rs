//! Times for people.

use flipgate_api::escape;

/// A time for people: without fractions of a second.
pub(super) fn shown_time(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => escape(time).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_no_fractions_and_other_texts_are_escaped() {
        assert_eq!(shown_time("2026-11-29T08:00:01.430438834Z"), "2026-11-29T08:00:01Z");
        assert_eq!(shown_time("12:05"), "12:05");
        assert_eq!(shown_time("\u{1b}[1m"), "\\u{1b}[1m");
    }
}
