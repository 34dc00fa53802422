//! The command line: what people and pipelines type, and what they get back.
//!
//! Beautiful in a terminal, JSON in a pipe. Every failure says what to do next, on standard error,
//! and ends with an exit code that scripts can rely on.

mod changes;
mod check;
mod events;
mod run;
mod state;
mod status;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use flipgate_api::{
    CallError, CallerArguments, TokenFileError,
    terminal::{OutputError, print_error, print_line},
};
use flipgate_drill::{
    Program,
    command::{DrillCommand, SampleCommand},
};
use http::StatusCode;

use crate::{app::StartSignals, demo};

/// Exit codes; what is not here is 0 for success and 1 for failure.
mod exit {
    /// The configuration or the command line has mistakes.
    pub(super) const USAGE: u8 = 2;
    /// A gate or the state of a service refused the change.
    pub(super) const REFUSED: u8 = 3;
    /// Decided on an old generation.
    pub(super) const STALE: u8 = 4;
    /// The drain did not end in time.
    pub(super) const NOT_DRAINED: u8 = 5;
}

/// Flips services between blue and green in one atomic step, with an exact drain.
#[derive(Debug, Parser)]
#[command(name = "flipgate", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Try it: flipgate demo")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy in the foreground
    ///
    /// SIGTERM ends it after what is under way, a second one at once; SIGHUP reads the file again.
    #[command(after_help = "Example: flipgate run --config config/minimal.toml")]
    Run {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Find every mistake of a configuration file
    #[command(after_help = "Example: flipgate check --config config/example.toml")]
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Look at the stored state
    #[command(subcommand, after_help = "Example: flipgate state show --config flipgate.toml")]
    State(state::StateCommand),
    /// Show services, colors, roles, versions, health and who is inside
    #[command(after_help = "Example: flipgate status --json | jq .generation")]
    Status {
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: Output,
    },
    /// Make colors active, all in one step or not at all
    #[command(
        after_help = "Examples:\n  flipgate promote web=green api=green --wait-drain 30s\n  \
                            flipgate promote web=green --if-generation 41 --reason 'release 8.0'\n\n\
                            Exit code: 0 done, 3 refused, 4 stale generation, 5 not drained in time"
    )]
    Promote {
        /// Each service with its color
        #[arg(required = true, value_name = "SERVICE=COLOR", value_parser = changes::parse_pair)]
        services: Vec<(String, String)>,
        #[command(flatten)]
        terms: ChangeArguments,
    },
    /// Go back to the colors before the last promotion
    #[command(
        after_help = "Examples:\n  flipgate rollback\n  flipgate rollback web --wait-drain 30s\n\n\
                            Exit code: 0 done, 3 refused, 4 stale generation, 5 not drained in time"
    )]
    Rollback {
        /// The services; none named: all of the last promotion
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
        #[command(flatten)]
        terms: ChangeArguments,
    },
    /// Show what still holds the color that is not active
    #[command(after_help = "Examples:\n  flipgate drain web\n  \
                            flipgate drain web=blue --wait 60s && docker stop web-blue\n\n\
                            Exit code: 0 drained, 3 the color named is active, 5 not yet")]
    Drain {
        /// The service, or the service and the color that you mean to stop
        #[arg(value_name = "SERVICE[=COLOR]")]
        service: String,
        /// Wait until nothing holds it, at most this long
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        wait: Option<Duration>,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: Output,
    },
    /// Follow what happens, one line for each event
    #[command(after_help = "Example: flipgate events --json | jq 'select(.event == \"drained\")'")]
    Events {
        /// Begin after this event instead of now
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: Output,
    },
    /// See it work: sample application, proxy, load, preview, flip, drain and rollback in one process
    #[command(after_help = "Examples:\n  flipgate demo\n  flipgate demo --stay    \
                            # and open it in a browser\n\nExit code: 0 only if nothing was lost")]
    Demo {
        /// Keep everything running afterwards, to look at in a browser
        #[arg(long)]
        stay: bool,
        /// Print the report as JSON and nothing else
        #[arg(long)]
        json: bool,
        /// Clients that ask all the time
        #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = count(1, 1000))]
        clients: usize,
        /// Flips under load at the end
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = count(0, 100_000))]
        flips: usize,
    },
    /// Put a proxy to the test: load, flips under it, and a check of every promise
    ///
    /// With --demo a Flipgate of its own in front of sample applications; else what listens at --url, with
    /// sample applications (`flipgate sample`) behind it. Flips go by Flipgate's admin API, or by any command.
    /// What is not put to the test is said to be unchecked.
    #[command(after_help = flipgate_drill::command::examples("flipgate drill"))]
    Drill(Box<DrillCommand>),
    /// Run the sample application that demo and drill put behind a proxy
    ///
    /// Pages for people under /, and traffic that can be checked under /traffic: short, download, upload,
    /// events, ws.
    #[command(
        after_help = "Example: flipgate sample --color green --version 8.0 --listen 127.0.0.1:9002"
    )]
    Sample(SampleCommand),
    /// Print completions for a shell
    #[command(after_help = "Example: flipgate completions bash > /etc/bash_completion.d/flipgate")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// How results are printed.
#[derive(Args, Clone, Copy, Debug)]
struct Output {
    /// JSON, also in a terminal
    #[arg(long)]
    json: bool,
}

/// On which terms a change is wanted.
#[derive(Args, Clone, Debug)]
struct ChangeArguments {
    /// Only if this is the current generation
    #[arg(long, value_name = "NUMBER")]
    if_generation: Option<u64>,
    /// Return when the replaced colors may be stopped, at most after this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    wait_drain: Option<Duration>,
    /// Why; it goes to the log and the events
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Go ahead where only caution forbids it: back to a pool that was changed since it was active
    #[arg(long)]
    force: bool,
    /// Make a repeated call harmless: the same key changes nothing twice
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: Output,
}

/// A command that failed: what to print on standard error, if there is anything to say, and the exit code.
#[derive(Debug)]
struct CommandError {
    code: u8,
    text: String,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // First of all: a signal that comes before its handler ends the process, or is lost.
    let signals = run::register_signals();
    let Cli { command } = Cli::parse();
    match dispatch(command, signals) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if !failure.text.is_empty() {
                print_error(failure.line(true).trim_end());
            }
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(
    command: Command,
    signals: Option<io::Result<StartSignals>>,
) -> Result<u8, CommandError> {
    match command {
        Command::Run { config } => run::run(config, signals.unwrap_or_else(StartSignals::register)),
        Command::Check { config } => check::check(&config),
        Command::State(command) => state::state(command),
        Command::Status { admin, output } => online(status::status(&admin, output)),
        Command::Promote { services, terms } => online(changes::promote(services, &terms)),
        Command::Rollback { services, terms } => online(changes::rollback(services, &terms)),
        Command::Drain { service, wait, admin, output } => {
            online(changes::drain(&service, wait, &admin, output))
        }
        Command::Events { after, admin, output } => online(events::events(after, &admin, output)),
        Command::Demo { stay, json, clients, flips } => {
            match demo::run(&demo::DemoOptions { stay, json, clients, flips }) {
                Ok(true) => Ok(0),
                Ok(false) => Ok(1),
                Err(error) => Err(CommandError::new(format!("the demo cannot run: {error}"))),
            }
        }
        Command::Drill(drill) => {
            let this = Program::this("flipgate");
            Ok(drill.run(this.clone(), || Ok(this))?)
        }
        Command::Sample(sample) => Ok(sample.run()?),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "flipgate", &mut script);
            print_line(String::from_utf8_lossy(&script).trim_end())?;
            Ok(0)
        }
    }
}

/// Runs a command that calls the admin API.
fn online(command: impl Future<Output = Result<u8, CommandError>>) -> Result<u8, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::new(error.to_string()))?;
    runtime.block_on(command)
}

fn parse_time(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|it| Duration::try_from(it).ok())
        .ok_or_else(|| "write a time in units up to hours, like 30s, 5m or 24h".to_owned())
}

fn count(from: usize, to: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|it| (from..=to).contains(it));
        number.ok_or_else(|| format!("write a number from {from} to {to}"))
    }
}

// === impl Output ===

impl Output {
    /// JSON if it was asked for, or if nobody is looking.
    fn is_json(self) -> bool {
        self.json || !io::stdout().is_terminal()
    }
}

// === impl CommandError ===

impl CommandError {
    fn new(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// The line for standard error.
    fn line(&self, is_colored: bool) -> String {
        let style = anstyle::AnsiColor::Red.on_default().bold();
        let style = if is_colored { style } else { anstyle::Style::new() };
        format!("{style}error{style:#}: {}\n", self.text)
    }

    fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
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
        Self::new(error.to_string())
    }
}

impl From<flipgate_drill::command::CommandError> for CommandError {
    fn from(failure: flipgate_drill::command::CommandError) -> Self {
        let flipgate_drill::command::CommandError { code, text } = failure;
        Self { code, text }
    }
}

impl From<CallError> for CommandError {
    fn from(error: CallError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            CallError::Refused { status: StatusCode::CONFLICT, .. } => {
                failure.with_code(exit::REFUSED)
            }
            CallError::Refused { status: StatusCode::PRECONDITION_FAILED, .. } => {
                failure.with_code(exit::STALE)
            }
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands().filter(|it| it.get_name() != "help") {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
        }
    }
}
