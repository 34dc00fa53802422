//! `pins`: the keys that sign pins.

use clap::Subcommand;
use flipgate_api::{CallerArguments, OutputArguments};

use super::{arguments::Verbosity, exit::CommandError, output::done};

/// The commands of `flipgate pins`.
#[derive(Debug, Subcommand)]
pub(super) enum PinsCommand {
    /// Sign pins with a new key. Older keys stay valid for the longest `pin.max_age`
    #[command(
        after_help = "Example: flipgate pins rotate\n\nExit code: 0 done, 3 no service has pins"
    )]
    Rotate {
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
}

pub(super) async fn rotate(
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let status = admin.caller()?.rotate_pin_keys().await?;
    done(&status, output, verbosity, "pins are signed with a new key from now on")
}
