//! Decoding of bodies: finds their end, and removes the framing.

use super::{
    chunk_extension::ChunkExtension,
    fields::{Fields, Framing, LENGTH_MAX},
};

/// Decodes a body, however its bytes are split.
#[derive(Debug)]
pub struct Decoder {
    state: DecoderState,
    /// Bytes of chunk extensions so far, of all chunks.
    extensions: usize,
    /// The trailer section as received, with line ends.
    trailers: Vec<u8>,
}

/// The result of decoding some bytes: `skip` bytes of framing, then `data` bytes of content. All of the first
/// `consumed` bytes are done with, whether content or framing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DecodeStep {
    /// Where the content begins.
    pub skip: usize,
    /// The length of the content.
    pub data: usize,
    /// How many bytes are decoded.
    pub consumed: usize,
}

/// An invalid or ambiguous chunked body (section 7.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(&'static str);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DecoderState {
    Done,
    /// This many bytes remain; at least one.
    Exact(u64),
    UntilClose,
    Chunked(ChunkState),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ChunkState {
    /// In the digits of a size.
    Size { size: u64, digits: u8 },
    /// After the digits, in the extensions.
    Extension { size: u64, length: usize, at: ChunkExtension },
    /// After the CR of a size line.
    SizeEnd { size: u64 },
    /// This many bytes of the chunk's content remain; at least one.
    Data(u64),
    /// After a chunk's content.
    DataCr,
    /// After the CR that follows a chunk's content.
    DataLf,
    /// In the trailer section, at the start of a line or later.
    Trailers { at_line_start: bool },
    /// After a CR in the trailer section.
    TrailersCr { at_line_start: bool },
}

/// Sixteen digits fit into 64 bits; longer sizes are rejected.
const DIGITS_MAX: u8 = 16;

/// Bytes of extensions in one chunk. They are not used in practice.
const EXTENSION_MAX: usize = 1024;

/// Bytes of extensions in all chunks of a body.
const EXTENSIONS_MAX: usize = 16 * 1024;

/// Bytes of a trailer section.
const TRAILERS_MAX: usize = 8 * 1024;

// === impl Decoder ===

impl Decoder {
    /// A decoder at the beginning of a body.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Exact(0) => DecoderState::Done,
            Framing::Exact(length) => DecoderState::Exact(length),
            Framing::UntilClose => DecoderState::UntilClose,
            Framing::Chunked => DecoderState::Chunked(ChunkState::Size { size: 0, digits: 0 }),
        };
        Self { state, extensions: 0, trailers: Vec::new() }
    }

    /// Whether the body is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == DecoderState::Done
    }

    /// Whether the body ends when the connection closes.
    #[must_use]
    pub fn ends_at_close(&self) -> bool {
        self.state == DecoderState::UntilClose
    }

    /// The trailer section, as lines that end in CRLF. Complete when the body is.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Decodes the next bytes. The content of several chunks is moved together, so that it is contiguous; bytes after
    /// the body stay unchanged.
    ///
    /// # Errors
    ///
    /// [`BodyError`]; the rest of the connection is unusable then.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<DecodeStep, BodyError> {
        let whole = |data| DecodeStep { skip: 0, data, consumed: data };
        match self.state {
            DecoderState::Done => Ok(DecodeStep::default()),
            DecoderState::UntilClose => Ok(whole(bytes.len())),
            DecoderState::Exact(left) => {
                let data = at_most(left, bytes.len());
                self.state = match left - data as u64 {
                    0 => DecoderState::Done,
                    left => DecoderState::Exact(left),
                };
                Ok(whole(data))
            }
            DecoderState::Chunked(state) => self.decode_chunks(state, bytes),
        }
    }

    fn decode_chunks(
        &mut self,
        state: ChunkState,
        bytes: &mut [u8],
    ) -> Result<DecodeStep, BodyError> {
        let mut decoded = DecodeStep::default();
        let mut state = state;
        while let Some(byte) = bytes.get(decoded.consumed).copied() {
            if let ChunkState::Data(left) = state {
                let data = at_most(left, bytes.len() - decoded.consumed);
                match decoded.data {
                    0 => decoded.skip = decoded.consumed,
                    _ => bytes.copy_within(
                        decoded.consumed..decoded.consumed + data,
                        decoded.skip + decoded.data,
                    ),
                }
                decoded.data += data;
                decoded.consumed += data;
                state = match left - data as u64 {
                    0 => ChunkState::DataCr,
                    left => ChunkState::Data(left),
                };
                continue;
            }
            decoded.consumed += 1;
            match self.step(state, byte)? {
                Some(next) => state = next,
                None => {
                    self.state = DecoderState::Done;
                    return Ok(decoded);
                }
            }
        }
        self.state = DecoderState::Chunked(state);
        Ok(decoded)
    }

    /// Decodes one byte of framing. `None` after the last one.
    fn step(&mut self, state: ChunkState, byte: u8) -> Result<Option<ChunkState>, BodyError> {
        let next = match (state, byte) {
            (ChunkState::Size { digits: 1.., size }, b'\r' | b';') if size > LENGTH_MAX => {
                return Err(BodyError("a chunk size is too large"));
            }
            (ChunkState::Size { digits: 1.., size }, b'\r') => ChunkState::SizeEnd { size },
            (ChunkState::Size { digits: 1.., size }, b';') => {
                ChunkState::Extension { size, length: 0, at: ChunkExtension::BEGIN }
            }
            (ChunkState::Size { size, digits }, _) => {
                let digit = char::from(byte).to_digit(16).map(u64::from);
                let digit = digit.ok_or(BodyError("a chunk size is not a hexadecimal number"))?;
                if digits == DIGITS_MAX {
                    return Err(BodyError("a chunk size is too large"));
                }
                ChunkState::Size { size: size << 4 | digit, digits: digits + 1 }
            }
            (ChunkState::Extension { size, at, .. }, b'\r') if at.may_end() => {
                ChunkState::SizeEnd { size }
            }
            (ChunkState::Extension { size, length, at }, _) => {
                let error = BodyError("invalid chunk extension");
                let at = at.next(byte).ok_or(error)?;
                self.extensions += 1;
                if length == EXTENSION_MAX || self.extensions > EXTENSIONS_MAX {
                    return Err(BodyError("the chunk extensions are too long"));
                }
                ChunkState::Extension { size, length: length + 1, at }
            }
            (ChunkState::SizeEnd { size: 0 }, b'\n') => {
                ChunkState::Trailers { at_line_start: true }
            }
            (ChunkState::SizeEnd { size }, b'\n') => ChunkState::Data(size),
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::Size { size: 0, digits: 0 },
            (ChunkState::Trailers { at_line_start }, b'\r') => {
                ChunkState::TrailersCr { at_line_start }
            }
            (ChunkState::TrailersCr { at_line_start: true }, b'\n') => {
                let are_valid =
                    self.trailers.is_empty() || Fields::of_trailers(&self.trailers).is_some();
                return are_valid.then_some(None).ok_or(BodyError("invalid trailer section"));
            }
            (ChunkState::TrailersCr { at_line_start: false }, b'\n') => {
                if self.trailers.len() + 2 > TRAILERS_MAX {
                    return Err(BodyError("the trailers are too long"));
                }
                self.trailers.extend_from_slice(b"\r\n");
                ChunkState::Trailers { at_line_start: true }
            }
            (ChunkState::Trailers { .. }, b'\t' | b' '..=b'~' | 0x80..) => {
                if self.trailers.len() >= TRAILERS_MAX {
                    return Err(BodyError("the trailers are too long"));
                }
                self.trailers.push(byte);
                ChunkState::Trailers { at_line_start: false }
            }
            (ChunkState::Trailers { .. }, _) => {
                return Err(BodyError("a trailer field has control characters"));
            }
            (ChunkState::SizeEnd { .. } | ChunkState::TrailersCr { .. }, _) => {
                return Err(BodyError("a line does not end in CRLF"));
            }
            (ChunkState::DataCr | ChunkState::DataLf, _) => {
                return Err(BodyError("the content of a chunk does not end in CRLF"));
            }
            (ChunkState::Data(_), _) => unreachable!("decode_chunks handles content"),
        };
        Ok(Some(next))
    }
}

fn at_most(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, trailers, and the remaining bytes.
    type Decoded = (Vec<u8>, Vec<u8>, Vec<u8>);

    /// Decodes a body that arrives in these pieces.
    fn decode(framing: Framing, pieces: &[&[u8]]) -> Result<Decoded, BodyError> {
        let mut decoder = Decoder::new(framing);
        let (mut content, mut left) = (Vec::new(), Vec::new());
        for decoded in pieces {
            let mut bytes = decoded.to_vec();
            let mut at = 0;
            while at < bytes.len() {
                let found = decoder.decode(&mut bytes[at..])?;
                content.extend_from_slice(&bytes[at + found.skip..][..found.data]);
                at += found.consumed;
                if found.consumed == 0 {
                    left.extend_from_slice(&bytes[at..]);
                    break;
                }
            }
        }
        assert!(decoder.is_done(), "not at the end: {decoder:?}");
        Ok((content, decoder.trailers().to_vec(), left))
    }

    #[test]
    fn a_body_decodes_the_same_however_its_bytes_are_split() {
        let chunks =
            "5\r\nhello\r\n1;a=\"b c\"\r\n \r\n00005;x\r\nworld\r\n0;y\r\nx-sum: 11\r\nb: \r\n\r\n";
        for (framing, text, content, trailers) in [
            (Framing::Chunked, chunks, "hello world", "x-sum: 11\r\nb: \r\n"),
            (Framing::Chunked, "0\r\n\r\n", "", ""),
            (Framing::Exact(11), "hello world", "hello world", ""),
            (Framing::None, "", "", ""),
        ] {
            let whole = format!("{text}GET /");
            let bytes = whole.as_bytes();
            for one in 0..=bytes.len() {
                for two in one..=bytes.len() {
                    let pieces = [&bytes[..one], &bytes[one..two], &bytes[two..]];
                    let (found, lines, left) = decode(framing, &pieces).expect("a valid body");
                    assert_eq!(String::from_utf8_lossy(&found), content, "{one} {two}");
                    assert_eq!(String::from_utf8_lossy(&lines), trailers);
                    assert_eq!(left, b"GET /", "{one} {two}");
                }
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(framing, &single).expect("a valid body").0, content.as_bytes());
        }
    }

    #[test]
    fn an_invalid_chunk_is_rejected_at_its_first_invalid_byte() {
        for (text, at) in [
            ("\r\n", 1),
            (";x\r\n", 1),
            ("0x2\r\n", 2),
            ("-1\r\n", 1),
            ("+1\r\n", 1),
            (" 1\r\n", 1),
            ("1 \r\n", 2),
            ("1\n", 2),
            ("1\r1", 3),
            ("1;a\nb\r\n", 4),
            ("1;a\rb\r\n", 5),
            ("1;\0\r\n", 3),
            ("8000000000000000\r\n", 17),
            ("ffffffffffffffff;a\r\n", 17),
            ("1;a=\"\r\n", 6),
            ("1;a=\"b\\\r\n", 8),
            ("1;a=\"b\"c\r\n", 8),
            ("1;a=\r\n", 5),
            ("1;\r\n", 3),
            ("1;;\r\n", 3),
            ("1;a b\r\n", 5),
            ("1;a \r\n", 5),
            ("10000000000000000\r\n", 17),
            ("00000000000000001\r\n", 17),
            ("2\r\nabXX", 6),
            ("2\r\nab\n", 6),
            ("2\r\nab\rX", 7),
            ("0\r\nx: 1\n", 8),
            ("0\r\nx: 1\rX", 9),
            ("0\r\n\n", 4),
            ("0\r\n\0", 4),
            ("0\r\nx\r\n\r\n", 8),
            ("0\r\nx : 1\r\n\r\n", 12),
            ("0\r\n x: 1\r\n\r\n", 12),
            ("0\r\nx: 1\r\n y\r\n\r\n", 15),
        ] {
            for size in [1, text.len()] {
                let mut decoder = Decoder::new(Framing::Chunked);
                let mut seen = 0;
                let failed = text.as_bytes().chunks(size).any(|decoded| {
                    seen += decoded.len();
                    decoder.decode(&mut decoded.to_vec()).is_err()
                });
                assert!(failed, "{text:?}");
                assert!(size > 1 || seen == at, "{text:?} failed after {seen} bytes");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_have_limits() {
        let fails =
            |text: &str| Decoder::new(Framing::Chunked).decode(&mut text.as_bytes().to_vec());
        let long = |count: usize| "x".repeat(count);
        assert!(fails(&format!("1;{}\r\n", long(EXTENSION_MAX))).is_ok());
        assert!(fails(&format!("1;{}\r\n", long(EXTENSION_MAX + 1))).is_err());
        let many = format!("1;{}\r\nx\r\n", long(EXTENSION_MAX));
        assert!(fails(&many.repeat(16)).is_ok());
        assert!(fails(&many.repeat(17)).is_err());
        assert!(fails(&format!("0\r\n{}", long(TRAILERS_MAX))).is_ok());
        assert!(fails(&format!("0\r\n{}", long(TRAILERS_MAX + 1))).is_err());
        // A line end once exceeded the limit of the section, which was not checked again.
        let line = |count: usize| format!("0\r\na: {}\r\n", long(count - 5));
        assert!(fails(&line(TRAILERS_MAX)).is_ok());
        assert!(fails(&line(TRAILERS_MAX + 1)).is_err());
        assert!(fails(&format!("{}{}", line(TRAILERS_MAX - 1), long(70_000))).is_err());
    }

    #[test]
    fn a_body_until_close_has_no_other_end() {
        let mut decoder = Decoder::new(Framing::UntilClose);
        let decoded = decoder.decode(&mut b"0\r\n\r\n".to_vec()).expect("any content is valid");
        assert_eq!((decoded.data, decoder.is_done(), decoder.ends_at_close()), (5, false, true));
    }

    #[test]
    fn content_of_several_chunks_is_joined_and_later_bytes_stay_unchanged() {
        let mut bytes = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nGET".to_vec();
        let mut decoder = Decoder::new(Framing::Chunked);
        let decoded = decoder.decode(&mut bytes).expect("a valid body");
        assert_eq!(&bytes[decoded.skip..][..decoded.data], b"abcde");
        assert_eq!(&bytes[decoded.consumed..], b"GET");
        assert!(decoder.is_done());
    }
}
