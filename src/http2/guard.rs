//! Rejects malformed requests (section 8.1) that h2 accepts: it drops pseudo-header fields in trailers, and more that
//! [`pseudo`] checks.
//!
//! h2 rejects a head in which a pseudo-header field follows a regular one. So Flipgate inserts a regular field, the
//! mark, at the beginning of each trailer section and of each malformed head before h2 reads it: a pseudo-header field
//! after the mark makes it malformed for h2 too. All other frames pass unchanged.

use http::HeaderName;
use tokio::io::ReadBuf;

use super::{PREFACE, pseudo};

/// Filters the frames that a client sends.
#[derive(Debug)]
pub struct FrameValidator {
    /// Bytes that remain of the preface or the current frame.
    remaining: usize,
    /// The highest stream that has begun.
    last: u32,
    /// Whether every head gets the mark, since the dynamic table has a value that makes heads malformed.
    marks_all: bool,
    /// Received bytes that were not passed on: first those that can pass, then the others.
    buffered: Vec<u8>,
    /// How many of them can pass.
    ready: usize,
}

/// A frame header (section 4.1).
struct FrameHeader {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// What to do with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum FrameVerdict {
    Pass,
    /// Wait for the complete frame.
    Wait,
    /// Insert the mark.
    Mark {
        /// Whether all later heads need the mark too.
        marks_later: bool,
    },
}

/// The field that is inserted.
pub(super) const MARK: HeaderName = HeaderName::from_static("flipgate-end");

/// The mark as a literal without indexing, with an empty value (RFC 7541, section 6.2.2).
const MARK_FIELD: &[u8] = b"\0\x0cflipgate-end\0";

const HEADER_LENGTH: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The maximum frame size, since Flipgate does not raise the default (section 4.2). h2 rejects larger frames.
const LENGTH_MAX: usize = 16_384;

// === impl FrameValidator ===

impl FrameValidator {
    /// A validator at the beginning of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self { remaining: PREFACE.len(), last: 0, marks_all: false, buffered: Vec::new(), ready: 0 }
    }

    /// Copies buffered bytes that can pass into `buf`. False if there are none.
    pub fn take(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let count = self.ready.min(buf.remaining());
        if count == 0 {
            return false;
        }
        buf.put_slice(&self.buffered[..count]);
        self.buffered.drain(..count);
        self.ready -= count;
        if self.buffered.is_empty() {
            self.buffered = Vec::new();
        }
        true
    }

    /// Checks the bytes in `buf` after the first `before`, and removes those that cannot pass yet. Call it only while
    /// [`take`](Self::take) returns false. False if no byte can pass.
    pub fn filter(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> bool {
        let received = &buf.filled()[before..];
        let filtered = if self.buffered.is_empty() { self.skip(received) } else { 0 };
        if filtered < received.len() {
            self.buffered.extend_from_slice(&received[filtered..]);
            buf.set_filled(before + filtered);
            self.process_buffered();
        }
        filtered > 0 || self.take(buf)
    }

    /// How many bytes pass unchanged: up to a frame that needs the mark or has an incomplete header.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let some = self.remaining.min(bytes.len() - at);
            self.remaining -= some;
            at += some;
            match FrameHeader::read(&bytes[at..]) {
                Some(frame)
                    if self.remaining == 0
                        && self.verdict(&frame, &bytes[at..]) == FrameVerdict::Pass =>
                {
                    if frame.kind == HEADERS {
                        self.last = frame.stream;
                    }
                    self.remaining = frame.length;
                    at += HEADER_LENGTH;
                }
                _ => return at,
            }
        }
    }

    fn verdict(&self, frame: &FrameHeader, bytes: &[u8]) -> FrameVerdict {
        if frame.kind != HEADERS || frame.stream == 0 || frame.length > LENGTH_MAX {
            return FrameVerdict::Pass;
        }
        if frame.stream <= self.last || self.marks_all {
            return FrameVerdict::Mark { marks_later: false };
        }
        let Some(bytes) = bytes.get(..HEADER_LENGTH + frame.length) else {
            return FrameVerdict::Wait;
        };
        let block = frame.block_start(bytes).map(|it| &bytes[it..]);
        match block.and_then(pseudo::check) {
            None => FrameVerdict::Pass,
            Some(wrong) => FrameVerdict::Mark { marks_later: wrong.is_indexed },
        }
    }

    /// Inserts the mark where the buffered frames need it, and updates how much can pass.
    fn process_buffered(&mut self) {
        loop {
            let mut buffered = std::mem::take(&mut self.buffered);
            self.ready += self.skip(&buffered[self.ready..]);
            let frame = &buffered[self.ready..];
            let start = FrameHeader::read(frame).and_then(|it| match self.verdict(&it, frame) {
                FrameVerdict::Mark { marks_later: poisons } => {
                    Some((it.block_start(frame)?, it, poisons))
                }
                FrameVerdict::Pass | FrameVerdict::Wait => None,
            });
            let is_marked = start.is_some();
            if let Some((start, FrameHeader { length, stream, .. }, poisons)) = start {
                self.last = stream.max(self.last);
                self.marks_all |= poisons;
                let length = length + MARK_FIELD.len();
                let encoded = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
                buffered[self.ready..self.ready + 3].copy_from_slice(&encoded[1..]);
                let start = self.ready + start;
                buffered.splice(start..start, MARK_FIELD.iter().copied());
                self.ready += HEADER_LENGTH;
                self.remaining = length;
            }
            self.buffered = buffered;
            if !is_marked {
                return;
            }
        }
    }
}

impl Default for FrameValidator {
    fn default() -> Self {
        Self::new()
    }
}

// === impl FrameHeader ===

impl FrameHeader {
    /// The frame header at the beginning of `bytes`, if complete.
    fn read(bytes: &[u8]) -> Option<Self> {
        let [one, two, three, kind, flags, stream @ ..] = bytes.first_chunk::<HEADER_LENGTH>()?;
        Some(Self {
            length: u32::from_be_bytes([0, *one, *two, *three]) as usize,
            kind: *kind,
            flags: *flags,
            stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
        })
    }

    /// Where the fields begin in a HEADERS frame: after the padding length and priority (section 6.2), and after table
    /// size updates, which must come first (RFC 7541, section 4.2). `None` while incomplete.
    fn block_start(&self, bytes: &[u8]) -> Option<usize> {
        let end = HEADER_LENGTH + self.length;
        let mut at = HEADER_LENGTH;
        at += usize::from(self.flags & PADDED != 0);
        at += if self.flags & PRIORITY != 0 { 5 } else { 0 };
        while at < end {
            let first = bytes.get(at)?;
            if first & 0xe0 != 0x20 {
                break;
            }
            at += 1;
            let mut more = first & 0x1f == 0x1f;
            while more && at < end {
                more = bytes.get(at)? & 0x80 != 0;
                at += 1;
            }
        }
        // A frame that ends before its field block is malformed in any case.
        let at = at.min(end);
        (bytes.len() >= at).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// The filtered bytes, if they arrive and are taken in parts.
    fn filtered(bytes: &[u8], at_once: usize, buf: usize) -> Vec<u8> {
        let (mut validator, mut seen) = (FrameValidator::new(), Vec::new());
        for part in bytes.chunks(at_once) {
            let mut memory = vec![0; part.len()];
            let mut read = ReadBuf::new(&mut memory);
            read.put_slice(part);
            validator.filter(&mut read, 0);
            seen.extend_from_slice(read.filled());
            loop {
                let mut memory = vec![0; buf];
                let mut read = ReadBuf::new(&mut memory);
                if !validator.take(&mut read) {
                    break;
                }
                seen.extend_from_slice(read.filled());
            }
        }
        seen
    }

    #[test]
    fn trailers_get_the_mark_however_they_are_split() {
        let update = [0x3f, 0xe1, 0x1f];
        for (flags, before) in [
            (0x5, &[][..]),
            (0x5, &[0x20]),
            (0x5, &update),
            (0x5, &[0x20, 0x3f, 0xe1, 0x1f]),
            (0x5 | PADDED, &[2]),
            (0x5 | PRIORITY, &[0, 0, 0, 3, 9]),
            (0x5 | PADDED | PRIORITY, &[2, 0, 0, 0, 3, 9, 0x20]),
        ] {
            let fields = b"\x00\x01a\x01b\0\0";
            let head = frame(HEADERS, 4, 1, b"\x82\x86\x84");
            let rest = frame(6, 0, 0, b"12345678");
            let trailers = frame(HEADERS, flags, 1, &[before, fields].concat());
            let marked = frame(HEADERS, flags, 1, &[before, MARK_FIELD, fields].concat());
            let sent =
                [PREFACE, &head, &frame(0, 0, 1, b"data"), &trailers, &rest, &trailers].concat();
            let expected =
                [PREFACE, &head, &frame(0, 0, 1, b"data"), &marked, &rest, &marked].concat();
            for at_once in 1..=sent.len() {
                assert_eq!(
                    filtered(&sent, at_once, 7),
                    expected,
                    "{flags:x} {before:x?} {at_once}"
                );
            }
        }
    }

    #[test]
    fn other_frames_pass_unchanged() {
        let sent = [
            PREFACE,
            &frame(4, 0, 0, &[]),
            &frame(HEADERS, 5, 1, b"\x82"),
            &frame(HEADERS, 5, 3, b"\x82"),
            &frame(9, 4, 3, b"\x82"),
            &frame(HEADERS, 5, 0, b"\x82"),
            &frame(HEADERS, 5, 1, &[0; LENGTH_MAX + 1]),
            &frame(3, 0, 1, &[0; 4]),
        ]
        .concat();
        for at_once in [1, 2, 9, 10, 1000, sent.len()] {
            assert_eq!(filtered(&sent, at_once, 1000), sent, "{at_once}");
        }
    }

    #[test]
    fn a_malformed_head_gets_the_mark_and_later_ones_that_may_refer_to_it() {
        let malformed = |first: u8| [0x82, 0x86, first, 2, b'/', b'#'];
        let marked = |block: &[u8]| [MARK_FIELD, block].concat();
        for (first, marks_later) in [(0x04, false), (0x44, true)] {
            let malformed = malformed(first);
            let valid = b"\x82\x86\x84";
            let next = if marks_later { marked(valid) } else { valid.to_vec() };
            let sent = [
                PREFACE,
                &frame(HEADERS, 5, 1, valid),
                &frame(HEADERS, 5, 3, &malformed),
                &frame(HEADERS, 5, 5, valid),
            ];
            let expected = [
                PREFACE,
                &frame(HEADERS, 5, 1, valid),
                &frame(HEADERS, 5, 3, &marked(&malformed)),
                &frame(HEADERS, 5, 5, &next),
            ];
            let (sent, expected) = (sent.concat(), expected.concat());
            for at_once in 1..=sent.len() {
                assert_eq!(filtered(&sent, at_once, 7), expected, "{first:x} {at_once}");
            }
        }
    }

    #[test]
    fn a_frame_that_is_too_short_for_its_flags_passes() {
        let short = frame(HEADERS, 0x5 | PADDED | PRIORITY, 1, b"\x02\0");
        let sent = [PREFACE, &frame(HEADERS, 4, 1, b"\x82"), &short, &short].concat();
        let seen = filtered(&sent, 3, 100);
        assert_eq!(seen.len(), sent.len() + 2 * MARK_FIELD.len());
    }
}
