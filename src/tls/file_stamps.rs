//! Detects changed files.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Metadata of files. Symbolic links are followed, so a link with another target is a change, too.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct FileStamps(Vec<(PathBuf, Option<FileStamp>)>);

type FileStamp = (u64, u64, u64, i64, i64, i64, i64);

// === impl FileStamps ===

impl FileStamps {
    pub(super) fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self(paths.into_iter().map(|it| (it.to_owned(), stamp(it))).collect())
    }
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let it = std::fs::metadata(path).ok()?;
    Some((it.dev(), it.ino(), it.size(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec()))
}
