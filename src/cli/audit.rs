//! `audit`.

use clap::{Args, Subcommand};
use comfy_table::{Attribute, Cell, ColumnConstraint, ContentArrangement, Table, presets};
use flipgate_api::{OutputArguments, escape, terminal::print_line};
use serde_json::json;

use super::{exit::CommandError, output::width, state::FolderArguments};
use crate::{
    audit::{AuditLine, Verification},
    store::{AuditReport, read_audit},
};

/// Which lines to show.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct AuditArguments {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    folder: FolderArguments,
    /// Only lines that name this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only the newest lines [default: 50 in a table, all in JSON]
    #[arg(short = 'n', long, value_name = "NUMBER")]
    limit: Option<usize>,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Clone, Debug, Subcommand)]
enum AuditCommand {
    /// Check that no line is missing, changed or in another place
    #[command(after_help = "Example: flipgate audit verify --config flipgate.toml\n\n\
                            Exit code: 0 all lines are good, 1 damaged")]
    Verify {
        #[command(flatten)]
        folder: FolderArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
}

/// Lines of a table.
const LINES: usize = 50;

pub(super) fn audit(arguments: AuditArguments) -> Result<u8, CommandError> {
    let AuditArguments { command, folder, service, limit, output } = arguments;
    if let Some(AuditCommand::Verify { folder, output }) = command {
        return verify(folder, output);
    }
    let report = read(folder)?;
    let is_wanted = |it: &AuditLine| service.as_ref().is_none_or(|name| it.names(name));
    if output.is_json() {
        for line in report.newest(limit.unwrap_or(usize::MAX), is_wanted) {
            print_line(serde_json::to_string(&line).expect("texts and numbers only"))?;
        }
        return Ok(0);
    }
    let lines = report.newest(limit.unwrap_or(LINES), is_wanted);
    match lines.is_empty() {
        true => print_line("no audit lines")?,
        false => print_line(table(&lines))?,
    }
    Ok(0)
}

fn read(folder: FolderArguments) -> Result<AuditReport, CommandError> {
    read_audit(&folder.folder()?).map_err(|error| CommandError::new(error.to_string()))
}

fn verify(folder: FolderArguments, output: OutputArguments) -> Result<u8, CommandError> {
    let verification = read(folder)?.verification;
    let Verification { lines, first, waiting, incomplete, damages } = &verification;
    let is_good = damages.is_empty();
    if output.is_json() {
        let damages = damages
            .iter()
            .map(|it| json!({"file": it.place.file, "line": it.place.line, "what": it.what}));
        let shown = json!({
            "good": is_good,
            "lines": lines,
            "first": first,
            "waiting": waiting,
            "incomplete": incomplete.as_ref().map(ToString::to_string),
            "damages": damages.collect::<Vec<_>>(),
        });
        print_line(format_args!("{shown:#}"))?;
    } else {
        for damage in damages {
            print_line(damage)?;
        }
        print_line(summary(&verification))?;
    }
    Ok(u8::from(!is_good))
}

fn summary(verification: &Verification) -> String {
    let Verification { lines, first, waiting, incomplete, damages } = verification;
    let mut text = match (damages.len(), lines, first) {
        (0, 0, _) => "good: no lines in the files".to_owned(),
        (0, lines, 0 | 1) => format!("good: {lines} lines, from the first one of the log on"),
        (0, lines, first) => {
            format!(
                "good: {lines} lines, from number {first} on; rotation has removed those before"
            )
        }
        (1, lines, _) => format!("damaged: 1 place; {lines} lines were read"),
        (damages, lines, _) => format!("damaged: {damages} places; {lines} lines were read"),
    };
    if *waiting > 0 {
        text.push_str(&format!("; {waiting} more lines wait in the state for the file"));
    }
    if let Some(place) = incomplete {
        text.push_str(&format!("; {place} is not complete, and the next start completes it"));
    }
    text
}

fn table(lines: &[AuditLine]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns());
    let heads = ["time", "actor", "action", "result", "generation", "reason"];
    table.set_header(heads.map(|it| Cell::new(it).add_attribute(Attribute::Bold)));
    for line in lines {
        let AuditLine { time, actor, from, action, reason, before, after, result, .. } = line;
        let caller = match from.contains(actor.as_str()) || from == "unix" {
            true => actor.clone(),
            false => format!("{actor} ({from})"),
        };
        let generation = match before == after {
            true => after.to_string(),
            false => format!("{before} → {after}"),
        };
        let time = time.split('.').next().unwrap_or(time).trim_end_matches('Z');
        let reason = reason.as_deref().unwrap_or("–");
        let cells = [&format!("{time}Z"), &caller, action, result, &generation, reason];
        table.add_row(cells.map(|it| escape(it).to_string()));
    }
    // A time is read as a whole.
    if let Some(times) = table.column_mut(0) {
        times.set_constraint(ColumnConstraint::ContentWidth);
    }
    table.to_string()
}

fn columns() -> u16 {
    u16::try_from(width()).unwrap_or(u16::MAX)
}
