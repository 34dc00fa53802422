//! The calls that change something.

use std::collections::BTreeMap;

use axum::{
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::HeaderValue,
    response::Response,
};
use flipgate_api::wire::{
    PoolRequest, Problem, ProblemReason, PromoteRequest, RollbackRequest, Status,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    conditions::Conditions,
    context::{Context, off_thread, parse_color, status_response},
    fingerprint::idempotency,
    problem::ApiError,
};
use crate::{
    control::{Actor, Change, ChangeRequest},
    model::{Color, PoolSpec, ServiceName, Version, WeightedEndpoint},
    upstream::invalid_socket,
};

/// The longest reason, in bytes. It is kept with its event.
const REASON_BYTES_MAX: usize = 1024;

/// Make colors active, all in one step or none of them.
///
/// After the response, no new request reaches a replaced color.
#[utoipa::path(post, path = "/v1/promote", request_body = PromoteRequest, params(
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
), responses(
    (status = 200, body = Status, description = "the status after the promotion"),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "refused, with every reason; nothing changed"),
    (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation; nothing changed"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "unknown service or color, or active already"),
    (status = 428, body = Problem, content_type = "application/problem+json", description = "If-Match is required here"),
))]
pub(super) async fn promote(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let PromoteRequest { services, force: _, reason } = parsed(&body)?;
    let mut reasons = Vec::new();
    let mut colors = BTreeMap::new();
    for (name, color) in services {
        match (name.parse::<ServiceName>(), color.parse::<Color>()) {
            (Ok(name), Ok(color)) => drop(colors.insert(name, color)),
            (Err(error), _) => reasons.push(reason_of(&name, "unknown_service", &error)),
            (_, Err(error)) => reasons.push(reason_of(&name, "unknown_color", &error)),
        }
    }
    if !reasons.is_empty() {
        return Err(ApiError::unprocessable(reasons));
    }
    let texts: BTreeMap<_, _> =
        colors.iter().map(|(name, color)| (name.to_string(), color.to_string())).collect();
    let words = ("promote", json!({"services": texts}), format!("{colors:?}"));
    propose(&context, (conditions, actor), Change::Promote(colors), words, reason).await
}

/// Make the colors active that were active before the last promotion, all in one step or none of them.
#[utoipa::path(post, path = "/v1/rollback", request_body = RollbackRequest, params(
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
), responses(
    (status = 200, body = Status, description = "the status after the rollback"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "refused, with every reason; nothing changed"),
    (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation; nothing changed"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "unknown service"),
))]
pub(super) async fn rollback(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let RollbackRequest { services, force, reason } = parsed(&body)?;
    let (mut names, mut reasons) = (Vec::new(), Vec::new());
    for name in services {
        match name.parse::<ServiceName>() {
            Ok(name) => names.push(name),
            Err(error) => reasons.push(reason_of(&name, "unknown_service", &error)),
        }
    }
    if !reasons.is_empty() {
        return Err(ApiError::unprocessable(reasons));
    }
    let texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    let request = json!({"services": texts, "force": force});
    let words = ("rollback", request, format!("{names:?} {force}"));
    let change = Change::Rollback { services: names, force };
    propose(&context, (conditions, actor), change, words, reason).await
}

/// Set the version and the endpoints of a pool. Requests in flight on endpoints that leave it are completed.
#[utoipa::path(put, path = "/v1/services/{service}/pools/{color}", request_body = PoolRequest,
    params(
    ("service" = String, Path), ("color" = String, Path, description = "blue or green"),
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status after the change"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service or color"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "the color is active, and there is no force"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "invalid endpoints or version"),
    ))]
pub(super) async fn set_pool(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<(String, String)>, PathRejection>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Path((name, color)) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = name.parse::<ServiceName>().map_err(|_| ApiError::no_service(&name))?;
    if !context.api.control.catalog().services().contains_key(&service) {
        return Err(ApiError::no_service(&name));
    }
    let color = parse_color(&color)?;
    let request: PoolRequest = parsed(&body)?;
    let pool = serde_json::to_value(&request).expect("texts and numbers only");
    let PoolRequest { version, endpoints, force } = request;
    let mut reasons = Vec::new();
    let mut members = Vec::new();
    for endpoint in endpoints {
        match WeightedEndpoint::try_from(&endpoint) {
            Ok(endpoint) => members.push(endpoint),
            Err(error) => reasons.push(reason_of(&name, "endpoint", &error)),
        }
    }
    let version = match version.map(|it| Version::parse_new(&it)).transpose() {
        Ok(version) => version,
        Err(error) => {
            reasons.push(reason_of(&name, "version", &error));
            None
        }
    };
    let spec = PoolSpec::new(version, members);
    if let Err(error) = &spec {
        reasons.push(reason_of(&name, "endpoints", error));
    }
    let (Ok(spec), true) = (spec, reasons.is_empty()) else {
        return Err(ApiError::unprocessable(reasons));
    };
    let (control, endpoints) = (context.api.control.clone(), spec.endpoints.clone());
    // A file system may be slow.
    let wrong = off_thread(move || {
        let own = control.own_addresses();
        endpoints.iter().filter_map(|it| invalid_socket(&it.endpoint, own)).collect::<Vec<_>>()
    });
    let wrong = wrong.await?;
    if !wrong.is_empty() {
        let reason = |it: &String| reason_of(&name, "endpoint", it);
        return Err(ApiError::unprocessable(wrong.iter().map(reason).collect()));
    }
    let request = json!({"service": service.to_string(), "color": color.to_string(), "pool": pool});
    let words = ("pool", request, format!("{service} {color} {spec:?} {force}"));
    let change = Change::SetPool { service, color, spec, force };
    propose(&context, (conditions, actor), change, words, None).await
}

/// Read the configuration again and apply it, all of it or nothing.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, body = Status, description = "the status after the reload"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "a changed key needs a restart"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "mistakes in the file; nothing changed"),
))]
pub(super) async fn reload(State(context): State<Context>) -> Result<Response, ApiError> {
    (context.api.reload)().await?;
    status_response(&context, None).await
}

async fn propose(
    context: &Context,
    (conditions, actor): (Conditions, Actor),
    change: Change,
    words: (&str, Value, String),
    reason: Option<String>,
) -> Result<Response, ApiError> {
    if reason.as_ref().is_some_and(|it| it.len() > REASON_BYTES_MAX) {
        let detail = format!("the reason is longer than {REASON_BYTES_MAX} bytes");
        return Err(ApiError::malformed(detail));
    }
    let Conditions { if_generation, key } = conditions;
    let idempotency = key.map(|key| {
        let (verb, request, before) = words;
        idempotency(key, verb, request, &before)
    });
    let named = named(&change);
    let actor = Some(actor);
    let call = ChangeRequest { change, if_generation, idempotency, reason, actor };
    let done = context.api.control.propose(call).await?;
    let is_repeated = done.is_replayed;
    let mut response = status_response(context, Some((done, named))).await?;
    if is_repeated {
        let repeated = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotent-replayed", repeated);
    }
    Ok(response)
}

/// The services of a change; none for those of the last promotion.
fn named(change: &Change) -> Vec<ServiceName> {
    match change {
        Change::Promote(colors) => colors.keys().cloned().collect(),
        Change::Rollback { services, .. } => services.clone(),
        Change::SetPool { service, .. } => vec![service.clone()],
        Change::Reconfigure(_) => Vec::new(),
    }
}

/// Parses the body. `guard` has checked its content type.
fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("invalid body: {error}")))
}

fn reason_of(service: &str, code: &str, error: &dyn std::fmt::Display) -> ProblemReason {
    let service: String = service.chars().take(80).collect();
    ProblemReason { detail: error.to_string(), service: Some(service), code: code.to_owned() }
}
