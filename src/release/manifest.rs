//! The manifest of a pool: a JSON document in which the application says what it is compatible with.

use std::{sync::Arc, time::Duration};

use http::header;
use serde_json::Value;

use super::{
    candidate::Candidate,
    json_pointer::{differences, remove},
    masking::quoted,
    requests::{GateRequest, address_of, for_each},
    strict_json,
};
use crate::{
    model::{Color, CompatibleGate},
    upstream::{EndpointState, ProbeResponse},
};

/// The most bytes of a manifest: a rule that compares each value with each is limited by it.
const BYTES_MAX: usize = 256 * 1024;

/// The time for the response of one endpoint.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most problems of one pool that are reported.
const LISTED_MAX: usize = 10;

/// The manifest that all endpoints of a pool have, without the values that are ignored.
#[derive(Clone, Debug)]
pub(super) struct Manifest {
    pub(super) json: Arc<Value>,
    /// The text that is stored.
    pub(super) text: Arc<str>,
}

// === impl Manifest ===

impl Manifest {
    /// Reads the manifest of every endpoint of a pool. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Every endpoint without a valid manifest, or with another one than the first endpoint.
    pub(super) async fn fetch(
        candidate: &Candidate,
        color: Color,
        gate: &CompatibleGate,
    ) -> Result<Self, Vec<String>> {
        let endpoints = candidate.pool_of(color).endpoints();
        let found = for_each(&endpoints, async |it: Arc<EndpointState>| {
            let found = fetch_one(candidate, &it, gate).await;
            let address = address_of(&it);
            found.map_err(|why| format!("manifest of {color} at {address}: {why}"))
        });
        let found = found.await;
        let mut problems: Vec<_> =
            found.iter().filter_map(|it| it.as_ref().err()).cloned().collect();
        let all: Vec<_> = found.into_iter().flatten().collect();
        let Some(first) = all.first().filter(|_| problems.is_empty()) else {
            if problems.is_empty() {
                problems.push(format!("{color} has no endpoint to read a manifest from"));
            }
            return Err(shortened(problems));
        };
        for (endpoint, other) in endpoints.iter().zip(&all).skip(1) {
            if let Some(pointer) = differences(first, other, 1).pop() {
                problems.push(format!(
                    "the manifests of {color} at {} and at {} differ at \"{pointer}\"; deploy one version to the whole \
                     pool, or add the pointer to gate.compatible.ignore",
                    address_of(&endpoints[0]),
                    address_of(endpoint)
                ));
            }
        }
        match problems.is_empty() {
            true => Ok(Self::of(first.clone())),
            false => Err(shortened(problems)),
        }
    }

    /// A manifest that was stored with a promotion.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    pub(super) fn stored(text: &str) -> Result<Self, String> {
        strict_json::parse(text.as_bytes()).map(Self::of)
    }

    /// Reads a manifest, and removes the values that are ignored.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub(super) fn parse(text: &[u8], ignore: &[Box<str>]) -> Result<Value, String> {
        if text.len() > BYTES_MAX {
            return Err(too_large());
        }
        let mut json = strict_json::parse(text)?;
        if !json.is_object() {
            return Err("it is not a JSON object".to_owned());
        }
        for pointer in ignore {
            remove(&mut json, pointer);
        }
        Ok(json)
    }

    fn of(json: Value) -> Self {
        let text = json.to_string().into();
        Self { json: Arc::new(json), text }
    }
}

async fn fetch_one(
    candidate: &Candidate,
    endpoint: &EndpointState,
    gate: &CompatibleGate,
) -> Result<Value, String> {
    let request = GateRequest::get(&gate.manifest);
    let response = request.send(candidate, endpoint, BYTES_MAX, TIMEOUT).await?;
    let ProbeResponse { status, headers, body, is_cut, took: _ } = response;
    if status != 200 {
        return Err(format!("expected status 200, got {status}"));
    }
    if is_cut {
        return Err(too_large());
    }
    if let Some(coding) = headers.get(header::CONTENT_ENCODING) {
        let coding = quoted(&String::from_utf8_lossy(coding.as_bytes()));
        return Err(format!("it has the content coding {coding}, which was not requested"));
    }
    Manifest::parse(&body, &gate.ignore)
}

fn too_large() -> String {
    format!("it is larger than {} KiB", BYTES_MAX / 1024)
}

fn shortened(mut problems: Vec<String>) -> Vec<String> {
    if problems.len() > LISTED_MAX {
        let more = problems.len() - LISTED_MAX;
        problems.truncate(LISTED_MAX);
        problems.push(format!("and {more} more endpoints"));
    }
    problems
}
