//! Sets of status codes.

use std::{fmt, str::FromStr};

/// A set of status codes from 100 to 599.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct StatusSet([u64; 8]);

/// Text that is not a set of status codes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a status; use \"503\", \"5xx\" or \"200-399\" (100 to 599)")]
pub struct ParseStatusesError(String);

const FIRST: u16 = 100;
const LAST: u16 = 599;

// === impl StatusSet ===

impl StatusSet {
    /// Whether the set contains a code.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        let Some(index) = code.checked_sub(FIRST) else { return false };
        let word = self.0.get(usize::from(index / 64)).copied().unwrap_or_default();
        word >> (index % 64) & 1 == 1
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The union of both sets.
    #[must_use]
    pub fn union(self, others: Self) -> Self {
        Self(std::array::from_fn(|index| self.0[index] | others.0[index]))
    }

    fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for code in (FIRST..=LAST).filter(|it| self.contains(*it)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == code => *last = code,
                _ => ranges.push((code, code)),
            }
        }
        ranges
    }
}

impl FromStr for StatusSet {
    type Err = ParseStatusesError;

    fn from_str(text: &str) -> Result<Self, ParseStatusesError> {
        let error = || ParseStatusesError(text.chars().take(80).collect());
        let code = |it: &str| match it.len() == 3 && it.bytes().all(|it| it.is_ascii_digit()) {
            true => it.parse::<u16>().ok(),
            false => None,
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (code(first), code(last)),
            None => match text.strip_suffix("xx").filter(|it| it.len() == 1) {
                Some(class) => (code(&format!("{class}00")), code(&format!("{class}99"))),
                None => (code(text), code(text)),
            },
        };
        let (first, last) = first.zip(last).ok_or_else(error)?;
        if first < FIRST || last > LAST || first > last {
            return Err(error());
        }
        let mut statuses = Self::default();
        for index in (first..=last).map(|it| it - FIRST) {
            statuses.0[usize::from(index / 64)] |= 1 << (index % 64);
        }
        Ok(statuses)
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> StatusSet {
        text.parse().expect("a set")
    }

    #[test]
    fn a_set_contains_exactly_its_codes() {
        for (text, shown) in
            [("503", "503"), ("5xx", "500-599"), ("200-399", "200-399"), ("100-599", "100-599")]
        {
            let set = of(text);
            assert_eq!(set.to_string(), shown);
            let (first, last) = shown.split_once('-').unwrap_or((shown, shown));
            let bounds: (u16, u16) =
                (first.parse().expect("a code"), last.parse().expect("a code"));
            for code in 0..=700 {
                assert_eq!(set.contains(code), bounds.0 <= code && code <= bounds.1, "{code}");
            }
        }
        let both = of("502").union(of("504"));
        assert_eq!(both.to_string(), "502, 504");
        assert!(StatusSet::default().is_empty() && !both.is_empty());
    }

    #[test]
    fn invalid_statuses_are_rejected() {
        for invalid in
            ["", "20", "2000", "6xx", "0xx", "xx", "200-", "-200", "300-200", "099", "600", "+20"]
        {
            assert!(invalid.parse::<StatusSet>().is_err(), "{invalid}");
        }
    }
}
