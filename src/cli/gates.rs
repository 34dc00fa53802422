//! `gate` and `approve`.

use flipgate_api::{
    CallerArguments, OutputArguments, escape, gate_text, terminal::print_line, wire::ApproveRequest,
};

use super::{
    arguments::Verbosity,
    exit::{self, CommandError},
    output::{ended, show},
};

pub(super) async fn gate(
    service: &str,
    color: Option<&str>,
    admin: &CallerArguments,
    output: OutputArguments,
) -> Result<u8, CommandError> {
    let status = admin.caller()?.gate(service, color).await?;
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
    if output.is_json() {
        return ended(show(&status, output, verbosity), 0);
    }
    let pools = status.services.get(service).map(|it| (&it.active, &it.pools));
    let color = request.color.as_deref().or_else(|| {
        let (active, _) = pools?;
        Some(if active == "green" { "blue" } else { "green" })
    });
    let color = color.unwrap_or("the other color");
    let version = pools.and_then(|(_, pools)| pools.get(color)?.version.as_deref());
    let version = version.map(|it| format!(" {}", escape(it))).unwrap_or_default();
    let printed = match verbosity.quiet {
        true => Ok(()),
        false => {
            print_line(format_args!("{}: {}{version} is approved", escape(service), escape(color)))
        }
    };
    ended(printed, 0)
}
