//! When to parse a head that arrives in parts.

/// Remembers how much of a partial head was scanned. Parsing it again after every byte would take quadratic time.
#[derive(Debug)]
pub struct HeadScanner {
    /// The maximum length of a head.
    max: usize,
    /// Bytes that were searched for an empty line.
    searched: usize,
    parsed: usize,
    /// Whether an empty line was found, so that each further byte may complete the request.
    has_ended: bool,
}

impl HeadScanner {
    /// A scanner for heads of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, searched: 0, parsed: 0, has_ended: false }
    }

    /// Whether the head may be complete or invalid by now. Always true for a complete head.
    pub fn is_worth_parsing(&mut self, bytes: &[u8]) -> bool {
        // A head that arrives in one piece is parsed at once and not searched.
        let is_worth_it =
            bytes.len() >= 2 * self.parsed || bytes.len() >= self.max || self.has_end_now(bytes);
        if is_worth_it {
            self.parsed = bytes.len();
        }
        is_worth_it
    }

    fn has_end_now(&mut self, bytes: &[u8]) -> bool {
        if !self.has_ended {
            let searched = std::mem::replace(&mut self.searched, bytes.len());
            self.has_ended = has_end(bytes, searched);
        }
        self.has_ended
    }
}

/// Whether `bytes` has an empty line, if the first `known` bytes were searched before.
pub(super) fn has_end(bytes: &[u8], known: usize) -> bool {
    let from = known.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|at| &bytes[from + at + 1..])
        .any(|rest| matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]))
}
