//! Version pinning: `[service.X.pin]`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    policy::or_none,
    reader::{Section, Value, text, whole, word},
    settings::duration,
};
use crate::{
    continuity::{PinCarrier, PinSettings, PinStart, ValuePattern},
    control::ServiceSpec,
    model::{HostPattern, PathPrefix, ServiceName},
};

/// How long a pin is valid after the flip, by default.
const MAX_AGE: Duration = Duration::from_secs(15 * 60);

/// The pins of a service with these hosts.
pub(super) fn pins(section: &Section<'_>, hosts: &[HostPattern]) -> Arc<PinSettings> {
    let settings = PinSettings {
        start: section.list("start", vec![PinStart::Document], start),
        carrier: section.read("carry", PinCarrier::Cookie, |it| carrier(text(it)?)),
        max_age: section.read("max_age", MAX_AGE, duration),
        idle: section.read("idle", None, or_none(duration)),
        max_share: section.read("max_share", 100, |it| {
            whole(it, 0..=100).map(|it| u8::try_from(it).unwrap_or(100))
        }),
        group: section.read("group", None, |it| match text(it)? {
            "none" => Ok(None),
            name => name
                .parse::<ServiceName>()
                .map(Some)
                .map_err(|_| format!("`{name}` is not a name: use a-z, 0-9, `-` and `_`")),
        }),
        domain: section.read("domain", None, |it| domain(it, hosts)),
        makes_private: section
            .read("cacheable", false, |it| word(it, &[("skip", false), ("private", true)])),
    };
    if section.is_empty_list("start") {
        let what = "the list is empty: no transaction would ever begin\nwrite [\"document\"], or remove the key";
        section.note("start", what);
    }
    if settings.idle.is_some_and(|it| it >= settings.max_age) {
        let key = if section.has("idle") { "idle" } else { "max_age" };
        section.note(key, "`idle` is not shorter than `max_age` (default \"15m\")");
    }
    let of_cookies = settings.carrier == PinCarrier::Cookie;
    for key in ["domain", "cacheable"] {
        if section.has(key) && !of_cookies {
            let what =
                "only has an effect with carry = \"cookie\"\nset that too, or remove the key";
            section.note(key, what);
        }
    }
    if settings.group.is_some() && !of_cookies {
        let what = "only has an effect with carry = \"cookie\": names of transactions are remembered by each service for itself\n\
                    set that too, or remove the key";
        section.note("group", what);
    }
    if !of_cookies && settings.start == [PinStart::Document] && !section.has("start") {
        let what = "a navigation does not carry this value, and it is the default of `start`\n\
                    write what begins a transaction, like start = [\"header:X-Scan-Id\"]";
        section.note("carry", what);
    }
    section.finish();
    Arc::new(settings)
}

/// `document`, `path:/batch`, `header:X-Scan-Id` or `header:X-Scan-Id=scan-*`.
fn start(text: &str) -> Result<PinStart, String> {
    match text.split_once(':') {
        None if text == "document" => Ok(PinStart::Document),
        Some(("path", path)) => match path.parse::<PathPrefix>() {
            Ok(prefix) => Ok(PinStart::Path(prefix)),
            Err(error) => Err(error.to_string()),
        },
        Some(("header", field)) => {
            let (name, value) = match field.split_once('=') {
                Some((name, value)) => (name, Some(ValuePattern::new(value))),
                None => (field, None),
            };
            Ok(PinStart::Header { name: header(name)?, value })
        }
        _ => Err(format!(
            "expected \"document\", \"path:/batch\", \"header:NAME\" or \"header:NAME=VALUE\", found \"{text}\""
        )),
    }
}

fn carrier(text: &str) -> Result<PinCarrier, String> {
    match text.split_once(':') {
        None if text == "cookie" => Ok(PinCarrier::Cookie),
        Some(("header", name)) => header(name).map(PinCarrier::Header),
        Some(("query", name)) => {
            let is_valid = |it: u8| it.is_ascii_alphanumeric() || b"-._~".contains(&it);
            match !name.is_empty() && name.bytes().all(is_valid) {
                true => Ok(PinCarrier::Query(name.into())),
                false => Err(format!(
                    "`{name}` is not the name of a parameter: use letters, digits, `-`, `.`, `_` and `~`"
                )),
            }
        }
        _ => Err("expected \"cookie\", \"header:NAME\" or \"query:NAME\"".to_owned()),
    }
}

pub(super) fn header(name: &str) -> Result<Box<str>, String> {
    match HeaderName::try_from(name) {
        Ok(name) => Ok(name.as_str().into()),
        Err(_) => Err(format!("`{name}` is not the name of a header")),
    }
}

/// The domain of the cookie: every host of the service must be in it (RFC 6265, section 5.3).
pub(super) fn domain(value: Value<'_>, hosts: &[HostPattern]) -> Result<Option<Box<str>>, String> {
    let text = text(value)?;
    if text == "none" {
        return Ok(None);
    }
    let Ok(HostPattern::Exact(domain)) = text.trim_start_matches('.').parse() else {
        return Err("expected a domain, like \"example.com\"".to_owned());
    };
    if !domain.contains('.') {
        return Err(format!("`{domain}` has no dot: browsers ignore such a cookie"));
    }
    for host in hosts {
        let is_in = match host {
            HostPattern::Exact(name) => {
                **name == *domain || name.strip_suffix(&*domain).is_some_and(|it| it.ends_with('.'))
            }
            HostPattern::Suffix(_) => host.to_string().ends_with(&format!(".{domain}")),
            HostPattern::Any => false,
        };
        if !is_in {
            return Err(format!(
                "the host `{host}` of the service is not in `{domain}`: its clients would ignore the cookie\n\
                 write the domain that all hosts share, or list the hosts of the service"
            ));
        }
    }
    Ok(Some(domain))
}

/// Notes what does not fit between services: a group with the name of a service of its own cookie, and groups with
/// services with pins that last differently: a page would go on with the old version of one of them only.
pub(super) fn check_groups(root: &Section<'_>, services: &BTreeMap<ServiceName, ServiceSpec>) {
    let mut groups: BTreeMap<&ServiceName, (&ServiceName, &PinSettings)> = BTreeMap::new();
    for (text, _, section) in root.section("service").named() {
        let Some((name, service)) = services.get_key_value(text) else { continue };
        let Some(pins) = service.pins.as_deref() else { continue };
        let Some(group) = &pins.group else { continue };
        let section = section.section("pin");
        let own = services.get(group).and_then(|it| it.pins.as_ref());
        if own.is_some_and(|it| it.group.as_ref() != Some(group)) {
            let what = format!(
                "service `{group}` has pins of its own, in a cookie with the same name\n\
                 give the group another name, or put `{group}` into it"
            );
            section.note("group", what);
        }
        match groups.get(group) {
            Some((first, other)) if pins.max_age != other.max_age => {
                let what = format!(
                    "service `{first}` of the same group has another `max_age`\nwrite the same for both"
                );
                section.note("group", what);
            }
            Some(_) => {}
            None => drop(groups.insert(group, (name, pins))),
        }
    }
}
