//! Service names and generations.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The generation of the routing table: the number of changes before it.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// The name of a service: 1 to 63 of `a-z 0-9 - _`, beginning with a letter or digit.
///
/// Cheap to clone. Safe as a metric label, a path segment and a command-line argument.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

/// Text that is not a valid service name.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not a service name; use 1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter or digit"
)]
pub struct ParseServiceNameError(String);

// === impl Generation ===

impl Generation {
    /// The next generation.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl ServiceName ===

impl ServiceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = ParseServiceNameError;

    fn from_str(text: &str) -> Result<Self, ParseServiceNameError> {
        let first_is_valid =
            text.bytes().next().is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        let all_are_valid = text
            .bytes()
            .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || matches!(it, b'-' | b'_'));
        if first_is_valid && all_are_valid && text.len() <= 63 {
            Ok(Self(text.into()))
        } else {
            Err(ParseServiceNameError(text.chars().take(80).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_has_only_allowed_characters() {
        for valid in ["web", "api-2", "0", "a_b", &"x".repeat(63)] {
            assert_eq!(valid.parse::<ServiceName>().map(|it| it.to_string()), Ok(valid.to_owned()));
        }
        for invalid in ["", "-web", "_x", "Web", "a/b", "a b", "a\"b", "ä", &"x".repeat(64)] {
            assert!(invalid.parse::<ServiceName>().is_err(), "{invalid:?}");
        }
    }
}
