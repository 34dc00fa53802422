//! The file system operations that the store needs. Tests replace them by a disk that loses power, is full
//! or loses writes.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// One folder. Names are those of files in it.
pub(super) trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;

    /// All bytes of a file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// A new, empty file; one of that name that is there already is emptied.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// An existing file for reading its length and for writing, or a new one; with its length.
    fn open(&self, name: &str) -> io::Result<(Box<dyn DiskFile>, u64)>;

    /// Gives a file another name, in place of a file that has it already.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// An open file. Its descriptor stays open for as long as it is used: Linux keeps write-back errors with
/// the inode and can forget them once no descriptor is open.
pub(super) trait DiskFile: std::fmt::Debug + Send {
    /// Writes all of these bytes at an offset.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file off behind so many bytes.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Makes the bytes and the size of the file durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder of the real file system.
#[derive(Debug)]
pub(super) struct Folder(PathBuf);

#[derive(Debug)]
struct RealFile(File);

// === impl Folder ===

impl Folder {
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            // The store makes only names in UTF-8.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let path = self.0.join(name);
        // Reading a pipe would wait for its writer.
        match fs::metadata(&path)?.is_file() {
            true => fs::read(path),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        // The state has the keys of pins.
        options.write(true).create(true).truncate(true).mode(0o600);
        Ok(Box::new(RealFile(options.open(self.0.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<(Box<dyn DiskFile>, u64)> {
        let path = self.0.join(name);
        // Opening a pipe would wait for its reader.
        if fs::metadata(&path).is_ok_and(|it| !it.is_file()) {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut options = OpenOptions::new();
        // What callers have written is not for every user of the machine.
        options.write(true).create(true).truncate(false).mode(0o640);
        let file = options.open(path)?;
        let length = file.metadata()?.len();
        Ok((Box::new(RealFile(file)), length))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl DiskFile for RealFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
