//! Errors of a drill.

use std::io;

use flipgate_api::CallError;

/// Why a drill could not run.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Sockets, threads, files.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The options are not consistent.
    #[error("{0}")]
    Usage(String),
    /// A process could not be started.
    #[error("{0}")]
    Process(String),
    /// The tested proxy does not respond as it should.
    #[error("{0}")]
    Target(String),
    /// A call of the admin API failed.
    #[error(transparent)]
    Admin(#[from] CallError),
    /// The response of the admin API is wrong.
    #[error("{0}")]
    Call(String),
    /// A signal stopped it before the load, or a second signal stopped it.
    #[error("stopped")]
    Stopped,
}
