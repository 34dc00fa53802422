//! Authentication and authorization of calls.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::warn;

use super::{
    audited::{action_of, refused},
    connections::AdminConnection,
    context::Context,
    problem::ApiError,
    settings::{AdminSettings, Scope, Token},
    strict_stream::REJECTED,
};
use crate::{control::Actor, model::Host, proxy::is_marked};

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum AdminPeer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A program on this machine that may open the socket.
    Unix {
        /// Its user; `None` if the system does not say.
        uid: Option<u32>,
    },
}

/// The largest body of a call: a pool of 1000 endpoints fits.
const BODY_BYTES_MAX: usize = 256 * 1024;

/// The largest body of a call with a page: JSON escapes some characters.
const PAGE_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;

/// The timeout of a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two log lines about refused calls.
const REFUSALS: Duration = Duration::from_secs(1);

/// The name of a caller without a token.
const LOCAL: &str = "local";

/// Lets a call pass if its host, origin and token allow it. Refused calls are recorded, without delaying their reply.
/// Dropping the future cancels a call before its commit, and then nothing is recorded.
///
/// # Errors
///
/// A problem document; nothing was done then.
pub(super) async fn guard(
    State(Context { api, config }): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let mut request = request;
    let action = action_of(request.method(), request.uri().path());
    let caller = request.extensions().get::<Arc<AdminConnection>>().cloned();
    let (actor, is_known, response) = match check(&config, &request, caller.as_deref()) {
        Ok((actor, scope)) => {
            request.extensions_mut().insert(actor.clone());
            request.extensions_mut().insert(scope);
            (actor, true, called(request, caller.as_ref(), next).await)
        }
        Err(problem) => {
            log_refusal(&request, &problem);
            let peer = request.extensions().get::<AdminPeer>();
            let text = token(request.headers()).ok().flatten();
            let known = text.and_then(|it| known_token(&config, it));
            let actor = match known {
                Some(token) => actor_of(&token.name, peer, true),
                None => actor_of(LOCAL, peer, false),
            };
            (actor, known.is_some(), problem.into_response())
        }
    };
    if let Some(refused) = action.and_then(|it| refused(it, actor, &response)) {
        api.control.record_refusal(refused, is_known);
    }
    response
}

/// The response to a call that `check` has let pass.
async fn called(request: Request, caller: Option<&Arc<AdminConnection>>, next: Next) -> Response {
    match read_body(request, caller.map(|it| &**it)).await {
        Ok(request) => {
            let _at_work = caller.map(AdminConnection::work);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The caller of this name from this peer.
fn actor_of(name: &str, peer: Option<&AdminPeer>, is_authenticated: bool) -> Actor {
    let uid = match peer {
        Some(AdminPeer::Unix { uid }) => *uid,
        Some(AdminPeer::Tcp(_)) | None => None,
    };
    Actor { name: name.to_owned(), address: address(peer), uid, is_authenticated }
}

/// The token with this text.
fn known_token<'a>(config: &'a AdminSettings, text: &str) -> Option<&'a Token> {
    config.tokens.iter().find(|it| it.secret.is(text))
}

/// Reads the body of a request, within limits of size and time.
async fn read_body(
    request: Request,
    caller: Option<&AdminConnection>,
) -> Result<Request, ApiError> {
    let (head, body) = request.into_parts();
    let most = match head.uri.path().ends_with("/maintenance") {
        true => PAGE_BYTES_MAX,
        false => BODY_BYTES_MAX,
    };
    let reading = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, most)).await;
    match reading {
        Ok(Ok(body)) => Ok(Request::from_parts(head, Body::from(body))),
        Ok(Err(_)) if caller.is_some_and(|it| it.rejected().is_some()) => {
            Err(ApiError::malformed("the body is not framed as HTTP says"))
        }
        Ok(Err(_)) => {
            let detail = format!("a body has at most {most} bytes and comes whole");
            Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "Content Too Large",
                detail,
            ))
        }
        Err(_elapsed) => {
            let detail = format!("the body did not come within {BODY_TIMEOUT:?}");
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "Request Timeout", detail))
        }
    }
}

fn check(
    config: &AdminSettings,
    request: &Request,
    caller: Option<&AdminConnection>,
) -> Result<(Actor, Scope), ApiError> {
    if request.uri().path() == REJECTED {
        let why = caller.and_then(AdminConnection::rejected);
        return Err(ApiError::malformed(why.as_deref().unwrap_or("there is no such path")));
    }
    check_host(config, request)?;
    check_type(request)?;
    let peer = request.extensions().get::<AdminPeer>();
    let needed = scope_for(request.method(), request.uri().path());
    let local = || Ok((actor_of(LOCAL, peer, false), Scope::Admin));
    let Some(needed) = needed else { return local() };
    let token = token(request.headers())?;
    check_forwarded(request.headers(), token.is_some())?;
    match token {
        Some(text) => {
            let token = known_token(config, text);
            let token = token.ok_or_else(|| unauthorized("unknown token"))?;
            if let Some(caller) = caller {
                caller.authorize();
            }
            if !token.scope.allows(needed) {
                let title = "Forbidden";
                let detail = format!(
                    "token `{}` has the scope `{}`; this call needs the scope `{needed}`",
                    token.name, token.scope
                );
                return Err(ApiError::new(StatusCode::FORBIDDEN, "scope", title, detail));
            }
            Ok((actor_of(&token.name, peer, true), token.scope))
        }
        None if config.require_token => Err(unauthorized(
            "every call needs a token (admin.require_token): send `Authorization: Bearer TOKEN`",
        )),
        None if peer.is_some_and(AdminPeer::is_local) => local(),
        None => Err(unauthorized(
            "calls from other machines need a token: send `Authorization: Bearer TOKEN`",
        )),
    }
}

/// Logs a call that was refused for its token, host or origin, at most once a second.
fn log_refusal(request: &Request, problem: &ApiError) {
    static LIMITER: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    if !matches!(problem.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return;
    }
    let now = Instant::now();
    let suppressed = {
        let mut last = LIMITER.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((at, suppressed)) if now.duration_since(*at) < REFUSALS => {
                *suppressed += 1;
                return;
            }
            last => last.replace((now, 0)).map_or(0, |it| it.1),
        }
    };
    let from = address(request.extensions().get());
    let path: String = request.uri().path().chars().take(200).collect();
    warn!(from, method = %request.method(), path, suppressed, "admin call refused: {}", problem.detail());
}

fn address(peer: Option<&AdminPeer>) -> String {
    match peer {
        Some(AdminPeer::Tcp(address)) => address.to_string(),
        Some(AdminPeer::Unix { .. }) => "unix".to_owned(),
        None => String::new(),
    }
}

/// Cross-site request forgery: a form on another site, or a server that can be made to call any address, can send an
/// empty POST or some content types, but not JSON without a preflight (Fetch standard, section 2.2.2).
fn check_type(request: &Request) -> Result<(), ApiError> {
    if !matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH) {
        return Ok(());
    }
    let mut types = request.headers().get_all(header::CONTENT_TYPE).iter();
    let essence = |it: &HeaderValue| {
        let text = it.to_str().unwrap_or_default();
        text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    };
    match (types.next().map(essence).as_deref(), types.next()) {
        (Some("application/json"), None) => Ok(()),
        _ => {
            let detail =
                "send `Content-Type: application/json`; without anything to say, the body `{}`";
            let title = "Unsupported Media Type";
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type", title, detail))
        }
    }
}

/// A forwarded request is not a call of this machine, whatever its address says. A request that Flipgate itself has
/// forwarded comes from a public client.
fn check_forwarded(headers: &HeaderMap, has_token: bool) -> Result<(), ApiError> {
    let refuse = |name: &str, what: &str| {
        let detail = format!("the request has `{name}`: {what}");
        Err(ApiError::new(StatusCode::FORBIDDEN, "forwarded", "Forbidden", detail))
    };
    for (name, value) in headers {
        let name = name.as_str();
        let value = value.as_bytes();
        let is_own = matches!(name, "via" | "cdn-loop")
            && (is_marked(value) || value.windows(8).any(|it| it == b"flipgate"));
        if is_own || name.starts_with("flipgate-") {
            return refuse(
                name,
                "Flipgate forwarded it, and the admin API must not be an endpoint",
            );
        }
        let has_proxy_header =
            matches!(name, "forwarded" | "via" | "cdn-loop") || name.starts_with("x-forwarded-");
        if has_proxy_header && !has_token {
            return refuse(name, "a request that a proxy forwards needs a token");
        }
    }
    Ok(())
}

/// DNS rebinding: a page on another site can make a browser call any address, also by a name of its own that it points
/// here. So the host must be an address, which no name can imitate, or a configured name, and a call of a browser must
/// come from a page of this API.
fn check_host(config: &AdminSettings, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let refuse =
        |detail: String| Err(ApiError::new(StatusCode::FORBIDDEN, "host", "Forbidden", detail));
    let mut hosts = headers.get_all(header::HOST).iter();
    // The host of the target counts, if it has one: RFC 9112, section 3.2.2.
    let of_target = request.uri().authority().map(|it| Ok(it.as_str()));
    let of_field = hosts.next().map(|it| it.to_str());
    let (Some(Ok(text)), None) = (of_target.or(of_field), hosts.next()) else {
        return Err(ApiError::malformed("exactly one Host is needed"));
    };
    let Ok(host) = Host::parse(text) else {
        return Err(ApiError::malformed("the Host is not a name or an address"));
    };
    let name = host.as_str();
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    if !is_address && name != "localhost" && !config.hosts.iter().any(|it| it == name) {
        return refuse(format!("`{name}` is not a host of this API; add it to admin.hosts"));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let site = origin.split_once("://").map_or("", |(_, site)| site);
        if !site.eq_ignore_ascii_case(text) {
            return refuse(format!("a page of `{origin}` may not call this API"));
        }
    }
    Ok(())
}

/// The scope that a call needs; `None` for public calls.
fn scope_for(method: &Method, path: &str) -> Option<Scope> {
    match (method, path) {
        (&Method::GET | &Method::HEAD, "/healthz" | "/readyz") => None,
        (&Method::GET | &Method::HEAD, _) => Some(Scope::Read),
        (&Method::POST, "/v1/promote" | "/v1/rollback" | "/v1/confirm" | "/v1/rollouts") => {
            Some(Scope::Promote)
        }
        (&Method::POST, path) if path.ends_with("/approve") => Some(Scope::Approve),
        (&Method::POST, path) if path.starts_with("/v1/rollouts/") => Some(Scope::Promote),
        (&Method::POST, path)
            if ["/gate", "/watch/stop", "/drain", "/hold", "/release", "/maintenance"]
                .iter()
                .any(|it| path.ends_with(it)) =>
        {
            Some(Scope::Promote)
        }
        (&Method::PUT, _) => Some(Scope::Promote),
        (&Method::DELETE, path) if path.ends_with("/maintenance") => Some(Scope::Promote),
        _ => Some(Scope::Admin),
    }
}

fn token(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    match scheme.eq_ignore_ascii_case("bearer") {
        true => Ok(Some(token.trim())),
        false => Err(unauthorized("only `Authorization: Bearer TOKEN` is understood")),
    }
}

fn unauthorized(detail: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail)
}

// === impl AdminPeer ===

impl AdminPeer {
    fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix { .. } => true,
        }
    }
}
