//! The keys of pins.

use axum::{
    extract::{Extension, State},
    response::Response,
};
use flipgate_api::wire::{Problem, Status};
use serde_json::json;

use super::{changes::PendingCall, conditions::Conditions, context::Context, problem::ApiError};
use crate::control::{Actor, Change, random_secret};

/// Sign pins with a new key from now on. Pins that were signed by older keys stay valid for the `pin.max_age` of their
/// service.
#[utoipa::path(post, path = "/v1/pins/rotate", params(
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
), responses(
    (status = 200, body = Status, description = "the status after it"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "no service has pins"),
))]
pub(super) async fn rotate(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    conditions: Conditions,
) -> Result<Response, ApiError> {
    let change = Change::RotatePinKeys { secret: random_secret() };
    let words = ("rotate pin keys", json!({}), String::new());
    let call = PendingCall::new(change, words);
    call.make(&context, conditions, actor).await
}
