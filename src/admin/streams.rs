//! The call that ends the streams on a replaced color.

use axum::{
    Json,
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::StatusCode,
};
use flipgate_api::wire::{DrainStatus, EndStreamsRequest, Problem, ProblemReason};

use super::{
    changes::parsed,
    context::{Context, parse_color},
    problem::{ApiError, AttemptedChange},
};
use crate::{
    audit::AuditResult,
    control::{Actor, RefusedCall},
    model::{Color, ServiceName},
};

/// End the streams that a flip has left on a color: WebSockets, server-sent events, gRPC streams, and then other
/// responses and request bodies. The policies of the service apply without their patience.
#[utoipa::path(post, path = "/v1/services/{service}/drain", request_body = EndStreamsRequest,
    params(("service" = String, Path)),
    responses(
        (status = 200, body = DrainStatus, description = "the progress of the drain"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service or color"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "the color is active; nothing is ended"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`end_streams` is not true"),
    ))]
pub(super) async fn end_streams(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<DrainStatus>, ApiError> {
    let Path(name) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = name.parse::<ServiceName>().map_err(|_| ApiError::no_service(&name))?;
    let EndStreamsRequest { color, end_streams } = parsed(&body)?;
    let color = color.as_deref().map(parse_color).transpose()?;
    let control = &context.api.control;
    let color = control.drain(&service, color).ok_or_else(|| ApiError::no_service(&name))?.color;
    let action = action(&service, color);
    let attempted = AttemptedChange { action: action.clone(), reason: None };
    if !end_streams {
        let detail = "`end_streams` must be true: a POST of the drain ends streams, a GET reads its progress";
        let (service, code) = (Some(service.to_string()), "end_streams".to_owned());
        let reason = ProblemReason { service, code, detail: detail.to_owned() };
        return Err(ApiError::unprocessable(vec![reason]).about(attempted));
    }
    control.end_streams(&service, color).map_err(|error| {
        let detail = format!("{color} of {service}: {error}");
        ApiError::new(StatusCode::CONFLICT, "color-active", "Conflict", detail).about(attempted)
    })?;
    let result = AuditResult::Done;
    let (actor, reason, verdicts) = (Some(actor), None, Vec::new());
    // It changes no state, so no change carries its entry.
    control.record_refusal(RefusedCall { actor, action, reason, result, verdicts }, true);
    let picture = control.drain(&service, Some(color));
    Ok(Json(picture.ok_or_else(|| ApiError::no_service(&name))?.into()))
}

fn action(service: &ServiceName, color: Color) -> String {
    format!("end streams {service}.{color}")
}
