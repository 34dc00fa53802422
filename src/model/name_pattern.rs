//! Patterns for field names.

use std::{fmt, str::FromStr};

/// A field name, or a prefix of field names like `x-amz-*`. In lower case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamePattern {
    text: Box<str>,
    is_prefix: bool,
}

/// Text that is neither a field name nor a prefix with `*`.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a field name; use `x-sum`, or `x-app-*` for all that begin with `x-app-`")]
pub struct ParseNamePatternError(String);

// === impl NamePattern ===

impl NamePattern {
    /// Whether a name matches, case-insensitive.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let text = self.text.as_bytes();
        match self.is_prefix {
            true => name.get(..text.len()).is_some_and(|it| it.eq_ignore_ascii_case(text)),
            false => name.eq_ignore_ascii_case(text),
        }
    }

    /// The name, unless the pattern is a prefix.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        (!self.is_prefix).then_some(&*self.text)
    }
}

impl FromStr for NamePattern {
    type Err = ParseNamePatternError;

    fn from_str(text: &str) -> Result<Self, ParseNamePatternError> {
        let prefix = text.strip_suffix('*');
        let name = prefix.unwrap_or(text);
        // A token (RFC 9110, section 5.6.2). An empty prefix would match every name.
        let is_valid = !name.is_empty()
            && name.len() <= 256
            && name.bytes().all(|it| it.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&it));
        match is_valid {
            true => {
                Ok(Self { text: name.to_ascii_lowercase().into(), is_prefix: prefix.is_some() })
            }
            false => Err(ParseNamePatternError(text.chars().take(200).collect())),
        }
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_prefix() {
        for (pattern, name, expected) in [
            ("X-Sum", "x-sum", true),
            ("x-sum", "X-SUM", true),
            ("x-sum", "x-sums", false),
            ("x-*", "X-Sum", true),
            ("x-*", "x-", true),
            ("x-*", "y-sum", false),
            ("x-app-*", "x-", false),
        ] {
            let pattern: NamePattern = pattern.parse().expect("a pattern");
            assert_eq!(pattern.matches(name.as_bytes()), expected, "{pattern} {name}");
        }
        for invalid in ["", "*", "a b", "a:", "x-*-y", "x-**", "\u{e9}"] {
            assert!(invalid.parse::<NamePattern>().is_err(), "{invalid:?}");
        }
    }
}
