//! What the calls work with, and the picture that most of them answer with.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flipgate_api::wire::Status;

use super::{Api, problem::ApiError, settings::AdminSettings};
use crate::{
    control::ChangeOutcome,
    model::{Color, ServiceName},
    store::StoreHealth,
};

#[derive(Clone)]
pub(super) struct Context {
    pub(super) api: Api,
    pub(super) config: Arc<AdminSettings>,
}

/// Services up to which the response to a change shows all of them.
const SHOWN_MAX: usize = 100;

/// The picture of now, or the one after a change. That one has the generation that the change led to, whatever
/// else has come since; and with many services, only those that the change named, so that a flip of one of
/// them does not wait for a picture of all.
pub(super) async fn picture(
    context: &Context,
    after: Option<(ChangeOutcome, Vec<ServiceName>)>,
) -> Result<Response, ApiError> {
    let control = context.api.control.clone();
    // What shows few services takes less time than to ask another thread for it.
    let pools = control.applied().pools.len();
    let is_short = match &after {
        None => pools <= SHOWN_MAX,
        // A change that names none is for the services of the last promotion, however many those are.
        Some((_, named)) => pools <= SHOWN_MAX || (1..=SHOWN_MAX).contains(&named.len()),
    };
    let draw = move || {
        let status = match after {
            None => Status::from(control.picture()),
            Some((done, mut named)) => {
                let ChangeOutcome { generation, is_repeated: replayed, applied, .. } = done;
                if named.is_empty() {
                    named.clone_from(&applied.state.promotion.services);
                }
                let partial = applied.pools.len() > SHOWN_MAX;
                let status = Status::from(match partial {
                    true => control.picture_of_some(&applied, &named),
                    false => control.picture_of(&applied),
                });
                Status { generation: generation.0, partial, replayed, ..status }
            }
        };
        let StoreHealth { read_only, refused: write_refused, waiting: _ } = control.condition();
        let status = Status { read_only, write_refused, ..status };
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
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        let title = "Internal Server Error";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", title, error.to_string())
    })
}

pub(super) fn parse_color(text: &str) -> Result<Color, ApiError> {
    text.parse().map_err(|error: crate::model::ParseColorError| {
        let title = "There is no such color";
        ApiError::new(StatusCode::NOT_FOUND, "unknown-color", title, error.to_string())
    })
}
