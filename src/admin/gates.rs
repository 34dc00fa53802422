//! The calls of gates: run them, and approve a version.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use flipgate_api::wire::{
    ApproveRequest, GateRequest, GateStatus, GateVerdict, Problem, ProblemReason, Status,
};
use serde_json::json;

use super::{
    changes::{PendingCall, parsed},
    conditions::Conditions,
    context::{Context, parse_color},
    problem::ApiError,
};
use crate::{
    control::{Actor, Change, ChangeRequest},
    model::{Color, ServiceName, Version},
    release::{GateReport, GateResult, ReleaseError, Verdict},
};

/// Run the gates of a service, as a promotion would, and change nothing.
#[utoipa::path(post, path = "/v1/services/{service}/gate", request_body = GateRequest,
    params(("service" = String, Path)),
    responses(
        (status = 200, body = GateStatus, description = "the verdicts"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service or color"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "a promotion is not possible, whatever the gates say: the color has no endpoints, for example"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "the color is active already"),
    ))]
pub(super) async fn gate(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Json<GateStatus>, ApiError> {
    let GateRequest { color } = parsed(&body)?;
    let (service, color) = candidate(&context, path, color.as_deref())?;
    let change = Change::Promote(BTreeMap::from([(service.clone(), color)]));
    let call = ChangeRequest { actor: Some(actor), ..ChangeRequest::unconditional(change) };
    let report = context.api.release.check(&service, color, call).await?;
    Ok(Json(report.into()))
}

/// Approve a pool at the version that it has. A change of the pool voids the approval.
#[utoipa::path(post, path = "/v1/services/{service}/approve", request_body = ApproveRequest,
    params(
        ("service" = String, Path),
        ("If-Match" = Option<String>, Header, description = "the generation that the approval was decided on, as an ETag"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status after the approval"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service or color"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "the pool has another version or no endpoints, or the service has no approval gate"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "the color is active, or the version is malformed"),
    ))]
pub(super) async fn approve(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    path: Result<Path<String>, PathRejection>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ApproveRequest { color, version, reason } = parsed(&body)?;
    let (service, color) = candidate(&context, path, color.as_deref())?;
    let request = json!({"service": service.as_str(), "color": color.as_str(), "version": version});
    let parsed = version.as_ref().map(|it| it.parse::<Version>()).transpose();
    let version = parsed.map_err(|error| {
        let (service, code) = (Some(service.to_string()), "version".to_owned());
        ApiError::unprocessable(vec![ProblemReason { service, code, detail: error.to_owned() }])
    })?;
    let words = ("approve", request, String::new());
    let change = Change::Approve { service, color, version };
    let call = PendingCall { reason, ..PendingCall::new(change, words) };
    call.make(&context, conditions, actor).await
}

/// The service of a path with the color of a body, by default the one that is not active.
fn candidate(
    context: &Context,
    path: Result<Path<String>, PathRejection>,
    color: Option<&str>,
) -> Result<(ServiceName, Color), ApiError> {
    let Path(name) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = name.parse::<ServiceName>().map_err(|_| ApiError::no_service(&name))?;
    let applied = context.api.control.applied();
    let pools = applied.pools.get(&service).ok_or_else(|| ApiError::no_service(&name))?;
    let color = color.map(parse_color).transpose()?;
    Ok((service, color.unwrap_or_else(|| pools.active.other())))
}

impl From<ReleaseError> for ApiError {
    fn from(error: ReleaseError) -> Self {
        let detail = error.to_string();
        match error {
            ReleaseError::Change(error) => error.into(),
            ReleaseError::Gates(reports) => {
                let reasons = reports.iter().flat_map(reasons).collect();
                let gates = reports.into_iter().map(Into::into).collect();
                Self::new(StatusCode::CONFLICT, "refused-by-gate", "Conflict", detail)
                    .with_reasons(reasons)
                    .with_gates(gates)
            }
        }
    }
}

fn reasons(report: &GateReport) -> Vec<ProblemReason> {
    let of_verdict = |it: &Verdict| {
        let code = format!("gate_{}", it.gate);
        let service = Some(report.service.to_string());
        let reason = |detail: &String| ProblemReason {
            service: service.clone(),
            code: code.clone(),
            detail: detail.clone(),
        };
        it.reasons.iter().map(reason).collect::<Vec<_>>()
    };
    report.refusals().flat_map(of_verdict).collect()
}

impl From<GateReport> for GateStatus {
    fn from(report: GateReport) -> Self {
        let passed = report.has_passed();
        let GateReport { service, color, verdicts, manifests: _ } = report;
        let gates = verdicts.into_iter().map(Into::into).collect();
        Self { service: service.to_string(), color: color.to_string(), passed, gates }
    }
}

impl From<Verdict> for GateVerdict {
    fn from(verdict: Verdict) -> Self {
        let Verdict { gate, result, took, reasons, evidence } = verdict;
        Self {
            gate: gate.to_string(),
            passed: result == GateResult::Passed,
            not_run: result == GateResult::NotRun,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            reasons,
            evidence,
        }
    }
}
