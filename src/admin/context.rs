//! What the calls share, and the status that most of them respond with.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flipgate_api::wire::Status;

use super::{
    Api,
    problem::ApiError,
    settings::{AdminSettings, Scope},
};
use crate::{
    control::ChangeOutcome,
    model::{Color, ServiceName},
    release::{Release, ShareProgress, WatchProgress},
    store::StoreHealth,
};

#[derive(Clone)]
pub(super) struct Context {
    pub(super) api: Api,
    pub(super) config: Arc<AdminSettings>,
}

impl Context {
    /// The configured service with this name.
    pub(super) fn service(&self, name: &str) -> Result<ServiceName, ApiError> {
        let service = name.parse::<ServiceName>().ok();
        let is_known = |it: &ServiceName| self.api.control.catalog().services().contains_key(it);
        service.filter(is_known).ok_or_else(|| ApiError::no_service(name))
    }
}

/// The most services that the response to a change shows if it names none.
const SHOWN_MAX: usize = 100;

/// Responds with the current status, or the status after a change. The latter has the generation that the change led
/// to. With many services, it shows only those of the change, so that the flip of one does not wait for a snapshot of
/// all. A caller with this scope sees it.
pub(super) async fn status_response(
    context: &Context,
    scope: Scope,
    after: Option<(ChangeOutcome, Vec<ServiceName>)>,
) -> Result<Response, ApiError> {
    let (control, release) = (context.api.control.clone(), context.api.release.clone());
    // For few services, another thread would cost more time.
    let pools = control.applied().pools.len();
    let is_short = match &after {
        None => pools <= SHOWN_MAX,
        // A change without names is for the services of the last promotion, however many those are.
        Some((_, named)) => pools <= SHOWN_MAX || (1..=SHOWN_MAX).contains(&named.len()),
    };
    let draw = move || {
        let status = match after {
            None => Status::from(control.snapshot()),
            Some((done, mut named)) => {
                let ChangeOutcome { generation, is_replayed: replayed, applied, .. } = done;
                if named.is_empty() {
                    named.clone_from(&applied.state.promotion.services);
                }
                let partial = applied.pools.len() > SHOWN_MAX;
                let status = Status::from(match partial {
                    true => control.snapshot_of_services(&applied, &named),
                    false => control.snapshot_of(&applied),
                });
                Status { generation: generation.0, partial, replayed, ..status }
            }
        };
        let StoreHealth { read_only, refused: write_refused, audit, waiting: _ } =
            control.store_health();
        let mut status = Status { read_only, write_refused, audit_refused: audit, ..status };
        add_progress(&mut status, &release);
        if !scope.allows(Scope::Promote) {
            hide_tokens(&mut status);
        }
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

/// Removes the tokens that let their holders go to a candidate.
fn hide_tokens(status: &mut Status) {
    for share in status.services.values_mut().filter_map(|it| it.share.as_mut()) {
        share.first_token = None;
    }
}

/// Adds how the watches in progress stand.
fn add_progress(status: &mut Status, release: &Release) {
    for (name, service) in &mut status.services {
        let name = name.parse().ok();
        let progress = name.as_ref().and_then(|it| release.share_progress(it));
        if let (Some(share), Some(progress)) = (&mut service.share, progress) {
            let ShareProgress { watch, waiting } = progress;
            share.errors = (watch.share * 10_000.0).round() / 100.0;
            (share.failures, share.requests) = (watch.failures, watch.requests);
            share.waiting = waiting;
        }
        let Some(watch) = &mut service.watch else { continue };
        let progress = name.and_then(|it| release.watch_progress(&it));
        if let Some(WatchProgress { failures, requests, share, rescue }) = progress {
            watch.errors = (share * 10_000.0).round() / 100.0;
            (watch.failures, watch.requests, watch.rescue) = (failures, requests, rescue);
        }
    }
}

/// Runs work that takes time in proportion to the number of services on a blocking thread.
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
