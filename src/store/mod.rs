//! The state: which color of each service is active, which endpoints were set at run time, and whatever
//! else must survive the process. One versioned value, changed by compare-and-swap and watched by those
//! who apply it.
//!
//! Knows the words of the model and a folder; not who decides on a change, and not what the data plane
//! does with it. The data types that are written are this room's own (`data`, `entries`).
//!
//! # The files of a state folder
//!
//! `state.jsonl` is a snapshot of the whole state at one revision; `journal-N` has what came after it, one
//! record for each change, in a zero-filled file, so that a change costs one write and one `fdatasync`
//! whatever the size of the state. Both are lines and blocks with checksums; `recovery` reads them, and
//! says which damage stops a start.

mod accepted;
mod data;
mod disk;
mod entries;
mod file;
mod journal;
mod record;
mod recovery;
mod report;
mod segment;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::{fmt, io, path::PathBuf, pin::Pin, time::Duration};

use tokio::sync::watch;

pub use self::{
    accepted::{AcceptedCall, AcceptedCalls},
    file::FileStore,
    report::{StateReport, show},
    state::{EntryId, PoolState, Promotion, Revision, ServiceState, State},
};

/// Where the state is kept. One process may hold it, or many may share it.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Makes `next` the state, if `expected` is the revision of the current one; its revision becomes the
    /// one after `expected`, whatever it was. When this returns, the change is durable.
    ///
    /// Dropping the future does not take the change back: it is made, or not, as if it had been waited for.
    fn commit(&self, expected: Revision, next: State) -> CommitFuture;

    /// The state as it was last acknowledged; its revision stands in it. A watcher that looks away may
    /// miss revisions, never the last one. It ends when the store does.
    fn watch(&self) -> watch::Receiver<State>;

    /// Whether changes are taken.
    fn condition(&self) -> StoreHealth;

    /// What to call it in messages: a path, an address.
    fn place(&self) -> String;
}

/// A commit that is under way.
pub type CommitFuture = Pin<Box<dyn Future<Output = Result<Revision, CommitError>> + Send>>;

/// Whether a store takes changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreHealth {
    /// Why nothing can be changed until a restart; `None` if changes are taken.
    pub read_only: Option<String>,
    /// Why the last write was refused, until one succeeds: the disk is full, say. Each change tries again.
    pub refused: Option<String>,
    /// For how long a change has been waiting for the disk.
    pub waiting: Option<Duration>,
}

/// A change that was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another change came first. Nothing has changed.
    #[error("revision {current} is current")]
    Conflict {
        /// The revision that was found.
        current: Revision,
    },
    /// It could not be written. Nothing has changed, and a restart will not find it.
    #[error("nothing was changed: {0}")]
    Refused(StoreError),
    /// It is not known whether it was written: a restart may find it or not. No more changes are taken
    /// until then, and this process goes on with the state from before.
    #[error(
        "outcome unknown: {0}; a restart will find the state with or without this change, and no change is taken until then"
    )]
    Unknown(StoreError),
    /// No changes are taken since an earlier one had an unknown outcome. Nothing has changed.
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
        /// What was being done.
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
         active, so Flipgate does not guess.\n  Way out: put back a copy of the folder; or make sure that \
         the `active` colors and the endpoints of the configuration file are what you want, and start with \
         those:\n    mkdir {folder}/{aside} && mv {folder}/state.jsonl* {folder}/journal-* {folder}/{aside}/"
    )]
    Damaged {
        /// The folder.
        folder: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        what: String,
        /// A name for a folder in it that is not there yet.
        aside: String,
    },
    /// The thread that writes has died.
    #[error("the thread that writes the state has died")]
    Ended,
    /// A change that is larger than any state may be.
    #[error("a change of {0} bytes is larger than a journal takes")]
    TooLarge(usize),
}

// === impl StoreError ===

impl StoreError {
    fn io(doing: &'static str, place: &str, source: io::Error) -> Self {
        Self::Io { doing, place: place.to_owned(), source }
    }

    fn damaged(folder: &str, file: &str, what: &str) -> Self {
        let (folder, file, what) = (folder.to_owned(), file.to_owned(), what.to_owned());
        let aside = format!("damaged-{}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S"));
        Self::Damaged { folder, file, what, aside }
    }
}
