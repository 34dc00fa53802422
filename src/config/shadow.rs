//! The gate that compares copies of live requests: `[service.X.gate.shadow]`.

use std::time::Duration;

use http::HeaderName;

use super::{
    policy::or_none,
    reader::{Section, Value, flag, whole},
    settings::duration,
};
use crate::{
    model::{PathPrefix, ShadowGate},
    release,
};

/// The gate. `deadline` is that of all gates of the service.
pub(super) fn shadow(section: &Section<'_>, deadline: Duration) -> ShadowGate {
    let known = ShadowGate::default();
    let gate = ShadowGate {
        share: section.read("share", known.share, |it| percent(it, 1)),
        time: section.read("for", known.time, duration),
        requests: section
            .read("requests", known.requests, |it| whole(it, 1..=1_000_000).map(|it| it as u64)),
        different: section.read("different", known.different, |it| percent(it, 0)),
        timeout: section.read("timeout", known.timeout, duration),
        credentials: section.read("credentials", known.credentials, flag),
        exclude: section.list("exclude", known.exclude, |it| {
            it.parse::<PathPrefix>().map_err(|error| error.to_string())
        }),
        ignore: section.list("ignore", known.ignore, pointer),
        ignore_text: section.list("ignore_text", known.ignore_text, |it| {
            release::check_regex(it).map(|()| it.into())
        }),
        headers: section.list("headers", known.headers, |it| match it.parse::<HeaderName>() {
            Ok(name) => Ok(name.as_str().into()),
            Err(_) => Err(format!("`{it}` is not the name of a header")),
        }),
        latency: section.read("latency", known.latency, or_none(duration)),
    };
    // The last copies may take their whole timeout.
    if gate.time + gate.timeout >= deadline {
        let key = if section.has("for") { "for" } else { "timeout" };
        section.note(
            key,
            "`for` (default \"1m\") and `timeout` (default \"5s\") together are not shorter than gate.deadline \
             (default \"2m\")\nset a longer deadline, or a shorter time",
        );
    }
    section.finish();
    gate
}

/// A JSON pointer.
pub(super) fn pointer(text: &str) -> Result<Box<str>, String> {
    match text.starts_with('/') {
        true => Ok(text.into()),
        false => Err("expected a JSON pointer, like \"/build/host\" (RFC 6901)".to_owned()),
    }
}

fn percent(value: Value<'_>, least: usize) -> Result<u8, String> {
    whole(value, least..=100).map(|it| u8::try_from(it).unwrap_or(100))
}
