//! Checks of pseudo-header fields that h2 does not make: it removes a fragment from a `:path`, and does not expose a
//! `:scheme` without an `:authority`.
//!
//! Decodes a field block (RFC 7541, section 6) without the dynamic table that both ends share. So a name that the
//! client has put into its dynamic table is not recognized, though the static table has it too.

/// A malformed field block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PseudoHeaderError {
    /// Whether the value enters the dynamic table.
    pub(super) is_indexed: bool,
}

/// A string, and whether it uses the Huffman code of RFC 7541, appendix B.
struct HpackString<'a> {
    bytes: &'a [u8],
    is_huffman: bool,
}

/// RFC 7541, appendix A.
const FIRST_REGULAR: usize = 15;
const FIRST_DYNAMIC: usize = 62;

/// The upper end of the codes of each length, left-aligned in 32 bits.
const HUFFMAN_RANGES: [(u32, u32); 21] = [
    (0x5000_0000, 5),
    (0xb800_0000, 6),
    (0xf800_0000, 7),
    (0xfe00_0000, 8),
    (0xff40_0000, 10),
    (0xffa0_0000, 11),
    (0xffc0_0000, 12),
    (0xfff0_0000, 13),
    (0xfff8_0000, 14),
    (0xfffe_0000, 15),
    (0xfffe_6000, 19),
    (0xfffe_e000, 20),
    (0xffff_4800, 21),
    (0xffff_b000, 22),
    (0xffff_ea00, 23),
    (0xffff_f600, 24),
    (0xffff_f800, 25),
    (0xffff_fbc0, 26),
    (0xffff_fe20, 27),
    (0xffff_fff0, 28),
    (u32::MAX, 30),
];

/// The code of `#`, 12 bits.
const FRAGMENT: u32 = 0xffa;

/// The first malformed pseudo-header field at the beginning of a block, as far as it can be decoded.
pub(super) fn check(block: &[u8]) -> Option<PseudoHeaderError> {
    let mut rest = block;
    loop {
        let first = *rest.first()?;
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (name, after) = integer(rest, bits)?;
        rest = after;
        if !has_value {
            // A table size update is not a field.
            if bits == 7 && (FIRST_REGULAR..FIRST_DYNAMIC).contains(&name) {
                return None;
            }
            continue;
        }
        let (is_path, is_scheme) = match name {
            0 => {
                let (name, after) = string(rest)?;
                rest = after;
                if !name.is_pseudo() {
                    return None;
                }
                (
                    name.is(b":path", b"\xb9\x58\xd3\x3f"),
                    name.is(b":scheme", b"\xb8\x82\x4e\x5a\x4b"),
                )
            }
            FIRST_REGULAR..FIRST_DYNAMIC => return None,
            name => (matches!(name, 4 | 5), matches!(name, 6 | 7)),
        };
        let (value, after) = string(rest)?;
        rest = after;
        if is_path && value.has_fragment() || is_scheme && !value.is_http() {
            return Some(PseudoHeaderError { is_indexed: bits == 6 });
        }
    }
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let max = (1 << bits) - 1;
    let mut number = usize::from(first & max);
    if number < usize::from(max) {
        return Some((number, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        number += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((number, rest));
        }
    }
    None
}

fn string(bytes: &[u8]) -> Option<(HpackString<'_>, &[u8])> {
    let is_huffman = bytes.first()? & 0x80 != 0;
    let (length, rest) = integer(bytes, 7)?;
    let (bytes, rest) = rest.split_at_checked(length)?;
    Some((HpackString { bytes, is_huffman }, rest))
}

// === impl HpackString ===

impl HpackString<'_> {
    fn is_pseudo(&self) -> bool {
        match (self.is_huffman, self.bytes.first()) {
            (false, first) => first == Some(&b':'),
            (true, first) => first.is_some_and(|it| it >> 1 == 0x5c),
        }
    }

    fn is(&self, plain: &[u8], huffman: &[u8]) -> bool {
        self.bytes == if self.is_huffman { huffman } else { plain }
    }

    fn is_http(&self) -> bool {
        if !self.is_huffman {
            return [&b"http"[..], b"https"].iter().any(|it| self.bytes.eq_ignore_ascii_case(it));
        }
        matches!(self.bytes, b"\x9d\x29\xaf" | b"\x9d\x29\xad\x1f")
    }

    fn has_fragment(&self) -> bool {
        if !self.is_huffman {
            return memchr::memchr(b'#', self.bytes).is_some();
        }
        let (mut window, mut available, mut next) = (0_u64, 0_u32, self.bytes.iter());
        loop {
            while available <= 56 {
                let Some(byte) = next.next() else { break };
                window |= u64::from(*byte) << (56 - available);
                available += 8;
            }
            let left = u32::try_from(window >> 32).unwrap_or_default();
            let bits = HUFFMAN_RANGES.iter().find(|it| left < it.0).map_or(30, |it| it.1);
            if bits > available {
                return false;
            }
            if bits == 12 && left >> 20 == FRAGMENT {
                return true;
            }
            window <<= bits;
            available -= bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(prefix: &[u8], value: &[u8]) -> Vec<u8> {
        [prefix, &[u8::try_from(value.len()).expect("short")], value].concat()
    }

    fn huffman(prefix: &[u8], value: &[u8]) -> Vec<u8> {
        [prefix, &[0x80 | u8::try_from(value.len()).expect("short")], value].concat()
    }

    #[test]
    fn a_fragment_is_found_in_every_encoding() {
        let error = |is_indexed| Some(PseudoHeaderError { is_indexed });
        for (prefix, is_indexed) in
            [(&[0x04][..], false), (&[0x14], false), (&[0x44], true), (&[0x45], true)]
        {
            assert_eq!(check(&plain(prefix, b"/a?b#c")), error(is_indexed));
            assert_eq!(check(&plain(prefix, b"/a?b%23c")), None);
            // `/#`, and `/>`, which has a code of the same length.
            assert_eq!(check(&huffman(prefix, &[0x63, 0xfe, 0xbf])), error(is_indexed));
            assert_eq!(check(&huffman(prefix, &[0x63, 0xfe, 0xff])), None);
        }
        assert_eq!(check(&plain(b"\x82\x86\x3f\xe1\x1f\x41\x01a\x04", b"/#")), error(false));
        assert_eq!(check(&plain(b"\0\x05:path", b"/#")), error(false));
        assert_eq!(check(&plain(b"\0\x84\xb9\x58\xd3\x3f", b"/#")), error(false));
        assert_eq!(
            check(&plain(b"\x82\x87\x84\x0f\x24", b"/#")),
            None,
            "a referer may have a fragment"
        );
        assert_eq!(
            check(&plain(b"\x82\x87\x84\0\x01x", b"/#")),
            None,
            "any other field may have one"
        );
    }

    #[test]
    fn a_scheme_is_http_or_https() {
        for (value, is_valid) in [
            (&b"http"[..], true),
            (b"https", true),
            (b"HTTPS", true),
            (b"", false),
            (b"ftp", false),
            (b"httpx", false),
        ] {
            assert_eq!(check(&plain(b"\x06", value)).is_none(), is_valid, "{value:?}");
            assert_eq!(check(&plain(b"\0\x07:scheme", value)).is_none(), is_valid, "{value:?}");
        }
        assert_eq!(check(&huffman(b"\x06", b"\x9d\x29\xaf")), None);
        assert_eq!(check(&huffman(b"\x06", b"\x9d\x29\xad\x1f")), None);
        assert!(check(&huffman(b"\x06", b"\x94\xe7")).is_some());
        assert_eq!(check(b"\x86\x87"), None);
    }

    #[test]
    fn the_huffman_codes_fill_their_space() {
        let mut from = 0;
        for (to, bits) in &HUFFMAN_RANGES[..20] {
            assert_eq!((to - from) % (1 << (32 - bits)), 0, "{bits}");
            from = *to;
        }
        assert_eq!(u64::from(u32::MAX) + 1 - u64::from(from), 4 << 2, "four codes of 30 bits");
    }

    #[test]
    fn random_blocks_do_not_panic() {
        let mut random = fastrand::Rng::with_seed(22);
        for _ in 0..20_000 {
            let block: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..)).collect();
            let _ = check(&block);
        }
    }
}
