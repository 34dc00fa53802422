//! Bodies that are computed from a number, so that the receiver can check each byte.

use xxhash_rust::xxh3::Xxh3;

/// The body of a number, as a sequence of bytes.
#[derive(Clone, Debug)]
pub struct Content {
    id: u64,
    at: u64,
}

impl Content {
    /// The body that belongs to `id`.
    #[must_use]
    pub fn of(id: u64) -> Self {
        Self { id, at: 0 }
    }

    /// The next `count` bytes.
    pub fn next_bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            let (word, skipped) = (self.at / 8, (self.at % 8) as usize);
            let fresh = &word_of(self.id, word).to_le_bytes()[skipped..];
            let wanted = fresh.len().min(count - bytes.len());
            bytes.extend_from_slice(&fresh[..wanted]);
            self.at += wanted as u64;
        }
        bytes
    }

    /// Whether `bytes` are the next bytes. Takes as many.
    pub fn matches_next(&mut self, bytes: &[u8]) -> bool {
        self.next_bytes(bytes.len()) == bytes
    }

    /// The number of bytes taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.at
    }
}

/// A word of a body: the finalizer of SplitMix64 over the number and the index, so that moved, repeated and foreign
/// pieces are found.
fn word_of(id: u64, index: u64) -> u64 {
    let mut word = id ^ index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The digest of a body: XXH3, 64 bits, as sixteen hexadecimal digits.
#[must_use]
pub fn digest(hash: &Xxh3) -> String {
    format!("{:016x}", hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_for_all_chunk_sizes() {
        let whole = Content::of(7).next_bytes(1000);
        assert_eq!(whole.len(), 1000);
        let mut chunks = Content::of(7);
        for chunk in [1, 2, 3, 5, 8, 13, 21, 947] {
            let at = usize::try_from(chunks.taken()).expect("small");
            assert!(chunks.clone().matches_next(&whole[at..at + chunk]));
            assert_eq!(chunks.next_bytes(chunk), whole[at..at + chunk]);
        }
    }

    #[test]
    fn a_changed_moved_or_foreign_byte_is_found() {
        let whole = Content::of(7).next_bytes(100);
        let mut changed = whole.clone();
        changed[50] ^= 1;
        assert!(!Content::of(7).matches_next(&changed));
        assert!(!Content::of(7).matches_next(&whole[8..]));
        assert!(!Content::of(8).matches_next(&whole));
    }
}
