//! `status` and `ready`.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use flipgate_api::{
    CallError, CallerArguments, OutputArguments, escape,
    terminal::{print_error, print_line},
    wire::Status,
};

use super::{arguments::Verbosity, exit::CommandError, output::text};

/// Between two refreshes of `status --watch`.
const REFRESH: Duration = Duration::from_secs(1);

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
            return Err(CommandError::unknown_service(&status, name));
        }
        status.services.retain(|it, _| it == name);
    }
    Ok(status)
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
            true => {
                print_line("ready")?;
                for warning in &ready.warnings {
                    print_line(format_args!("warning: {}", escape(warning)))?;
                }
            }
            false => print_line(format_args!("not ready: {reasons}"))?,
        }
    }
    Ok(u8::from(!ready.ready))
}
