//! Why a drill cannot begin or go on.

use std::io;

use flipgate_api::CallError;

/// Why there was no drill.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Sockets, threads, files.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is to be tried does not fit together.
    #[error("{0}")]
    Usage(String),
    /// A process does not start.
    #[error("{0}")]
    Process(String),
    /// What is put to the test does not answer.
    #[error("{0}")]
    Target(String),
    /// The admin API says no, or nothing.
    #[error(transparent)]
    Admin(#[from] CallError),
    /// The admin API says something that it should not.
    #[error("{0}")]
    Call(String),
    /// It was told to stop before there was anything to report, or twice.
    #[error("stopped")]
    Stopped,
}
