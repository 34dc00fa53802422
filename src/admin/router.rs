//! The routes, and their OpenAPI description.

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
    Api, auth::guard, changes, context::Context, gates, intake, pins, probes, problem::ApiError,
    reads, rollouts, settings::AdminSettings, streams, watches,
};

/// The OpenAPI description.
#[derive(OpenApi)]
#[openapi(info(
    title = "Flipgate admin API",
    description = "Flip services between blue and green, and see who is where. Errors are problem \
                   documents (RFC 9457)."
))]
struct Description;

/// The OpenAPI description, as JSON.
///
/// # Panics
///
/// Never: the description is of types of this program.
#[must_use]
pub fn openapi() -> String {
    let (_, mut description) = described().split_for_parts();
    describe_refusals(&mut description);
    description.to_pretty_json().expect("texts and numbers only")
}

/// The errors that `guard` responds with, for any call.
const REFUSALS: [(&str, &str, bool); 7] = [
    ("400", "malformed", false),
    ("401", "a token is needed, or not known", false),
    (
        "403",
        "called under a foreign name, passed on by a proxy, or beyond the token's scope",
        false,
    ),
    ("408", "the body did not come in time", true),
    ("413", "the body is too large", true),
    ("415", "the content type is not `application/json`", true),
    (
        "503",
        "as many calls wait for something as may, the state cannot be written, or Flipgate is stopping",
        false,
    ),
];

/// Adds the responses that any call can have.
fn describe_refusals(description: &mut utoipa::openapi::OpenApi) {
    use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
    for item in description.paths.paths.values_mut() {
        let reads = [&mut item.get, &mut item.delete].into_iter();
        let reads = reads.flatten().map(|it| (it, false));
        let writes = [&mut item.post, &mut item.put].into_iter().flatten().map(|it| (it, true));
        for (operation, has_body) in reads.chain(writes) {
            for (status, what, of_body) in REFUSALS {
                if of_body && !has_body {
                    continue;
                }
                let problem = RefOr::Ref(Ref::from_schema_name("Problem"));
                let content = ContentBuilder::new().schema(Some(problem)).build();
                let response = ResponseBuilder::new().description(what);
                let response = response.content("application/problem+json", content).build();
                let known = &mut operation.responses.responses;
                known.entry(status.to_owned()).or_insert(response.into());
            }
        }
    }
}

fn described() -> OpenApiRouter<Context> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(reads::status))
        .routes(routes!(changes::promote))
        .routes(routes!(changes::rollback))
        .routes(routes!(reads::drain, streams::end_streams))
        .routes(routes!(changes::set_pool))
        .routes(routes!(gates::gate))
        .routes(routes!(gates::approve))
        .routes(routes!(watches::confirm))
        .routes(routes!(watches::stop_watch))
        .routes(routes!(pins::rotate))
        .routes(routes!(intake::hold))
        .routes(routes!(intake::release))
        .routes(routes!(intake::maintenance, intake::end_maintenance))
        .routes(routes!(rollouts::begin, rollouts::list))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::cancel))
        .routes(routes!(rollouts::approve))
        .routes(routes!(rollouts::confirm))
        .routes(routes!(rollouts::retry))
        .routes(routes!(changes::reload))
        .routes(routes!(reads::events))
        .routes(routes!(probes::metrics))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(openapi_json))
}

pub(super) fn router(api: Api, config: Arc<AdminSettings>) -> Router {
    let context = Context { api, config };
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
        .layer(from_fn_with_state(context.clone(), guard))
        .with_state(context)
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", responses((status = 200, content_type = "application/json")))]
async fn openapi_json() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], openapi()).into_response()
}
