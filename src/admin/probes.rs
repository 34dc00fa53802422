//! Metrics, liveness and readiness.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flipgate_api::wire::Ready;

use super::{
    context::{Context, off_thread},
    problem::ApiError,
};
use crate::{model::Health, store::StoreHealth};

/// The most reasons that are listed one by one.
const REASONS_MAX: usize = 100;

/// How long the control task may work on one change, without the time of the disk.
const STUCK: Duration = Duration::from_secs(10);

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", responses((status = 200, content_type = "text/plain")))]
pub(super) async fn metrics(State(context): State<Context>) -> Result<Response, ApiError> {
    let control = context.api.control.clone();
    let scrape = off_thread(move || control.scrape()).await?;
    let text = HeaderValue::from_static("text/plain; version=0.0.4");
    Ok(([(header::CONTENT_TYPE, text)], scrape).into_response())
}

/// Liveness. 503 only for what a restart repairs: a dead task, or a control task that is stuck while nothing waits for
/// the disk.
#[utoipa::path(get, path = "/healthz", responses(
    (status = 200, body = String),
    (status = 503, body = String, description = "each thing that a restart would repair, one on a line"),
))]
pub(super) async fn healthz(State(context): State<Context>) -> Response {
    let wrong = repaired_by_restart((context.api.gone)(), context.api.control.busy_for());
    match &*wrong {
        [] => "ok\n".into_response(),
        wrong => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", wrong.join("\n"))).into_response()
        }
    }
}

fn repaired_by_restart(gone: Vec<String>, stuck: Option<Duration>) -> Vec<String> {
    let stuck = stuck.filter(|it| *it >= STUCK);
    let stuck = stuck.map(|it| format!("the control loop has been stuck for {} s", it.as_secs()));
    gone.into_iter().chain(stuck).collect()
}

/// Readiness: listening, not stopping, every active pool has a healthy endpoint, and changes can be written.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, body = Ready),
    (status = 503, body = Ready, description = "not now, for these reasons"),
))]
pub(super) async fn readyz(State(context): State<Context>) -> Response {
    let control = &context.api.control;
    let mut reasons = Vec::new();
    if !(context.api.is_serving)() {
        reasons.push("flipgate is starting or stopping".to_owned());
    }
    reasons.extend((context.api.gone)());
    if let Some(why) = control.store_health().read_only {
        reasons.push(format!("the state is read-only until a restart: {why}"));
    }
    let applied = control.applied();
    let mut more = 0;
    for (name, pools) in applied.pools.iter() {
        let color = pools.active;
        let reason = if applied.state.damaged.contains_key(name) {
            format!("the state of {name} is damaged: promote the color that shall be active")
        } else {
            let members = pools.pool(color).endpoints();
            if members.iter().any(|it| it.health() == Health::Up) {
                continue;
            }
            format!("none of the {} endpoints of {name} {color} is up", members.len())
        };
        match reasons.len() < REASONS_MAX {
            true => reasons.push(reason),
            false => more += 1,
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} more services"));
    }
    // Traffic goes on, and so do rollbacks: not a reason to send requests elsewhere.
    let StoreHealth { read_only: _, refused, audit, waiting: _ } = control.store_health();
    let refused = refused.map(|it| format!("changes are refused: {it}"));
    let warnings = refused.into_iter().chain(audit).collect();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, reasons, warnings })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liveness_fails_only_for_failures_that_a_restart_repairs() {
        let seconds = |it| Some(Duration::from_secs(it));
        assert_eq!(repaired_by_restart(Vec::new(), None), Vec::<String>::new());
        assert_eq!(repaired_by_restart(Vec::new(), seconds(9)), Vec::<String>::new());
        let stuck = "the control loop has been stuck for 10 s";
        assert_eq!(repaired_by_restart(Vec::new(), seconds(10)), [stuck]);
        let gone = "the task `control` has died";
        assert_eq!(repaired_by_restart(vec![gone.to_owned()], seconds(10)), [gone, stuck]);
    }
}
