//! The output of a command, of which the beginning and the end are kept. The rest is read and thrown away: a command must not
//! have to wait for a reader of what it prints.

use std::{collections::VecDeque, io::Read};

use serde::{Deserialize, Serialize};

/// The output of a command, or its beginning and its end.
#[derive(Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::rollout) struct Output {
    pub(in crate::rollout) head: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::rollout) tail: Option<Tail>,
}

/// The end of an output of which something is left out.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::rollout) struct Tail {
    /// So many bytes are left out before it.
    pub(in crate::rollout) left_out: u64,
    pub(in crate::rollout) text: String,
}

/// What is kept of an output.
#[derive(Debug)]
pub(super) struct KeptOutput {
    max: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl KeptOutput {
    /// At most so many bytes.
    pub(super) fn new(max: usize) -> Self {
        Self { max, head: Vec::new(), tail: VecDeque::new(), left_out: 0 }
    }

    /// Adds what was printed.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let half = self.max / 2;
        let to_head = half.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..to_head]);
        let rest = &bytes[to_head..];
        self.tail.extend(rest);
        let surplus = self.tail.len().saturating_sub(half);
        self.tail.drain(..surplus);
        self.left_out += surplus as u64;
    }

    /// What is kept, as text. What is not UTF-8 is replaced, and so are control characters but the ends of lines and tabs.
    pub(super) fn output(&self) -> Output {
        let (head, tail) = (&self.head, self.tail.iter().copied().collect::<Vec<_>>());
        if self.left_out == 0 {
            return Output { head: text(&[&**head, &tail].concat()), tail: None };
        }
        let tail = Tail { left_out: self.left_out, text: text(&tail) };
        Output { head: text(head), tail: Some(tail) }
    }
}

fn text(bytes: &[u8]) -> String {
    let is_shown = |it: char| !it.is_control() || matches!(it, '\n' | '\r' | '\t');
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|it| if is_shown(it) { it } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Reads until the end, and gives what was read to `add`.
pub(super) fn drain(mut from: impl Read, mut add: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => add(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Output {
        Output { head: text.to_owned(), tail: None }
    }

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let mut kept = KeptOutput::new(8);
        kept.add(b"abc");
        assert_eq!(kept.output(), whole("abc"));
        kept.add(b"defgh");
        assert_eq!(kept.output(), whole("abcdefgh"));
        kept.add(b"ij");
        let cut = |left_out, text: &str| {
            let tail = Some(Tail { left_out, text: text.to_owned() });
            Output { head: "abcd".to_owned(), tail }
        };
        assert_eq!(kept.output(), cut(2, "ghij"));
        for _ in 0..10_000 {
            kept.add(&[b'x'; 1000]);
        }
        kept.add("é".as_bytes());
        assert_eq!(kept.output(), cut(10_000_004, "xxé"));
        assert_eq!(KeptOutput::new(0).output(), whole(""));
    }

    #[test]
    fn what_no_terminal_shows_is_replaced() {
        let mut kept = KeptOutput::new(100);
        kept.add(b"a\0\x1b[2J\xff\tb\r\n");
        assert_eq!(kept.output(), whole("a\u{fffd}\u{fffd}[2J\u{fffd}\tb\r\n"));
    }

    #[test]
    fn everything_is_read_also_what_is_not_kept() {
        let mut count = 0;
        drain(std::io::repeat(b'x').take(1_000_000), |it| count += it.len());
        assert_eq!(count, 1_000_000);
    }
}
