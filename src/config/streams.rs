//! The streams that a drain ends: `[service.NAME.drain]`.

use std::time::Duration;

use super::{
    reader::{Section, Value, text, whole},
    settings::duration,
};
use crate::{
    model::{StreamKind, StreamPolicies, StreamPolicy},
    websocket::CloseCode,
};

/// The default of `patience`.
const PATIENCE: Duration = Duration::from_secs(600);

/// The policies of all kinds, each a table of the drain.
pub(super) fn policies(drain: &Section<'_>) -> StreamPolicies {
    let mut policies = StreamPolicies::default();
    for kind in StreamKind::ALL {
        let key = kind.as_str();
        if drain.has(key) {
            policies.set(kind, Some(policy(kind, &drain.section(key))));
        } else {
            // So that it is listed among the known keys.
            drain.read(key, (), |_| Ok(()));
        }
    }
    policies
}

fn policy(kind: StreamKind, section: &Section<'_>) -> StreamPolicy {
    let known = StreamPolicy::after(PATIENCE);
    let policy = StreamPolicy {
        patience: section.read("patience", known.patience, or_zero),
        spread: section.read("spread", known.spread, or_zero),
        close: match kind {
            StreamKind::WebSocket => section.read("close", known.close, close),
            _ => known.close,
        },
        retry: match kind {
            StreamKind::Sse => section.read("retry", known.retry, retry),
            _ => known.retry,
        },
    };
    section.finish();
    policy
}

fn close(value: Value<'_>) -> Result<u16, String> {
    let number = whole(value, 0..=usize::from(u16::MAX))?;
    let code = CloseCode::new(u64::try_from(number).unwrap_or(u64::MAX));
    code.map(CloseCode::number).map_err(|error| {
        format!("{error}\n1012, 1001 and 1013 have clients reconnect; 1000 and 1011 stop some of them for good")
    })
}

fn retry(value: Value<'_>) -> Result<Option<Duration>, String> {
    match text(value) {
        Ok("none") => Ok(None),
        _ => duration(value).map(Some).map_err(|what| format!("{what}, or \"none\"")),
    }
}

fn or_zero(value: Value<'_>) -> Result<Duration, String> {
    match text(value) {
        Ok("0s") => Ok(Duration::ZERO),
        _ => duration(value).map_err(|what| format!("{what}, or \"0s\"")),
    }
}
