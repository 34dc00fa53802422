//! The calls that only look.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use flipgate_api::wire::{DrainStatus, Problem, Status};
use serde::Deserialize;

use super::{
    context::{Context, parse_color, picture},
    problem::ApiError,
    stream::stream,
};
use crate::model::ServiceName;

/// The longest wait for a drain that one call may ask for.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The whole picture.
#[utoipa::path(get, path = "/v1/status", responses(
    (status = 200, body = Status, headers(("ETag" = String, description = "the generation"))),
))]
pub(super) async fn status(State(context): State<Context>) -> Result<Response, ApiError> {
    picture(&context, None).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainQuery {
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
pub(super) async fn drain(
    State(context): State<Context>,
    Path(name): Path<String>,
    query: Result<Query<DrainQuery>, QueryRejection>,
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

/// Events as they happen, as server-sent events. `Last-Event-ID` resumes.
#[utoipa::path(get, path = "/v1/events", responses((status = 200, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(context): State<Context>,
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
    Ok(stream(context.api.control.events().subscribe(after)).into_response())
}

fn parse_wait(text: &str) -> Result<Duration, ApiError> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|it| Duration::try_from(it).ok())
        .map(|it| it.min(WAIT_MAX))
        .ok_or_else(|| ApiError::malformed("wait is a duration with its unit, like 30s"))
}
