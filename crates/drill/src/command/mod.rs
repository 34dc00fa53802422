//! The command line of the drill and of the sample application. `flipgate-drill` and the commands `drill` and
//! `sample` of `flipgate` share these definitions.

mod drill;
mod sample;

use flipgate_api::terminal::OutputError;

pub use self::{
    drill::{DrillCommand, examples},
    sample::SampleCommand,
};

/// A command that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandError {
    /// The exit code: 1, or 2 for mistakes on the command line.
    pub code: u8,
    /// What went wrong and what to do, for standard error. Empty if the reader of standard output has gone.
    pub text: String,
}

// === impl CommandError ===

impl CommandError {
    fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// A mistake on the command line.
    #[must_use]
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }
}

impl From<OutputError> for CommandError {
    fn from(error: OutputError) -> Self {
        match error {
            OutputError::Closed => Self { code: 0, text: String::new() },
            OutputError::Failed(_) => Self::new(error.to_string()),
        }
    }
}

fn count(from: usize, to: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|it| (from..=to).contains(it));
        number.ok_or_else(|| format!("write a number from {from} to {to}"))
    }
}
