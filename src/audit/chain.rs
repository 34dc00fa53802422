//! How lines are chained: each has the hash of the line before, and its own.
//!
//! ```text
//! {"time":…,"verdicts":[],"previous":"<hash of the line before>","hash":"<hash of this line>"}
//! └──────────────────── SHA-256 of these bytes is the hash ────┘
//! ```

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::entry::AuditEntry;

/// The hash of a line.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct LineHash([u8; SHA256_OUTPUT_LEN]);

/// What chains a line to its neighbors.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LineLinks {
    /// The hash of the line before.
    pub previous: LineHash,
    /// The hash of this line.
    pub hash: LineHash,
}

/// Why a line cannot be trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LineDamage {
    /// It is no line of an audit log.
    #[error("is not a line of an audit log")]
    Unreadable,
    /// It differs from what its hash was made of.
    #[error("was changed: it does not match its hash")]
    Changed(LineLinks),
}

const PREVIOUS: &str = ",\"previous\":\"";
const HASH: &str = ",\"hash\":\"";
const END: &str = "\"}";

/// Hexadecimal digits of a hash.
const DIGITS: usize = 2 * SHA256_OUTPUT_LEN;

/// The line of an entry that follows on the line with the hash `previous`, without a line feed; and its own hash.
#[must_use]
pub fn line(entry: &AuditEntry, previous: LineHash) -> (String, LineHash) {
    let unsealed = entry.unsealed(previous.to_string());
    let mut text = serde_json::to_string(&unsealed).expect("texts and numbers only");
    // Without the brace that ends it.
    text.pop();
    let hash = LineHash::of(text.as_bytes());
    text.push_str(HASH);
    text.push_str(&hash.to_string());
    text.push_str(END);
    (text, hash)
}

/// The links of a line without its line feed.
///
/// # Errors
///
/// [`LineDamage`] if it was not written by [`line()`], or was changed since.
pub fn links(line: &[u8]) -> Result<LineLinks, LineDamage> {
    let hashed = |line: &[u8], before: &str, behind: usize| {
        let end = line.len().checked_sub(behind)?;
        let begin = end.checked_sub(DIGITS)?;
        let mark = begin.checked_sub(before.len())?;
        let hash = LineHash::parse(line.get(begin..end)?)?;
        (line.get(mark..begin)? == before.as_bytes()).then_some((hash, mark))
    };
    let is_ended = line.ends_with(END.as_bytes());
    let own = hashed(line, HASH, END.len()).filter(|_| is_ended);
    let (hash, length) = own.ok_or(LineDamage::Unreadable)?;
    let sealed = &line[..length];
    let before = hashed(sealed, PREVIOUS, 1).filter(|_| sealed.ends_with(b"\""));
    let (previous, _) = before.ok_or(LineDamage::Unreadable)?;
    let links = LineLinks { previous, hash };
    match LineHash::of(sealed) == hash {
        true => Ok(links),
        false => Err(LineDamage::Changed(links)),
    }
}

// === impl LineHash ===

impl LineHash {
    /// Stands for the line before the first one.
    pub const START: Self = Self([0; SHA256_OUTPUT_LEN]);

    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; SHA256_OUTPUT_LEN];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(hash)
    }

    /// A hash from its 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(digits: &[u8]) -> Option<Self> {
        let value = |it: u8| match it {
            b'0'..=b'9' => Some(it - b'0'),
            b'a'..=b'f' => Some(it - b'a' + 10),
            _ => None,
        };
        if digits.len() != DIGITS {
            return None;
        }
        let mut hash = [0; SHA256_OUTPUT_LEN];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Some(Self(hash))
    }
}

impl Default for LineHash {
    fn default() -> Self {
        Self::START
    }
}

impl fmt::Display for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|it| write!(f, "{it:02x}"))
    }
}

impl fmt::Debug for LineHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::entry::{AuditLine, AuditResult, AuditVerdict, VerdictResult},
        *,
    };

    fn entry() -> AuditEntry {
        AuditEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            actor: "uid 0".to_owned(),
            from: "unix".to_owned(),
            action: "promote web=green".to_owned(),
            reason: Some("a \"quote\",\n\"hash\":\"".to_owned()),
            before: 1,
            after: 2,
            result: AuditResult::Refused { status: Some(409), code: "refused-by-gate".to_owned() },
            verdicts: vec![AuditVerdict {
                service: "web".to_owned(),
                gate: "healthy".to_owned(),
                result: VerdictResult::NotRun,
            }],
        }
    }

    /// The text is a format: programs read it, and old lines must stay valid.
    #[test]
    fn the_form_of_a_line_is_fixed() {
        let (text, hash) = line(&entry(), LineHash::START);
        let zeros = "0".repeat(64);
        let expected = format!(
            r#"{{"time":"1970-01-01T00:00:00Z","actor":"uid 0","from":"unix","action":"promote web=green","reason":"a \"quote\",\n\"hash\":\"","before":1,"after":2,"result":"refused 409 refused-by-gate","verdicts":[{{"service":"web","gate":"healthy","result":"not_run"}}],"previous":"{zeros}","hash":"{hash}"}}"#
        );
        assert_eq!(text, expected);
        assert_eq!(links(text.as_bytes()), Ok(LineLinks { previous: LineHash::START, hash }));
        let read: AuditLine = serde_json::from_str(&text).expect("a line");
        assert_eq!((read.reason, read.hash), (entry().reason, hash.to_string()));
        assert_eq!(LineHash::parse(hash.to_string().as_bytes()), Some(hash));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let (text, _) = line(&entry(), LineHash::START);
        for place in 0..text.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= flip;
                assert!(links(&bytes).is_err(), "byte {place} by {flip:x}");
            }
            assert!(links(&text.as_bytes()[..place]).is_err(), "cut at {place}");
        }
        assert_eq!(links(b""), Err(LineDamage::Unreadable));
        assert_eq!(links(b"\"}"), Err(LineDamage::Unreadable));
    }
}
