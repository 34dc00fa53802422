//! What commands print.

use std::time::Duration;

use flipgate_api::{
    OutputArguments, escape,
    terminal::{OutputError, print_line},
    wire::Status,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{arguments::Verbosity, exit::CommandError, pending::pending, table::table};

/// Where the width of the terminal is not known.
const WIDTH: usize = 80;

/// Writes a line. That the reader of the output has gone is no reason to end before the change is complete.
pub(super) fn print_or_ignore(line: &str) -> Result<(), CommandError> {
    match print_line(line) {
        Ok(()) | Err(OutputError::Closed) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The exit code of a change that was made, although the reader of the output may have gone.
pub(super) fn ended(printed: Result<(), OutputError>, code: u8) -> Result<u8, CommandError> {
    match printed {
        Ok(()) | Err(OutputError::Closed) => Ok(code),
        Err(error) => Err(error.into()),
    }
}

/// A line of progress. It is hidden if standard error is not a terminal.
pub(super) fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}");
    let spinner = ProgressBar::new_spinner().with_style(style.expect("a valid template"));
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// The line while the gates of a service run.
pub(super) fn gates_spinner() -> ProgressBar {
    let spinner = spinner();
    spinner.set_message("the gates run; Ctrl-C cancels, and nothing changes");
    spinner
}

/// Prints a status: a table in a terminal, JSON elsewhere.
pub(super) fn show(
    status: &Status,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<(), OutputError> {
    print_line(text(status, output, verbosity, false))
}

pub(super) fn text(
    status: &Status,
    output: OutputArguments,
    verbosity: Verbosity,
    is_line: bool,
) -> String {
    if output.is_json() {
        let json = if is_line { serde_json::to_string } else { serde_json::to_string_pretty };
        return json(status).expect("strings and numbers only");
    }
    let mut text = format!("generation {}\n", status.generation);
    if let Some(reason) = status.read_only.as_ref().or(status.write_refused.as_ref()) {
        text.push_str(&format!("changes are refused: {}\n", escape(reason)));
    }
    if let Some(reason) = &status.audit_refused {
        text.push_str(&format!("audit lines wait: {}\n", escape(reason)));
    }
    text.push_str(&table(status, width(), verbosity.verbose));
    for line in pending(status) {
        text.push_str(&format!("\n{line}"));
    }
    text
}

/// The columns of the terminal. A terminal that does not know its width, and a pipe, have those of `COLUMNS`, or 80.
pub(super) fn width() -> usize {
    let known = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let from_environment = || std::env::var("COLUMNS").ok()?.parse().ok();
    known.filter(|it| *it > 0).or_else(from_environment).filter(|it| *it > 0).unwrap_or(WIDTH)
}

/// Says that a change is made: the status as JSON, or a sentence.
pub(super) fn done(
    status: &Status,
    output: OutputArguments,
    verbosity: Verbosity,
    text: &str,
) -> Result<u8, CommandError> {
    let printed = match (output.is_json(), verbosity.quiet) {
        (true, _) => show(status, output, verbosity),
        (false, true) => Ok(()),
        (false, false) => print_line(text),
    };
    ended(printed, 0)
}
