//! The requests of stages.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header, uri::PathAndQuery};
use serde_json::{Map, Value};

use super::{
    event::Failure,
    masking::Masked,
    plan::{Call, Target},
    values::{Place, Values},
};
use crate::{
    model::{Endpoint, StatusSet},
    release::{Release, cut, written},
    upstream::{EndpointState, ProbeError, ProbeRequest, ProbeResponse},
};

/// Bytes of a response that are read.
const BODY_MAX: usize = 1024 * 1024;

/// Characters of a response that are kept, if it is not as expected.
const KEPT_MAX: usize = 2000;

/// The longest value that a stage saves.
const SAVED_MAX: usize = 4096;

/// The product name of these requests.
const USER_AGENT: &str = concat!("flipgate/", env!("CARGO_PKG_VERSION"), " rollout");

/// A request that is ready to be sent, again and again.
#[derive(Clone, Debug)]
pub(super) struct ReadyCall {
    /// Where it goes, for people.
    pub(super) shown: String,
    target: ReadyTarget,
    request: ProbeRequest,
    timeout: Duration,
    statuses: StatusSet,
    condition: Option<String>,
    save: Vec<(String, String)>,
    variables: Vec<(String, Value)>,
    masked: Masked,
}

#[derive(Clone, Debug)]
enum ReadyTarget {
    /// Outside of all pools.
    Url(Endpoint),
    /// An endpoint of a pool.
    Pool(std::sync::Arc<EndpointState>),
}

// === impl ReadyCall ===

impl ReadyCall {
    /// Fills in the values.
    ///
    /// # Errors
    ///
    /// What cannot be filled in.
    pub(super) fn new(
        call: &Call,
        values: &Values,
        endpoint: Option<std::sync::Arc<EndpointState>>,
        key: &str,
    ) -> Result<Self, String> {
        let method = Method::from_bytes(call.method.as_bytes())
            .map_err(|_| format!("`{}` is not a method", call.method))?;
        let (target, host, path, shown) = match (&call.target, endpoint) {
            (Target::Url(url), _) => {
                let filled = fill_url(url, values)?;
                let ReadyUrl { endpoint, host, path } = ReadyUrl::parse(&filled)?;
                (ReadyTarget::Url(endpoint), Some(host), path, filled)
            }
            (Target::Pool { path, .. }, Some(endpoint)) => {
                let path = values.fill(path, Place::Url)?;
                let shown = format!("{}{path}", endpoint.configured());
                (ReadyTarget::Pool(endpoint), None, path, shown)
            }
            (Target::Pool { .. }, None) => return Err("the pool has no endpoint".to_owned()),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if call.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let key = HeaderValue::from_str(key).map_err(|error| error.to_string())?;
        headers.insert(HeaderName::from_static("idempotency-key"), key);
        for (name, value) in &call.headers {
            let value = values.fill(value, Place::Header)?;
            let header = HeaderName::try_from(name.as_str()).ok();
            let header = header.zip(HeaderValue::try_from(value).ok());
            let (name, value) =
                header.ok_or_else(|| format!("the header {name} has an invalid value"))?;
            headers.insert(name, value);
        }
        let host = headers
            .remove(header::HOST)
            .and_then(|it| it.to_str().ok().map(str::to_owned))
            .or(host);
        let body = match &call.body {
            Some(body) => values.fill(body, place_of_body(&headers))?,
            None => String::new(),
        };
        let masked = Masked::new(values.secrets());
        Ok(Self {
            shown: masked.mask(&format!("{method} {shown}")),
            target,
            request: ProbeRequest { method, path, host, headers, body: Bytes::from(body) },
            timeout: call.timeout,
            statuses: statuses(&call.status)?,
            condition: call.condition.clone(),
            save: call.save.clone(),
            variables: values.variables(),
            masked,
        })
    }

    /// Makes the request once, and compares the response with what is expected. Returns the values to save. Dropping the
    /// future closes the connection: the request may have been received.
    ///
    /// # Errors
    ///
    /// Why it is not as expected.
    pub(super) async fn make(
        &self,
        release: &Release,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let response = match tokio::time::timeout(self.timeout, self.send(release)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error @ ProbeError::Connect(_))) => {
                return Err(Failure::before_anything(
                    self.masked.mask(&format!("{}: cannot connect: {error}", self.shown)),
                ));
            }
            Ok(Err(error)) => {
                let error = self.masked.mask(&format!("{}: {error}", self.shown));
                return Err(Failure::maybe_done(error));
            }
            Err(_elapsed) => {
                let time = written(self.timeout);
                let error = format!("{}: no response within {time}", self.shown);
                return Err(Failure::maybe_done(error));
            }
        };
        self.judge(&response, release).await.map_err(|error| Failure {
            output: Some(self.output(&response)),
            ..Failure::maybe_done(self.masked.mask(&format!("{}: {error}", self.shown)))
        })
    }

    async fn send(&self, release: &Release) -> Result<ProbeResponse, ProbeError> {
        let request = self.request.clone();
        match &self.target {
            ReadyTarget::Pool(endpoint) => endpoint.probe(request, BODY_MAX).await,
            ReadyTarget::Url(endpoint) => {
                let (endpoint, context) = (endpoint.clone(), release.pool_context().clone());
                // Reads certificates of the system.
                let made = tokio::task::spawn_blocking(move || {
                    EndpointState::standalone(&endpoint, &context)
                });
                // It fails only when the runtime ends.
                let Ok(endpoint) = made.await else { return std::future::pending().await };
                endpoint.probe(request, BODY_MAX).await
            }
        }
    }

    async fn judge(
        &self,
        response: &ProbeResponse,
        release: &Release,
    ) -> Result<BTreeMap<String, String>, String> {
        let status = response.status;
        if !self.statuses.contains(status) {
            return Err(format!("expected status {}, got {status}", self.statuses));
        }
        let mut saved = BTreeMap::new();
        if self.condition.is_none() && self.save.is_empty() {
            return Ok(saved);
        }
        if response.is_cut {
            return Err(format!("the body is longer than {BODY_MAX} bytes"));
        }
        let mut variables = self.variables.clone();
        variables.push(("status".to_owned(), status.into()));
        variables.push(("headers".to_owned(), headers_value(&response.headers)));
        let body = serde_json::from_slice(&response.body);
        let is_json = body.is_ok();
        variables.push(("body".to_owned(), body.unwrap_or(Value::Null)));
        let hint = if is_json { "" } else { " (the body is no JSON)" };
        if let Some(condition) = &self.condition {
            match release.evaluate(condition, variables.clone()).await {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Err(format!("`{condition}` is false{hint}")),
                Ok(other) => {
                    return Err(format!("`{condition}` is {other}, neither true nor false"));
                }
                Err(error) => return Err(format!("`{condition}`: {error}{hint}")),
            }
        }
        for (name, source) in &self.save {
            let value = release.evaluate(source, variables.clone()).await;
            let value = value.map_err(|error| format!("cannot save {name}: {error}{hint}"))?;
            let text = match value {
                Value::String(text) => text,
                Value::Number(_) | Value::Bool(_) => value.to_string(),
                _ => {
                    return Err(format!("cannot save {name}: `{source}` is no text and no number"));
                }
            };
            if text.len() > SAVED_MAX {
                return Err(format!("cannot save {name}: it is longer than {SAVED_MAX} bytes"));
            }
            saved.insert(name.clone(), text);
        }
        Ok(saved)
    }

    /// What is kept of a response that is not as expected.
    fn output(&self, response: &ProbeResponse) -> String {
        let body = String::from_utf8_lossy(&response.body);
        cut(&self.masked.mask(&body), KEPT_MAX)
    }
}

/// The statuses of a list; those of success if it is empty.
fn statuses(listed: &[String]) -> Result<StatusSet, String> {
    let parse = |it: &str| it.parse::<StatusSet>().map_err(|error| error.to_string());
    if listed.is_empty() {
        return parse("200-299");
    }
    listed.iter().try_fold(StatusSet::default(), |all, it| Ok(all.union(parse(it)?)))
}

/// Where values stand in a body of this type.
fn place_of_body(headers: &HeaderMap) -> Place {
    let kind =
        headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    match kind {
        "application/x-www-form-urlencoded" => Place::Form,
        it if it.ends_with("json") => Place::Json,
        _ => Place::Text,
    }
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

/// A URL with values in place of its placeholders: no value changes what is the host and what is the path.
fn fill_url(url: &str, values: &Values) -> Result<String, String> {
    let (scheme, rest) = url.split_once("://").ok_or("it is no URL")?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let host = values.fill(&rest[..end], Place::Host)?;
    let path = values.fill(&rest[end..], Place::Url)?;
    Ok(format!("{scheme}://{host}{path}"))
}

/// The parts of a URL.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReadyUrl {
    endpoint: Endpoint,
    host: String,
    path: String,
}

impl ReadyUrl {
    /// Parses a URL without placeholders.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("`{url}` is not a URL, like \"http://127.0.0.1:7000/pause\"");
        let uri = url.parse::<Uri>().map_err(|_| wrong())?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(wrong)?;
        let has_port = authority.as_str().rsplit(']').next().is_some_and(|it| it.contains(':'));
        let port = match (scheme, authority.port_u16()) {
            ("http" | "https", Some(port)) => port,
            // A port that is empty or too large.
            _ if has_port => return Err(wrong()),
            ("http", None) => 80,
            ("https", None) => 443,
            _ => return Err(wrong()),
        };
        if authority.as_str().contains('@') {
            return Err("a URL with a password is not supported: send a header".to_owned());
        }
        let endpoint = format!("{scheme}://{}:{port}", authority.host()).parse::<Endpoint>();
        let endpoint = endpoint.map_err(|error| error.to_string())?;
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
        Ok(Self { endpoint, host: authority.as_str().to_owned(), path })
    }
}
