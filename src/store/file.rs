//! The folder that the truth lives in.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{
    lines::{self, Damage},
    truth::Truth,
};

/// One folder with one state file, held by one process.
// Not `Clone`: two writers would overwrite each other's truth.
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    file: PathBuf,
    beside: PathBuf,
    /// Open for as long as the store is, since the lock ends with it.
    _lock: File,
}

/// How long a process that is about to end may still hold the folder, and whatever it has just started
/// with it.
const ENDING: Duration = Duration::from_secs(1);

/// Why the truth could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be used.
    #[error("cannot {doing} {}: {source} (see `state_dir`)", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the folder.
    #[error(
        "{0} is in use by another flipgate: stop that one, or give this one its own `state_dir`"
    )]
    InUse(PathBuf),
    /// The state file cannot be trusted.
    #[error(
        "the state file {file} is damaged: {damage}.\n  It says which color of each service is \
         active, so Flipgate does not guess.\n  Way out: put back a copy of it; or make sure that the \
         `active` colors and the endpoints of the configuration file are what you want, and start \
         with those:\n    mv {file} {file}.damaged"
    )]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong with it.
        damage: String,
    },
}

// === impl FileStore ===

impl FileStore {
    /// The state file's name in its folder.
    pub const FILE: &str = "state.jsonl";

    /// Takes the folder, making it if it is not there, and reads what it remembers: nothing if
    /// nothing was ever written.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed then, except that the folder may have been made. That somebody
    /// else holds it is known after a second.
    pub fn open(folder: &Path) -> Result<(Self, Option<Truth>), StoreError> {
        fs::create_dir_all(folder).map_err(failed("make the folder", folder))?;
        let lock_file = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_file)
            .map_err(failed("open", &lock_file))?;
        match lock_soon(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &lock_file)(error)),
        }
        let file = folder.join(Self::FILE);
        let truth = match fs::read(&file) {
            Ok(bytes) => {
                let truth = lines::read(&bytes).map_err(|damage| damaged(&file, &damage))?;
                let copy = folder.join(format!("{}.damaged", Self::FILE));
                // What cannot be read now may be read by somebody later; the first copy is the
                // truest, since the file is written again.
                if !truth.damaged.is_empty() && !copy.exists() {
                    fs::copy(&file, &copy).map_err(failed("keep a copy as", &copy))?;
                }
                Some(truth)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed("read", &file)(error)),
        };
        let beside = folder.join(format!("{}.next", Self::FILE));
        Ok((Self { folder: folder.to_owned(), file, beside, _lock: lock }, truth))
    }

    /// Writes the truth beside the old one and puts it in its place. When this returns, it is on
    /// the disk: whoever reads the file at any moment, also after a loss of power, finds the old
    /// truth or the new one, whole.
    ///
    /// Blocks for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// [`StoreError::Io`]. The old truth is in place then, or the new one if the folder's own entry
    /// could not be made durable; the caller goes on with the old and writes again.
    pub fn put(&self, truth: &Truth) -> Result<(), StoreError> {
        let Self { folder, file, beside, _lock } = self;
        let text = lines::write(truth);
        let mut new = File::create(beside).map_err(failed("create", beside))?;
        new.write_all(text.as_bytes()).map_err(failed("write", beside))?;
        new.sync_all().map_err(failed("sync", beside))?;
        drop(new);
        fs::rename(beside, file).map_err(failed("replace", file))?;
        File::open(folder).and_then(|it| it.sync_all()).map_err(failed("sync the folder", folder))
    }

    /// The state file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

fn damaged(file: &Path, damage: &Damage) -> StoreError {
    StoreError::Damaged { file: file.display().to_string(), damage: damage.to_string() }
}

#[expect(clippy::disallowed_methods, reason = "nothing runs yet that could be held up")]
fn lock_soon(lock: &File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + ENDING;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(ENDING / 50);
            }
            known => return known,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Generation;

    fn at(generation: u64) -> Truth {
        Truth { generation: Generation(generation), ..Truth::default() }
    }

    #[test]
    fn the_last_truth_written_is_the_one_that_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, nothing) = FileStore::open(folder.path()).expect("a fresh folder");
        assert_eq!(nothing, None);
        store.put(&at(1)).expect("written");
        store.put(&at(2)).expect("written");
        drop(store);
        let (_store, found) = FileStore::open(folder.path()).expect("the same folder");
        assert_eq!(found, Some(at(2)));
    }

    #[test]
    fn a_half_written_file_beside_the_truth_is_not_the_truth() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _) = FileStore::open(folder.path()).expect("a fresh folder");
        store.put(&at(1)).expect("written");
        fs::write(&store.beside, "5f3c21aa {\"flipgate\":1,").expect("a torn file");
        drop(store);
        let (store, found) = FileStore::open(folder.path()).expect("the truth is whole");
        assert_eq!(found, Some(at(1)));
        store.put(&at(2)).expect("the torn file is in nobody's way");
    }

    #[test]
    fn a_truth_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, _) = FileStore::open(folder.path()).expect("a fresh folder");
        store.put(&at(1)).expect("written");
        fs::create_dir(&store.beside).expect("a folder where the file would go");
        let error = store.put(&at(2)).expect_err("cannot be written");
        assert!(error.to_string().contains("state.jsonl.next"), "{error}");
        drop(store);
        let (_store, found) = FileStore::open(folder.path()).expect("the same folder");
        assert_eq!(found, Some(at(1)));
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let _first = FileStore::open(folder.path()).expect("a fresh folder");
        assert!(matches!(FileStore::open(folder.path()), Err(StoreError::InUse(_))));
    }

    #[test]
    fn a_damaged_file_is_named_with_the_way_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(FileStore::FILE);
        fs::write(&file, "not a state file").expect("written");
        let error = FileStore::open(folder.path()).expect_err("damaged").to_string();
        assert!(error.contains(&file.display().to_string()) && error.contains("mv "), "{error}");
    }
}
