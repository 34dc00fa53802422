//! A file with the received requests, which is complete even if the process is killed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// An open journal. Each entry is written to the kernel at once; only a crash of the machine can lose it.
#[derive(Debug)]
pub struct Journal(File);

/// A received request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Its number.
    pub number: Number,
    /// When its head was received, as [`now_ns`](super::now_ns).
    pub at: u64,
}

/// The number of a received request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Number {
    /// A number.
    Known(u64),
    /// No valid number, although the path is that of drill traffic.
    Missing,
    /// No number, and another path, as of health checks and browsers.
    MissingElsewhere,
}

/// The size of an entry: the number and the time.
const ENTRY_BYTES: usize = 16;

/// Values of an entry without a number. A request with one of these numbers counts as one without.
const MISSING: u64 = u64::MAX;
const MISSING_ELSEWHERE: u64 = u64::MAX - 1;

impl Journal {
    /// Opens a journal to append entries.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).open(path)?))
    }

    /// Appends a request.
    ///
    /// # Errors
    ///
    /// If it cannot be written, for example on a full disk.
    pub fn append(&self, arrival: Arrival) -> io::Result<()> {
        let number = match arrival.number {
            Number::Known(number) => number,
            Number::Missing => MISSING,
            Number::MissingElsewhere => MISSING_ELSEWHERE,
        };
        let mut entry = [0; ENTRY_BYTES];
        entry[..8].copy_from_slice(&number.to_le_bytes());
        entry[8..].copy_from_slice(&arrival.at.to_le_bytes());
        (&self.0).write_all(&entry)
    }
}

/// All entries of a journal, in order of reception.
///
/// # Errors
///
/// If the file cannot be read, or ends within an entry.
pub fn read_journal(path: &Path) -> io::Result<Vec<Arrival>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() {
        let text = format!("{} ends within an entry", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(entries.iter().map(arrival).collect())
}

fn arrival(entry: &[u8; ENTRY_BYTES]) -> Arrival {
    let word = |from: usize| u64::from_le_bytes(std::array::from_fn(|index| entry[from + index]));
    let number = match word(0) {
        MISSING => Number::Missing,
        MISSING_ELSEWHERE => Number::MissingElsewhere,
        number => Number::Known(number),
    };
    Arrival { number, at: word(8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_several_writers_are_read_and_a_truncated_file_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let numbers =
            [Number::Known(7), Number::Missing, Number::MissingElsewhere, Number::Known(0)];
        let all = numbers.map(|number| Arrival { number, at: 1 << 40 });
        for arrival in all {
            Journal::open(&path).expect("opens").append(arrival).expect("writes");
        }
        assert_eq!(read_journal(&path).expect("reads"), all);
        std::fs::write(&path, [1, 2, 3]).expect("writes");
        assert!(read_journal(&path).is_err());
    }
}
