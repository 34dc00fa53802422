//! The calls of rollouts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Extension, Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Sent, KeepAlive, Sse},
    },
};
use flipgate_api::wire::{
    DeploymentRequest, Problem, ProblemReason, RolloutActionRequest, RolloutList, RolloutRequest,
    RolloutStatus,
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;

use super::{
    changes::{CONFIRM_WITHIN_MAX, checked_reason, parsed, pool_spec},
    conditions::Conditions,
    connections::AdminConnection,
    context::{Context, off_thread, parse_color},
    durations::{ABOVE_ZERO, parse_duration},
    fingerprint::idempotency,
    problem::{ApiError, AttemptedChange},
    reads::{parse_wait, waiting_call},
    rollout_status::{status_of, status_of_unreadable},
};
use crate::{
    control::{Actor, Change},
    model::{RolloutId, ServiceName},
    rollout::{
        BeginCall, DeploymentCall, Event, Impossible, KnownRollout, RolloutError, Rollouts, new_id,
        wrong_version,
    },
};

/// How often a waiting call reads what a stage waits for, which is not written.
const PROGRESS: Duration = Duration::from_secs(1);

/// Begin a rollout. Its stages run whether or not the caller waits.
#[utoipa::path(post, path = "/v1/rollouts", request_body = RolloutRequest, params(
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key begins nothing"),
), responses(
    (status = 201, body = RolloutStatus, description = "the rollout has begun"),
    (status = 200, body = RolloutStatus, description = "with `dry_run`: the rollout as it would be; or the one that an earlier call with the same key began"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "a service is in another rollout, or cannot be deployed; nothing has changed"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "an unknown plan or service, or invalid versions or endpoints"),
))]
pub(super) async fn begin(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: RolloutRequest = parsed(&body)?;
    let content = serde_json::to_value(&request).expect("texts and numbers only");
    let RolloutRequest { plan, services, reason, confirm_within, dry_run } = request;
    checked_reason(reason.as_deref())?;
    let services = deployments(&context, services).await?;
    let shown = "longer than 0 and of at most 24 hours";
    let range = ABOVE_ZERO..=CONFIRM_WITHIN_MAX;
    let within = confirm_within.as_deref();
    let confirm_within =
        within.map(|it| parse_duration("confirm_within", it, range, shown)).transpose()?;
    let names: Vec<_> = services.keys().map(ToString::to_string).collect();
    let action = format!("rollout begin {}", names.join(" "));
    let attempted = AttemptedChange { action, reason: reason.clone() };
    let Conditions { if_generation, key } = conditions;
    let idempotency = key.map(|key| idempotency(key, "rollout", content, ""));
    let call =
        BeginCall { plan, services, reason, confirm_within, actor, if_generation, idempotency };
    let rollouts = &context.api.rollouts;
    if dry_run {
        let known = rollouts.dry_run(&new_id(), &call).map_err(ApiError::from)?;
        let id: RolloutId = "dry-run".parse().expect("letters and a hyphen");
        return Ok(Json(status_of(rollouts, &id, &known)).into_response());
    }
    let (id, done) =
        rollouts.begin(call).await.map_err(|it| ApiError::from(it).about(attempted))?;
    let status = if done.is_replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, Json(find(&context, &id)?)).into_response();
    let place = HeaderValue::from_str(&format!("/v1/rollouts/{id}"));
    response.headers_mut().insert(header::LOCATION, place.expect("visible characters"));
    if done.is_replayed {
        let repeated = HeaderValue::from_static("true");
        response.headers_mut().insert("idempotent-replayed", repeated);
    }
    Ok(response)
}

async fn deployments(
    context: &Context,
    services: BTreeMap<String, DeploymentRequest>,
) -> Result<BTreeMap<ServiceName, DeploymentCall>, ApiError> {
    let mut deployments = BTreeMap::new();
    let mut reasons = Vec::new();
    for (name, request) in services {
        let reason = |code: &str, detail: String| ProblemReason {
            service: Some(name.chars().take(80).collect()),
            code: code.to_owned(),
            detail,
        };
        let Ok(service) = name.parse::<ServiceName>() else {
            let detail =
                format!("service `{name}` is not configured; `flipgate status` lists the services");
            reasons.push(reason("unknown_service", detail));
            continue;
        };
        let DeploymentRequest { color, version, endpoints } = request;
        let candidate = match color.as_deref().map(parse_color).transpose() {
            Ok(candidate) => candidate,
            Err(error) => {
                reasons.push(reason("unknown_color", error.detail().to_owned()));
                continue;
            }
        };
        if let Some(error) = version.as_deref().and_then(wrong_version) {
            reasons.push(reason("version", error));
        }
        match pool_spec(&name, version, &endpoints) {
            Ok(spec) => {
                let it =
                    DeploymentCall { candidate, version: spec.version, endpoints: spec.endpoints };
                deployments.insert(service, it);
            }
            Err(mut wrong) => reasons.append(&mut wrong),
        }
    }
    if !reasons.is_empty() {
        return Err(ApiError::unprocessable(reasons));
    }
    let control = context.api.control.clone();
    let all: Vec<_> =
        deployments.iter().map(|(name, it)| (name.clone(), it.endpoints.clone())).collect();
    // A file system may be slow.
    let wrong = off_thread(move || {
        let own = control.own_addresses();
        let mut wrong = Vec::new();
        for (name, endpoints) in all {
            let invalid = endpoints
                .iter()
                .filter_map(|it| crate::upstream::invalid_socket(&it.endpoint, own));
            wrong.extend(invalid.map(|detail| ProblemReason {
                service: Some(name.to_string()),
                code: "endpoint".to_owned(),
                detail,
            }));
        }
        wrong
    });
    let wrong = wrong.await?;
    if wrong.is_empty() { Ok(deployments) } else { Err(ApiError::unprocessable(wrong)) }
}

/// The rollouts in progress and the last ones, the latest first.
#[utoipa::path(get, path = "/v1/rollouts", responses((status = 200, body = RolloutList)))]
pub(super) async fn list(State(context): State<Context>) -> Result<Json<RolloutList>, ApiError> {
    let rollouts = context.api.rollouts.clone();
    // There may be a hundred records.
    let all = off_thread(move || {
        let known = rollouts.list().into_iter();
        known.filter_map(|(id, it)| shown(&rollouts, &id, it).ok()).collect::<Vec<_>>()
    });
    Ok(Json(RolloutList { rollouts: all.await? }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutQuery {
    wait: Option<String>,
    since: Option<u64>,
}

/// A rollout. With `Accept: text/event-stream`, a stream of it: one event `rollout` for each version, to its end.
#[utoipa::path(get, path = "/v1/rollouts/{id}", params(
    ("id" = String, Path),
    ("wait" = Option<String>, Query, description = "respond when the rollout is over, needs a person, or has another version than `since`; at the latest after this time, like 60s"),
    ("since" = Option<u64>, Query, description = "the version that the caller knows"),
), responses(
    (status = 200, body = RolloutStatus),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "no such rollout"),
))]
pub(super) async fn show(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
    caller: Option<Extension<Arc<AdminConnection>>>,
    query: Result<Query<RolloutQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = parse_id(path)?;
    let Query(RolloutQuery { wait, since }) =
        query.map_err(|error| ApiError::malformed(error.body_text()))?;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let known = find(&context, &id)?;
    let accepts = headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    if accepts.is_some_and(|it| it.contains("text/event-stream")) {
        let waiting = waiting_call(caller)?;
        let states =
            stream::unfold((context, id, None, waiting), |(context, id, last, waiting)| async {
                let status = match last {
                    None => find(&context, &id).ok()?,
                    Some(RolloutStatus { over: true, .. }) => return None,
                    Some(last) => next_version(&context, &id, last.version, None).await?,
                };
                let data = serde_json::to_string(&status).expect("texts and numbers only");
                let sent =
                    Sent::default().id(status.version.to_string()).event("rollout").data(data);
                Some((
                    Ok::<_, std::convert::Infallible>(sent),
                    (context, id, Some(status), waiting),
                ))
            });
        let stream =
            Sse::new(states).keep_alive(KeepAlive::new().interval(Duration::from_secs(15)));
        return Ok(stream.into_response());
    }
    let status = match wait {
        Some(wait) if since.is_some() || !needs_no_wait(&known) => {
            let _waiting = waiting_call(caller)?;
            let until = tokio::time::Instant::now() + wait;
            match since {
                Some(since) => next_version(&context, &id, since, Some(until)).await,
                None => settled(&context, &id, until).await,
            }
            .unwrap_or(known)
        }
        _ => known,
    };
    Ok(Json(status).into_response())
}

/// Whether nothing happens without a person.
fn needs_no_wait(status: &RolloutStatus) -> bool {
    status.over || matches!(&*status.state, "waiting" | "stuck")
}

/// The rollout when it has another version than `since`, is over, or a stage waits for something else; at the latest at
/// `until`. Cancel-safe.
async fn next_version(
    context: &Context,
    id: &RolloutId,
    since: u64,
    until: Option<tokio::time::Instant>,
) -> Option<RolloutStatus> {
    let mut changes = context.api.control.changes();
    let first = find(context, id).ok()?.waiting_for;
    loop {
        changes.borrow_and_update();
        let status = find(context, id).ok()?;
        let is_late = until.is_some_and(|it| tokio::time::Instant::now() >= it);
        if status.version != since || status.over || is_late || status.waiting_for != first {
            return Some(status);
        }
        let sleep = until.map_or(PROGRESS, |it| {
            PROGRESS.min(it.saturating_duration_since(tokio::time::Instant::now()))
        });
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

/// The rollout when it is over or needs a person; at the latest at `until`. Cancel-safe.
async fn settled(
    context: &Context,
    id: &RolloutId,
    until: tokio::time::Instant,
) -> Option<RolloutStatus> {
    let mut changes = context.api.control.changes();
    loop {
        changes.borrow_and_update();
        let status = find(context, id).ok()?;
        if needs_no_wait(&status) || tokio::time::Instant::now() >= until {
            return Some(status);
        }
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

/// End a rollout: what was done is undone. One that is stuck ends as it is.
#[utoipa::path(post, path = "/v1/rollouts/{id}/cancel", request_body = RolloutActionRequest,
    params(("id" = String, Path)), responses(
    (status = 200, body = RolloutStatus),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "no such rollout"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "it is over, or undone already"),
))]
pub(super) async fn cancel(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<RolloutStatus>, ApiError> {
    let event = |by, reason| Event::Cancelled { by, reason };
    act(&context, actor, path, &body, event).await
}

/// Approve the stage of a rollout that waits for a person.
#[utoipa::path(post, path = "/v1/rollouts/{id}/approve", request_body = RolloutActionRequest,
    params(("id" = String, Path)), responses(
    (status = 200, body = RolloutStatus),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "no such rollout"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "no stage waits for an approval, or another one"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "no such stage"),
))]
pub(super) async fn approve(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<RolloutStatus>, ApiError> {
    let id = parse_id(path)?;
    let RolloutActionRequest { reason, stage: named } = parsed(&body)?;
    checked_reason(reason.as_deref())?;
    let rollouts = &context.api.rollouts;
    let stages = rollouts.find(&id)?.record.plan.stages;
    let place = |name: String| {
        let place = stages.iter().position(|it| it.name == name);
        place.ok_or_else(|| {
            let detail = format!("the rollout {id} has no stage `{name}`");
            let (code, service) = ("unknown_stage".to_owned(), None);
            ApiError::unprocessable(vec![ProblemReason { service, code, detail }])
        })
    };
    let event = Event::Approved { by: actor.shown(), stage: named.map(place).transpose()? };
    rollouts.write(&id, event, Some(actor)).await?;
    find(&context, &id).map(Json)
}

/// Have a stuck rollout try again what has failed or was interrupted.
#[utoipa::path(post, path = "/v1/rollouts/{id}/retry", request_body = RolloutActionRequest,
    params(("id" = String, Path)), responses(
    (status = 200, body = RolloutStatus),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "no such rollout"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "it is not stuck"),
))]
pub(super) async fn retry(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<RolloutStatus>, ApiError> {
    act(&context, actor, path, &body, |by, _| Event::Retried { by }).await
}

/// The reason of a call that is for the whole rollout.
fn without_stage(request: RolloutActionRequest) -> Result<Option<String>, ApiError> {
    let RolloutActionRequest { reason, stage } = request;
    checked_reason(reason.as_deref())?;
    match stage {
        None => Ok(reason),
        Some(_) => Err(ApiError::malformed("`stage` is only for an approval; remove it")),
    }
}

async fn act(
    context: &Context,
    actor: Actor,
    path: Result<Path<String>, PathRejection>,
    body: &[u8],
    event: impl FnOnce(String, Option<String>) -> Event,
) -> Result<Json<RolloutStatus>, ApiError> {
    let id = parse_id(path)?;
    let reason = without_stage(parsed(body)?)?;
    let event = event(actor.shown(), reason);
    context.api.rollouts.write(&id, event, Some(actor)).await?;
    find(context, &id).map(Json)
}

/// Confirm the promotion of a rollout, which would be taken back otherwise.
#[utoipa::path(post, path = "/v1/rollouts/{id}/confirm", request_body = RolloutActionRequest,
    params(("id" = String, Path)), responses(
    (status = 200, body = RolloutStatus),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "no such rollout"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "nothing waits for a confirmation"),
))]
pub(super) async fn confirm(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<RolloutStatus>, ApiError> {
    let id = parse_id(path)?;
    let reason = without_stage(parsed(&body)?)?;
    let known = context.api.rollouts.find(&id)?;
    let services: Vec<ServiceName> = known.record.services.keys().cloned().collect();
    let names: Vec<_> = services.iter().map(ToString::to_string).collect();
    let words = ("confirm", json!({"services": names}), String::new());
    let conditions = Conditions { if_generation: None, key: None };
    let call = super::changes::PendingCall {
        reason,
        ..super::changes::PendingCall::new(Change::Confirm(services), words)
    };
    call.make(&context, conditions, actor).await?;
    find(&context, &id).map(Json)
}

fn parse_id(path: Result<Path<String>, PathRejection>) -> Result<RolloutId, ApiError> {
    let Path(text) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    text.parse::<RolloutId>().map_err(|error| unknown(error.to_string()))
}

fn unknown(detail: String) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "unknown-rollout", "Not Found", detail)
}

/// A rollout for people and programs, also if its record cannot be read.
fn shown(
    rollouts: &Rollouts,
    id: &RolloutId,
    found: Result<KnownRollout, RolloutError>,
) -> Result<RolloutStatus, ApiError> {
    match found {
        Ok(known) => Ok(status_of(rollouts, id, &known)),
        Err(RolloutError::Record { error, .. }) => {
            let state = rollouts.state(id).ok_or_else(|| RolloutError::Unknown(id.clone()))?;
            Ok(status_of_unreadable(id, &state, &error))
        }
        Err(error) => Err(error.into()),
    }
}

fn find(context: &Context, id: &RolloutId) -> Result<RolloutStatus, ApiError> {
    shown(&context.api.rollouts, id, context.api.rollouts.find(id))
}

impl From<RolloutError> for ApiError {
    fn from(error: RolloutError) -> Self {
        let detail = error.to_string();
        let title = "Conflict";
        match error {
            RolloutError::Change(error) => error.into(),
            RolloutError::Release(error) => error.into(),
            RolloutError::Unknown(_) | RolloutError::NotKept(_) => unknown(detail),
            RolloutError::UnknownPlan { .. } => {
                let (code, service) = ("unknown_plan".to_owned(), None);
                Self::unprocessable(vec![ProblemReason { service, code, detail }])
            }
            RolloutError::WrongVersion { service, .. } => {
                let (code, service) = ("version".to_owned(), Some(service.to_string()));
                Self::unprocessable(vec![ProblemReason { service, code, detail }])
            }
            RolloutError::NoConfirmation { .. } => {
                let (code, service) = ("confirm_within".to_owned(), None);
                Self::unprocessable(vec![ProblemReason { service, code, detail }])
            }
            RolloutError::TooLarge(_) => {
                let (code, service) = ("too_large".to_owned(), None);
                Self::unprocessable(vec![ProblemReason { service, code, detail }])
            }
            RolloutError::ExecNotAllowed(_) => {
                Self::new(StatusCode::CONFLICT, "exec-not-allowed", title, detail)
            }
            RolloutError::Record { .. } => Self::new(StatusCode::CONFLICT, "record", title, detail),
            RolloutError::Impossible { why: Impossible::Over, .. } => {
                Self::new(StatusCode::CONFLICT, "rollout-over", title, detail)
            }
            RolloutError::Impossible { .. } => {
                Self::new(StatusCode::CONFLICT, "rollout-state", title, detail)
            }
        }
    }
}
