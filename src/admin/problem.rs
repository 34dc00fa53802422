//! Error responses: problem documents (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use flipgate_api::wire::{GateStatus, GateVerdict, Problem, ProblemReason};

use super::ReloadError;
use crate::{
    audit::{AuditVerdict, VerdictResult},
    control::{ChangeError, RefusalReason},
    store::CommitError,
};

/// An error response of the API.
#[derive(Debug)]
pub(super) struct ApiError(Box<Problem>, Option<Box<AttemptedChange>>);

/// The change that a refused call wanted, for the audit log.
#[derive(Clone, Debug)]
pub(super) struct AttemptedChange {
    /// The action with its services and colors.
    pub(super) action: String,
    /// The reason, in the caller's words.
    pub(super) reason: Option<String>,
}

/// What the audit log needs of an error response.
#[derive(Clone, Debug)]
pub(super) struct RefusedResponse {
    /// The kind of the problem, without its prefix.
    pub(super) code: String,
    /// The verdicts of gates.
    pub(super) verdicts: Vec<AuditVerdict>,
    /// The change, if it was read.
    pub(super) attempted: Option<AttemptedChange>,
}

/// The prefix of the kinds of problems.
const KIND: &str = "urn:flipgate:problem:";

impl ApiError {
    /// A problem of this kind, with what to do about it.
    pub(super) fn new(
        status: StatusCode,
        kind: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> Self {
        let problem = Problem {
            kind: format!("{KIND}{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            reasons: Vec::new(),
            generation: None,
            gates: Vec::new(),
        };
        Self(Box::new(problem), None)
    }

    /// The same with the change that the call wanted.
    pub(super) fn about(self, attempted: AttemptedChange) -> Self {
        Self(self.0, Some(Box::new(attempted)))
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    pub(super) fn with_gates(mut self, gates: Vec<GateStatus>) -> Self {
        self.0.gates = gates;
        self
    }

    pub(super) fn with_reasons(mut self, reasons: Vec<ProblemReason>) -> Self {
        self.0.reasons = reasons;
        self
    }

    /// A malformed call.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "Bad Request", detail)
    }

    /// A call that no state makes possible, for these reasons.
    pub(super) fn unprocessable(reasons: Vec<ProblemReason>) -> Self {
        let title = "Unprocessable Content";
        let detail = sentences(&reasons);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", title, detail)
            .with_reasons(reasons)
    }

    /// A service in a path that is not configured.
    pub(super) fn no_service(name: &str) -> Self {
        let detail =
            format!("service `{name}` is not configured: `flipgate status` lists the services");
        let title = "Not Found";
        Self::new(StatusCode::NOT_FOUND, "unknown-service", title, detail)
    }
}

/// The verdicts of a service, without their reasons.
fn audit_verdicts(gates: &GateStatus) -> Vec<AuditVerdict> {
    let verdict = |it: &GateVerdict| AuditVerdict {
        service: gates.service.clone(),
        gate: it.gate.clone(),
        result: match (it.passed, it.not_run) {
            (true, _) => VerdictResult::Passed,
            (false, true) => VerdictResult::NotRun,
            (false, false) => VerdictResult::Refused,
        },
    };
    gates.gates.iter().map(verdict).collect()
}

fn sentences(reasons: &[ProblemReason]) -> String {
    reasons.iter().map(|it| it.detail.as_str()).collect::<Vec<_>>().join("; ")
}

impl From<RefusalReason> for ProblemReason {
    fn from(reason: RefusalReason) -> Self {
        let detail = reason.to_string();
        let RefusalReason { service, problem } = reason;
        let code = problem.code().to_owned();
        Self { service: service.map(|it| it.to_string()), code, detail }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::Stale { decided_on: _, current } => {
                let title = "Precondition Failed";
                let kind = "stale-generation";
                let mut stale = Self::new(StatusCode::PRECONDITION_FAILED, kind, title, detail);
                stale.0.generation = Some(current.0);
                stale
            }
            ChangeError::Refused(reasons) => {
                let is_callers = reasons.iter().any(|it| it.problem.is_caller_error());
                let reasons: Vec<ProblemReason> = reasons.into_iter().map(Into::into).collect();
                if is_callers {
                    return Self::unprocessable(reasons);
                }
                Self::new(StatusCode::CONFLICT, "refused", "Conflict", detail).with_reasons(reasons)
            }
            ChangeError::KeyReused(_) => {
                let title = "Unprocessable Content";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", title, detail)
            }
            ChangeError::Store(error) => {
                let (status, kind, title) = match error {
                    CommitError::Unknown(_) => {
                        (StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", "Service Unavailable")
                    }
                    CommitError::ReadOnly(_) => {
                        (StatusCode::SERVICE_UNAVAILABLE, "read-only", "Service Unavailable")
                    }
                    CommitError::Stopping => {
                        (StatusCode::SERVICE_UNAVAILABLE, "stopping", "Service Unavailable")
                    }
                    CommitError::Refused(_) | CommitError::Conflict { .. } => {
                        (StatusCode::INTERNAL_SERVER_ERROR, "not-written", "Internal Server Error")
                    }
                };
                Self::new(status, kind, title, detail)
            }
            ChangeError::Stopping => {
                let title = "Service Unavailable";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", title, detail)
            }
        }
    }
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        match error {
            ReloadError::NoFile => Self::new(StatusCode::CONFLICT, "no-file", "Conflict", detail),
            ReloadError::Config(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "configuration",
                "Unprocessable Content",
                detail,
            ),
            ReloadError::NeedsRestart(_) => {
                Self::new(StatusCode::CONFLICT, "needs-restart", "Conflict", detail)
            }
            ReloadError::UnderWay => {
                Self::new(StatusCode::CONFLICT, "reloading", "Conflict", detail)
            }
            ReloadError::TooSlow(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too-slow",
                "Service Unavailable",
                detail,
            ),
            ReloadError::Change(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let Self(problem, attempted) = self;
        let refused = RefusedResponse {
            code: problem.kind.strip_prefix(KIND).unwrap_or(&problem.kind).to_owned(),
            verdicts: problem.gates.iter().flat_map(audit_verdicts).collect(),
            attempted: attempted.map(|it| *it),
        };
        let body = serde_json::to_string(&problem).expect("texts and numbers only");
        let mut response = (status, body).into_response();
        response.extensions_mut().insert(refused);
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
