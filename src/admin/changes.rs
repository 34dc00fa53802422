//! The calls that change something.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Bytes,
    extract::{Extension, Path, State, rejection::PathRejection},
    http::{HeaderValue, StatusCode},
    response::Response,
};
use flipgate_api::wire::{
    EndpointRequest, PoolRequest, Problem, ProblemReason, PromoteRequest, RollbackRequest, Status,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    conditions::Conditions,
    context::{Context, off_thread, parse_color, status_response},
    durations::{ABOVE_ZERO, parse_duration},
    fingerprint::idempotency,
    problem::{ApiError, AttemptedChange},
    settings::Scope,
    shares::share_steps,
};
use crate::{
    control::{Actor, Change, ChangeRequest, PromotionTerms, ShareSteps},
    model::{Color, PoolSpec, ServiceName, Version, WeightedEndpoint},
    upstream::invalid_socket,
};

/// The longest reason, in bytes. It is kept with its event.
const REASON_BYTES_MAX: usize = 1024;

/// Make colors active, all in one step or none of them.
///
/// After the response, no new request reaches a replaced color.
#[utoipa::path(post, path = "/v1/promote", request_body = PromoteRequest, params(
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
), responses(
    (status = 200, body = Status, description = "the status after the promotion"),
    (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed"),
    (status = 403, body = Problem, content_type = "application/problem+json", description = "`force` needs the scope `admin`"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "refused, by a gate or for another reason, with every reason and verdict; nothing changed"),
    (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation, also if another change was applied while the gates ran; nothing changed"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "unknown service or color, active already, or `force` without a reason"),
    (status = 428, body = Problem, content_type = "application/problem+json", description = "If-Match is required here"),
))]
pub(super) async fn promote(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    Extension(scope): Extension<Scope>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let PromoteRequest { services, force, reason, confirm_within, steps, step_for, first } =
        parsed(&body)?;
    check_force(force, scope, Some(reason.as_deref()))?;
    let mut reasons = Vec::new();
    let mut colors = BTreeMap::new();
    for (name, color) in services {
        match (name.parse::<ServiceName>(), color.parse::<Color>()) {
            (Ok(name), Ok(color)) => drop(colors.insert(name, color)),
            (Err(error), _) => reasons.push(reason_of(&name, "unknown_service", &error)),
            (_, Err(error)) => reasons.push(reason_of(&name, "unknown_color", &error)),
        }
    }
    if !reasons.is_empty() {
        return Err(ApiError::unprocessable(reasons));
    }
    let texts: BTreeMap<_, _> =
        colors.iter().map(|(name, color)| (name.to_string(), color.to_string())).collect();
    let range = ABOVE_ZERO..=CONFIRM_WITHIN_MAX;
    let shown = "longer than 0 and of at most 24 hours";
    let within = confirm_within.as_deref();
    let within = within.map(|it| parse_duration("confirm_within", it, range, shown)).transpose()?;
    let request = json!({
        "services": texts, "force": force, "confirm_within": confirm_within,
        "steps": steps, "step_for": step_for, "first": first,
    });
    let steps = share_steps(&steps, step_for.as_deref(), first)?;
    if steps.is_some() && within.is_some() {
        return Err(ApiError::malformed(
            "`steps` and `confirm_within` exclude each other: a gradual promotion is taken back by its watch, or with a rollback",
        ));
    }
    let words = ("promote", request, format!("{colors:?}"));
    let (change, confirm_within) = (Change::Promote(colors), within);
    let call = PendingCall { change, words, reason, force, confirm_within, steps };
    call.make(&context, conditions, actor).await
}

/// Make the colors active that were active before the last promotion, all in one step or none of them.
#[utoipa::path(post, path = "/v1/rollback", request_body = RollbackRequest, params(
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
), responses(
    (status = 200, body = Status, description = "the status after the rollback"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "refused, with every reason; nothing changed"),
    (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation; nothing changed"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "unknown service"),
))]
pub(super) async fn rollback(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    Extension(scope): Extension<Scope>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let RollbackRequest { services, force, reason } = parsed(&body)?;
    check_force(force, scope, Some(reason.as_deref()))?;
    let names = parsed_names(services)?;
    let texts: Vec<_> = names.iter().map(ToString::to_string).collect();
    let request = json!({"services": texts, "force": force});
    let words = ("rollback", request, format!("{names:?} {force}"));
    let change = Change::Rollback { services: names, force };
    PendingCall { reason, force, ..PendingCall::new(change, words) }
        .make(&context, conditions, actor)
        .await
}

/// Set the version and the endpoints of a pool. Requests in flight on endpoints that leave it are completed.
#[utoipa::path(put, path = "/v1/services/{service}/pools/{color}", request_body = PoolRequest,
    params(
    ("service" = String, Path), ("color" = String, Path, description = "blue or green"),
    ("If-Match" = Option<String>, Header, description = "the generation that the change was decided on, as an ETag"),
    ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible characters: a second call with the same key changes nothing"),
    ),
    responses(
        (status = 200, body = Status, description = "the status after the change"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "no such service or color"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "the color is active, and there is no force"),
        (status = 412, body = Problem, content_type = "application/problem+json", description = "decided on an old generation"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "invalid endpoints or version"),
    ))]
pub(super) async fn set_pool(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
    Extension(scope): Extension<Scope>,
    path: Result<Path<(String, String)>, PathRejection>,
    conditions: Conditions,
    body: Bytes,
) -> Result<Response, ApiError> {
    let Path((name, color)) = path.map_err(|error| ApiError::malformed(error.body_text()))?;
    let service = context.service(&name)?;
    let color = parse_color(&color)?;
    let request: PoolRequest = parsed(&body)?;
    let pool = serde_json::to_value(&request).expect("texts and numbers only");
    let PoolRequest { version, endpoints, force } = request;
    check_force(force, scope, None)?;
    let spec = pool_spec(&name, version, &endpoints).map_err(ApiError::unprocessable)?;
    let (control, endpoints) = (context.api.control.clone(), spec.endpoints.clone());
    // A file system may be slow.
    let wrong = off_thread(move || {
        let own = control.own_addresses();
        endpoints.iter().filter_map(|it| invalid_socket(&it.endpoint, own)).collect::<Vec<_>>()
    });
    let wrong = wrong.await?;
    if !wrong.is_empty() {
        let reason = |it: &String| reason_of(&name, "endpoint", it);
        return Err(ApiError::unprocessable(wrong.iter().map(reason).collect()));
    }
    let request = json!({"service": service.to_string(), "color": color.to_string(), "pool": pool});
    let words = ("pool", request, format!("{service} {color} {spec:?} {force}"));
    let change = Change::SetPool { service, color, spec, force };
    PendingCall { force, ..PendingCall::new(change, words) }.make(&context, conditions, actor).await
}

/// The pool of a request, or all reasons why it is none.
pub(super) fn pool_spec(
    service: &str,
    version: Option<String>,
    endpoints: &[EndpointRequest],
) -> Result<PoolSpec, Vec<ProblemReason>> {
    let mut reasons = Vec::new();
    let mut members = Vec::new();
    for endpoint in endpoints {
        match WeightedEndpoint::try_from(endpoint) {
            Ok(endpoint) => members.push(endpoint),
            Err(error) => reasons.push(reason_of(service, "endpoint", &error)),
        }
    }
    let version = match version.map(|it| Version::parse_new(&it)).transpose() {
        Ok(version) => version,
        Err(error) => {
            reasons.push(reason_of(service, "version", &error));
            None
        }
    };
    let spec = PoolSpec::new(version, members);
    if let Err(error) = &spec {
        reasons.push(reason_of(service, "endpoints", error));
    }
    match (spec, reasons.is_empty()) {
        (Ok(spec), true) => Ok(spec),
        _ => Err(reasons),
    }
}

/// Refuses a reason that is too long.
pub(super) fn checked_reason(reason: Option<&str>) -> Result<(), ApiError> {
    match reason.is_some_and(|it| it.len() > REASON_BYTES_MAX) {
        true => {
            let detail = format!("the reason is longer than {REASON_BYTES_MAX} bytes");
            Err(ApiError::malformed(detail))
        }
        false => Ok(()),
    }
}

/// Read the configuration again and apply it, all of it or nothing.
#[utoipa::path(post, path = "/v1/reload", responses(
    (status = 200, body = Status, description = "the status after the reload"),
    (status = 409, body = Problem, content_type = "application/problem+json", description = "a changed key needs a restart"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "mistakes in the file; nothing changed"),
))]
pub(super) async fn reload(
    State(context): State<Context>,
    Extension(actor): Extension<Actor>,
) -> Result<Response, ApiError> {
    (context.api.reload)(actor).await?;
    status_response(&context, Scope::Admin, None).await
}

/// `force` overrides safety checks: it needs the scope `admin`, and a reason if the call has one.
pub(super) fn check_force(
    force: bool,
    scope: Scope,
    reason: Option<Option<&str>>,
) -> Result<(), ApiError> {
    if !force {
        return Ok(());
    }
    if !scope.allows(Scope::Admin) {
        let detail = format!("`force` needs the scope `admin`; this token has the scope `{scope}`");
        return Err(ApiError::new(StatusCode::FORBIDDEN, "scope", "Forbidden", detail));
    }
    match reason {
        Some(reason) if reason.is_none_or(|it| it.trim().is_empty()) => {
            let detail =
                "`force` skips the gates and needs a `reason`, which the log and the events show";
            let (code, detail) = ("reason_required".to_owned(), detail.to_owned());
            Err(ApiError::unprocessable(vec![ProblemReason { service: None, code, detail }]))
        }
        _ => Ok(()),
    }
}

/// The longest time for a confirmation.
pub(super) const CONFIRM_WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);

/// A change that a caller asks for.
pub(super) struct PendingCall<'a> {
    pub(super) change: Change,
    /// Verb and request for the fingerprint of an idempotency key, and the request as older versions fingerprinted it.
    pub(super) words: (&'a str, Value, String),
    pub(super) reason: Option<String>,
    /// Whether gates are skipped.
    pub(super) force: bool,
    /// The promotion is taken back unless it is confirmed within this time.
    pub(super) confirm_within: Option<Duration>,
    /// The promotion is made in these steps.
    pub(super) steps: Option<ShareSteps>,
}

impl<'a> PendingCall<'a> {
    /// A call without a reason and without terms of a promotion.
    pub(super) fn new(change: Change, words: (&'a str, Value, String)) -> Self {
        Self { change, words, reason: None, force: false, confirm_within: None, steps: None }
    }

    /// Makes the change, and responds with the status. Dropping the future while gates run cancels the
    /// promotion.
    pub(super) async fn make(
        self,
        context: &Context,
        conditions: Conditions,
        actor: Actor,
    ) -> Result<Response, ApiError> {
        let Self { change, words, reason, force, confirm_within, steps } = self;
        checked_reason(reason.as_deref())?;
        let Conditions { if_generation, key } = conditions;
        let idempotency = key.map(|key| {
            let (verb, request, before) = words;
            idempotency(key, verb, request, &before)
        });
        let scope = match change {
            Change::Approve { .. } => Scope::Approve,
            _ => Scope::Promote,
        };
        let named = named(&change);
        let attempted = AttemptedChange { action: change.action(), reason: reason.clone() };
        let actor = Some(actor);
        let terms = PromotionTerms { confirm_within, steps, ..PromotionTerms::default() };
        let call = ChangeRequest {
            change,
            if_generation,
            idempotency,
            reason,
            actor,
            terms,
            rollout: None,
        };
        let made = match call.change {
            Change::Promote(_) | Change::Rollback { .. } => {
                context.api.release.make(call, force).await.map_err(ApiError::from)
            }
            Change::SetPool { .. }
            | Change::Approve { .. }
            | Change::Confirm(_)
            | Change::EndWatch { .. }
            | Change::GiveUpConfirmation { .. }
            | Change::RaiseShare { .. }
            | Change::TakeBackShare { .. }
            | Change::RotatePinKeys { .. }
            | Change::Intake { .. }
            | Change::Rollout(_)
            | Change::Reconfigure(_) => {
                context.api.control.propose(call).await.map_err(ApiError::from)
            }
        };
        let done = made.map_err(|it| it.about(attempted))?;
        let is_repeated = done.is_replayed;
        let mut response = status_response(context, scope, Some((done, named))).await?;
        if is_repeated {
            let repeated = HeaderValue::from_static("true");
            response.headers_mut().insert("idempotent-replayed", repeated);
        }
        Ok(response)
    }
}

/// The services of a change; none for those of the last promotion.
fn named(change: &Change) -> Vec<ServiceName> {
    match change {
        Change::Promote(colors) => colors.keys().cloned().collect(),
        Change::Rollback { services, .. }
        | Change::RaiseShare { services, .. }
        | Change::TakeBackShare { services, .. } => services.clone(),
        Change::Confirm(services) => services.clone(),
        Change::SetPool { service, .. }
        | Change::Approve { service, .. }
        | Change::EndWatch { service, .. }
        | Change::GiveUpConfirmation { service, .. }
        | Change::Intake { service, .. } => vec![service.clone()],
        Change::RotatePinKeys { .. } | Change::Rollout(_) | Change::Reconfigure(_) => Vec::new(),
    }
}

/// The names of services.
pub(super) fn parsed_names(services: Vec<String>) -> Result<Vec<ServiceName>, ApiError> {
    let (mut names, mut reasons) = (Vec::new(), Vec::new());
    for name in services {
        match name.parse::<ServiceName>() {
            Ok(name) => names.push(name),
            Err(error) => reasons.push(reason_of(&name, "unknown_service", &error)),
        }
    }
    if reasons.is_empty() { Ok(names) } else { Err(ApiError::unprocessable(reasons)) }
}

/// Parses the body. `guard` has checked its content type.
pub(super) fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::malformed(format!("invalid body: {error}")))
}

fn reason_of(service: &str, code: &str, error: &dyn std::fmt::Display) -> ProblemReason {
    let service: String = service.chars().take(80).collect();
    ProblemReason { detail: error.to_string(), service: Some(service), code: code.to_owned() }
}
