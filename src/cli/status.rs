//! `status`, and how a picture is shown.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use flipgate_api::{
    CallerArguments, escape,
    terminal::{OutputError, print_line},
    wire::{EndpointStatus, PoolStatus, Status},
};

use super::{CommandError, Output};

pub(super) async fn status(admin: &CallerArguments, output: Output) -> Result<u8, CommandError> {
    let status = admin.caller()?.status().await?;
    show(&status, output)?;
    Ok(0)
}

/// Prints a picture: a table in a terminal, JSON elsewhere.
pub(super) fn show(status: &Status, output: Output) -> Result<(), OutputError> {
    if output.is_json() {
        print_line(serde_json::to_string_pretty(status).expect("texts and numbers only"))
    } else {
        print_line(format_args!("generation {}\n{}", status.generation, table(status)))
    }
}

fn table(status: &Status) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    let heads = ["service", "color", "role", "version", "in flight", "endpoints"];
    table.set_header(heads.map(|it| Cell::new(it).add_attribute(Attribute::Bold)));
    for (name, service) in &status.services {
        let mut name = Some(match service.damaged {
            true => format!("{name} (damaged: promote a color)"),
            false => name.clone(),
        });
        for (color, pool) in &service.pools {
            table.add_row(vec![
                Cell::new(name.take().unwrap_or_default()).add_attribute(Attribute::Bold),
                Cell::new(color).fg(paint(color)),
                role(pool),
                Cell::new(escape(pool.version.as_deref().unwrap_or("–"))),
                Cell::new(pool.in_flight).set_alignment(CellAlignment::Right),
                Cell::new(endpoints(pool)),
            ]);
        }
    }
    table
}

fn role(pool: &PoolStatus) -> Cell {
    let cell = Cell::new(&pool.role);
    match pool.role.as_str() {
        "active" => cell.add_attribute(Attribute::Bold),
        "draining" => cell.fg(Color::Yellow),
        "preview" => cell.fg(Color::Cyan),
        _ => cell.fg(Color::DarkGrey),
    }
}

fn paint(color: &str) -> Color {
    if color == "blue" { Color::Blue } else { Color::Green }
}

/// Each endpoint with what is known of it, and what is known of all together.
fn endpoints(pool: &PoolStatus) -> String {
    if pool.endpoints.is_empty() {
        return "–".to_owned();
    }
    let mut lines: Vec<_> = pool.endpoints.iter().map(endpoint).collect();
    if pool.queued > 0 {
        lines.push(format!("{} wait for a place", pool.queued));
    }
    if pool.panicking {
        lines.push("too few are well: bad ones are used too".to_owned());
    }
    lines.join("\n")
}

fn endpoint(it: &EndpointStatus) -> String {
    let mut line = escape(&it.address).into_owned();
    if let Some(resolved) = &it.resolved {
        line.push_str(&format!(" at {resolved}"));
    }
    if it.weight != 1 {
        line.push_str(&format!(" ×{}", it.weight));
    }
    line.push_str(&format!(" {}", it.health));
    match (&it.ejected, &it.reason) {
        (_, Some(reason)) => line.push_str(&format!(" for {}: {}", ago(&it.since), escape(reason))),
        (Some(ejected), None) => {
            let (since, until) = (ago(&ejected.since), ahead(&ejected.until));
            let reason = escape(&ejected.reason);
            line.push_str(&format!(", ejected {since} ago, back in {until}: {reason}"));
        }
        (None, None) => {}
    }
    if it.in_flight > 0 {
        line.push_str(&format!(" ({} in flight)", it.in_flight));
    }
    line
}

/// How long ago a time was.
fn ago(time: &str) -> String {
    from_to(time.parse().ok(), Some(jiff::Timestamp::now()))
}

/// How long it is to a time.
fn ahead(time: &str) -> String {
    from_to(Some(jiff::Timestamp::now()), time.parse().ok())
}

/// In its largest unit.
fn from_to(from: Option<jiff::Timestamp>, to: Option<jiff::Timestamp>) -> String {
    let Some((from, to)) = from.zip(to) else { return "some time".to_owned() };
    match to.duration_since(from).as_secs().max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
