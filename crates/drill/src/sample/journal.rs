//! The numbers of the requests that arrived, in a file that outlives a kill of the process.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
};

/// An open journal. Each entry is handed to the kernel at once: only the end of the machine loses it.
#[derive(Debug)]
pub struct Journal(File);

/// Bytes of an entry.
const ENTRY: usize = 8;

impl Journal {
    /// Opens a journal, behind what is in it already.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().append(true).create(true).open(path)?))
    }

    /// Writes a number down.
    ///
    /// # Errors
    ///
    /// If it cannot be written, for example on a full disk.
    pub fn note(&self, id: u64) -> io::Result<()> {
        (&self.0).write_all(&id.to_le_bytes())
    }
}

/// Every number of a journal, in the order of arrival.
///
/// # Errors
///
/// If the file cannot be read, or ends within an entry.
pub fn read_journal(path: &Path) -> io::Result<Vec<u64>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        let text = format!("{} ends within an entry", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(entries.iter().map(|it| u64::from_le_bytes(*it)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_also_by_a_second_writer_and_not_if_it_was_cut() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        Journal::open(&path).expect("opens").note(7).expect("writes");
        Journal::open(&path).expect("opens").note(u64::MAX).expect("writes");
        assert_eq!(read_journal(&path).expect("reads"), [7, u64::MAX]);
        std::fs::write(&path, [1, 2, 3]).expect("writes");
        assert!(read_journal(&path).is_err());
    }
}
