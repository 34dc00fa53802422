//! The requests that arrived, in a file that outlives a kill of the process.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// An open journal. Each entry is handed to the kernel at once: only the end of the machine loses it.
#[derive(Debug)]
pub struct Journal(File);

/// One request that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// Its number.
    pub number: Number,
    /// [`now_ns`](super::now_ns) of the application when its head was there.
    pub at: u64,
}

/// The number of a request that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Number {
    /// This one.
    Known(u64),
    /// It has none that can be read, and asks for traffic, which is there for numbered requests alone.
    Missing,
    /// It has none, and asks for another page, as health checks and people do.
    MissingElsewhere,
}

/// Bytes of an entry: the number, and the time.
const ENTRY_BYTES: usize = 16;

/// What an entry has instead of a number. A request with one of these counts as one without a number.
const MISSING: u64 = u64::MAX;
const MISSING_ELSEWHERE: u64 = u64::MAX - 1;

impl Journal {
    /// Opens a journal, behind what is in it already.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).open(path)?))
    }

    /// Writes an arrival down.
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

/// Everything in a journal, in the order of arrival.
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
