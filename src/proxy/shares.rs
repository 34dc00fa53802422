//! Whether a client belongs to the share of a candidate, which is promoted gradually.
//!
//! A client has to be told apart from others before it can get the candidate, or it would see both versions in turn. So a
//! client without the cookie draws its share only with a response that can set it.

use super::{
    continued::{
        Cacheable, Continued, NewCookies, Sides, SteeredRequest, is_prefetch, only_value,
        put_cookie,
    },
    cookies,
    request_traits::is_grpc,
};
use crate::{
    continuity::{Share, ShareCarrier},
    http1::{FieldLines, FieldName},
    model::{Color, has_content_hash},
    switch::Visit,
};

/// The header and the cookie with the token of those who go first.
const FIRST_HEADER: &str = "flipgate-first";
const FIRST_COOKIE: &[u8] = b"flipgate_first";

/// The length of the value that tells clients apart.
const ID_LENGTH: usize = 16;

/// The longest value of a header that tells clients apart. Longer ones are ignored.
const VALUE_MAX: usize = 256;

/// The color of a request that belongs to no transaction, or begins one.
pub(super) fn choose(
    share: &Share,
    sides: &Sides<impl Fn(Color) -> bool>,
    request: &SteeredRequest<'_>,
    lines: FieldLines<'_>,
) -> Continued {
    // Rather the active version than an error.
    if !(sides.is_up)(share.color) {
        return Continued::ACTIVE;
    }
    if share.has_first && goes_first(share, request, lines) {
        return moved(share.color, request);
    }
    let known = match &share.settings.carrier {
        ShareCarrier::Header(name) => {
            only_value(lines, name).filter(|it| !it.is_empty() && it.len() <= VALUE_MAX)
        }
        ShareCarrier::Cookie if request.own_cookies.exist() => id(lines),
        ShareCarrier::Cookie => None,
    };
    if let Some(client) = known {
        return if share.has(client) { moved(share.color, request) } else { Continued::ACTIVE };
    }
    if share.settings.carrier != ShareCarrier::Cookie || !can_keep_cookie(request, lines) {
        return Continued::ACTIVE;
    }
    let id = format!("{:016x}", fastrand::u64(..));
    let moves = share.has(id.as_bytes());
    let mut cookie = Vec::with_capacity(96);
    let domain = share.settings.domain.as_deref();
    put_cookie(&mut cookie, (Share::COOKIE, &id), domain, request.is_secure);
    // A client that gets the candidate must keep it.
    let cacheable = if moves { Cacheable::Private } else { Cacheable::PrivateIfUnstated };
    let cookies = Some(Box::new(NewCookies { lines: cookie, cacheable }));
    let visit = if moves { Visit::Shared(share.color) } else { Visit::Active };
    Continued { visit, cookies }
}

/// A request of a client that has the candidate. A shared cache must not give the response to the others, unless its name
/// says that no other version has it.
pub(super) fn moved(candidate: Color, request: &SteeredRequest<'_>) -> Continued {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    let cookies = (!has_content_hash(name))
        .then(|| Box::new(NewCookies { lines: Vec::new(), cacheable: Cacheable::Private }));
    Continued { visit: Visit::Shared(candidate), cookies }
}

/// The value of the cookie. Of several, the first one: a client sends them in the same order each time.
fn id(lines: FieldLines<'_>) -> Option<&[u8]> {
    let is_id = |it: &&[u8]| {
        it.len() == ID_LENGTH && it.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let values = |line| cookies::values(line, Share::COOKIE.as_bytes());
    lines.all(FieldName::Cookie).flat_map(values).find(is_id)
}

/// Whether the client is internal, or has the token.
pub(super) fn goes_first(
    share: &Share,
    request: &SteeredRequest<'_>,
    lines: FieldLines<'_>,
) -> bool {
    request.is_internal
        || only_value(lines, FIRST_HEADER).is_some_and(|it| share.is_token(it))
        || lines
            .all(FieldName::Cookie)
            .flat_map(|line| cookies::values(line, FIRST_COOKIE))
            .any(|it| share.is_token(it))
}

/// Whether the response can set a cookie that the client uses for all that belongs together: for a page or a call, and not
/// for a part of a page, nor for what is loaded ahead, a WebSocket or gRPC.
fn can_keep_cookie(request: &SteeredRequest<'_>, lines: FieldLines<'_>) -> bool {
    let is_whole = match lines.first(FieldName::FetchDest) {
        None | Some(b"document" | b"iframe" | b"frame" | b"empty" | b"") => true,
        Some(_) => false,
    };
    // A browser sends the cookie with no request of another site but a navigation by GET (SameSite=Lax), and keeps none that a
    // response to a frame or a script of another site sets. A new cookie would replace the one that the client has.
    let is_known = only_value(lines, "sec-fetch-site") != Some(b"cross-site")
        || lines.first(FieldName::FetchDest) == Some(b"document")
            && matches!(request.head.method(request.bytes), b"GET" | b"HEAD");
    is_whole
        && is_known
        && !request.is_signal
        && !lines.all(FieldName::Purpose).any(is_prefetch)
        && !request.head.requests_websocket
        && !is_grpc(lines)
}
