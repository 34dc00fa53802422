//! The settings of the pins of a service.

use std::time::Duration;

use crate::model::{PathPrefix, ServiceName};

/// How transactions of a service are recognized, and how long they stay on the version that they began on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PinSettings {
    /// What begins a transaction: any of these.
    pub start: Vec<PinStart>,
    /// What tells that a request belongs to a transaction.
    pub carrier: PinCarrier,
    /// How long a pin is valid after the flip to another color.
    pub max_age: Duration,
    /// How long a pin may be unused after the flip; `None` for no limit.
    pub idle: Option<Duration>,
    /// The most requests that pins may send to the color before the flip, in percent of those of the service.
    pub max_share: u8,
    /// The name that services with the same pins share.
    pub group: Option<ServiceName>,
    /// The `Domain` of the cookie.
    pub domain: Option<Box<str>>,
    /// Whether a response that a cache may keep is made private, so that it can set a pin.
    pub makes_private: bool,
}

/// What begins a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PinStart {
    /// A navigation: a new one always begins a new transaction.
    Document,
    /// A request with this path prefix that belongs to no transaction.
    Path(PathPrefix),
    /// A request with this header field that belongs to no transaction.
    Header {
        /// The name, in lower case.
        name: Box<str>,
        /// The pattern of the value; `None` for any value.
        value: Option<ValuePattern>,
    },
}

/// What carries the pin of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PinCarrier {
    /// A signed cookie that Flipgate sets.
    Cookie,
    /// A header field with a value that the client chooses for a transaction, by its name in lower case.
    Header(Box<str>),
    /// A query parameter with such a value.
    Query(Box<str>),
}

/// A value with `*` for any text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ValuePattern(Box<str>);

// === impl ValuePattern ===

impl ValuePattern {
    /// The pattern that is written like this.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether a value matches. Case-sensitive.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        let mut parts = self.0.as_bytes().split(|it| *it == b'*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = value.strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // The first place leaves most for the parts behind it.
            match memchr::memmem::find(rest, part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_nothing_else_does() {
        for (pattern, value, matches) in [
            ("scan-1", "scan-1", true),
            ("scan-1", "scan-12", false),
            ("scan-1", "Scan-1", false),
            ("scan-*", "scan-", true),
            ("scan-*", "scan-77", true),
            ("scan-*", "a-scan-77", false),
            ("*-scan", "a-scan", true),
            ("*-scan", "a-scan-", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a..b..b..c", true),
            ("a*b*c", "a..c", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let found = ValuePattern::new(pattern).matches(value.as_bytes());
            assert_eq!(found, matches, "{pattern:?} {value:?}");
        }
    }
}
