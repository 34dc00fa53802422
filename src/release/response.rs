//! Compares a response with what a smoke step expects. Pure, but it takes as long as the expressions take.

use std::time::Duration;

use http::HeaderMap;
use regex::RegexBuilder;
use serde_json::{Map, Value};

use super::{
    duration_text::written,
    expression::Expression,
    masking::{Secrets, quoted},
    rules::RESPONSE_NAMES,
    strict_json,
};
use crate::{model::Expectation, upstream::ProbeResponse};

/// The most bytes that a compiled regular expression takes.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Characters of a response that are searched for secrets before a part of them is quoted.
const MASKED_MAX: usize = 4096;

/// A response, and what is expected of it.
#[derive(Debug)]
pub(super) struct ResponseCheck {
    expect: Expectation,
    save: Vec<(Box<str>, Box<str>)>,
    response: ProbeResponse,
    secrets: Secrets,
}

/// What was found in a response.
#[derive(Debug, Default)]
pub(super) struct ResponseFindings {
    /// What is not as expected, and what came instead.
    pub(super) failures: Vec<String>,
    /// The saved values.
    pub(super) saved: Vec<(Box<str>, String)>,
}

// === impl ResponseCheck ===

impl ResponseCheck {
    pub(super) fn new(
        expect: &Expectation,
        save: &[(Box<str>, Box<str>)],
        response: ProbeResponse,
        secrets: Secrets,
    ) -> Self {
        Self { expect: expect.clone(), save: save.to_vec(), response, secrets }
    }

    /// Compares them.
    pub(super) fn judge(&self) -> ResponseFindings {
        let Expectation { statuses, headers, body, text, json, within } = &self.expect;
        let mut found = ResponseFindings::default();
        let ProbeResponse { status, took, .. } = self.response;
        let failures = &mut found.failures;
        if !statuses.contains(status) {
            failures.push(format!(
                "expected status {statuses}, got {status} with the body \"{}\"",
                self.body_text()
            ));
        }
        if took > *within {
            failures.push(late(took, *within));
        }
        for (name, pattern) in headers {
            failures.extend(self.judge_header(name, pattern));
        }
        let content = String::from_utf8_lossy(&self.response.body);
        if let Some(pattern) = body {
            let is_match = regex(pattern).map(|it| it.is_match(&content));
            if is_match != Ok(true) {
                failures.push(format!(
                    "expected a body that matches `{pattern}`, got \"{}\"",
                    self.body_text()
                ));
            }
        }
        if let Some(text) = text.as_ref().filter(|it| !content.contains(&***it)) {
            failures.push(format!(
                "expected a body that contains \"{}\", got \"{}\"",
                quoted(text),
                self.body_text()
            ));
        }
        if json.is_none() && self.save.is_empty() {
            return found;
        }
        match self.parsed_body() {
            Ok(body) => self.judge_json(&body, &mut found),
            Err(why) => found.failures.push(why),
        }
        found
    }

    fn judge_json(&self, body: &Value, found: &mut ResponseFindings) {
        let status = Value::from(self.response.status);
        let headers = headers_value(&self.response.headers);
        let variables = [("body", body), ("status", &status), ("headers", &headers)];
        if let Some(source) = &self.expect.json {
            let judged = Expression::parse(source, &RESPONSE_NAMES);
            let judged = judged.map_err(|it| it.to_string()).and_then(|it| {
                let is_true = it.evaluate(&variables).map_err(|it| it.to_string())?;
                Ok((is_true, it.explain(&variables)))
            });
            match judged {
                Ok((true, _)) => {}
                Ok((false, values)) => {
                    found.failures.push(format!(
                        "expected `{source}`, got {}",
                        quoted(&self.secrets.mask(&values))
                    ));
                }
                Err(error) => found.failures.push(format!("`{source}`: {error}")),
            }
        }
        for (name, source) in &self.save {
            let value = Expression::parse(source, &RESPONSE_NAMES)
                .map_err(|it| it.to_string())
                .and_then(|it| it.value(&variables).map_err(|it| it.to_string()));
            match value.and_then(|it| saved_text(&it)) {
                Ok(text) => found.saved.push((name.clone(), text)),
                Err(why) => found.failures.push(format!("cannot save {name}, `{source}`: {why}")),
            }
        }
    }

    fn judge_header(&self, name: &str, pattern: &str) -> Option<String> {
        let values = self.response.headers.get_all(name).iter();
        let values: Vec<_> = values.map(|it| String::from_utf8_lossy(it.as_bytes())).collect();
        let regex = regex(pattern);
        if regex.is_ok_and(|regex| values.iter().any(|it| regex.is_match(it))) {
            return None;
        }
        let got = match values.is_empty() {
            true => "none".to_owned(),
            false => format!("\"{}\"", self.shown(&values.join(", "))),
        };
        Some(format!("expected a header {name} that matches `{pattern}`, got {got}"))
    }

    fn parsed_body(&self) -> Result<Value, String> {
        if self.response.is_cut {
            return Err(format!("the body is longer than {} bytes", self.response.body.len()));
        }
        strict_json::parse(&self.response.body)
            .map_err(|error| format!("expected a JSON body, got \"{}\": {error}", self.body_text()))
    }

    fn body_text(&self) -> String {
        self.shown(&String::from_utf8_lossy(&self.response.body))
    }

    /// Masked first: half of a secret must not be shown.
    fn shown(&self, text: &str) -> String {
        let head: String = text.chars().take(MASKED_MAX).collect();
        quoted(&self.secrets.mask(&head))
    }
}

/// A regular expression of limited size, which takes linear time.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn regex(pattern: &str) -> Result<regex::Regex, String> {
    let regex = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    regex.map_err(|error| error.to_string().lines().last().unwrap_or_default().to_owned())
}

/// Checks a regular expression.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_regex(pattern: &str) -> Result<(), String> {
    regex(pattern).map(drop).map_err(|error| format!("not a regular expression: {error}"))
}

fn late(took: Duration, within: Duration) -> String {
    format!("expected a response within {}, got it after {} ms", written(within), took.as_millis())
}

fn headers_value(headers: &HeaderMap) -> Value {
    let mut all = Map::new();
    for name in headers.keys() {
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values.map(|it| String::from_utf8_lossy(it.as_bytes())).collect();
        all.insert(name.as_str().to_owned(), values.join(", ").into());
    }
    Value::Object(all)
}

/// A saved value as text.
fn saved_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err("it is null".to_owned()),
        Value::Array(_) => {
            Err("it is a list; write an expression for a text or a number".to_owned())
        }
        Value::Object(_) => {
            Err("it is an object; write an expression for a text or a number".to_owned())
        }
    }
}

/// How a saved value is written into a request.
pub(super) mod values_of {
    use std::fmt::Write;

    /// Percent-encoded: everything but unreserved characters (RFC 3986, section 2.3).
    pub(in crate::release) fn path(text: &str) -> String {
        let mut encoded = String::new();
        for byte in text.bytes() {
            match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                true => encoded.push(char::from(byte)),
                false => write!(encoded, "%{byte:02X}").expect("writing to memory cannot fail"),
            }
        }
        encoded
    }
}
