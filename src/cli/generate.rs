//! `completions`, `man` and `schema`: files that other programs read.

use std::path::Path;

use clap::Command;
use flipgate_api::terminal::print_line;

use super::exit::CommandError;
use crate::config::schema;

pub(super) fn completions(
    shell: clap_complete::Shell,
    mut cli: Command,
) -> Result<u8, CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli, "flipgate", &mut script);
    print_line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(0)
}

/// Writes a page for the program and one for each command.
pub(super) fn manual(folder: &Path, cli: Command) -> Result<u8, CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::new(format!("cannot write manual pages to {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(cli, folder).map_err(failed)?;
    Ok(0)
}

pub(super) fn print_schema() -> Result<u8, CommandError> {
    print_line(format_args!("{:#}", schema()))?;
    Ok(0)
}
