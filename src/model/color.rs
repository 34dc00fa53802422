//! The names of a service's two pools, and the roles those pools play.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name of one of a service's two pools. It never says which of them is active.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// The pool named blue.
    Blue,
    /// The pool named green.
    Green,
}

/// The role of a color.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Serves every new public request.
    Active,
    /// Was active, and still has requests in flight.
    Draining,
    /// Was active since its endpoints were set, and is drained. A rollback finds it ready.
    Standby,
    /// Has endpoints, and was not active since they were set. Only for internal clients that request it.
    Preview,
    /// Has no endpoints.
    Empty,
}

/// Text that is neither `blue` nor `green`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a color; use `blue` or `green`")]
pub struct ParseColorError(String);

// === impl Color ===

impl Color {
    /// Both colors.
    pub const BOTH: [Self; 2] = [Self::Blue, Self::Green];

    /// The other color.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Blue => Self::Green,
            Self::Green => Self::Blue,
        }
    }

    /// `blue` or `green`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
        }
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Color {
    type Err = ParseColorError;

    fn from_str(text: &str) -> Result<Self, ParseColorError> {
        match text {
            "blue" => Ok(Self::Blue),
            "green" => Ok(Self::Green),
            other => Err(ParseColorError(other.chars().take(40).collect())),
        }
    }
}

// === impl Role ===

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Standby => "standby",
            Self::Preview => "preview",
            Self::Empty => "empty",
        })
    }
}
