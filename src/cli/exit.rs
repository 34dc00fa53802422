//! How a command ends: exit codes, and errors with the code that they lead to.

use flipgate_api::{
    CallError, TokenFileError, escape,
    terminal::{OutputError, print_error},
    wire::Status,
};
use http::StatusCode;

/// Mistakes on the command line or in the configuration.
pub(super) const USAGE: u8 = 2;
/// Refused: by a safety check, or by the state of a service.
pub(super) const REFUSED: u8 = 3;
/// The change was decided on an old generation.
pub(super) const STALE: u8 = 4;
/// Not drained or not healthy in time.
pub(super) const NOT_IN_TIME: u8 = 5;
/// A rollout has failed, and everything is undone.
pub(super) const UNDONE: u8 = 6;
/// A rollout has failed, and not everything is undone.
pub(super) const NOT_UNDONE: u8 = 7;
/// Ended by a signal; what was begun goes on.
pub(super) const INTERRUPTED: u8 = 130;

/// A command that failed: the text for standard error, which may be empty, and the exit code.
#[derive(Debug)]
pub(super) struct CommandError {
    pub(super) code: u8,
    pub(super) text: String,
}

impl CommandError {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { code: USAGE, text: text.into() }
    }

    /// An error that names the services that exist.
    pub(super) fn unknown_service(status: &Status, name: &str) -> Self {
        let names: Vec<&str> = status.services.keys().take(10).map(String::as_str).collect();
        let more = if status.services.len() > names.len() { ", …" } else { "" };
        let name = escape(name);
        Self::usage(format!("no service `{name}`; the services are {}{more}", names.join(", ")))
    }

    pub(super) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Writes the text to standard error, if there is any.
    pub(super) fn print(&self) {
        if !self.text.is_empty() {
            print_error(self.line(true).trim_end());
        }
    }

    /// The line for standard error.
    pub(super) fn line(&self, is_colored: bool) -> String {
        let style = anstyle::AnsiColor::Red.on_default().bold();
        let style = if is_colored { style } else { anstyle::Style::new() };
        format!("{style}error{style:#}: {}\n", self.text)
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

impl From<TokenFileError> for CommandError {
    fn from(error: TokenFileError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<flipgate_drill::command::CommandError> for CommandError {
    fn from(error: flipgate_drill::command::CommandError) -> Self {
        let flipgate_drill::command::CommandError { code, text } = error;
        Self { code, text }
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Refused { status: StatusCode::CONFLICT, .. } => REFUSED,
            CallError::Refused { status: StatusCode::PRECONDITION_FAILED, .. } => STALE,
            // A service that does not exist, named in a path.
            CallError::Refused { status: StatusCode::NOT_FOUND, .. } => USAGE,
            CallError::Refused { status: StatusCode::BAD_REQUEST, .. } => USAGE,
            // A call that no state of the services makes possible, unless it was made before.
            CallError::Refused {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                problem: Some(problem),
            } => {
                let is_done = !problem.reasons.is_empty()
                    && problem.reasons.iter().all(|it| it.code == "already_active");
                if is_done || problem.kind.ends_with(":idempotency-key-reused") { 1 } else { USAGE }
            }
            _ => 1,
        };
        let mut text = error.to_string();
        if let CallError::Refused { status: StatusCode::UNAUTHORIZED, .. } = &error {
            text += "\n  Give a token with --token-file FILE or FLIPGATE_TOKEN.";
        }
        Self::new(text).with_code(code)
    }
}
