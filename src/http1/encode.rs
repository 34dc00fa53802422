//! Encoding of heads and bodies.

use super::fields::Framing;

/// How a body is encoded for its recipient.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encoding {
    /// Unencoded: the length is declared, or the body ends with the connection.
    Plain,
    /// In chunks.
    Chunked,
}

// === impl Encoding ===

impl Encoding {
    /// The encoding for a framing.
    #[must_use]
    pub fn of(framing: Framing) -> Self {
        match framing {
            Framing::Chunked => Self::Chunked,
            Framing::None | Framing::Exact(_) | Framing::UntilClose => Self::Plain,
        }
    }

    /// The bytes between two chunks, and after the last one.
    #[must_use]
    pub fn after_data(self) -> &'static [u8] {
        match self {
            Self::Plain => b"",
            Self::Chunked => b"\r\n",
        }
    }

    /// Appends the bytes before `data` bytes of content.
    pub fn put_before_data(self, out: &mut Vec<u8>, data: usize) {
        if self == Self::Chunked {
            put_chunk_head(out, data);
        }
    }

    /// Appends the end of a body. Each line of `trailers` ends in CRLF.
    pub fn put_end(self, out: &mut Vec<u8>, trailers: &[u8]) {
        if self == Self::Chunked {
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(trailers);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends a field line.
#[inline]
pub fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a decimal number.
pub fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends the size line of a chunk.
fn put_chunk_head(out: &mut Vec<u8>, size: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    let digit = |index: u32| DIGITS[size >> (index * 4) & 15];
    out.extend((0..digits).rev().map(digit));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_head_is_the_size_in_hexadecimal_digits() {
        for size in [0, 1, 9, 10, 15, 16, 255, 256, 4096, 65535, 65536, usize::MAX] {
            let mut out = Vec::new();
            put_chunk_head(&mut out, size);
            assert_eq!(String::from_utf8_lossy(&out), format!("{size:x}\r\n"));
        }
    }

    #[test]
    fn a_chunked_body_ends_with_its_trailers() {
        let mut out = Vec::new();
        Encoding::Chunked.put_before_data(&mut out, 5);
        out.extend_from_slice(b"hello");
        out.extend_from_slice(Encoding::Chunked.after_data());
        Encoding::Chunked.put_end(&mut out, b"x: 1\r\n");
        assert_eq!(out, b"5\r\nhello\r\n0\r\nx: 1\r\n\r\n");
        out.clear();
        Encoding::Plain.put_before_data(&mut out, 5);
        Encoding::Plain.put_end(&mut out, b"x: 1\r\n");
        assert!(out.is_empty() && Encoding::Plain.after_data().is_empty());
    }
}
