//! The calls of holds and maintenance.

use std::{num::NonZeroU32, time::Duration};

use axum::{
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    response::Response,
};
use flipgate_api::wire::{HoldRequest, MaintenanceRequest, Problem, ReleaseRequest, Status};
use serde_json::{Value, json};

use super::{
    changes::{PendingCall, check_force, parsed},
    conditions::Conditions,
    context::Context,
    durations::{ABOVE_ZERO, parse_duration},
    problem::ApiError,
    settings::Scope,
};
use crate::{
    continuity::{HoldSettings, Maintenance},
    control::{Actor, Change, IntakeChange},
};

/// Hold new requests of a service: they wait, without a claim on any color, until the release.
///
/// A second call of the same caller sets another end. After the response, no new request is admitted.
#[utoipa::path(post, path = "/v1/services/{service}/hold", request_body = HoldRequest,
    params(
        ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the generation that the hold was decided on, as an ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status with the hold"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed, or a value out of its range"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "another caller holds the service, and there is no force"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "`force` without a reason"),
    ))]
pub(super) async fn hold(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    Extension(scope): Extension<Scope>,
    path: Result<Path<String>, PathRejection>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let HoldRequest { length, requests, force, reason } = parsed(&body)?;
    check_force(force, scope, Some(reason.as_deref()))?;
    let request = json!({"for": length, "requests": requests, "force": force});
    let length = length.map(|it| duration("for", &it, HoldSettings::LENGTH_MAX)).transpose()?;
    let places = requests.map(|it| {
        let is_valid = |it: &usize| (1..=HoldSettings::PLACES_MAX).contains(it);
        usize::try_from(it).ok().filter(is_valid).ok_or_else(|| {
            let most = HoldSettings::PLACES_MAX;
            ApiError::malformed(format!("`requests` must be a number from 1 to {most}"))
        })
    });
    let change = IntakeChange::Hold { length, places: places.transpose()?, force };
    IntakeCall { verb: "hold", change, request, reason }
        .make(&context, path, conditions, actor)
        .await
}

/// Let the held requests of a service go, in the order in which they came. Without a hold nothing changes.
#[utoipa::path(post, path = "/v1/services/{service}/release", request_body = ReleaseRequest,
    params(
        ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the generation that the release was decided on, as an ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status after it"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
    ))]
pub(super) async fn release(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ReleaseRequest { id, reason } = parsed(&body)?;
    let change = IntakeChange::Release { id, is_over: false };
    IntakeCall { verb: "release", change, request: json!({"id": id}), reason }
        .make(&context, path, conditions, actor)
        .await
}

/// Answer new requests of a service with 503 and a page. Requests in flight are completed.
#[utoipa::path(post, path = "/v1/services/{service}/maintenance", request_body = MaintenanceRequest,
    params(
        ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the generation that the maintenance was decided on, as an ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status with the maintenance"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed, or a value out of its range"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
    ))]
pub(super) async fn maintenance(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let MaintenanceRequest { page, retry_after, except_internal, reason } = parsed(&body)?;
    let most = Maintenance::PAGE_MAX;
    if page.as_ref().is_some_and(|it| it.len() > most) {
        return Err(ApiError::malformed(format!("`page` has more than {most} bytes")));
    }
    let request =
        json!({"page": page, "retry_after": retry_after, "except_internal": except_internal});
    let retry_after = match retry_after {
        Some(text) => {
            let max = Duration::from_secs(Maintenance::RETRY_AFTER_MAX.into());
            let seconds = duration("retry_after", &text, max)?.as_secs_f64().ceil();
            // In range, as it was checked.
            NonZeroU32::new(seconds as u32).unwrap_or(NonZeroU32::MIN)
        }
        None => Maintenance::RETRY_AFTER,
    };
    let page = page.filter(|it| !it.is_empty()).map(Into::into);
    let change = IntakeChange::BeginMaintenance { page, retry_after, except_internal };
    IntakeCall { verb: "maintenance", change, request, reason }
        .make(&context, path, conditions, actor)
        .await
}

/// Take new requests of a service again. Without maintenance nothing changes.
#[utoipa::path(delete, path = "/v1/services/{service}/maintenance",
    params(
        ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the generation that the end was decided on, as an ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status after it"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
    ))]
pub(super) async fn end_maintenance(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let change = IntakeChange::EndMaintenance;
    IntakeCall { verb: "maintenance end", change, request: json!({}), reason: None }
        .make(&context, path, conditions, actor)
        .await
}

struct IntakeCall {
    verb: &'static str,
    change: IntakeChange,
    request: Value,
    reason: Option<String>,
}

impl IntakeCall {
    async fn make(
        self,
        context: &Context,
        path: Result<Path<String>, PathRejection>,
        conditions: Conditions,
        actor: Actor,
    ) -> Result<Response, ApiError> {
        let Self { verb, change, mut request, reason } = self;
        let Path(name) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
        let service = context.service(&name)?;
        request["service"] = service.as_str().into();
        let words = (verb, request, String::new());
        let change = Change::Intake { service, change };
        let call = PendingCall { reason, ..PendingCall::new(change, words) };
        call.make(context, conditions, actor).await
    }
}

/// The duration of a field, longer than 0 and of at most `max`.
fn duration(field: &str, text: &str, max: Duration) -> Result<Duration, ApiError> {
    let shown = format!("longer than 0 and of at most {} s", max.as_secs());
    parse_duration(field, text, ABOVE_ZERO..=max, &shown)
}
