//! Writing to standard output and standard error, which may be closed or full.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// Standard output that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader has gone, as `head` does when it has seen enough. End quietly.
    #[error("the reader of the output has gone")]
    Closed,
    /// Anything else, such as a full disk.
    #[error("cannot write the output: {0}")]
    Failed(io::Error),
}

/// Writes a line to standard output, without colors if that is no terminal.
///
/// # Errors
///
/// [`OutputError`]; a part of the line may have been written.
pub fn print_line(text: impl Display) -> Result<(), OutputError> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(OutputError::from)
}

/// Writes a line to standard error. An error is ignored: there is nowhere left to tell it.
pub fn print_error(text: impl Display) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}
