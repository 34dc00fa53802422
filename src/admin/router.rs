//! The calls that there are, and their description.

use std::sync::Arc;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, StatusCode, header},
    middleware::from_fn_with_state,
    response::{IntoResponse, Response},
};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api, changes, context::Context, guard::guard, looks, probes, problem::ApiError,
    settings::Config,
};

/// The API in its own words.
#[derive(OpenApi)]
#[openapi(info(
    title = "Flipgate admin API",
    description = "Flip services between blue and green, and see who is where. Errors are problem \
                   documents (RFC 9457)."
))]
struct Description;

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
        .routes(routes!(looks::status))
        .routes(routes!(changes::promote))
        .routes(routes!(changes::rollback))
        .routes(routes!(looks::drain))
        .routes(routes!(changes::set_pool))
        .routes(routes!(changes::reload))
        .routes(routes!(looks::events))
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
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

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, content_type = "application/json")))]
async fn openapi_json() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], openapi()).into_response()
}
