//! Whether a head that comes in parts is worth parsing yet.

/// Remembers how much of a head that comes in parts was looked at. Parsing it again at every byte
/// would cost the square of its length.
#[derive(Debug)]
pub struct HeadScanner {
    /// Bytes that a head may have at most.
    max: usize,
    /// Bytes that were searched for an empty line.
    searched: usize,
    parsed: usize,
    /// Whether an empty line was seen, so that each byte behind it may be the one that matters.
    has_ended: bool,
}

impl HeadScanner {
    /// Nothing was looked at yet of a head of at most so many bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, searched: 0, parsed: 0, has_ended: false }
    }

    /// Whether the head may be whole by now, or be found to be none. Nothing is missed: a head that
    /// is whole is always worth parsing.
    pub fn is_worth_parsing(&mut self, bytes: &[u8]) -> bool {
        // A head that comes whole is parsed at once, and never searched.
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

/// Whether an empty line ends within `bytes`, of which the first `known` were looked at before.
pub(super) fn has_end(bytes: &[u8], known: usize) -> bool {
    let from = known.saturating_sub(3);
    memchr::memchr_iter(b'\n', &bytes[from..])
        .map(|at| &bytes[from + at + 1..])
        .any(|rest| matches!(rest, [b'\n', ..] | [b'\r', b'\n', ..]))
}
