//! Load balancing, retries, limits, health checks and ejection of a service.

use std::{num::NonZeroU32, ops::RangeInclusive, sync::Arc, time::Duration};

use http::{HeaderName, uri::PathAndQuery};

use super::{
    assets::assets,
    errors::error_pages,
    reader::{Section, Value, text, whole, word},
    settings::{duration, whole_exchange},
    streams,
    version_signal::version_signal,
};
use crate::model::{
    AbandonedRequests, Algorithm, Balance, DrainPolicy, Ejection, HashKey, HealthCheck,
    ParseStatusesError, PathPrefix, Policy, RateLimit, Retry, ServiceLimits, ServiceTimeouts,
    StatusSet,
};

const PERCENT: RangeInclusive<usize> = 0..=100;

pub(super) fn policy(section: &Section<'_>, prefix: &PathPrefix) -> Arc<Policy> {
    Arc::new(Policy {
        balance: balance(&section.section("balance")),
        health: health(&section.section("health")),
        ejection: ejection(&section.section("ejection")),
        retry: retry(&section.section("retry")),
        limits: limits(&section.section("limits")),
        timeouts: timeouts(&section.section("timeouts")),
        drain: drain(&section.section("drain")),
        error_pages: error_pages(&section.section("errors")),
        assets: section.has("assets").then(|| assets(&section.section("assets"), prefix)),
        version_signal: section
            .has("version_signal")
            .then(|| version_signal(&section.section("version_signal"), prefix)),
    })
}

fn drain(section: &Section<'_>) -> DrainPolicy {
    let drain = DrainPolicy {
        abandoned: section.read("abandoned", AbandonedRequests::default(), |it| {
            word(it, &[("cut", AbandonedRequests::Cut), ("wait", AbandonedRequests::Wait)])
        }),
        streams: streams::policies(section),
    };
    section.finish();
    drain
}

fn timeouts(section: &Section<'_>) -> ServiceTimeouts {
    let time = |key| section.read(key, None, |it| duration(it).map(Some));
    let timeouts = ServiceTimeouts {
        connect: time("upstream_connect"),
        response: time("upstream_response"),
        stall: time("upstream_stall"),
        request: section.read("request", None, |it| whole_exchange(it).map(Some)),
    };
    section.finish();
    timeouts
}

fn balance(section: &Section<'_>) -> Balance {
    let known = Balance::default();
    let key = section.read("hash_on", None, |it| hash_key(text(it)?).map(Some));
    let algorithm = section.read("policy", Algorithm::LeastRequest, |it| match text(it)? {
        "least_request" => Ok(Algorithm::LeastRequest),
        "round_robin" => Ok(Algorithm::RoundRobin),
        "hash" => Ok(Algorithm::Hash(key.clone().unwrap_or(HashKey::Address))),
        other => Err(format!(
            "expected \"least_request\", \"round_robin\" or \"hash\", found \"{other}\""
        )),
    });
    if section.has("hash_on") && !matches!(algorithm, Algorithm::Hash(_)) {
        section.note(
            "hash_on",
            "only has an effect with policy = \"hash\"\nset that too, or remove the key",
        );
    }
    let balance = Balance {
        algorithm,
        slow_start: section.read("slow_start", known.slow_start, or_none(duration)),
        panic: section.read("panic", known.panic, |it| small(it, PERCENT)),
    };
    section.finish();
    balance
}

fn hash_key(text: &str) -> Result<HashKey, String> {
    let wrong = "expected \"address\", \"header:NAME\" or \"cookie:NAME\"";
    match text.split_once(':') {
        None if text == "address" => Ok(HashKey::Address),
        Some(("header", name)) => match HeaderName::try_from(name) {
            Ok(name) => Ok(HashKey::Header(name.as_str().into())),
            Err(_) => Err(format!("`{name}` is not the name of a header")),
        },
        // A token, as the name of a header: RFC 6265, section 4.1.1.
        Some(("cookie", name)) => match HeaderName::try_from(name) {
            Ok(_) => Ok(HashKey::Cookie(name.into())),
            Err(_) => Err(format!("`{name}` is not the name of a cookie")),
        },
        _ => Err(wrong.to_owned()),
    }
}

fn health(section: &Section<'_>) -> HealthCheck {
    let known = HealthCheck::default();
    let path = section.read("path", None, |it| {
        let path = text(it)?;
        let is_visible = path.bytes().all(|it| it.is_ascii_graphic() && it != b'#');
        let is_path = path.starts_with('/') && is_visible && path.parse::<PathAndQuery>().is_ok();
        match is_path {
            true => Ok(Some(path.into())),
            false => Err("expected a path, like \"/healthz\"".to_owned()),
        }
    });
    let host = section.read("host", None, |it| {
        let host = text(it)?;
        match crate::model::Host::parse(host) {
            Ok(_) => Ok(Some(host.into())),
            Err(error) => Err(error.to_string()),
        }
    });
    let check = HealthCheck {
        path,
        host,
        interval: section.read("interval", known.interval, |it| at_least(it, LEAST_INTERVAL)),
        timeout: section.read("timeout", known.timeout, duration),
        rise: section.read("rise", known.rise, |it| whole(it, 1..=100).map(number)),
        fall: section.read("fall", known.fall, |it| whole(it, 1..=100).map(number)),
        statuses: statuses(section, "status", known.statuses),
        body: section.read("body", None, |it| match text(it)? {
            "" => Err("expected a text that the body of a healthy response contains, found an empty string".to_owned()),
            some => Ok(Some(some.into())),
        }),
    };
    for key in ["host", "status", "body"] {
        if section.has(key) && !section.has("path") {
            section.note(key, "only has an effect with `path`, which sends a request\nset that too, or remove the key");
        }
    }
    if section.is_empty_list("status") {
        section.note("status", "the list is empty, so that every response would be a failure");
    }
    section.finish();
    check
}

fn ejection(section: &Section<'_>) -> Ejection {
    let known = Ejection::default();
    let ejection = Ejection {
        failures: section.read("failures", known.failures, |it| match text(it) {
            Ok("none") => Ok(None),
            _ => whole(it, 1..=1_000_000)
                .map(|it| NonZeroU32::new(number(it)))
                .map_err(|what| format!("{what}; or \"none\"")),
        }),
        statuses: match section.has("on") {
            true => {
                let listed = section.list("on", Vec::new(), failing);
                listed.into_iter().fold(StatusSet::default(), StatusSet::union)
            }
            false => known.statuses,
        },
        base_duration: section.read("base", known.base_duration, duration),
        duration_max: section.read("longest", known.duration_max, duration),
        share: section.read("share", known.share, |it| small(it, PERCENT)),
    };
    if ejection.duration_max < ejection.base_duration {
        let key = if section.has("longest") { "longest" } else { "base" };
        section.note(key, "`longest` (default \"5m\") is shorter than `base`");
    }
    section.finish();
    ejection
}

fn retry(section: &Section<'_>) -> Retry {
    let known = Retry::default();
    let on = section.list("on", Vec::new(), |it| match it {
        "closed" => Ok(None),
        other => failing(other).map(Some).map_err(|error| {
            format!("{error}; or \"closed\", for a connection that ends without an answer")
        }),
    });
    let retry = Retry {
        statuses: on.iter().flatten().copied().fold(StatusSet::default(), StatusSet::union),
        on_closed: on.iter().any(Option::is_none),
        try_timeout: section.read("try_timeout", known.try_timeout, or_none(duration)),
        tries: section.read("tries", known.tries, |it| whole(it, 1..=10)),
        budget: section.read("budget", known.budget, |it| small(it, PERCENT)),
        budget_min: section.read("budget_min", known.budget_min, |it| small(it, PERCENT)),
    };
    section.finish();
    retry
}

fn limits(section: &Section<'_>) -> ServiceLimits {
    let known = ServiceLimits::default();
    let most = |key| section.read(key, None, or_none(|it| whole(it, 1..=1_000_000)));
    let per_second = section.read("client_rate", None, or_none(rate));
    let burst = section.read("client_burst", None, |it| {
        whole(it, 1..=1_000_000).map(|it| NonZeroU32::new(number(it)))
    });
    if section.has("client_burst") && !section.has("client_rate") {
        section.note(
            "client_burst",
            "only has an effect with `client_rate`\nset that too, or remove the key",
        );
    }
    let limits = ServiceLimits {
        in_flight: most("in_flight"),
        client_rate: per_second
            .map(|per_second| RateLimit { per_second, burst: burst.unwrap_or(per_second) }),
        endpoint_requests: most("endpoint_requests"),
        endpoint_connections: most("endpoint_connections"),
        queue: section.read("queue", known.queue, |it| whole(it, 0..=1_000_000)),
        queue_timeout: section.read("queue_timeout", known.queue_timeout, duration),
    };
    section.finish();
    limits
}

/// Health checks at a shorter interval would be a load of their own.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

fn at_least(value: Value<'_>, least: Duration) -> Result<Duration, String> {
    match duration(value)? {
        it if it < least => Err(format!("expected at least \"{} ms\"", least.as_millis())),
        it => Ok(it),
    }
}

/// `"50/s"`.
fn rate(value: Value<'_>) -> Result<NonZeroU32, String> {
    let wrong = "expected a number of requests per second, like \"50/s\", or \"none\"";
    let rate = text(value)?.strip_suffix("/s").and_then(|it| it.parse::<NonZeroU32>().ok());
    rate.filter(|it| it.get() <= 1_000_000).ok_or_else(|| wrong.to_owned())
}

pub(super) fn statuses(section: &Section<'_>, key: &'static str, known: StatusSet) -> StatusSet {
    if !section.has(key) {
        return known;
    }
    let listed = section
        .list(key, Vec::new(), |it| it.parse::<StatusSet>().map_err(|error| error.to_string()));
    listed.into_iter().fold(StatusSet::default(), StatusSet::union)
}

/// Statuses of failed responses.
fn failing(text: &str) -> Result<StatusSet, String> {
    let statuses: StatusSet =
        text.parse().map_err(|error: ParseStatusesError| error.to_string())?;
    match (100..400).any(|it| statuses.contains(it)) {
        true => Err(format!(
            "`{text}` includes statuses of successful responses\nwrite statuses from 400 to 599"
        )),
        false => Ok(statuses),
    }
}

pub(super) fn or_none<T>(
    parse: impl Fn(Value<'_>) -> Result<T, String>,
) -> impl Fn(Value<'_>) -> Result<Option<T>, String> {
    move |value| match text(value) {
        Ok("none") => Ok(None),
        _ => parse(value).map(Some).map_err(|what| match what.contains("\"none\"") {
            true => what,
            false => format!("{what}, or \"none\""),
        }),
    }
}

fn small(value: Value<'_>, bounds: RangeInclusive<usize>) -> Result<u8, String> {
    whole(value, bounds).map(|it| u8::try_from(it).unwrap_or(u8::MAX))
}

fn number(it: usize) -> u32 {
    u32::try_from(it).unwrap_or(u32::MAX)
}
