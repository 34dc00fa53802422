//! The calls after a promotion: confirm it, and end its watch.

use axum::{
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    response::Response,
};
use flipgate_api::wire::{ConfirmRequest, Problem, Status};
use serde_json::json;

use super::{
    changes::{PendingCall, parsed, parsed_names},
    conditions::Conditions,
    context::Context,
    problem::ApiError,
};
use crate::{
    control::{Actor, Change, EventKind},
    model::{ServiceName, WatchResult},
};

/// Confirm promotions, which would be taken back otherwise.
#[utoipa::path(post, path = "/v1/confirm", request_body = ConfirmRequest, params(
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
), responses(
    (status = 200, body = Status, description = "the status after the confirmation"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "nothing waits for a confirmation"),
    (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "unknown service"),
))]
pub(super) async fn confirm(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ConfirmRequest { services } = parsed(&body)?;
    let names = parsed_names(services)?;
    let texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    let words = ("confirm", json!({"services": texts}), String::new());
    let waiting = context.api.control.applied();
    let change = Change::Confirm(names.clone());
    let call = PendingCall::new(change, words);
    let response = call.make(&context, conditions, actor).await?;
    let is_meant = |it: &ServiceName| names.is_empty() || names.contains(it);
    for (service, state) in waiting.state.services.iter().filter(|(name, _)| is_meant(name)) {
        if let Some(confirmation) = &state.confirmation {
            let (service, generation) = (service.clone(), confirmation.generation);
            context.api.control.events().publish(EventKind::Confirmed { service, generation });
        }
    }
    Ok(response)
}

/// End the watch of a service. The promotion stays, whatever comes.
#[utoipa::path(post, path = "/v1/services/{service}/watch/stop",
    params(("service" = String, Path)),
    responses(
        (status = 200, body = Status, description = "the status after it"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "there is no watch in progress"),
    ))]
pub(super) async fn stop_watch(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let Path(name) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = context.service(&name)?;
    let words = ("watch stop", json!({"service": service.as_str()}), String::new());
    let change = Change::EndWatch { service, generation: None, result: WatchResult::Stopped };
    let call = PendingCall::new(change, words);
    call.make(&context, conditions, actor).await
}
