//! `rollouts` and `rollout`.

use std::time::Duration;

use clap::{Args, Subcommand};
use flipgate_api::{
    CallerArguments, OutputArguments, escape,
    terminal::print_line,
    wire::{RolloutActionRequest, RolloutStatus},
};

use super::{
    exit::CommandError,
    output::ended,
    rollout_text::{exit_code, headline, report},
    times::shown_time,
};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct RolloutArguments {
    /// The rollout
    #[arg(value_name = "ID", required = true)]
    id: Option<String>,
    /// Wait until the rollout is over or needs a person, at most this long
    #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
    wait: Option<Duration>,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: OutputArguments,
    #[command(subcommand)]
    action: Option<RolloutAction>,
}

#[derive(Debug, Subcommand)]
enum RolloutAction {
    /// End a rollout: what was done is undone. A stuck one ends as it is
    #[command(
        after_help = "Example: flipgate rollout cancel 20261129-081502-k7q2 --reason 'wrong version'"
    )]
    Cancel(ActionArguments),
    /// Have a stuck rollout try again what has failed or was interrupted
    #[command(after_help = "Example: flipgate rollout retry 20261129-081502-k7q2")]
    Retry(ActionArguments),
    /// Approve the stage that waits for a person
    #[command(
        after_help = "Examples:\n  flipgate rollout approve 20261129-081502-k7q2\n  flipgate rollout approve 20261129-081502-k7q2 --stage 'go live'"
    )]
    Approve {
        #[command(flatten)]
        arguments: ActionArguments,
        /// Approve this stage and no other, also if the rollout has gone on meanwhile
        #[arg(long, value_name = "NAME")]
        stage: Option<String>,
    },
    /// Confirm the promotion of a rollout, which would be taken back otherwise
    #[command(after_help = "Example: flipgate rollout confirm 20261129-081502-k7q2")]
    Confirm(ActionArguments),
}

#[derive(Args, Debug)]
struct ActionArguments {
    /// The rollout
    id: String,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) async fn rollout(arguments: RolloutArguments) -> Result<u8, CommandError> {
    let RolloutArguments { id, wait, admin, output, action } = arguments;
    let (verb, stage, arguments) = match action {
        None => {
            let id = id.unwrap_or_default();
            let status = admin.caller()?.rollout(&id, wait.unwrap_or_default(), None).await?;
            let code = if wait.is_some() { exit_code(&status) } else { 0 };
            return ended(print(&status, output), code);
        }
        Some(RolloutAction::Cancel(it)) => ("cancel", None, it),
        Some(RolloutAction::Retry(it)) => ("retry", None, it),
        Some(RolloutAction::Approve { arguments, stage }) => ("approve", stage, arguments),
        Some(RolloutAction::Confirm(it)) => ("confirm", None, it),
    };
    let ActionArguments { id, reason, admin, output } = arguments;
    let caller = admin.caller()?;
    let status = caller.change_rollout(&id, verb, &RolloutActionRequest { reason, stage }).await?;
    ended(print(&status, output), 0)
}

pub(super) async fn rollouts(
    admin: &CallerArguments,
    output: OutputArguments,
) -> Result<u8, CommandError> {
    let list = admin.caller()?.rollouts().await?;
    if output.is_json() {
        let json = serde_json::to_string_pretty(&list).expect("texts and numbers only");
        return ended(print_line(json), 0);
    }
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["id", "state", "plan", "services", "owner", "started"]);
    for it in &list.rollouts {
        let services = it.services.iter().map(|(name, it)| match &it.version {
            Some(version) => format!("{}@{}", escape(name), escape(version)),
            None => escape(name).into_owned(),
        });
        table.add_row([
            escape(&it.id).into_owned(),
            escape(&it.state).into_owned(),
            escape(&it.plan).into_owned(),
            services.collect::<Vec<_>>().join(" "),
            escape(&it.owner).into_owned(),
            shown_time(&it.started),
        ]);
    }
    let text = match list.rollouts.is_empty() {
        true => "no rollouts yet; begin one with `flipgate deploy`".to_owned(),
        false => table.to_string(),
    };
    ended(print_line(text), 0)
}

fn print(
    status: &RolloutStatus,
    output: OutputArguments,
) -> Result<(), flipgate_api::terminal::OutputError> {
    match output.is_json() {
        true => print_line(serde_json::to_string_pretty(status).expect("texts and numbers only")),
        false => print_line(format_args!("{}\n{}", headline(status), report(status))),
    }
}
