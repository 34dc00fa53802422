//! The watch of a service: `[service.X.watch]`.

use std::{sync::Arc, time::Duration};

use super::{
    policy::or_none,
    reader::{Section, Value, flag, text, whole, word},
    settings::duration,
};
use crate::model::{LatencyLimit, WatchAction, WatchSettings};

/// A shorter watch has too few ticks for a verdict.
const TIME_MIN: Duration = Duration::from_secs(1);

/// The watch of a service.
pub(super) fn watch(section: &Section<'_>) -> Arc<WatchSettings> {
    let known = WatchSettings::default();
    let settings = WatchSettings {
        time: section.read("for", known.time, |it| match duration(it)? {
            it if it < TIME_MIN => Err("expected a duration of at least \"1s\"".to_owned()),
            it => Ok(it),
        }),
        errors: section.read("errors", known.errors, |it| {
            whole(it, 0..=100).map(|it| u8::try_from(it).unwrap_or(100))
        }),
        latency: section.read("latency", known.latency, or_none(latency)),
        latency_after: section.read("latency_after", known.latency_after, |it| match text(it) {
            Ok("0s") => Ok(Duration::ZERO),
            _ => duration(it).map_err(|what| format!("{what}, or \"0s\"")),
        }),
        requests: section
            .read("requests", known.requests, |it| whole(it, 0..=1_000_000).map(|it| it as u64)),
        clients: section.read("clients", known.clients, |it| whole(it, 1..=1000)),
        action: section.read("action", known.action, |it| {
            word(it, &[("rollback", WatchAction::Rollback), ("alert", WatchAction::Alert)])
        }),
        rescue: section.read("rescue", known.rescue, flag),
    };
    if settings.latency.is_some() && settings.latency_after >= settings.time {
        let key = if section.has("latency_after") { "latency_after" } else { "latency" };
        section.note(
            key,
            "`latency_after` (default \"30s\") is not shorter than `for` (default \"5m\")",
        );
    }
    if settings.latency.is_none() && section.has("latency_after") && !section.has("latency") {
        section.note(
            "latency_after",
            "only has an effect with `latency`\nset that too, or remove the key",
        );
    }
    section.finish();
    Arc::new(settings)
}

/// `"p99 500ms"`.
fn latency(value: Value<'_>) -> Result<LatencyLimit, String> {
    let wrong =
        "expected a percentile and a duration, like \"p99 500ms\" or \"p99.9 2s\", or \"none\"";
    let text = text(value)?;
    let (percentile, bound) = text.split_once(' ').ok_or(wrong)?;
    let percentile = percentile.strip_prefix('p').ok_or(wrong)?;
    let (whole, tenth) = percentile.split_once('.').unwrap_or((percentile, "0"));
    let digits = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    let (2, 1, true) = (whole.len(), tenth.len(), digits(whole) && digits(tenth)) else {
        return Err(wrong.to_owned());
    };
    let percentile = format!("{whole}{tenth}").parse::<u16>().map_err(|_| wrong)?;
    let bound =
        bound.parse::<jiff::SignedDuration>().ok().and_then(|it| Duration::try_from(it).ok());
    let bound = bound.filter(|it| !it.is_zero()).ok_or(wrong)?;
    match percentile {
        500..=999 => Ok(LatencyLimit { percentile, bound }),
        _ => Err("expected a percentile from p50 to p99.9".to_owned()),
    }
}
