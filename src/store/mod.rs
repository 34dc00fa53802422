//! The state: the active color of each service, the endpoints that were set at run time, and everything else
//! that must survive the process. It is one versioned value. `control` changes it by compare-and-swap, watches
//! it and applies it to the data plane.
//!
//! This module uses the types of `model`. The serialized types are its own (`data`, `entries`).
//!
//! # The files of a state folder
//!
//! `state.jsonl` is a snapshot of the whole state at one revision; `journal-N` has the later changes, one
//! record for each, in a zero-filled file. A change costs one write and one `fdatasync`, whatever the size of
//! the state. Each record also has the audit line of its change; `audit.jsonl` is written from these lines by a thread of
//! its own. Lines and records have checksums; `recovery` reads them, and decides which damage prevents a
//! start.

mod accepted;
mod admission;
mod audit_file;
mod audit_log;
mod audit_report;
mod audit_thread;
mod data;
mod disk;
mod entries;
mod entry;
mod file;
mod journal;
mod pool_state;
mod record;
mod recovery;
mod report;
mod reserve;
mod rollouts;
mod segment;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::{fmt, io, path::PathBuf, pin::Pin, time::Duration};

use tokio::sync::watch;

pub use self::{
    accepted::{AcceptedCall, AcceptedCalls},
    audit_log::AuditLog,
    audit_report::{AuditReport, read_audit},
    file::FileStore,
    pool_state::PoolState,
    report::{StateReport, show},
    rollouts::{PoolBefore, RolloutState},
    state::{
        Approval, Confirmation, EntryId, ManifestKey, PinKeyState, Promotion, Revision,
        ServiceState, ShareEnd, ShareState, State, WatchEnd, WatchState,
    },
};

/// Stores the state. A store may belong to one process, or be shared by several.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Makes `next` the state, if `expected` is the revision of the current one; its revision becomes the
    /// one after `expected`, whatever it was. When this returns, the change is durable.
    ///
    /// Dropping the future does not cancel the change.
    fn commit(&self, expected: Revision, next: State) -> CommitFuture;

    /// The last acknowledged state, with its revision. A slow watcher may miss revisions, but never the last
    /// one. The channel closes when the store ends.
    fn watch(&self) -> watch::Receiver<State>;

    /// Whether the store accepts changes.
    fn condition(&self) -> StoreHealth;

    /// Its name in messages: a path, an address.
    fn place(&self) -> String;
}

/// A commit in progress.
pub type CommitFuture = Pin<Box<dyn Future<Output = Result<Revision, CommitError>> + Send>>;

/// Whether a store accepts changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreHealth {
    /// Why nothing can be changed until a restart; `None` if the store accepts changes.
    pub read_only: Option<String>,
    /// Why the last write failed, until one succeeds: for example, the disk is full. Each change tries again.
    pub refused: Option<String>,
    /// Why audit lines wait in the state instead of being in their file.
    pub audit: Option<String>,
    /// For how long a change has been waiting for the disk.
    pub waiting: Option<Duration>,
}

/// A change that was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another change came first. Nothing has changed.
    #[error("another change was stored first: the current revision is {current}")]
    Conflict {
        /// The revision that was found.
        current: Revision,
    },
    /// It could not be written. Nothing has changed, and a restart will not find it.
    #[error("nothing was changed: {0}")]
    Refused(StoreError),
    /// Unknown whether it was written: a restart may find it or not. Until then the state is read-only, and
    /// this process continues with the earlier state.
    #[error(
        "outcome unknown: {0}; the state is read-only until flipgate is restarted, which may or may not find this change"
    )]
    Unknown(StoreError),
    /// The state is read-only, since an earlier change had an unknown outcome. Nothing has changed.
    #[error(
        "the state is read-only until flipgate is restarted, since the outcome of an earlier change is unknown: {0}"
    )]
    ReadOnly(String),
    /// The store has ended. Nothing has changed.
    #[error("flipgate is stopping")]
    Stopping,
}

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be used.
    #[error("cannot {doing} {place}: {source} (see `state_dir`)")]
    Io {
        /// The operation that failed.
        doing: &'static str,
        /// The folder or file.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the folder.
    #[error(
        "{0} is in use by another flipgate: stop that one, or give this one its own `state_dir`"
    )]
    InUse(PathBuf),
    /// The state cannot be trusted.
    #[error(
        "the state file {folder}/{file} is damaged: {what}.\n  It says which color of each service is \
         active, so Flipgate does not guess.\n  To repair it, restore a copy of the folder; or make sure that \
         the `active` colors and the endpoints of the configuration file are what you want, and start with \
         those:\n    mkdir {folder}/{aside} && mv {folder}/state.jsonl* {folder}/journal-* {folder}/{aside}/"
    )]
    Damaged {
        /// The folder.
        folder: String,
        /// The file.
        file: String,
        /// The damage.
        what: String,
        /// A name for a folder in it that is not there yet.
        aside: String,
    },
    /// The writer thread has ended.
    #[error("the thread that writes the state has ended; restart flipgate")]
    Ended,
    /// The disk has no room.
    #[error(
        "{what}; the disk of {folder} is full: free space there, or move `state_dir` to a larger disk. Until then only \
         rollbacks are accepted"
    )]
    Full {
        /// What could not be written, and the system's error.
        what: String,
        /// The folder.
        folder: String,
    },
    /// Too many audit lines are not in their file.
    #[error(
        "{lines} audit lines wait for their file ({what}): repair it, and Flipgate completes it. Until then only \
         rollbacks are accepted"
    )]
    AuditBehind {
        /// How many lines wait.
        lines: usize,
        /// Why.
        what: String,
    },
    /// The change is too large for a record.
    #[error("a change of {0} bytes is too large for the journal")]
    TooLarge(usize),
}

// === impl StoreError ===

impl StoreError {
    fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    fn io(doing: &'static str, place: &str, source: io::Error) -> Self {
        Self::Io { doing, place: place.to_owned(), source }
    }

    fn damaged(folder: &str, file: &str, what: &str) -> Self {
        let (folder, file, what) = (folder.to_owned(), file.to_owned(), what.to_owned());
        let aside = format!("damaged-{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S"));
        Self::Damaged { folder, file, what, aside }
    }
}
