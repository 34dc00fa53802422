//! Refused calls, for the audit log. Allowed calls are recorded with their change.

use axum::{
    http::{Method, StatusCode},
    response::Response,
};

use super::problem::{AttemptedChange, RefusedResponse};
use crate::{
    audit::AuditResult,
    control::{Actor, RefusedCall},
};

/// The longest part of a path in an action, in characters.
const NAME_CHARS_MAX: usize = 80;

/// The action of a call that would change something, by its method and path; `None` for all other calls.
pub(super) fn action_of(method: &Method, path: &str) -> Option<String> {
    let parts: Vec<String> = path
        .strip_prefix("/v1/")?
        .split('/')
        .map(|it| it.chars().take(NAME_CHARS_MAX).collect())
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match (method, &*parts) {
        (&Method::POST, [verb @ ("promote" | "rollback" | "confirm" | "reload")]) => {
            Some((*verb).to_owned())
        }
        (&Method::POST, ["services", service, "approve"]) => Some(format!("approve {service}")),
        (&Method::POST, ["services", service, "watch", "stop"]) => {
            Some(format!("watch stop {service}"))
        }
        (&Method::POST, ["services", service, verb @ ("hold" | "release" | "maintenance")]) => {
            Some(format!("{verb} {service}"))
        }
        (&Method::DELETE, ["services", service, "maintenance"]) => {
            Some(format!("maintenance end {service}"))
        }
        (&Method::POST, ["services", service, "drain"]) => Some(format!("end streams {service}")),
        (&Method::PUT, ["services", service, "pools", color]) => {
            Some(format!("set pool {service}.{color}"))
        }
        _ => None,
    }
}

/// The refusal that a response tells of; `None` if the call was allowed. `action` is used if the change was not read.
pub(super) fn refused(action: String, actor: Actor, response: &Response) -> Option<RefusedCall> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let told = response.extensions().get::<RefusedResponse>().cloned();
    let (code, verdicts, attempted) = match told {
        Some(RefusedResponse { code, verdicts, attempted }) => (code, verdicts, attempted),
        None => {
            let reason = status.canonical_reason().unwrap_or_default();
            (reason.to_lowercase().replace(' ', "-"), Vec::new(), None)
        }
    };
    let is_unknown = status == StatusCode::SERVICE_UNAVAILABLE && code == "outcome-unknown";
    let result = match is_unknown {
        true => AuditResult::Unknown,
        false => AuditResult::Refused { status: Some(status.as_u16()), code },
    };
    let (action, reason) = match attempted {
        Some(AttemptedChange { action, reason }) => (action, reason),
        None => (action, None),
    };
    let actor = Some(actor);
    Some(RefusedCall { actor, action, reason, result, verdicts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_change_something_have_an_action_and_no_others() {
        let of = |method: Method, path: &str| action_of(&method, path);
        for (method, path, expected) in [
            (Method::POST, "/v1/promote", Some("promote")),
            (Method::POST, "/v1/reload", Some("reload")),
            (Method::POST, "/v1/services/web/approve", Some("approve web")),
            (Method::POST, "/v1/services/web/watch/stop", Some("watch stop web")),
            (Method::PUT, "/v1/services/web/pools/green", Some("set pool web.green")),
            (Method::POST, "/v1/services/web/drain", Some("end streams web")),
            (Method::POST, "/v1/services/web/hold", Some("hold web")),
            (Method::POST, "/v1/services/web/maintenance", Some("maintenance web")),
            (Method::DELETE, "/v1/services/web/maintenance", Some("maintenance end web")),
            (Method::DELETE, "/v1/services/web/hold", None),
            (Method::GET, "/v1/services/web/drain", None),
            (Method::GET, "/v1/promote", None),
            (Method::POST, "/v1/services/web/gate", None),
            (Method::POST, "/v1/promote/x", None),
            (Method::POST, "/promote", None),
        ] {
            assert_eq!(of(method, path).as_deref(), expected, "{path}");
        }
        let long = format!("/v1/services/{}/approve", "x".repeat(1000));
        assert_eq!(of(Method::POST, &long).map(|it| it.len()), Some("approve ".len() + 80));
    }
}
