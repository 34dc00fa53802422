//! A record of the journal: one change, in whole blocks of a zero-filled file.
//!
//! ```text
//! block   0 "ackd" seq crc      the mark: the record before this one was acknowledged
//!        16 "rec2" length seq file-id crc
//!        64 body …              as many blocks as it takes; the rest of the last one is zero
//! ```
//!
//! Each record begins a new block, so that writing one never touches a sector that holds another. The
//! checksum covers the file's random id, the sequence number, the length and the body: bytes of another
//! file, or of an older record, are never read as a record.
//!
//! The mark of a record is written into the block behind it after the record's sync, and is not synced
//! itself. It distinguishes an acknowledged last record that was damaged later from an incomplete record (Alagappan et al., "Protocol-Aware Recovery", FAST 2018).

/// The unit of the journal, and the largest sector that disks write as one.
pub(super) const BLOCK: usize = 4096;

/// Where a record's body begins in its first block.
pub(super) const BODY: usize = 64;

/// Bytes of a mark.
pub(super) const MARK: usize = 16;

const RECORD_MAGIC: &[u8; 4] = b"rec2";
const MARK_MAGIC: &[u8; 4] = b"ackd";

/// A random number that identifies a journal file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileId(pub(super) u128);

/// What a journal's blocks hold.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct JournalScan<'a> {
    /// The bodies of the records, in order.
    pub(super) bodies: Vec<&'a [u8]>,
    /// The incomplete record behind the last one.
    pub(super) torn: Option<TornRecord>,
}

/// A last record that was never acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct TornRecord {
    /// Where it begins, in bytes from the beginning of the file.
    pub(super) offset: usize,
}

/// A record that was acknowledged and cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BadRecord {
    /// Where it begins, in bytes from the beginning of the file.
    pub(super) offset: usize,
    /// Its sequence number.
    pub(super) sequence: u64,
}

// === impl FileId ===

impl FileId {
    /// A new id.
    pub(super) fn random() -> Self {
        Self(fastrand::u128(..))
    }

    fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

/// The blocks that a body of this many bytes takes.
pub(super) fn blocks_of(body: usize) -> usize {
    (BODY + body).div_ceil(BLOCK)
}

/// A record, with the mark of the one before it in front: whole blocks, to be written at once.
pub(super) fn seal(id: FileId, sequence: u64, marks: Option<u64>, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; blocks_of(body.len()) * BLOCK];
    if let Some(acknowledged) = marks {
        bytes[..MARK].copy_from_slice(&mark(id, acknowledged));
    }
    let length = u32::try_from(body.len()).expect("a state of 4 GiB is refused before this");
    bytes[16..20].copy_from_slice(RECORD_MAGIC);
    bytes[20..24].copy_from_slice(&length.to_le_bytes());
    bytes[24..32].copy_from_slice(&sequence.to_le_bytes());
    bytes[32..48].copy_from_slice(&id.bytes());
    bytes[BODY..BODY + body.len()].copy_from_slice(body);
    let sum = checksum(&bytes[16..48], body);
    bytes[48..52].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The mark that says that record `sequence` was acknowledged.
pub(super) fn mark(id: FileId, sequence: u64) -> [u8; MARK] {
    let mut bytes = [0; MARK];
    bytes[..4].copy_from_slice(MARK_MAGIC);
    bytes[4..12].copy_from_slice(&sequence.to_le_bytes());
    let sum = checksum(&bytes[..12], &id.bytes());
    bytes[12..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads the records of a journal from block 1 on, the first of which has number `first`.
///
/// # Errors
///
/// [`BadRecord`] if one cannot be read and was acknowledged: its mark is there, or a later record.
pub(super) fn scan(file: &[u8], id: FileId, first: u64) -> Result<JournalScan<'_>, BadRecord> {
    let (mut bodies, mut offset, mut sequence) = (Vec::new(), BLOCK, first);
    while let Some((found, body)) = open(file, offset, id) {
        if found != sequence {
            break;
        }
        bodies.push(body);
        offset += blocks_of(body.len()) * BLOCK;
        sequence += 1;
    }
    let bad = BadRecord { offset, sequence };
    let mut is_clean = true;
    for block in (offset..file.len()).step_by(BLOCK) {
        let was_marked = marked(file, block, id).is_some_and(|it| it >= sequence);
        let is_later = open(file, block, id).is_some_and(|(it, _)| it >= sequence);
        if was_marked || is_later {
            return Err(bad);
        }
        let own = &file[block..file.len().min(block + BLOCK)];
        // The mark of the last record stands at the beginning of the block behind it.
        let skip = if block == offset { MARK.min(own.len()) } else { 0 };
        // Without an early exit, so that the compiler can compare many bytes at once: a file is megabytes.
        is_clean &= own[skip..].iter().fold(0, |all, it| all | it) == 0;
    }
    let torn = if is_clean { None } else { Some(TornRecord { offset }) };
    Ok(JournalScan { bodies, torn })
}

/// The sequence number of the first record of a journal; `None` if it has none, or one that cannot be read.
pub(super) fn first_of(file: &[u8], id: FileId) -> Option<u64> {
    open(file, BLOCK, id).map(|it| it.0)
}

/// The record at an offset: its sequence number and body.
fn open(file: &[u8], offset: usize, id: FileId) -> Option<(u64, &[u8])> {
    let head = file.get(offset..offset + BODY)?;
    if head[16..20] != *RECORD_MAGIC || head[32..48] != id.bytes() {
        return None;
    }
    let length = u32::from_le_bytes(head[20..24].try_into().ok()?);
    let begin = offset + BODY;
    let body = file.get(begin..begin.checked_add(usize::try_from(length).ok()?)?)?;
    let sum = u32::from_le_bytes(head[48..52].try_into().ok()?);
    let sequence = u64::from_le_bytes(head[24..32].try_into().ok()?);
    (checksum(&head[16..48], body) == sum).then_some((sequence, body))
}

/// The record that the mark at an offset is of.
fn marked(file: &[u8], offset: usize, id: FileId) -> Option<u64> {
    let bytes = file.get(offset..offset + MARK)?;
    let sequence = u64::from_le_bytes(bytes[4..12].try_into().ok()?);
    (bytes == mark(id, sequence)).then_some(sequence)
}

fn checksum(head: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(rest);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: FileId = FileId(7);

    fn file(bodies: &[&[u8]], is_marked: bool) -> Vec<u8> {
        let mut file = vec![0; BLOCK];
        for (place, body) in bodies.iter().enumerate() {
            let marks = (place > 0).then(|| 10 + place as u64 - 1);
            file.extend(seal(ID, 10 + place as u64, marks, body));
        }
        file.extend([0; 2 * BLOCK]);
        if is_marked {
            let end = file.len() - 2 * BLOCK;
            file[end..end + MARK].copy_from_slice(&mark(ID, 10 + bodies.len() as u64 - 1));
        }
        file
    }

    #[test]
    fn a_sealed_record_is_found_and_bytes_behind_it_are_ignored() {
        let long = vec![b'x'; 3 * BLOCK];
        for is_marked in [false, true] {
            let file = file(&[b"one", &long, b""], is_marked);
            let found = scan(&file, ID, 10).expect("nothing is damaged");
            assert_eq!(found, JournalScan { bodies: vec![&b"one"[..], &long, b""], torn: None });
        }
        assert_eq!(scan(&[], ID, 1), Ok(JournalScan { bodies: vec![], torn: None }));
    }

    #[test]
    fn records_of_another_file_or_offset_are_not_read() {
        let file = file(&[b"one"], false);
        let torn = Some(TornRecord { offset: BLOCK });
        assert_eq!(scan(&file, FileId(8), 10), Ok(JournalScan { bodies: vec![], torn }));
        assert_eq!(
            scan(&file, ID, 11),
            Ok(JournalScan { bodies: vec![], torn }),
            "an older record"
        );
        assert!(scan(&file, ID, 9).is_err(), "the one before it is missing");
    }

    #[test]
    fn a_bad_last_record_is_torn_unless_it_was_acknowledged() {
        for is_marked in [false, true] {
            let mut file = file(&[b"one", b"two"], is_marked);
            file[2 * BLOCK + BODY] ^= 1;
            let found = scan(&file, ID, 10);
            match is_marked {
                false => {
                    let torn = Some(TornRecord { offset: 2 * BLOCK });
                    assert_eq!(found, Ok(JournalScan { bodies: vec![b"one"], torn }));
                }
                true => assert_eq!(found, Err(BadRecord { offset: 2 * BLOCK, sequence: 11 })),
            }
        }
    }

    #[test]
    fn a_bad_record_before_a_good_one_is_damage() {
        let mut file = file(&[b"one", b"two", b"three"], false);
        // Also if its length is what was damaged.
        for place in [20, 24, 48, BODY] {
            file[2 * BLOCK + place] ^= 1;
            assert_eq!(scan(&file, ID, 10), Err(BadRecord { offset: 2 * BLOCK, sequence: 11 }));
            file[2 * BLOCK + place] ^= 1;
        }
        assert!(scan(&file, ID, 10).is_ok());
    }

    #[test]
    fn the_rest_of_a_longer_torn_record_never_parses_as_the_next_one() {
        // A record with a body that looks like a record of the same file.
        let inner = seal(ID, 11, None, b"inner");
        let mut body = vec![0; BLOCK - BODY];
        body.extend(&inner);
        let mut file = vec![0; BLOCK];
        file.extend(seal(ID, 10, None, &body));
        let found = scan(&file, ID, 10).expect("whole");
        assert_eq!(found.bodies, [&body[..]], "a body is never looked into");
    }
}
