//! The output of a command, of which the beginning and the end are kept. The rest is read and thrown away: a command must not
//! have to wait for a reader of what it prints.

use std::{collections::VecDeque, io::Read};

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

    /// The text. What is not UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        let (head, tail) = (&self.head, self.tail.iter().copied().collect::<Vec<_>>());
        if self.left_out == 0 {
            return String::from_utf8_lossy(&[&**head, &tail].concat()).into_owned();
        }
        let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(&tail));
        format!("{head}\n… {} bytes left out …\n{tail}", self.left_out)
    }
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

    #[test]
    fn the_beginning_and_the_end_are_kept() {
        let mut kept = KeptOutput::new(8);
        kept.add(b"abc");
        assert_eq!(kept.text(), "abc");
        kept.add(b"defgh");
        assert_eq!(kept.text(), "abcdefgh");
        kept.add(b"ij");
        assert_eq!(kept.text(), "abcd\n… 2 bytes left out …\nghij");
        for _ in 0..10_000 {
            kept.add(&[b'x'; 1000]);
        }
        kept.add("é".as_bytes());
        assert!(kept.text().starts_with("abcd\n") && kept.text().ends_with("xxé"));
        assert!(kept.head.len() + kept.tail.len() <= 8);
        assert_eq!(KeptOutput::new(0).text(), "");
    }

    #[test]
    fn everything_is_read_also_what_is_not_kept() {
        let mut count = 0;
        drain(std::io::repeat(b'x').take(1_000_000), |it| count += it.len());
        assert_eq!(count, 1_000_000);
    }
}
