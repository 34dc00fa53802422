//! `gate`, `approve`, `confirm` and `watch`: what comes before and after a promotion.

use clap::Subcommand;
use flipgate_api::{
    CallerArguments, OutputArguments, escape, gate_text,
    terminal::print_line,
    wire::{ApproveRequest, ConfirmRequest},
};

use super::{
    arguments::Verbosity,
    exit::{self, CommandError},
    output::{done, ended, gates_spinner},
};

/// The commands of `flipgate watch`.
#[derive(Debug, Subcommand)]
pub(super) enum WatchCommand {
    /// End the watch of a service: the promotion stays, whatever comes
    #[command(
        after_help = "Example: flipgate watch stop web\n\nExit code: 0 ended, 3 there is no watch"
    )]
    Stop {
        /// The service
        service: String,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
}

pub(super) async fn confirm(
    services: Vec<String>,
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let status = admin.caller()?.confirm(&ConfirmRequest { services }).await?;
    done(&status, output, verbosity, "confirmed")
}

pub(super) async fn stop_watch(
    service: &str,
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let status = admin.caller()?.stop_watch(service).await?;
    done(&status, output, verbosity, &format!("{}: the watch has ended", escape(service)))
}

pub(super) async fn gate(
    service: &str,
    color: Option<&str>,
    admin: &CallerArguments,
    output: OutputArguments,
) -> Result<u8, CommandError> {
    let spinner = gates_spinner();
    let status = admin.caller()?.gate(service, color).await;
    spinner.finish_and_clear();
    let status = status?;
    let printed = match output.is_json() {
        true => print_line(serde_json::to_string_pretty(&status).expect("strings and numbers")),
        false => print_line(gate_text(&status)),
    };
    ended(printed, if status.passed { 0 } else { exit::REFUSED })
}

pub(super) async fn approve(
    service: &str,
    request: &ApproveRequest,
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let status = admin.caller()?.approve(service, request).await?;
    let pools = status.services.get(service).map(|it| (&it.active, &it.pools));
    let color = request.color.as_deref().or_else(|| {
        let (active, _) = pools?;
        Some(if active == "green" { "blue" } else { "green" })
    });
    let color = color.unwrap_or("the other color");
    let version = pools.and_then(|(_, pools)| pools.get(color)?.version.as_deref());
    let version = version.map(|it| format!(" {}", escape(it))).unwrap_or_default();
    let approvals = pools.and_then(|(_, pools)| pools.get(color)).map(|it| &it.approvals[..]);
    let by: Vec<_> = approvals.unwrap_or_default().iter().map(|it| escape(&it.by)).collect();
    let by = if by.is_empty() { String::new() } else { format!(" by {}", by.join(" and ")) };
    let text = format!("{}: {}{version} is approved{by}", escape(service), escape(color));
    done(&status, output, verbosity, &text)
}
