//! Loop detection: whether this process has sent a request before.
//!
//! A process adds its own mark to each request that it forwards, in `Via` (RFC 9110, section 7.6.3) or in `CDN-Loop`
//! (RFC 8586). Proxies in between leave these fields in place. A request that arrives with the mark would loop forever.
//! Another Flipgate has another mark, so that one may be behind the other. A field `Flipgate-…` would not do: those of
//! clients are removed. A client that copies a mark gets a 508 for its own request, and affects no other one.

use std::sync::Arc;

use memchr::memmem;

use super::forwarding::Via;
use crate::http1::{FieldLines, FieldName};

/// The mark of a process. It is not a secret: upstreams see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LoopMark(Arc<str>);

/// The header lines with the mark, one for each version of a request. Made once, because every request gets one.
#[derive(Debug)]
pub(super) struct ViaLines([Box<[u8]>; 3]);

/// The version of a received request, for `Via`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ReceivedVersion {
    Http10,
    Http11,
    Http2,
}

/// The prefix of a mark, and the number of hexadecimal digits behind it.
const PREFIX: &str = "fg-";
const DIGITS: usize = 16;

// === impl LoopMark ===

impl LoopMark {
    /// A mark that no other process has. It does not name Flipgate: applications need not know it.
    #[must_use]
    pub fn unique() -> Self {
        Self::of(fastrand::u64(..))
    }

    pub(super) fn of(number: u64) -> Self {
        Self(format!("{PREFIX}{number:0DIGITS$x}").into())
    }

    /// The lines with the mark: `Via`, or `CDN-Loop` if `Via` is turned off.
    pub(super) fn lines(&self, via: Via) -> ViaLines {
        let mark = &self.0;
        let line = |version| match via {
            Via::Both | Via::Requests => format!("Via: {version} {mark}\r\n"),
            Via::None => format!("CDN-Loop: {mark}\r\n"),
        };
        ViaLines(["1.0", "1.1", "2.0"].map(|it| line(it).into_bytes().into()))
    }

    fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether a request with these lines has this mark.
    pub(super) fn is_on(&self, lines: FieldLines<'_>) -> bool {
        [FieldName::Via, FieldName::CdnLoop].into_iter().any(|name| {
            // Few requests have such a field.
            lines.has(name) && lines.all(name).any(|it| self.is_in(it))
        })
    }

    fn is_in(&self, value: &[u8]) -> bool {
        memmem::find(value, self.as_bytes()).is_some()
    }
}

// === impl ViaLines ===

impl ViaLines {
    pub(super) fn of(&self, received: ReceivedVersion) -> &[u8] {
        &self.0[received as usize]
    }
}

/// Whether a value of `Via` or `CDN-Loop` has the mark of any Flipgate, of this process or another.
#[must_use]
pub fn is_marked(value: &[u8]) -> bool {
    let is_hex = |it: &[u8]| it.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    memmem::find_iter(value, PREFIX.as_bytes()).any(|at| {
        let digits = value.get(at + PREFIX.len()..at + PREFIX.len() + DIGITS);
        digits.is_some_and(is_hex)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    #[test]
    fn a_line_has_the_mark_behind_the_version_that_the_request_came_by() {
        let mark = LoopMark::of(7);
        for (via, received, line) in [
            (Via::Both, ReceivedVersion::Http10, "Via: 1.0 fg-0000000000000007\r\n"),
            (Via::Requests, ReceivedVersion::Http11, "Via: 1.1 fg-0000000000000007\r\n"),
            (Via::Both, ReceivedVersion::Http2, "Via: 2.0 fg-0000000000000007\r\n"),
            (Via::None, ReceivedVersion::Http2, "CDN-Loop: fg-0000000000000007\r\n"),
        ] {
            assert_eq!(mark.lines(via).of(received), line.as_bytes());
        }
    }

    #[test]
    fn a_mark_is_found_wherever_proxies_have_left_it_and_no_other_one() {
        let mark = LoopMark::of(7);
        let is_on = |name: &str, value: &str| {
            let (head, bytes) = samples::request(&[("via", "1.0 fred"), (name, value)]);
            mark.is_on(head.fields.lines(&bytes))
        };
        for value in ["1.1 fg-0000000000000007", "1.1 a, 2.0 fg-0000000000000007 (x), 1.1 b"] {
            assert!(is_on("via", value) && is_on("CDN-Loop", value), "{value}");
            assert!(!is_on("x-via", value), "{value}");
        }
        for value in ["", "1.1 flipgate", "1.1 fg-0000000000000008", "1.1 fg-7"] {
            assert!(!is_on("via", value), "{value}");
        }
        assert_ne!(LoopMark::unique(), LoopMark::unique());
        assert!(
            is_marked(LoopMark::unique().as_bytes())
                && is_marked(b"1.1 a, 1.1 fg-0123456789abcdef")
        );
        for other in [&b""[..], b"1.1 fg-", b"1.1 fg-0123456789abcde", b"1.1 fg-0123456789ABCDEF"] {
            assert!(!is_marked(other), "{}", other.escape_ascii());
        }
    }
}
