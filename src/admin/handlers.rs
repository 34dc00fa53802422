//! The calls: each from the wire into one question, and its answer back.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use flipgate_api::wire::{
    DrainStatus, PoolRequest, Problem, ProblemReason, PromoteRequest, Ready, RollbackRequest,
    Status,
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, guard::guard, problem::ApiError, settings::Config, stream::stream};
use crate::{
    control::{Call, Change, Done},
    model::{Color, Generation, Health, PoolSpec, ServiceName, Weighted},
};

#[derive(Clone)]
struct Context {
    api: Api,
    config: Arc<Config>,
}

/// The API in its own words.
#[derive(OpenApi)]
#[openapi(info(
    title = "Flipgate admin API",
    description = "Flip services between blue and green, and see who is where. Errors are problem \
                   documents (RFC 9457)."
))]
struct Description;

/// Bytes of a reason, which is kept with its event.
const REASON_BYTES_MAX: usize = 1024;

/// Services up to which the response to a change shows all of them.
const SHOWN_MAX: usize = 100;

/// Reasons that are listed one by one.
const REASONS_MAX: usize = 100;

/// How long the control loop may be at work on one change, the disk aside.
const STUCK: Duration = Duration::from_secs(10);

/// The longest wait for a drain that one call may ask for.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The API's own description, as JSON.
///
/// # Panics
///
/// Never: the description is of this program's own types.
#[must_use]
pub fn openapi() -> String {
    let (_, description) = described().split_for_parts();
    description.to_pretty_json().expect("texts and numbers only")
}

fn described() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(status))
        .routes(routes!(promote))
        .routes(routes!(rollback))
        .routes(routes!(drain))
        .routes(routes!(set_pool))
        .routes(routes!(reload))
        .routes(routes!(events))
        .routes(routes!(metrics))
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(openapi_json))
}

pub(super) fn router(api: Api, config: Arc<Config>) -> Router {
    let context = Context { api, config: Arc::clone(&config) };
    let (router, _) = described().split_for_parts();
    router
        .fallback(async || {
            let detail = "see GET /v1/openapi.json for the calls there are";
            ApiError::new(StatusCode::NOT_FOUND, "unknown-call", "There is no such call", detail)
        })
        .method_not_allowed_fallback(async || {
            let detail = "see GET /v1/openapi.json for the calls there are";
            let title = "This method is not served here";
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method", title, detail)
        })
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(config, guard))
        .with_state(context)
}

/// The whole picture.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, body = Status, headers(("ETag" = String, description = "the generation"))),
))]
async fn status(State(context): State<Context>) -> Result<Response, ApiError> {
    picture(&context, None).await
}

/// Make colors active, all in one step or not at all.
///
/// When the answer is out, no request that begins later reaches a replaced color.
#[utoipa::path(post, path = "/v1/promote", request_body = PromoteRequest, responses(
    (status = 200, body = Status, description = "the picture after the promotion"),
    (status = 400, body = Problem, description = "malformed"),
    (status = 409, body = Problem, description = "refused, with every reason; nothing changed"),
    (status = 412, body = Problem, description = "decided on an old generation; nothing changed"),
    (status = 422, body = Problem, description = "unknown service or color, or active already"),
    (status = 428, body = Problem, description = "If-Match is required here"),
))]
async fn promote(
    State(context): State<Context>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let PromoteRequest { services, force: _, reason } = json(&body)?;
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
    let words = ("promote", format!("{colors:?}"));
    propose(&context, conditions, Change::Promote(colors), words, reason).await
}

/// Make active what was so before the last promotion, all in one step or not at all.
#[utoipa::path(post, path = "/v1/rollback", request_body = RollbackRequest, responses(
    (status = 200, body = Status, description = "the picture after the rollback"),
    (status = 409, body = Problem, description = "refused, with every reason; nothing changed"),
    (status = 412, body = Problem, description = "decided on an old generation; nothing changed"),
    (status = 422, body = Problem, description = "unknown service"),
))]
async fn rollback(
    State(context): State<Context>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let asked = if body.is_empty() { RollbackRequest::default() } else { json(&body)? };
    let RollbackRequest { services, force, reason } = asked;
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
    let words = ("rollback", format!("{names:?} {force}"));
    let change = Change::Rollback { services: names, force };
    propose(&context, conditions, change, words, reason).await
}

/// Set what a pool is made of. Requests on endpoints that leave it finish.
#[utoipa::path(put, path = "/v1/services/{service}/pools/{color}", request_body = PoolRequest,
    params(("service" = String, Path), ("color" = String, Path, description = "blue or green")),
    responses(
        (status = 200, body = Status, description = "the picture after the change"),
        (status = 404, body = Problem, description = "no such service or color"),
        (status = 409, body = Problem, description = "the color is active, and there is no force"),
        (status = 412, body = Problem, description = "decided on an old generation"),
        (status = 422, body = Problem, description = "endpoints or a version that cannot be"),
    ))]
async fn set_pool(
    State(context): State<Context>,
    Path((name, color)): Path<(String, String)>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let service = name.parse::<ServiceName>().map_err(|_| ApiError::no_service(&name))?;
    if !context.api.control.catalog().services().contains_key(&service) {
        return Err(ApiError::no_service(&name));
    }
    let color = parse_color(&color)?;
    let PoolRequest { version, endpoints, force } = json(&body)?;
    let mut reasons = Vec::new();
    let mut parsed = Vec::new();
    for endpoint in endpoints {
        match Weighted::try_from(&endpoint) {
            Ok(endpoint) => parsed.push(endpoint),
            Err(error) => reasons.push(reason_of(&name, "endpoint", &error)),
        }
    }
    let version = match version.map(|it| it.parse()).transpose() {
        Ok(version) => version,
        Err(error) => {
            reasons.push(reason_of(&name, "version", &error));
            None
        }
    };
    let spec = PoolSpec::new(version, parsed);
    if let Err(error) = &spec {
        reasons.push(reason_of(&name, "endpoints", error));
    }
    let (Ok(spec), true) = (spec, reasons.is_empty()) else {
        return Err(ApiError::unprocessable(reasons));
    };
    let words = ("pool", format!("{service} {color} {spec:?} {force}"));
    let change = Change::SetPool { service, color, spec, force };
    propose(&context, conditions, change, words, None).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainQuery {
    wait: Option<String>,
    color: Option<String>,
}

/// What still holds a color. With `wait`, answered when nothing does or the time is up.
#[utoipa::path(get, path = "/v1/services/{service}/drain", params(
    ("service" = String, Path),
    ("wait" = Option<String>, Query, description = "how long to wait, like 30s; at most an hour"),
    ("color" = Option<String>, Query, description = "by default the one that is not active"),
), responses(
    (status = 200, body = DrainStatus),
    (status = 404, body = Problem, description = "no such service or color"),
))]
async fn drain(
    State(context): State<Context>,
    Path(name): Path<String>,
    query: Result<Query<DrainQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<DrainStatus>, ApiError> {
    let Query(DrainQuery { wait, color }) =
        query.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = name.parse::<ServiceName>().map_err(|_| ApiError::no_service(&name))?;
    let color = color.as_deref().map(parse_color).transpose()?;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let control = &context.api.control;
    let picture = match wait {
        Some(wait) => control.wait_for_drain(&service, color, wait).await,
        None => control.drain(&service, color),
    };
    let picture = picture.ok_or_else(|| ApiError::no_service(&name))?;
    Ok(Json(picture.into()))
}

/// Read the configuration file again and apply it, whole or not at all.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, body = Status, description = "the picture after the reload"),
    (status = 409, body = Problem, description = "changed in what needs a restart"),
    (status = 422, body = Problem, description = "mistakes in the file; nothing changed"),
))]
async fn reload(State(context): State<Context>) -> Result<Response, ApiError> {
    (context.api.reload)().await?;
    picture(&context, None).await
}

/// Events as they happen, as server-sent events. `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/v1/events", responses((status = 200, content_type = "text/event-stream")))]
async fn events(State(context): State<Context>, headers: HeaderMap) -> Result<Response, ApiError> {
    let after =
        match headers.get("last-event-id") {
            None => None,
            Some(id) => {
                let number = id.to_str().ok().and_then(|it| it.parse().ok());
                Some(number.ok_or_else(|| {
                    ApiError::malformed("Last-Event-ID is the number of an event")
                })?)
            }
        };
    Ok(stream(context.api.control.events().subscribe(after)).into_response())
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain")))]
async fn metrics(State(context): State<Context>) -> Result<Response, ApiError> {
    let control = context.api.control.clone();
    let scrape = off_thread(move || control.scrape()).await?;
    let text = HeaderValue::from_static("text/plain; version=0.0.4");
    Ok(([(header::CONTENT_TYPE, text)], scrape).into_response())
}

/// Whether the process lives. 503 only for what a restart repairs: a task that has died, or a control loop
/// that is stuck while nothing waits for the disk.
#[utoipa::path(get, path = "/healthz", responses(
    (status = 200, body = String),
    (status = 503, body = String, description = "each thing that a restart would repair, one on a line"),
))]
async fn healthz(State(context): State<Context>) -> Response {
    let mut wrong = (context.api.gone)();
    if let Some(stuck) = context.api.control.stuck().filter(|it| *it >= STUCK) {
        wrong.push(format!("the control loop has been stuck for {} s", stuck.as_secs()));
    }
    match &*wrong {
        [] => "ok\n".into_response(),
        wrong => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", wrong.join("\n"))).into_response()
        }
    }
}

/// Whether clients should be sent here: listening, not stopping, every service has an endpoint that is up in
/// its active pool, and changes can be written.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, body = Ready),
    (status = 503, body = Ready, description = "not now, for these reasons"),
))]
async fn readyz(State(context): State<Context>) -> Response {
    let control = &context.api.control;
    let mut reasons = Vec::new();
    if !(context.api.is_serving)() {
        reasons.push("flipgate is starting or stopping".to_owned());
    }
    reasons.extend((context.api.gone)());
    if let Some(why) = control.condition().read_only {
        reasons.push(format!("the state is read-only until a restart: {why}"));
    }
    let applied = control.applied();
    let mut more = 0;
    for (name, pools) in applied.pools.iter() {
        let color = pools.active;
        let reason = if applied.state.damaged.contains_key(name) {
            format!("the state of {name} is damaged: promote the color that shall be active")
        } else {
            let members = pools.pool(color).members();
            if members.iter().any(|it| it.health() == Health::Up) {
                continue;
            }
            format!("none of the {} endpoints of {name} {color} is up", members.len())
        };
        match reasons.len() < REASONS_MAX {
            true => reasons.push(reason),
            false => more += 1,
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} more services"));
    }
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, reasons })).into_response()
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, content_type = "application/json")))]
async fn openapi_json() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], openapi()).into_response()
}

// --- what the calls have in common ---

/// The conditions under which a change is wanted.
struct Conditions {
    if_generation: Option<Vec<Generation>>,
    key: Option<String>,
}

const IF_MATCH: HeaderName = header::IF_MATCH;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

impl FromRequestParts<Context> for Conditions {
    type Rejection = ApiError;

    async fn from_request_parts(
        parts: &mut request::Parts,
        context: &Context,
    ) -> Result<Self, ApiError> {
        let if_match = parts.headers.get_all(IF_MATCH).iter();
        let lines: Vec<&str> = if_match.map(|it| it.to_str().unwrap_or("?")).collect();
        if lines.is_empty() && context.config.require_if_match {
            let title = "A change must say on which generation it was decided";
            let detail = "send If-Match with the ETag of GET /v1/status (admin.require_if_match)";
            return Err(ApiError::new(
                StatusCode::PRECONDITION_REQUIRED,
                "if-match-required",
                title,
                detail,
            ));
        }
        let if_generation = match &*lines {
            [] | ["*"] => None,
            lines => Some(generations(&lines.join(","))?),
        };
        let key = parts.headers.get(IDEMPOTENCY_KEY).map(|it| match it.to_str() {
            Ok(key) if (1..=255).contains(&key.len()) => Ok(key.to_owned()),
            _ => Err(ApiError::malformed("Idempotency-Key is 1 to 255 visible characters")),
        });
        Ok(Self { if_generation, key: key.transpose()? })
    }
}

/// A list of entity tags: RFC 9110, section 13.1.1. A weak one never matches.
fn generations(list: &str) -> Result<Vec<Generation>, ApiError> {
    let wrong = || ApiError::malformed("If-Match is the ETag of a status, like \"42\", or *");
    let mut generations = Vec::new();
    for tag in list.split(',').map(str::trim) {
        if tag.starts_with("W/") {
            continue;
        }
        let bare = tag.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(tag);
        generations.push(Generation(bare.parse().map_err(|_| wrong())?));
    }
    Ok(generations)
}

async fn propose(
    context: &Context,
    conditions: Conditions,
    change: Change,
    words: (&str, String),
    reason: Option<String>,
) -> Result<Response, ApiError> {
    if reason.as_ref().is_some_and(|it| it.len() > REASON_BYTES_MAX) {
        let detail = format!("a reason has at most {REASON_BYTES_MAX} bytes");
        return Err(ApiError::malformed(detail));
    }
    let Conditions { if_generation, key } = conditions;
    let idempotency = key.map(|key| {
        let (verb, call) = words;
        (key, format!("{verb} {:08x} {}", crc32fast::hash(call.as_bytes()), call.len()))
    });
    let named = named(&change);
    let call = Call { change, if_generation, idempotency, reason };
    let done = context.api.control.propose(call).await?;
    let is_repeated = done.is_repeated;
    let mut response = picture(context, Some((done, named))).await?;
    if is_repeated {
        let repeated = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotent-replayed", repeated);
    }
    Ok(response)
}

/// The services that a change names; none for those of the last promotion.
fn named(change: &Change) -> Vec<ServiceName> {
    match change {
        Change::Promote(colors) => colors.keys().cloned().collect(),
        Change::Rollback { services, .. } => services.clone(),
        Change::SetPool { service, .. } => vec![service.clone()],
        Change::Follow(_) => Vec::new(),
    }
}

/// The picture of now, or the one after a change. That one has the generation that the change led to, whatever
/// else has come since; and with many services, only those that the change named, so that a flip of one of
/// them does not wait for a picture of all.
async fn picture(
    context: &Context,
    after: Option<(Done, Vec<ServiceName>)>,
) -> Result<Response, ApiError> {
    let control = context.api.control.clone();
    // What shows few services takes less time than to ask another thread for it.
    let pools = control.applied().pools.len();
    let is_short = match &after {
        None => pools <= SHOWN_MAX,
        // One that names none is for the services of the last promotion, however many those are.
        Some((_, named)) => pools <= SHOWN_MAX || (1..=SHOWN_MAX).contains(&named.len()),
    };
    let draw = move || {
        let status = match after {
            None => Status::from(control.picture()),
            Some((done, mut named)) => {
                let Done { generation, applied, .. } = done;
                if named.is_empty() {
                    named.clone_from(&applied.state.promotion.services);
                }
                let named: HashSet<_> = named.into_iter().collect();
                let partial = applied.pools.len() > SHOWN_MAX;
                let wanted = |it: &ServiceName| !partial || named.contains(it);
                let status = Status::from(control.picture_of(&applied, wanted));
                Status { generation: generation.0, partial, ..status }
            }
        };
        let status = Status { read_only: control.condition().read_only, ..status };
        let body = serde_json::to_vec(&status).expect("texts and numbers only");
        (status.generation, body)
    };
    let (generation, body) = match is_short {
        true => draw(),
        false => off_thread(draw).await?,
    };
    let tag = HeaderValue::from_str(&format!("\"{generation}\"")).expect("digits in quotes");
    let json = HeaderValue::from_static("application/json");
    let no_store = HeaderValue::from_static("no-store");
    let headers =
        [(header::ETAG, tag), (header::CONTENT_TYPE, json), (header::CACHE_CONTROL, no_store)];
    Ok((headers, body).into_response())
}

/// Does what takes time in proportion to the number of services, while the thread of this call goes on with
/// others.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let title = "Internal Server Error";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.to_string())
    })
}

/// JSON, whatever its content type says: a page of a foreign site is refused by its origin.
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::malformed(format!("the body is not what this call takes: {error}"))
    })
}

fn reason_of(service: &str, code: &str, error: &dyn std::fmt::Display) -> ProblemReason {
    let service: String = service.chars().take(80).collect();
    ProblemReason { detail: error.to_string(), service: Some(service), code: code.to_owned() }
}

fn parse_color(text: &str) -> Result<Color, ApiError> {
    text.parse().map_err(|error: crate::model::ParseColorError| {
        let title = "There is no such color";
        ApiError::new(StatusCode::NOT_FOUND, "unknown-color", title, error.to_string())
    })
}

fn parse_wait(text: &str) -> Result<Duration, ApiError> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|it| Duration::try_from(it).ok())
        .map(|it| it.min(WAIT_MAX))
        .ok_or_else(|| ApiError::malformed("wait is a duration with its unit, like 30s"))
}
