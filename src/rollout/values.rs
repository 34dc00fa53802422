//! The placeholders of plans, such as `{version}`: data, which never becomes anything else than a part of a URL, a header,
//! a body, an argument or a variable.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value};

use super::record::{Deployment, Record};
use crate::model::ServiceName;

/// The values of one run of a stage: for one service, or for the rollout as a whole.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// The service that this run is for.
    service: Option<ServiceName>,
    texts: BTreeMap<String, String>,
    secrets: Secrets,
}

/// Secrets by name, or why one cannot be read: that matters only to what uses it.
pub(super) type Secrets = BTreeMap<String, Result<String, String>>;

/// Where a value stands, so that it stays a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// In the path or the query of a URL.
    Url,
    /// In the host of a URL.
    Host,
    /// In a header.
    Header,
    /// Inside of a string of JSON.
    Json,
    /// In a form.
    Form,
    /// In another body, or in a variable of a command.
    Text,
    /// In an argument of a command.
    Argument,
}

/// Names that stand for a value of one service.
pub const OF_SERVICE: [&str; 9] = [
    "service",
    "candidate",
    "active",
    "version",
    "active_version",
    "endpoint",
    "endpoints",
    "active_endpoint",
    "active_endpoints",
];

/// Names that stand for a value of the rollout.
pub const OF_ROLLOUT: [&str; 2] = ["rollout", "reason"];

/// The beginning of the names of secrets.
pub const SECRET: &str = "secret.";

/// A part of a text with placeholders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part<'t> {
    Text(&'t str),
    Placeholder(&'t str),
}

/// The parts of a text. `{name}` is a placeholder if the name has only lower-case letters, digits, `_` and `.`, and begins with
/// a letter. Other braces stay: a body may be JSON. `{{` and `}}` stay, too.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut from, mut search) = (0, 0);
    while let Some(found) = text[search..].find('{') {
        let open = search + found;
        let name = text[open + 1..].split_once('}').map(|it| it.0);
        let is_name = |it: &&str| {
            it.starts_with(|it: char| it.is_ascii_lowercase())
                && it.bytes().all(|it| {
                    it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_' || it == b'.'
                })
        };
        match name.filter(is_name) {
            Some(name) => {
                if from < open {
                    parts.push(Part::Text(&text[from..open]));
                }
                parts.push(Part::Placeholder(name));
                from = open + name.len() + 2;
                search = from;
            }
            None => search = open + 1,
        }
    }
    if from < text.len() {
        parts.push(Part::Text(&text[from..]));
    }
    parts
}

/// The placeholders of a text.
pub fn placeholders(text: &str) -> impl Iterator<Item = &str> {
    parts(text).into_iter().filter_map(|it| match it {
        Part::Placeholder(name) => Some(name),
        Part::Text(_) => None,
    })
}

// === impl Values ===

impl Values {
    /// The values of a run for this service, or for none.
    #[must_use]
    pub(super) fn of(
        record: &Record,
        id: &str,
        service: Option<&ServiceName>,
        secrets: Secrets,
    ) -> Self {
        let mut texts = BTreeMap::new();
        let mut put = |name: &str, value: String| drop(texts.insert(name.to_owned(), value));
        put("rollout", id.to_owned());
        put("reason", record.reason.clone().unwrap_or_default());
        // Values of one service are those of each run, if the rollout has only one.
        let only = (record.services.len() == 1).then(|| record.services.keys().next()).flatten();
        let service = service.or(only);
        if let Some((name, it)) = service.and_then(|it| record.services.get_key_value(it)) {
            for (key, value) in texts_of(name, it) {
                put(key, value);
            }
        }
        for (name, value) in record.saved() {
            match (name.split_once('/'), service) {
                (Some((of, name)), Some(service)) if of == service.as_str() => put(name, value),
                // Of another service, or of one of several.
                (Some(_), _) => {}
                (None, _) => put(&name, value),
            }
        }
        Self { service: service.cloned(), texts, secrets }
    }

    /// The service that this run is for.
    #[must_use]
    pub(super) fn service(&self) -> Option<&ServiceName> {
        self.service.as_ref()
    }

    /// The values of the secrets.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.values().flatten().map(String::as_str)
    }

    /// The text with values instead of placeholders.
    ///
    /// # Errors
    ///
    /// A placeholder without a value, or a value that cannot stand there.
    pub(super) fn fill(&self, text: &str, place: Place) -> Result<String, String> {
        let mut filled = String::new();
        let mut has_begun = false;
        for part in parts(text) {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Placeholder(name) => {
                    let value = self.value(name)?;
                    if place == Place::Argument && !has_begun && value.starts_with('-') {
                        return Err(format!(
                            "the value of {{{name}}} begins with `-`, so it could be taken for an option"
                        ));
                    }
                    filled.push_str(&encoded(name, value, place)?);
                }
            }
            has_begun |= !filled.is_empty();
        }
        Ok(filled)
    }

    fn value(&self, name: &str) -> Result<&str, String> {
        let found = match name.strip_prefix(SECRET).map(|it| self.secrets.get(it)) {
            Some(Some(Err(error))) => return Err(error.clone()),
            Some(secret) => secret.and_then(|it| it.as_ref().ok()),
            None => self.texts.get(name),
        };
        found.map(String::as_str).ok_or_else(|| {
            format!("{{{name}}} has no value: no stage has saved it, or the stage is not for one service")
        })
    }

    /// The variables of expressions: all values but secrets, as `values`, and those of one service by name.
    #[must_use]
    pub(super) fn variables(&self) -> Vec<(String, Value)> {
        let texts = |it: (&String, &String)| (it.0.clone(), Value::String(it.1.clone()));
        let all: Map<String, Value> = self.texts.iter().map(texts).collect();
        let mut variables = vec![("values".to_owned(), Value::Object(all.clone()))];
        for name in OF_SERVICE {
            let value = all.get(name).cloned().unwrap_or_else(|| Value::String(String::new()));
            variables.push((name.to_owned(), value));
        }
        variables
    }
}

fn texts_of(name: &ServiceName, of: &Deployment) -> Vec<(&'static str, String)> {
    let list = |endpoints: &[crate::model::WeightedEndpoint]| {
        endpoints.iter().map(|it| it.endpoint.to_string()).collect::<Vec<_>>()
    };
    let (endpoints, active) = (list(&of.endpoints), list(&of.active_endpoints));
    let first = |it: &[String]| it.first().cloned().unwrap_or_default();
    let text = |it: &Option<crate::model::Version>| {
        it.as_ref().map(ToString::to_string).unwrap_or_default()
    };
    vec![
        ("service", name.to_string()),
        ("candidate", of.candidate.to_string()),
        ("active", of.candidate.other().to_string()),
        ("version", text(&of.version)),
        ("active_version", text(&of.active_version)),
        ("endpoint", first(&endpoints)),
        ("endpoints", endpoints.join(",")),
        ("active_endpoint", first(&active)),
        ("active_endpoints", active.join(",")),
    ]
}

/// A value as it stands in a place.
fn encoded(name: &str, value: &str, place: Place) -> Result<String, String> {
    let has_control = value.chars().any(char::is_control);
    match place {
        Place::Url | Place::Form => Ok(percent_encoded(value)),
        Place::Host => {
            let is_host = |it: u8| it.is_ascii_alphanumeric() || b".-:[]".contains(&it);
            match !value.is_empty() && value.bytes().all(is_host) {
                true => Ok(value.to_owned()),
                false => Err(format!("the value of {{{name}}} is no host and port")),
            }
        }
        Place::Json => {
            let quoted = Value::String(value.to_owned()).to_string();
            Ok(quoted[1..quoted.len() - 1].to_owned())
        }
        Place::Header | Place::Argument if has_control => {
            Err(format!("the value of {{{name}}} has control characters"))
        }
        Place::Text if value.contains('\0') => Err(format!("the value of {{{name}}} has a byte 0")),
        Place::Header | Place::Argument | Place::Text => Ok(value.to_owned()),
    }
}

/// Everything but unreserved characters (RFC 3986, section 2.3) percent-encoded.
#[must_use]
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            true => encoded.push(char::from(byte)),
            false => write!(encoded, "%{byte:02X}").expect("writing to memory cannot fail"),
        }
    }
    encoded
}
