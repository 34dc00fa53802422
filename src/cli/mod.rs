//! The command line.
//!
//! Tables in a terminal, JSON in a pipe. Every error says what to do next, on standard error, and leads to an exit
//! code that scripts can rely on.

mod arguments;
mod audit;
mod changes;
mod check;
mod check_samples;
mod commands;
mod deploy;
mod drain;
mod events;
mod exit;
mod gates;
mod generate;
mod intake;
mod output;
mod pending;
mod pins;
mod pools;
mod rollout_text;
mod rollouts;
mod run;
mod state;
mod status;
mod table;
mod times;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser};
use flipgate_api::wire::ApproveRequest;
use flipgate_drill::Program;

use self::{arguments::Verbosity, commands::Command, exit::CommandError};
use crate::{app::StartSignals, demo};

/// Version, commit and date of the commit.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("FLIPGATE_BUILD"), ")");

/// Flips services between blue and green in one atomic step, with an exact drain.
#[derive(Debug, Parser)]
#[command(name = "flipgate", version = VERSION, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Example: flipgate demo")]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    // First of all: a signal that comes before its handler ends the process, or is lost.
    let signals = run::register_signals();
    let Cli { verbosity, command } = Cli::parse();
    match dispatch(command, verbosity, signals) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            error.print();
            ExitCode::from(error.code)
        }
    }
}

fn dispatch(
    command: Command,
    verbosity: Verbosity,
    signals: Option<io::Result<StartSignals>>,
) -> Result<u8, CommandError> {
    match command {
        Command::Run(config) => {
            let signals = signals.unwrap_or_else(StartSignals::register);
            run::run(config.source()?, verbosity, signals)
        }
        Command::Check { file, manifest, config, output } => {
            check::check(file, config, &manifest, output, verbosity)
        }
        Command::Schema => generate::print_schema(),
        Command::Reload { admin, output } => online(changes::reload(&admin, output, verbosity)),
        Command::State(command) => state::state(command),
        Command::Audit(arguments) => audit::audit(arguments),
        Command::Status { service, watch, admin, output } => {
            online(status::status(service.as_deref(), watch, &admin, output, verbosity))
        }
        Command::Ready { admin, output } => online(status::ready(&admin, output, verbosity)),
        Command::Promote { services, confirm_within, steps, arguments } => {
            online(changes::promote(services, confirm_within, steps, &arguments, verbosity))
        }
        Command::Confirm { services, admin, output } => {
            online(gates::confirm(services, &admin, output, verbosity))
        }
        Command::Watch(gates::WatchCommand::Stop { service, admin, output }) => {
            online(gates::stop_watch(&service, &admin, output, verbosity))
        }
        Command::Pins(pins::PinsCommand::Rotate { admin, output }) => {
            online(pins::rotate(&admin, output, verbosity))
        }
        Command::Deploy(arguments) => online(deploy::deploy(arguments)),
        Command::Rollouts { admin, output } => online(rollouts::rollouts(&admin, output)),
        Command::Rollout(arguments) => online(rollouts::rollout(arguments)),
        Command::Helper => Ok(crate::rollout::run_helper()),
        Command::Hold(arguments) => online(intake::hold(arguments, verbosity)),
        Command::Release(arguments) => online(intake::release(arguments, verbosity)),
        Command::Maintenance(arguments) => online(intake::maintenance(arguments, verbosity)),
        Command::Rollback { services, arguments } => {
            online(changes::rollback(services, &arguments, verbosity))
        }
        Command::Gate { service: (service, color), admin, output } => {
            online(gates::gate(&service, color.as_deref(), &admin, output))
        }
        Command::Approve { service: (service, color), version, reason, admin, output } => {
            let request = ApproveRequest { color, version, reason };
            online(gates::approve(&service, &request, &admin, output, verbosity))
        }
        Command::Set {
            pool,
            version,
            endpoints,
            force,
            if_generation,
            wait_healthy,
            admin,
            output,
        } => {
            let content = pools::PoolContent { version, endpoints, force, if_generation };
            online(pools::set(&pool, content, wait_healthy, &admin, output, verbosity))
        }
        Command::Wait { pool, timeout, admin, output } => {
            online(pools::wait(&pool, timeout, &admin, output, verbosity))
        }
        Command::Drain {
            service: (service, color),
            wait,
            safe_to_stop,
            end_streams,
            admin,
            output,
        } => {
            let color = color.as_deref();
            let terms = drain::DrainTerms { wait, safe_to_stop, end_streams };
            online(drain::drain(&service, color, terms, &admin, output))
        }
        Command::Events { after, admin, output } => online(events::events(after, &admin, output)),
        Command::Demo { stay, clients, flips, gates, output } => {
            let json = output.is_json_asked();
            match demo::run(&demo::DemoOptions { stay, json, clients, flips, gates }) {
                Ok(is_clean) => Ok(u8::from(!is_clean)),
                Err(error) => Err(CommandError::new(format!("the demo cannot run: {error}"))),
            }
        }
        Command::Drill(drill) => {
            let this = Program::this("flipgate");
            Ok(drill.run(this.clone(), || Ok(this))?)
        }
        Command::Sample(sample) => Ok(sample.run()?),
        Command::Completions { shell } => generate::completions(shell, Cli::command()),
        Command::Man { folder } => generate::manual(&folder, Cli::command()),
    }
}

/// Runs a command that calls the admin API.
fn online(command: impl Future<Output = Result<u8, CommandError>>) -> Result<u8, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandError::new(error.to_string()))?;
    runtime.block_on(command)
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
