//! The names of rollouts.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

/// The name of a rollout: the time of its start and four characters, such as `20261129-081502-k7q2`. Later rollouts have
/// greater names.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RolloutId(Arc<str>);

/// Why a text is not the name of a rollout.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not the id of a rollout; `flipgate rollouts` lists them")]
pub struct ParseRolloutIdError(String);

/// The longest name.
const BYTES_MAX: usize = 64;

impl RolloutId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RolloutId {
    type Err = ParseRolloutIdError;

    fn from_str(text: &str) -> Result<Self, ParseRolloutIdError> {
        let is_valid =
            |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-' || it == b'_';
        match (1..=BYTES_MAX).contains(&text.len()) && text.bytes().all(is_valid) {
            true => Ok(Self(text.into())),
            false => Err(ParseRolloutIdError(text.chars().take(BYTES_MAX).collect())),
        }
    }
}

impl Borrow<str> for RolloutId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_lower_case_letters_digits_and_hyphens() {
        let long = "a".repeat(BYTES_MAX);
        for good in ["20261129-081502-k7q2", "1", &long] {
            assert_eq!(good.parse::<RolloutId>().map(|it| it.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "A", "a b", "../x", "ä", &format!("{long}a")] {
            assert!(bad.parse::<RolloutId>().is_err(), "{bad}");
        }
    }
}
