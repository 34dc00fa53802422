//! The gates of a service: `[service.X.gate]`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};

use super::{
    files,
    policy::statuses,
    reader::{Section, Value, flag, text, whole},
    requests::{request_header, request_method},
    settings::{duration, path},
    shadow::{pointer, shadow},
};
use crate::{
    model::{
        ApprovalGate, CompatibilityRule, CompatibleGate, Endpoint, EndpointShare, Expectation,
        GateSettings, HealthyGate, HookGate, HookSecret, ManifestSample, SmokeStep, WarmUpGate,
        WarmUpTarget,
    },
    release::{self, Expression, MANIFEST_NAMES, RESPONSE_NAMES},
};

/// A longer deadline is most likely a mistake, and programs wait no longer for a promotion.
const DEADLINE_MAX: Duration = Duration::from_secs(3600);

/// The most bytes of a file with keys of a hook.
const SECRET_FILE_MAX: usize = 16 << 10;

/// The shortest key of a hook, in bytes.
const SECRET_MIN: usize = 16;

/// The gates of a service. `requires_token`: whether every caller of the admin API has a token.
pub(super) fn gates(section: &Section<'_>, requires_token: bool) -> Arc<GateSettings> {
    let known = GateSettings::default();
    let deadline = section.read("deadline", known.deadline, |it| match duration(it)? {
        it if it > DEADLINE_MAX => Err("expected a duration of at most 1 hour".to_owned()),
        it => Ok(it),
    });
    let gates = GateSettings {
        deadline,
        healthy: healthy(&section.section("healthy")),
        approval: table(section, "approval").map(|it| approval(&it, requires_token)),
        compatible: table(section, "compatible").and_then(|it| compatible(&it)),
        smoke: section.sections("smoke").iter().filter_map(smoke_step).collect(),
        warm_up: table(section, "warm_up").and_then(|it| warm_up(&it)),
        shadow: table(section, "shadow").map(|it| shadow(&it, deadline)),
        hook: table(section, "hook").and_then(|it| hook(&it)),
        preconnect: preconnect(&section.section("preconnect")),
    };
    check_saved_names(section, &gates.smoke);
    section.finish();
    Arc::new(gates)
}

/// The table of a gate that runs only if it is configured.
fn table<'a>(section: &Section<'a>, key: &'static str) -> Option<Section<'a>> {
    section.has(key).then(|| section.section(key))
}

fn healthy(section: &Section<'_>) -> HealthyGate {
    let known = HealthyGate::default();
    let count =
        section.read("endpoints", known.needed, |it| whole(it, 1..=1000).map(EndpointShare::Count));
    let needed = section.read("share", count, |it| {
        let percent = whole(it, 1..=100)?;
        Ok(EndpointShare::Percent(u8::try_from(percent).unwrap_or(100)))
    });
    if section.has("share") && section.has("endpoints") {
        section.note("endpoints", "`share` is set, too\nremove one of them");
    }
    let gate = HealthyGate { needed, up_for: section.read("for", known.up_for, or_zero) };
    section.finish();
    gate
}

fn preconnect(section: &Section<'_>) -> usize {
    let per_worker =
        section.read("per_worker", GateSettings::default().preconnect, |it| whole(it, 0..=16));
    section.finish();
    per_worker
}

fn or_zero(value: Value<'_>) -> Result<Duration, String> {
    match text(value) {
        Ok("0s") => Ok(Duration::ZERO),
        _ => duration(value).map_err(|what| format!("{what}, or \"0s\"")),
    }
}

fn approval(section: &Section<'_>, requires_token: bool) -> ApprovalGate {
    let gate = ApprovalGate {
        expires: section.read("expires", Duration::from_secs(3600), duration),
        four_eyes: section.read("four_eyes", false, flag),
    };
    if gate.four_eyes && !requires_token {
        let what = "two callers can only be told apart by their tokens\nset admin.require_token = true, with a token for each person";
        section.note("four_eyes", what);
    }
    section.finish();
    gate
}

fn compatible(section: &Section<'_>) -> Option<CompatibleGate> {
    let manifest =
        section.need("manifest", "the path of the manifest, like \"/manifest.json\"", request_path);
    let ignore = section.list("ignore", Vec::new(), pointer);
    let rules: Vec<_> = section.sections("rules").iter().filter_map(rule).collect();
    if rules.is_empty() && !section.has("rules") {
        section.note_missing("rules", "`name` and `require`");
    }
    let samples = section.sections("samples").iter().filter_map(sample).collect();
    section.finish();
    Some(CompatibleGate { manifest: manifest?, ignore, rules, samples })
}

fn sample(section: &Section<'_>) -> Option<ManifestSample> {
    let old = section.need("old", "the path of the manifest of the old version", path);
    let new = section.need("new", "the path of the manifest of the new version", path);
    let promote = section.read("promote", true, flag);
    let rollback = section.read("rollback", true, flag);
    section.finish();
    Some(ManifestSample { old: old?, new: new?, promote, rollback })
}

fn rule(section: &Section<'_>) -> Option<CompatibilityRule> {
    let name = section.need("name", "a name for messages, like \"same schema\"", words);
    let example = "a CEL expression, like \"new.schema == old.schema\"";
    let require = section.need("require", example, |it| expression(it, &MANIFEST_NAMES));
    let help = section.read("help", None, |it| words(it).map(Some));
    let on = section.list("on", vec![Direction::Promote, Direction::Rollback], |it| match it {
        "promote" => Ok(Direction::Promote),
        "rollback" => Ok(Direction::Rollback),
        other => Err(format!("expected \"promote\" or \"rollback\", found \"{other}\"")),
    });
    if section.is_empty_list("on") {
        section.note(
            "on",
            "the list is empty, so that the rule would never apply\nremove the key, or the rule",
        );
    }
    section.finish();
    let (on_promote, on_rollback) =
        (on.contains(&Direction::Promote), on.contains(&Direction::Rollback));
    Some(CompatibilityRule { name: name?, require: require?, help, on_promote, on_rollback })
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Direction {
    Promote,
    Rollback,
}

fn smoke_step(section: &Section<'_>) -> Option<SmokeStep> {
    let path = section.need("path", "a path, like \"/api/version\"", step_path);
    let name = section.read("name", None, |it| words(it).map(Some));
    let method = section.read("method", "GET".into(), |it| Ok(request_method(it)?.into()));
    let headers = section.string_table("headers", |name, value| {
        let name = request_header(name)?;
        match HeaderValue::from_str(value) {
            Ok(_) => Ok((name.as_str().into(), value.into())),
            Err(_) => Err("a header has no control characters".to_owned()),
        }
    });
    let body = section.read("body", None, |it| Ok(Some(text(it)?.into())));
    let expect = expectation(&section.section("expect"));
    let save = section.string_table("save", |name, source| {
        let is_name =
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        if !is_name {
            return Err(format!("`{name}` is not a name: write letters, digits and `_`"));
        }
        checked(source, &RESPONSE_NAMES).map(|source| (name.into(), source))
    });
    section.finish();
    let path = path?;
    let name = name.unwrap_or_else(|| path.clone());
    Some(SmokeStep { name, method, path, headers, body, expect, save })
}

fn expectation(section: &Section<'_>) -> Expectation {
    let success = "200-299".parse().expect("a range of statuses");
    let expect = Expectation {
        statuses: statuses(section, "status", success),
        headers: section.string_table("headers", |name, pattern| {
            let parsed = name.parse::<HeaderName>();
            let name = parsed.map_err(|_| format!("`{name}` is not the name of a header"))?;
            release::check_regex(pattern)?;
            Ok((name.as_str().into(), pattern.into()))
        }),
        body: section.read("body", None, |it| {
            let pattern = text(it)?;
            release::check_regex(pattern)?;
            Ok(Some(pattern.into()))
        }),
        text: section.read("text", None, |it| words(it).map(Some)),
        json: section.read("json", None, |it| expression(it, &RESPONSE_NAMES).map(Some)),
        within: section.read("within", Duration::from_secs(5), duration),
    };
    if section.is_empty_list("status") {
        section.note("status", "the list is empty, so that every response would be a failure");
    }
    section.finish();
    expect
}

/// A name that is used before it is saved is most likely a mistake of the order.
fn check_saved_names(section: &Section<'_>, steps: &[SmokeStep]) {
    let mut saved = BTreeSet::new();
    let all: BTreeSet<&str> = steps.iter().flat_map(|it| &it.save).map(|it| &*it.0).collect();
    for step in steps {
        let mut texts = vec![&*step.path];
        texts.extend(step.headers.iter().map(|it| &*it.1));
        texts.extend(step.body.as_deref());
        for name in all.difference(&saved) {
            if texts.iter().any(|it| it.contains(&format!("{{{name}}}"))) {
                let what = format!(
                    "step `{}` uses {{{name}}}, which only a later step or this one saves\nsave it in an earlier step",
                    step.name
                );
                section.note("smoke", what);
            }
        }
        saved.extend(step.save.iter().map(|it| &*it.0));
    }
}

fn warm_up(section: &Section<'_>) -> Option<WarmUpGate> {
    let paths = section.list("paths", vec!["/".into()], |it| check_path(it).map(Into::into));
    if section.is_empty_list("paths") {
        section.note("paths", "the list is empty\nwrite [\"/\"], or remove the key");
    }
    let requests = section.read("requests", None, |it| {
        whole(it, 1..=1_000_000).map(|it| Some(WarmUpTarget::Requests(it)))
    });
    let p95 = section.read("p95", None, |it| duration(it).map(|it| Some(WarmUpTarget::P95(it))));
    let within = section.read("within", Duration::from_secs(30), duration);
    let until = match (requests, p95) {
        (Some(_), Some(_)) => {
            section.note("p95", "`requests` is set, too\nremove one of them");
            None
        }
        (Some(it), None) | (None, Some(it)) => Some(it),
        (None, None) => {
            if !section.has("requests") && !section.has("p95") {
                section.note("requests", "missing\nwrite `requests = 50` or `p95 = \"50ms\"`");
            }
            None
        }
    };
    section.finish();
    Some(WarmUpGate { paths, until: until?, within })
}

fn hook(section: &Section<'_>) -> Option<HookGate> {
    let url = section.need("url", "a URL, like \"http://127.0.0.1:7000/allow\"", hook_url);
    let secrets = section.need(
        "secret_file",
        "the path of the file with the key that signs the call",
        |it| {
            let file = path(it)?;
            let content = files::read_regular(&file, SECRET_FILE_MAX)
                .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            hook_secrets(&content).map_err(|error| format!("{}: {error}", file.display()))
        },
    );
    let timeout = section.read("timeout", Duration::from_secs(10), duration);
    section.finish();
    let (HookUrl { url, endpoint, host, path }, secrets) = (url?, secrets?);
    Some(HookGate { url, endpoint, host, path, secrets, timeout })
}

struct HookUrl {
    url: Box<str>,
    endpoint: Endpoint,
    host: Box<str>,
    path: Box<str>,
}

fn hook_url(value: Value<'_>) -> Result<HookUrl, String> {
    let wrong = "expected a URL, like \"http://127.0.0.1:7000/allow\" or \"https://deploy.example.com/allow\"";
    let text = text(value)?;
    let uri = text.parse::<Uri>().map_err(|_| wrong)?;
    let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or(wrong)?;
    let port = match (scheme, authority.port_u16()) {
        ("http" | "https", Some(port)) => port,
        ("http", None) => 80,
        ("https", None) => 443,
        _ => return Err(wrong.to_owned()),
    };
    if authority.as_str().contains('@') {
        return Err(
            "a URL with a password is not supported: the call is signed with `secret_file`"
                .to_owned(),
        );
    }
    let endpoint = format!("{scheme}://{}:{port}", authority.host()).parse::<Endpoint>();
    let endpoint = endpoint.map_err(|error| error.to_string())?;
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str).into();
    Ok(HookUrl { url: text.into(), endpoint, host: authority.as_str().into(), path })
}

/// One key per line: `whsec_` and its bytes in base64, as Standard Webhooks writes them, or the text itself.
fn hook_secrets(content: &str) -> Result<Vec<HookSecret>, String> {
    let lines = content.lines().map(str::trim).filter(|it| !it.is_empty());
    let parse = |line: &str| {
        let bytes = match line.strip_prefix("whsec_") {
            None => line.as_bytes().to_vec(),
            Some(encoded) => STANDARD
                .decode(encoded)
                .or_else(|_| STANDARD_NO_PAD.decode(encoded))
                .map_err(|_| "the text after `whsec_` is not base64".to_owned())?,
        };
        match bytes.len() >= SECRET_MIN {
            true => Ok(HookSecret::new(&bytes)),
            false => Err(format!(
                "a key has at least {SECRET_MIN} bytes: make one with `openssl rand -hex 32`"
            )),
        }
    };
    let secrets = lines.map(parse).collect::<Result<Vec<_>, _>>()?;
    match secrets.len() {
        0 => Err("there is no key; write one per line".to_owned()),
        1..=8 => Ok(secrets),
        _ => Err("there are more than 8 keys".to_owned()),
    }
}

fn expression(value: Value<'_>, names: &[&str]) -> Result<Box<str>, String> {
    checked(text(value)?, names)
}

fn checked(source: &str, names: &[&str]) -> Result<Box<str>, String> {
    Expression::parse(source, names).map(|_| source.into()).map_err(|error| error.to_string())
}

/// A text for people.
fn words(value: Value<'_>) -> Result<Box<str>, String> {
    match text(value)? {
        "" => Err("expected a text, found an empty string".to_owned()),
        some => Ok(some.into()),
    }
}

fn request_path(value: Value<'_>) -> Result<Box<str>, String> {
    check_path(text(value)?).map(Into::into)
}

/// The path of a smoke step: `{name}` is replaced later.
fn step_path(value: Value<'_>) -> Result<Box<str>, String> {
    let path = text(value)?;
    check_path(&path.replace(['{', '}'], "x")).map(|_| path.into())
}

fn check_path(path: &str) -> Result<&str, String> {
    let is_visible = path.bytes().all(|it| it.is_ascii_graphic() && it != b'#');
    match path.starts_with('/') && is_visible && path.parse::<PathAndQuery>().is_ok() {
        true => Ok(path),
        false => Err("expected a path, like \"/healthz\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_line_of_text_or_base64_and_not_too_short() {
        let of = |text: &str| {
            hook_secrets(text).map(|it| it.iter().map(|it| it.bytes().to_vec()).collect::<Vec<_>>())
        };
        let key = "0123456789abcdef";
        assert_eq!(
            of(&format!("{key}\n\n {key}x \n")),
            Ok(vec![key.into(), format!("{key}x").into()])
        );
        assert_eq!(of("whsec_MDEyMzQ1Njc4OWFiY2RlZg=="), Ok(vec![key.into()]));
        assert_eq!(of("whsec_MDEyMzQ1Njc4OWFiY2RlZg"), Ok(vec![key.into()]));
        for bad in ["", "\n", "short", "whsec_***", "whsec_c2hvcnQ=", &format!("{key}\nshort")] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
