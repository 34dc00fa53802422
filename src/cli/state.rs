//! `state`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell, Table, presets};
use flipgate_api::{OutputArguments, escape, terminal::print_line};

use super::{
    arguments::{default_path, environment},
    check::invalid,
    exit::CommandError,
};
use crate::{
    config::ConfigSource,
    model::{Color, PoolSpec},
    store::{self, PoolState, StateReport},
};

/// What to do with the state of a folder.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Print the content of a state folder; a running Flipgate is not disturbed
    ///
    /// Reads the snapshot and the journal as a start does, and fails for damage that would prevent a start.
    #[command(after_help = "Examples:\n  flipgate state show --config flipgate.toml\n  \
                            flipgate state show /var/lib/flipgate --json | jq .services.web.active")]
    Show {
        #[command(flatten)]
        folder: FolderArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
}

/// A state folder.
#[derive(Args, Clone, Debug)]
pub(super) struct FolderArguments {
    /// The folder [default: `state_dir` of the configuration, else `state`]
    #[arg(value_name = "FOLDER", conflicts_with = "config")]
    folder: Option<PathBuf>,
    /// The configuration file that names the folder
    #[arg(short, long, value_name = "FILE", env = "FLIPGATE_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn state(command: StateCommand) -> Result<u8, CommandError> {
    let StateCommand::Show { folder, output } = command;
    let folder = folder.folder()?;
    let shown = store::show(&folder).map_err(|error| CommandError::new(error.to_string()))?;
    if output.is_json() {
        print_line(format_args!("{:#}", shown.json()))?;
    } else {
        print_line(text(&folder, &shown))?;
    }
    Ok(0)
}

// === impl FolderArguments ===

impl FolderArguments {
    /// The folder that these options name.
    ///
    /// # Errors
    ///
    /// If the configuration that should name it cannot be used.
    pub(super) fn folder(self) -> Result<PathBuf, CommandError> {
        let Self { folder, config } = self;
        let path = match (folder, config.or_else(default_path)) {
            (Some(folder), _) => return Ok(folder),
            (None, Some(path)) => path,
            (None, None) => return Ok(PathBuf::from("state")),
        };
        let source = ConfigSource { path, environment: environment() };
        let loaded = source.load().map_err(|error| invalid(&source.path, &error))?;
        Ok(loaded.config.state_dir)
    }
}

fn text(folder: &Path, shown: &StateReport) -> String {
    let StateReport { state, replayed, torn, is_old } = shown;
    let folder = folder.display();
    let Some(state) = state else { return format!("{folder}: no state yet") };
    let mut lines = vec![format!(
        "{folder}: generation {}, revision {}; {replayed} changes in the journal behind the snapshot",
        state.generation, state.revision
    )];
    if *is_old {
        lines.push("written by version 0.1.0; the next start writes it anew".to_owned());
    }
    if let Some((file, offset)) = torn {
        lines.push(format!(
            "{file} ends with an incomplete record at byte {offset}: the next start removes it"
        ));
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let heads = ["service", "active", "rollback to", "blue", "green"];
    table.set_header(heads.map(|it| Cell::new(it).add_attribute(Attribute::Bold)));
    for (name, service) in state.services.iter() {
        table.add_row(vec![
            name.to_string(),
            service.active.to_string(),
            service.previous.map_or_else(|| "–".to_owned(), |it| it.to_string()),
            pool(service.pool(Color::Blue)),
            pool(service.pool(Color::Green)),
        ]);
    }
    lines.push(table.to_string());
    for name in state.damaged.keys() {
        lines.push(format!(
            "the entry of {name} is damaged: flipgate promote {name}=COLOR, with the color that shall be active"
        ));
    }
    if !state.unknown.is_empty() {
        lines.push(format!("{} entries of a later version, kept as they are", state.unknown.len()));
    }
    lines.join("\n")
}

fn pool(pool: &PoolState) -> String {
    let PoolSpec { version, endpoints, .. } = pool.spec();
    let source = if pool.runtime.is_some() { "runtime" } else { "file" };
    let version = version.as_ref().map(|it| format!("{} ", escape(&it.to_string())));
    let version = version.unwrap_or_default();
    let endpoints: Vec<_> = endpoints.iter().map(|it| it.endpoint.to_string()).collect();
    match &*endpoints {
        [] => format!("{version}– ({source})"),
        endpoints => format!("{version}{} ({source})", endpoints.join(", ")),
    }
}
