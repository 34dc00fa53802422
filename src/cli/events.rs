//! `events`.

use http_body_util::BodyExt;
use serde_json::Value;

use super::{Admin, Failure, Output, client::Call};

/// Bytes of an event that has not ended yet.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

pub(super) async fn events(
    after: Option<u64>,
    admin: &Admin,
    output: Output,
) -> Result<u8, Failure> {
    let mut call = Call::get("/v1/events");
    if let Some(number) = after {
        call.headers.push(("last-event-id", number.to_string()));
    }
    let mut body = admin.follow(call).await?;
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Failure::new(format!("the event stream ended: {error}")))?;
        if let Some(data) = frame.data_ref() {
            buffer.extend_from_slice(data);
        }
        if buffer.len() > EVENT_BYTES_MAX {
            return Err(Failure::new("the event stream is not one of Flipgate"));
        }
        while let Some(end) = buffer.iter().position(|it| *it == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            if let Some(data) = line.strip_prefix("data:") {
                print(data.trim(), output);
            }
        }
    }
    Ok(0)
}

fn print(data: &str, output: Output) {
    if output.is_json() {
        anstream::println!("{data}");
        return;
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(data) else {
        anstream::println!("{data}");
        return;
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
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
    anstream::println!("{} {style}{event}{style:#} {}", known("at"), others.join(" "));
}
