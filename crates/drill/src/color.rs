//! The names of a service's two pools.
//!
//! Not the type of the proxy: a checker shares no code with what it checks.

use std::{fmt, str::FromStr};

/// The name of one of a service's two pools. It does not say which of them is active.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Color {
    /// The pool named blue.
    Blue,
    /// The pool named green.
    Green,
}

/// A text that is neither `blue` nor `green`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a color; write `blue` or `green`")]
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
