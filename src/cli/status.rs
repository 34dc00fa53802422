//! `status` and `ready`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use flipgate_api::{
    CallError, CallerArguments, OutputArguments,
    terminal::{OutputError, print_error, print_line},
    wire::{PoolStatus, Status},
};

use super::{arguments::Verbosity, exit::CommandError, pools::unknown_service, table::table};

/// Between two refreshes of `status --watch`.
const REFRESH: Duration = Duration::from_secs(1);

/// Where the width of the terminal is not known.
const WIDTH: usize = 80;

/// Clears the terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) async fn status(
    service: Option<&str>,
    watch: bool,
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let caller = admin.caller()?;
    let verbosity = Verbosity { verbose: verbosity.verbose || service.is_some(), ..verbosity };
    let mut last = String::new();
    loop {
        let text = match caller.status().await {
            Ok(status) => text(&only(status, service)?, output, verbosity, watch),
            // With --watch, a Flipgate that is restarted is a part of the picture.
            Err(error @ (CallError::Unreachable { .. } | CallError::Lost { .. })) if watch => {
                match output.is_json() {
                    true => {
                        print_error(error);
                        last.clone()
                    }
                    false => error.to_string(),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if !watch {
            print_line(text)?;
            return Ok(0);
        }
        let clears = !output.is_json() && io::stdout().is_terminal();
        // In a pipe, a line or a table for each change is enough.
        if clears {
            print_line(format_args!("{CLEAR}{text}"))?;
        } else if text != last {
            print_line(&text)?;
        }
        last = text;
        tokio::time::sleep(REFRESH).await;
    }
}

fn only(mut status: Status, service: Option<&str>) -> Result<Status, CommandError> {
    if let Some(name) = service {
        if !status.services.contains_key(name) {
            return Err(unknown_service(&status, name));
        }
        status.services.retain(|it, _| it == name);
    }
    Ok(status)
}

/// Prints a status: a table in a terminal, JSON elsewhere.
pub(super) fn show(
    status: &Status,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<(), OutputError> {
    print_line(text(status, output, verbosity, false))
}

fn text(status: &Status, output: OutputArguments, verbosity: Verbosity, is_line: bool) -> String {
    if output.is_json() {
        let json = if is_line { serde_json::to_string } else { serde_json::to_string_pretty };
        return json(status).expect("strings and numbers only");
    }
    let mut text = format!("generation {}\n", status.generation);
    if let Some(reason) = status.read_only.as_ref().or(status.write_refused.as_ref()) {
        text.push_str(&format!("changes are refused: {}\n", flipgate_api::escape(reason)));
    }
    text.push_str(&table(status, width(), verbosity.verbose));
    text
}

/// The columns of the terminal. A terminal that does not know its width, and a pipe, have those of `COLUMNS`, or 80.
fn width() -> usize {
    let known = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let from_environment = || std::env::var("COLUMNS").ok()?.parse().ok();
    known.filter(|it| *it > 0).or_else(from_environment).filter(|it| *it > 0).unwrap_or(WIDTH)
}

/// `2 up`, or `1 of 2 up`.
pub(super) fn health_summary(pool: &PoolStatus) -> String {
    let is_usable =
        |it: &&flipgate_api::wire::EndpointStatus| it.health == "up" && it.ejected.is_none();
    let (all, up) = (pool.endpoints.len(), pool.endpoints.iter().filter(is_usable).count());
    match all {
        0 => "no endpoints".to_owned(),
        _ if all == up => format!("{all} up"),
        _ => format!("{up} of {all} up"),
    }
}

/// Whether a load balancer should send requests to this Flipgate.
pub(super) async fn ready(
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let ready = admin.caller()?.ready().await?;
    if output.is_json() {
        print_line(serde_json::to_string(&ready).expect("strings and booleans only"))?;
    } else if !verbosity.quiet {
        let reasons = ready.reasons.join("; ");
        match ready.ready {
            true => print_line("ready")?,
            false => print_line(format_args!("not ready: {reasons}"))?,
        }
    }
    Ok(u8::from(!ready.ready))
}
