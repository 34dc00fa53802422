//! The calls that only read.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use flipgate_api::wire::{DrainStatus, Problem, Status};
use serde::Deserialize;

use super::{
    connections::{AdminConnection, WaitingCall},
    context::{Context, parse_color, status_response},
    problem::ApiError,
    settings::Scope,
    stream::stream,
};
use crate::{control::DrainGoal, model::ServiceName};

/// The longest wait for a drain.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The status of all services. `first_token` is only shown to the scopes `promote` and `admin`.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, body = Status, headers(("ETag" = String, description = "the generation"))),
))]
pub(super) async fn status(
    State(context): State<Context>,
    Extension(scope): Extension<Scope>,
) -> Result<Response, ApiError> {
    status_response(&context, scope, None).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
    wait: Option<String>,
    color: Option<String>,
    #[serde(rename = "for")]
    goal: Option<String>,
}

/// The progress of a drain. With `wait`, the response comes when the color is drained or the time is over. A removed
/// service is known until ten seconds after its drain; without a color, both of its colors count.
#[utoipa::path(get, path = "/v1/services/{service}/drain", params(
    ("service" = String, Path),
    ("wait" = Option<String>, Query, description = "how long to wait, like 30s; at most an hour"),
    ("color" = Option<String>, Query, description = "by default the one that is not active"),
    ("for" = Option<String>, Query, description = "what `wait` is for: `drained` (the default), or `safe_to_stop`"),
), responses(
    (status = 200, body = DrainStatus),
    (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service or color"),
))]
pub(super) async fn drain(
    State(context): State<Context>,
    path: Result<Path<String>, PathRejection>,
    caller: Option<Extension<Arc<AdminConnection>>>,
    query: Result<Query<DrainQuery>, QueryRejection>,
) -> Result<Json<DrainStatus>, ApiError> {
    let Path(name) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    let Query(DrainQuery { wait, color, goal }) =
        query.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = name.parse::<ServiceName>().map_err(|_| ApiError::no_service(&name))?;
    let color = color.as_deref().map(parse_color).transpose()?;
    let wait = wait.as_deref().map(parse_wait).transpose()?;
    let goal = match goal.as_deref() {
        None | Some("drained") => DrainGoal::Drained,
        Some("safe_to_stop") => DrainGoal::SafeToStop,
        Some(_) => return Err(ApiError::malformed("`for` is `drained` or `safe_to_stop`")),
    };
    let control = &context.api.control;
    let picture = match wait {
        Some(wait) => {
            let _waiting = waiting_call(caller)?;
            control.wait_for_drain(&service, color, wait, goal).await
        }
        None => control.drain(&service, color),
    };
    let picture = picture.ok_or_else(|| ApiError::no_service(&name))?;
    Ok(Json(picture.into()))
}

/// Events as server-sent events. `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/v1/events", responses((status = 200, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(context): State<Context>,
    caller: Option<Extension<Arc<AdminConnection>>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
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
    let waiting = waiting_call(caller)?;
    Ok(stream(context.api.control.events().subscribe(after), waiting).into_response())
}

/// A permit to wait. `None` where callers are not counted.
pub(super) fn waiting_call(
    caller: Option<Extension<Arc<AdminConnection>>>,
) -> Result<Option<WaitingCall>, ApiError> {
    let Some(Extension(caller)) = caller else { return Ok(None) };
    match caller.wait() {
        Some(waiting) => Ok(Some(waiting)),
        None => {
            let detail = "as many calls follow events or wait for drains as may: end one, or try again later";
            let title = "Service Unavailable";
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too-many-waiting", title, detail))
        }
    }
}

pub(super) fn parse_wait(text: &str) -> Result<Duration, ApiError> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|it| Duration::try_from(it).ok())
        .map(|it| it.min(WAIT_MAX))
        .ok_or_else(|| ApiError::malformed("wait is a duration with its unit, like 30s"))
}
