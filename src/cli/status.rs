//! `status`, and how a picture is shown.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};

use super::{Admin, Failure, Output, client::Call};
use crate::admin::wire::{EndpointStatus, PoolStatus, Status};

pub(super) async fn status(admin: &Admin, output: Output) -> Result<u8, Failure> {
    let status: Status = admin.call(Call::get("/v1/status")).await?;
    show(&status, output);
    Ok(0)
}

/// Prints a picture: a table in a terminal, JSON elsewhere.
pub(super) fn show(status: &Status, output: Output) {
    if output.is_json() {
        let json = serde_json::to_string_pretty(status).expect("texts and numbers only");
        anstream::println!("{json}");
    } else {
        anstream::println!("generation {}\n{}", status.generation, table(status));
    }
}

fn table(status: &Status) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
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
                Cell::new(pool.version.as_deref().unwrap_or("–")),
                Cell::new(pool.in_flight).set_alignment(CellAlignment::Right),
                Cell::new(endpoints(&pool.endpoints)),
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

fn endpoints(endpoints: &[EndpointStatus]) -> String {
    let line = |it: &EndpointStatus| match it.in_flight {
        0 => format!("{} {}", it.address, it.health),
        some => format!("{} {} ({some} in flight)", it.address, it.health),
    };
    match endpoints {
        [] => "–".to_owned(),
        some => some.iter().map(line).collect::<Vec<_>>().join("\n"),
    }
}
