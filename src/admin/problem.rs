//! From what went wrong to what the caller is told: RFC 9457.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use flipgate_api::wire::{Problem, ProblemReason};

use super::ReloadError;
use crate::{
    control::{ChangeError, RefusalReason},
    store::CommitError,
};

/// An error response of the API: the wire's [`Problem`], with the means to make one and to send it.
#[derive(Debug)]
pub(super) struct ApiError(Problem);

impl ApiError {
    /// A problem of a kind, with what to do about it.
    pub(super) fn new(
        status: StatusCode,
        kind: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Problem {
            kind: format!("urn:flipgate:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            reasons: Vec::new(),
            generation: None,
        })
    }

    fn with_reasons(self, reasons: Vec<ProblemReason>) -> Self {
        Self(Problem { reasons, ..self.0 })
    }

    /// A call that cannot be understood.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The call cannot be understood", detail)
    }

    /// A call about what does not exist, for these reasons.
    pub(super) fn unprocessable(reasons: Vec<ProblemReason>) -> Self {
        let title = "Nothing to be done like this";
        let detail = sentences(&reasons);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", title, detail)
            .with_reasons(reasons)
    }

    /// A service that is not configured, where a path names it.
    pub(super) fn no_service(name: &str) -> Self {
        let detail = format!("service `{name}` is not configured: see GET /v1/status");
        let title = "There is no such service";
        Self::new(StatusCode::NOT_FOUND, "unknown-service", title, detail)
    }
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
                let title = "Decided on an old generation";
                let kind = "stale-generation";
                let Self(problem) = Self::new(StatusCode::PRECONDITION_FAILED, kind, title, detail);
                Self(Problem { generation: Some(current.0), ..problem })
            }
            ChangeError::Refused(reasons) => {
                let is_callers = reasons.iter().any(|it| it.problem.is_callers());
                let reasons: Vec<ProblemReason> = reasons.into_iter().map(Into::into).collect();
                if is_callers {
                    return Self::unprocessable(reasons);
                }
                Self::new(StatusCode::CONFLICT, "refused", "The change was refused", detail)
                    .with_reasons(reasons)
            }
            ChangeError::KeyReused(_) => {
                let title = "The idempotency key was used for another call";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", title, detail)
            }
            ChangeError::Store(error) => {
                let (status, kind, title) = match error {
                    CommitError::Unknown(_) => {
                        (StatusCode::SERVICE_UNAVAILABLE, "outcome-unknown", "Outcome unknown")
                    }
                    CommitError::ReadOnly(_) => {
                        (StatusCode::SERVICE_UNAVAILABLE, "read-only", "The state is read-only")
                    }
                    CommitError::Stopping => {
                        (StatusCode::SERVICE_UNAVAILABLE, "stopping", "Flipgate is stopping")
                    }
                    CommitError::Refused(_) | CommitError::Conflict { .. } => (
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "not-written",
                        "The change could not be written",
                    ),
                };
                Self::new(status, kind, title, detail)
            }
            ChangeError::Stopping => {
                let title = "Flipgate is stopping";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", title, detail)
            }
        }
    }
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        let title = "The configuration was not applied";
        match error {
            ReloadError::NoFile => Self::new(StatusCode::CONFLICT, "no-file", title, detail),
            ReloadError::Config(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "configuration", title, detail)
            }
            ReloadError::NeedsRestart(_) => {
                Self::new(StatusCode::CONFLICT, "needs-restart", title, detail)
            }
            ReloadError::UnderWay => Self::new(StatusCode::CONFLICT, "reloading", title, detail),
            ReloadError::TooSlow(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-slow", title, detail)
            }
            ReloadError::Change(error) => error.into(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&problem).expect("texts and numbers only");
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
