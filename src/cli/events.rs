//! `events`.

use flipgate_api::{
    CallerArguments, OutputArguments, escape,
    terminal::{OutputError, print_line},
};
use serde_json::Value;

use super::exit::CommandError;

pub(super) async fn events(
    after: Option<u64>,
    admin: &CallerArguments,
    output: OutputArguments,
) -> Result<u8, CommandError> {
    let mut events = admin.caller()?.events(after).await?;
    while let Some(event) = events.next().await.map_err(CommandError::new)? {
        print(&event, output)?;
    }
    Ok(0)
}

fn print(data: &str, output: OutputArguments) -> Result<(), OutputError> {
    if output.is_json() {
        return print_line(data);
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(data) else {
        return print_line(escape(data));
    };
    let text = |value: &Value| match value {
        Value::String(text) => escape(text).into_owned(),
        other => escape(&other.to_string()).into_owned(),
    };
    let known = |name: &str| fields.get(name).map(text).unwrap_or_default();
    // Where it was comes first.
    let first = ["service", "color", "endpoint", "address", "health"];
    let place = |name: &str| first.iter().position(|it| *it == name).unwrap_or(first.len());
    let mut others: Vec<_> =
        fields.iter().filter(|it| !["seq", "at", "event"].contains(&it.0.as_str())).collect();
    others.sort_by_key(|it| place(it.0));
    let others = others.into_iter().map(|(name, value)| match text(value) {
        text if text.contains(' ') => format!("{name}={text:?}"),
        text => format!("{name}={text}"),
    });
    let others: Vec<String> = others.collect();
    let style = anstyle::Style::new().bold();
    let event = known("event");
    print_line(format_args!("{} {style}{event}{style:#} {}", known("at"), others.join(" ")))
}
