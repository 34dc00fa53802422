//! `flipgate-drill`: the drill as a separate program, to test a proxy on a machine without Flipgate.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use flipgate_api::terminal::print_error;
use flipgate_drill::{
    Program,
    command::{CommandError, DrillCommand, SampleCommand, examples},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The name of this program.
const NAME: &str = "flipgate-drill";

/// Test a proxy: load, flips, and a check of every promise
///
/// With --demo, the drill starts a Flipgate and sample applications. Otherwise it tests the proxy at --url, which has
/// sample applications (`flipgate-drill sample`) behind it. Flips are calls of Flipgate's admin API, or any command.
/// The report names the promises that could not be tested.
#[derive(Debug, Parser)]
#[command(
    name = NAME,
    version,
    max_term_width = 100,
    arg_required_else_help = true,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = examples(NAME)
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    drill: Box<DrillCommand>,
    /// The Flipgate that --demo starts [default: `flipgate` in the folder of this program, or in PATH]
    #[arg(long, value_name = "PATH", requires = "demo", help_heading = "Target")]
    flipgate: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sample application of the drill
    ///
    /// Pages under /, and traffic that the drill checks under /traffic: short, download, upload, events, ws, scan,
    /// page, visit, asset.
    #[command(
        after_help = "Example: flipgate-drill sample --color green --version 8.0 --listen 127.0.0.1:9002"
    )]
    Sample(SampleCommand),
}

fn main() -> ExitCode {
    let Cli { command, drill, flipgate } = Cli::parse();
    let done = match command {
        Some(Command::Sample(sample)) => sample.run(),
        None => drill.run(Program::this(NAME), || find(flipgate)),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(CommandError { code, text }) => {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            if !text.is_empty() {
                print_error(format_args!("{style}error{style:#}: {text}"));
            }
            ExitCode::from(code)
        }
    }
}

/// The Flipgate that `--demo` starts.
fn find(given: Option<PathBuf>) -> Result<Program, CommandError> {
    match given {
        Some(path) => Ok(Program::at(path)),
        None => Program::find("flipgate").ok_or_else(|| {
            CommandError::usage(
                "--demo starts Flipgate, but there is no program `flipgate` in the folder of this program or in PATH\n  \
                 Install it with `cargo install --path .` in the folder of Flipgate's sources, or use --flipgate PATH.",
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
