//! Where events and messages end in the content of a response, as a machine without I/O.

/// Follows the content of a stream, however its bytes are split.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BodyBorders {
    /// Server-sent events (WHATWG HTML, section 9.2.6).
    Events(EventBorders),
    /// gRPC messages: a flag, a length of four bytes, and the message.
    Messages(MessageBorders),
}

/// Follows events. An event ends with an empty line; a line ends with CRLF, LF or CR.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct EventBorders {
    /// Whether a line begins with the next byte.
    is_at_line: bool,
    /// Whether the last byte was a CR, of which an LF would be a part.
    was_cr: bool,
    /// Whether no field of an event was begun since the last empty line. A comment is none.
    is_between: bool,
}

/// Follows gRPC messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct MessageBorders {
    /// Bytes of the prefix that are left.
    prefix_left: u8,
    /// Bytes of the message that are left, as far as the prefix was read.
    left: u32,
}

/// The length of the prefix of a gRPC message.
const PREFIX: u8 = 5;

// === impl BodyBorders ===

impl BodyBorders {
    /// At the beginning of server-sent events.
    pub(super) const EVENTS: Self =
        Self::Events(EventBorders { is_at_line: true, was_cr: false, is_between: true });

    /// At the beginning of gRPC messages.
    pub(super) const MESSAGES: Self =
        Self::Messages(MessageBorders { prefix_left: PREFIX, left: 0 });

    /// Whether the content so far ends between two events or messages.
    pub(super) fn is_at_border(&self) -> bool {
        match self {
            Self::Events(it) => it.is_at_line && it.is_between,
            Self::Messages(it) => it.prefix_left == PREFIX,
        }
    }

    /// Follows content that passes.
    pub(super) fn advance(&mut self, mut content: &[u8]) {
        while !content.is_empty() {
            content = &content[self.step(content)..];
        }
    }

    /// How much of `content`, which comes next, lies before the next border: all if there is none in it, and 0 if the
    /// content so far ends at one.
    pub(super) fn until(&self, content: &[u8]) -> usize {
        let (mut ahead, mut count) = (*self, 0);
        while count < content.len() && !ahead.is_at_border() {
            count += ahead.step(&content[count..]);
        }
        count
    }

    /// Passes a part without a border inside, and returns its length, which is not 0. `content` must not be empty.
    fn step(&mut self, content: &[u8]) -> usize {
        match self {
            Self::Events(it) => it.step(content),
            Self::Messages(it) => it.step(content),
        }
    }
}

// === impl EventBorders ===

impl EventBorders {
    fn step(&mut self, content: &[u8]) -> usize {
        let was_cr = std::mem::take(&mut self.was_cr);
        match content[0] {
            b'\n' if was_cr => return 1,
            end @ (b'\n' | b'\r') => {
                self.is_between |= self.is_at_line;
                self.is_at_line = true;
                self.was_cr = end == b'\r';
                return 1;
            }
            first if self.is_at_line => self.is_between &= first == b':',
            _ => {}
        }
        self.is_at_line = false;
        memchr::memchr2(b'\n', b'\r', content).unwrap_or(content.len())
    }
}

// === impl MessageBorders ===

impl MessageBorders {
    fn step(&mut self, content: &[u8]) -> usize {
        if self.prefix_left > 0 {
            // The flag is shifted out by the four bytes behind it.
            self.left = self.left << 8 | u32::from(content[0]);
            self.prefix_left -= 1;
            if self.prefix_left == 0 && self.left == 0 {
                self.prefix_left = PREFIX;
            }
            return 1;
        }
        let there = usize::try_from(self.left).unwrap_or(usize::MAX).min(content.len());
        self.left -= u32::try_from(there).expect("at most what is left");
        if self.left == 0 {
            self.prefix_left = PREFIX;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places in `content` at which a stream may end.
    fn borders(begin: BodyBorders, content: &[u8]) -> Vec<usize> {
        let mut it = begin;
        let mut found = vec![];
        for place in 0..=content.len() {
            if it.is_at_border() {
                found.push(place);
            }
            if let Some(byte) = content.get(place) {
                it.advance(&[*byte]);
            }
        }
        found
    }

    #[test]
    fn an_event_ends_with_an_empty_line_whatever_ends_its_lines() {
        for (content, expected) in [
            ("data: a\n\ndata: b\n\n", &[0, 9, 18][..]),
            ("data: a\r\n\r\nid: 1\r\n\r\n", &[0, 10, 11, 19, 20]),
            ("data: a\r\rdata: b\r", &[0, 9]),
            ("data: a\n\r\ndata", &[0, 9, 10]),
            ("data: a\ndata: b\n\n", &[0, 17]),
            ("\n\n\ndata\n", &[0, 1, 2, 3]),
            ("data: a\n", &[0]),
            // Comments are no part of an event.
            (":ping\n:ping\n", &[0, 6, 12]),
            ("id: 1\n:ping\n\n", &[0, 13]),
            ("data: a\n\n:ping\r\ndata", &[0, 9, 15, 16]),
        ] {
            assert_eq!(borders(BodyBorders::EVENTS, content.as_bytes()), expected, "{content:?}");
        }
    }

    #[test]
    fn a_message_ends_where_its_prefix_says() {
        let mut content = vec![0, 0, 0, 0, 3, 1, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        content.extend([0; 256]);
        assert_eq!(borders(BodyBorders::MESSAGES, &content), [0, 8, 13, 274]);
        // A length of four bytes is not cut.
        let mut long = BodyBorders::MESSAGES;
        long.advance(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(long.until(&[0; 100]), 100);
    }

    /// A seeded random walk: the seed is in the message of a failure.
    #[test]
    fn any_split_gives_the_same_answer_as_one_piece() {
        for seed in 0..2000 {
            let mut random = fastrand::Rng::with_seed(seed);
            for begin in [BodyBorders::EVENTS, BodyBorders::MESSAGES] {
                let byte = |random: &mut fastrand::Rng| match begin {
                    BodyBorders::Events(_) => random.choice(*b"\n\r:ad\n\r").unwrap_or(b'a'),
                    BodyBorders::Messages(_) => random.u8(0..3),
                };
                let content: Vec<u8> =
                    (0..random.usize(0..60)).map(|_| byte(&mut random)).collect();
                let mut whole = begin;
                whole.advance(&content);
                let all = borders(begin, &content);
                let (mut split, mut place) = (begin, 0);
                while place < content.len() {
                    let next = all.iter().copied().find(|it| *it >= place);
                    let expected = next.map_or(content.len(), |it| it) - place;
                    assert_eq!(split.until(&content[place..]), expected, "seed {seed} at {place}");
                    let part = random.usize(1..=content.len() - place);
                    split.advance(&content[place..place + part]);
                    place += part;
                }
                assert_eq!(split, whole, "seed {seed}");
            }
        }
    }
}
