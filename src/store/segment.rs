//! One file of the journal: zero-filled and synced before it is used, so that a record is an overwrite and
//! costs one sync of its own bytes, without a change of the file's size or blocks.

use std::io;

use super::{
    disk::{Disk, DiskFile},
    record::{self, BLOCK, FileId},
};

/// A file that records are appended to.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) id: FileId,
    /// The id that the file behind this one has.
    pub(super) next_id: FileId,
    file: Box<dyn DiskFile>,
    /// Where the next record goes, in blocks.
    next: usize,
    blocks: usize,
    /// The last record of this file, if it was acknowledged.
    last: Option<u64>,
}

/// What stands at the beginning of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SegmentHeader {
    pub(super) number: u64,
    pub(super) id: FileId,
    pub(super) next_id: FileId,
    /// The size that the file was made with, in blocks.
    pub(super) size: u64,
}

const MAGIC: &[u8; 8] = b"fgjrnl2\n";
const HEADER: usize = 60;

/// The offset of the note that the next file is in use.
const FOLLOWED: usize = 512;

/// Bytes that are written at once while a file is filled with zeros.
const CHUNK: usize = 1 << 20;

// === impl Segment ===

impl Segment {
    /// The name of file number `number`.
    pub(super) fn name(number: u64) -> String {
        format!("journal-{number}")
    }

    /// The number of the file with this name.
    pub(super) fn number_of(name: &str) -> Option<u64> {
        let number = name.strip_prefix("journal-")?.parse().ok()?;
        (Self::name(number) == name).then_some(number)
    }

    /// Makes a file with room for this many blocks of records. When this returns, it is durable.
    ///
    /// # Errors
    ///
    /// What the system says. The file is removed then, if possible.
    pub(super) fn create(
        disk: &dyn Disk,
        number: u64,
        id: FileId,
        blocks: usize,
    ) -> io::Result<Self> {
        let name = Self::name(number);
        let make = || {
            let next_id = FileId::random();
            let mut file = disk.create(&name)?;
            // One block for the header, and one behind the last record for its mark.
            let size = (blocks + 2) * BLOCK;
            let zeros = vec![0; size.min(CHUNK)];
            for offset in (0..size).step_by(CHUNK) {
                file.write_at(offset as u64, &zeros[..CHUNK.min(size - offset)])?;
            }
            // A valid header means that the file is complete.
            file.sync()?;
            let header = SegmentHeader { number, id, next_id, size: (blocks + 2) as u64 };
            file.write_at(0, &header.bytes())?;
            file.sync()?;
            disk.sync_folder()?;
            Ok(Self { number, id, next_id, file, next: 1, blocks: blocks + 1, last: None })
        };
        make().inspect_err(|_| {
            // Free the space of the incomplete file.
            let _ = disk.remove(&name);
        })
    }

    /// Whether a body of this many bytes still fits.
    pub(super) fn has_room(&self, body: usize) -> bool {
        self.next + record::blocks_of(body) <= self.blocks
    }

    /// Whether the next file should be made.
    pub(super) fn is_half_full(&self) -> bool {
        self.next * 2 > self.blocks
    }

    /// Appends a record and makes it durable.
    ///
    /// # Errors
    ///
    /// What the system says. Then it is unknown whether the record was written, and the file must not be used
    /// any more.
    pub(super) fn append(&mut self, sequence: u64, body: &[u8]) -> io::Result<()> {
        let bytes = record::seal(self.id, sequence, self.last, body);
        self.file.write_at((self.next * BLOCK) as u64, &bytes)?;
        self.file.sync()?;
        self.next += bytes.len() / BLOCK;
        self.last = Some(sequence);
        Ok(())
    }

    /// Marks the last record as acknowledged, without waiting for the disk.
    pub(super) fn mark_last(&mut self) -> io::Result<()> {
        let Some(last) = self.last else { return Ok(()) };
        self.file.write_at((self.next * BLOCK) as u64, &record::mark(self.id, last))
    }

    /// Notes that the next file is in use, without waiting for the disk: a start must find the next file then.
    pub(super) fn mark_followed(&mut self) -> io::Result<()> {
        self.file.write_at(FOLLOWED as u64, &record::mark(self.id, self.number))
    }
}

// === impl SegmentHeader ===

impl SegmentHeader {
    /// The header of a file; `None` if it cannot be read. A file with a valid header is complete.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        let bytes = file.get(..HEADER)?;
        let number = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
        let id = FileId(u128::from_le_bytes(bytes[16..32].try_into().ok()?));
        let next_id = FileId(u128::from_le_bytes(bytes[32..48].try_into().ok()?));
        let size = u64::from_le_bytes(bytes[48..56].try_into().ok()?);
        let header = Self { number, id, next_id, size };
        (header.bytes() == *bytes).then_some(header)
    }

    /// Whether the file still has the size that it was made with.
    pub(super) fn is_whole(&self, file: &[u8]) -> bool {
        usize::try_from(self.size).is_ok_and(|it| file.len() >= it.saturating_mul(BLOCK))
    }

    /// Whether the next file was in use.
    pub(super) fn is_followed(&self, file: &[u8]) -> bool {
        let mark = file.get(FOLLOWED..FOLLOWED + record::MARK);
        mark.is_some_and(|it| *it == record::mark(self.id, self.number))
    }

    fn bytes(self) -> [u8; HEADER] {
        let Self { number, id: FileId(id), next_id: FileId(next_id), size } = self;
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        bytes[16..32].copy_from_slice(&id.to_le_bytes());
        bytes[32..48].copy_from_slice(&next_id.to_le_bytes());
        bytes[48..56].copy_from_slice(&size.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..56]);
        bytes[56..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}
