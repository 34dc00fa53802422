//! A response as it is compared: its body decoded, and without what the configuration ignores. Pure.

use bytes::Bytes;
use http::header;
use regex::Regex;
use serde_json::Value;

use super::coding::{CodingError, decode};
use crate::{
    model::ShadowGate,
    release::{json_pointer, response::regex, strict_json},
    upstream::ProbeResponse,
};

/// The most bytes of a body that is compared, as it is sent and decoded.
pub(super) const BODY_MAX: usize = 1024 * 1024;

/// What is compared of a response, and what is ignored.
#[derive(Clone, Debug)]
pub(in crate::release) struct Normalization {
    pub(super) headers: Vec<Box<str>>,
    ignore: Vec<Box<str>>,
    ignore_text: Vec<Regex>,
}

/// A response as it is compared.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The values of the compared headers, in their order; `None` for a missing one.
    pub(super) headers: Vec<Option<String>>,
    pub(super) body: Body,
}

/// The body of a response as it is compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    /// Compared by value.
    Json(Value),
    /// Compared line by line.
    Text(Vec<String>),
    /// Compared byte by byte.
    Binary(Bytes),
}

/// Why a response cannot be compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// Its body is longer than [`BODY_MAX`].
    TooLong,
    /// Flipgate cannot decode its content coding.
    Coding,
    /// It is not in its content coding.
    Broken(String),
}

// === impl Normalization ===

impl Normalization {
    /// The normalization of a gate.
    ///
    /// # Errors
    ///
    /// An invalid regular expression, which the configuration does not let pass.
    pub(in crate::release) fn new(gate: &ShadowGate) -> Result<Self, String> {
        let ShadowGate { headers, ignore, ignore_text, .. } = gate;
        let ignore_text = ignore_text.iter().map(|it| regex(it)).collect::<Result<_, _>>()?;
        Ok(Self { headers: headers.clone(), ignore: ignore.clone(), ignore_text })
    }

    /// A response as it is compared.
    pub(super) fn read(&self, response: &ProbeResponse) -> Result<Answer, Unreadable> {
        let ProbeResponse { headers, body, is_cut, .. } = response;
        if *is_cut {
            return Err(Unreadable::TooLong);
        }
        let all = |name: &str| {
            let values = headers.get_all(name).iter();
            let values: Vec<_> = values.map(|it| String::from_utf8_lossy(it.as_bytes())).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        let codings = all(header::CONTENT_ENCODING.as_str()).unwrap_or_default();
        let body = decode(body.clone(), &codings, BODY_MAX).map_err(|error| match error {
            CodingError::Unknown(_) => Unreadable::Coding,
            CodingError::Broken(why) => Unreadable::Broken(why),
            CodingError::TooLong => Unreadable::TooLong,
        })?;
        let media_type = all(header::CONTENT_TYPE.as_str()).unwrap_or_default();
        let is_json = media_type.to_ascii_lowercase().contains("json");
        let body = self.body(body, is_json);
        let headers = self.headers.iter().map(|it| all(it).map(|it| self.without_ignored(&it)));
        Ok(Answer { headers: headers.collect(), body })
    }

    fn body(&self, body: Bytes, is_json: bool) -> Body {
        if is_json && let Ok(mut json) = strict_json::parse(&body) {
            self.ignore.iter().for_each(|it| json_pointer::remove(&mut json, it));
            self.strip(&mut json);
            return Body::Json(json);
        }
        match std::str::from_utf8(&body) {
            Ok(text) => {
                Body::Text(self.without_ignored(text).split('\n').map(str::to_owned).collect())
            }
            Err(_) => Body::Binary(body),
        }
    }

    /// Removes the ignored texts from every text of a document. It is at most as deep as the parser allows.
    fn strip(&self, json: &mut Value) {
        match json {
            _ if self.ignore_text.is_empty() => {}
            Value::String(text) => *text = self.without_ignored(text),
            Value::Array(items) => items.iter_mut().for_each(|it| self.strip(it)),
            Value::Object(fields) => fields.values_mut().for_each(|it| self.strip(it)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn without_ignored(&self, text: &str) -> String {
        let remove = |text: String, it: &Regex| it.replace_all(&text, "").into_owned();
        self.ignore_text.iter().fold(text.to_owned(), remove)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn normalization(ignore: &[&str], ignore_text: &[&str]) -> Normalization {
        let boxed = |all: &[&str]| all.iter().map(|it| (*it).into()).collect();
        let (ignore, ignore_text) = (boxed(ignore), boxed(ignore_text));
        let gate = ShadowGate { ignore, ignore_text, ..ShadowGate::default() };
        Normalization::new(&gate).expect("valid expressions")
    }

    fn read(rules: &Normalization, fields: &[(&str, &str)], body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let (body, took) = (Bytes::from(body.to_owned()), Duration::ZERO);
        let response = ProbeResponse { status: 200, headers, body, is_cut: false, took };
        rules.read(&response).expect("readable")
    }

    #[test]
    fn json_is_compared_by_value_without_ignored_places_and_texts() {
        let rules = normalization(&["/at"], &["id-[0-9]+"]);
        let fields = [("content-type", "application/problem+json")];
        let one = read(&rules, &fields, r#"{"at": 1, "a": ["x id-1", 2]}"#);
        let other = read(&rules, &fields, r#"{"a":["x id-22",2],"at":null}"#);
        assert_eq!(one.body, other.body);
        assert_eq!(one.body, Body::Json(json!({"a": ["x ", 2]})));
        let third = read(&rules, &fields, r#"{"a":["x id-22",3]}"#);
        assert_ne!(one.body, third.body);
        // Not JSON, whatever its type says: nothing is lost.
        assert_eq!(read(&rules, &fields, "{").body, Body::Text(vec!["{".to_owned()]));
    }

    #[test]
    fn headers_are_compared_by_all_of_their_values() {
        let rules = normalization(&[], &["[0-9]+$"]);
        let fields = [("location", "/a/17"), ("content-type", "a"), ("content-type", "b")];
        let answer = read(&rules, &fields, "");
        assert_eq!(answer.headers, [Some("a, b".to_owned()), Some("/a/".to_owned())]);
        assert_eq!(read(&rules, &[], "").headers, [None, None]);
    }
}
