//! `smoke`: requests to every endpoint of the candidate get the expected responses.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, Method};

use crate::{
    model::SmokeStep,
    release::{
        candidate::Candidate,
        gate::{Findings, Gate, GateName},
        masking::Secrets,
        requests::{GateRequest, address_of, for_each},
        response::{ResponseCheck, values_of},
    },
    upstream::EndpointState,
};

/// Bytes of a body that are read. A longer body is searched up to here.
const BODY_MAX: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Smoke(pub(super) Vec<SmokeStep>);

impl Gate for Smoke {
    fn name(&self) -> GateName {
        GateName::Smoke
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        check(&self.0, candidate).boxed()
    }
}

async fn check(steps: &[SmokeStep], candidate: &Candidate) -> Findings {
    let endpoints = candidate.pool.endpoints();
    let check = async |it: Arc<EndpointState>| check_endpoint(steps, candidate, &it).await;
    let mut all = Findings::default();
    for_each(&endpoints, check).await.into_iter().for_each(|it| all.add(it));
    if all.reasons.is_empty() {
        let (steps, endpoints) = (steps.len(), endpoints.len());
        let s = if steps == 1 { "" } else { "s" };
        all.evidence
            .push(format!("{steps} step{s} passed at {endpoints} of {endpoints} endpoints"));
    }
    all
}

/// Runs all steps at one endpoint. A failed step does not end them: each failure is reported.
async fn check_endpoint(
    steps: &[SmokeStep],
    candidate: &Candidate,
    endpoint: &EndpointState,
) -> Findings {
    let address = address_of(endpoint);
    let mut findings = Findings::default();
    let mut saved = Saved::new(steps);
    for step in steps {
        if let Err(why) = run_step(step, candidate, endpoint, &mut saved).await {
            let reason = saved.secrets.mask(&format!("{} at {address}: {why}", step.name));
            findings.reasons.push(reason);
        }
    }
    findings
}

async fn run_step(
    step: &SmokeStep,
    candidate: &Candidate,
    endpoint: &EndpointState,
    saved: &mut Saved<'_>,
) -> Result<(), String> {
    let request = saved.request(step)?;
    let within = step.expect.within;
    let response = request.send(candidate, endpoint, BODY_MAX, within).await?;
    let check = ResponseCheck::new(&step.expect, &step.save, response, saved.secrets.clone());
    let found = candidate.evaluator.run(move || check.judge()).await?;
    for (name, value) in found.saved {
        saved.secrets.add(&value);
        saved.values.insert(name, value);
    }
    match found.failures.is_empty() {
        true => Ok(()),
        false => Err(found.failures.join("; ")),
    }
}

/// The values that steps have saved for later ones.
struct Saved<'a> {
    /// All names that some step saves.
    names: Vec<&'a str>,
    values: BTreeMap<Box<str>, String>,
    secrets: Secrets,
}

impl<'a> Saved<'a> {
    fn new(steps: &'a [SmokeStep]) -> Self {
        let names = steps.iter().flat_map(|it| &it.save).map(|it| &*it.0).collect();
        let mut secrets = Secrets::default();
        for (name, value) in steps.iter().flat_map(|it| &it.headers) {
            secrets.add_header(name, value);
        }
        Self { names, values: BTreeMap::new(), secrets }
    }

    /// The request of a step.
    ///
    /// # Errors
    ///
    /// Why it cannot be sent.
    fn request(&self, step: &SmokeStep) -> Result<GateRequest, String> {
        let method = Method::from_bytes(step.method.as_bytes())
            .map_err(|_| format!("`{}` is not a method", step.method))?;
        let path = self.fill(&step.path, values_of::path)?;
        let mut headers = Vec::new();
        for (name, value) in &step.headers {
            let value = self.fill(value, str::to_owned)?;
            let header = HeaderName::try_from(&**name).ok().zip(HeaderValue::try_from(value).ok());
            headers.push(header.ok_or_else(|| format!("the header {name} has an invalid value"))?);
        }
        let body = step.body.as_deref().map(|it| self.fill(it, str::to_owned)).transpose()?;
        Ok(GateRequest { method, path, headers, body: Bytes::from(body.unwrap_or_default()) })
    }

    /// Replaces `{name}` by the saved value of that name. Other braces stay: a body may be JSON.
    ///
    /// # Errors
    ///
    /// If the step that saves a value has failed.
    fn fill(&self, text: &str, encode: impl Fn(&str) -> String) -> Result<String, String> {
        let mut filled = text.to_owned();
        for name in &self.names {
            let place = format!("{{{name}}}");
            if !filled.contains(&place) {
                continue;
            }
            let value = self.values.get(*name);
            let value =
                value.ok_or_else(|| format!("not sent, because no step has saved {place}"))?;
            filled = filled.replace(&place, &encode(value));
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Expectation, StatusSet};

    fn step(path: &str, save: &[&str]) -> SmokeStep {
        SmokeStep {
            name: "step".into(),
            method: "POST".into(),
            path: path.into(),
            headers: vec![("authorization".into(), "Bearer {token}".into())],
            body: Some(r#"{"a": {"token": "{token}"}}"#.into()),
            expect: Expectation {
                statuses: StatusSet::default(),
                headers: Vec::new(),
                body: None,
                text: None,
                json: None,
                within: std::time::Duration::from_secs(1),
            },
            save: save.iter().map(|it| ((*it).into(), "body".into())).collect(),
        }
    }

    #[test]
    fn saved_values_stand_in_path_headers_and_body() {
        let steps = [step("/log-in", &["token"]), step("/u/{token}?other={other}", &[])];
        let mut saved = Saved::new(&steps);
        let missing = saved.request(&steps[1]).expect_err("not saved yet");
        assert_eq!(missing, "not sent, because no step has saved {token}");
        saved.values.insert("token".into(), "a b/%\"".to_owned());
        let request = saved.request(&steps[1]).expect("a request");
        assert_eq!(request.path, "/u/a%20b%2F%25%22?other={other}");
        assert_eq!(request.headers[0].1.to_str().ok(), Some("Bearer a b/%\""));
        assert_eq!(request.body, r#"{"a": {"token": "a b/%""}}"#);
        saved.values.insert("token".into(), "a\r\nb".to_owned());
        assert!(saved.request(&steps[1]).is_err(), "a header has one line");
    }
}
