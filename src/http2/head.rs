//! Heads of HTTP/2 as the bytes of an HTTP/1 head, and back.
//!
//! Two rules keep a downgrade from being of use to anybody: what HTTP/2 does not allow in a field is
//! refused here (section 8.2), and what is allowed is read again by the same strict reader as
//! everything else.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};

use super::websocket;
use crate::model::{default_port, is_same_authority};

/// Why a head of HTTP/2 is malformed: section 8.1.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedHead(pub(super) &'static str);

const WEBSOCKET: &str = "websocket";
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What is known of a request beside its head.
#[derive(Debug)]
pub(super) struct RequestMeta {
    /// The key that was made up for a WebSocket, whose handshake needs one in HTTP/1.
    pub(super) key: Option<String>,
    /// Bytes of the longest value of `Cookie`.
    pub(super) cookie_max: usize,
}

/// Puts a request as an HTTP/1 head. `ends` tells whether no body follows.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 does not allow.
pub(super) fn write_http1_request(
    out: &mut Vec<u8>,
    request: &Request<()>,
    ends: bool,
) -> Result<RequestMeta, MalformedHead> {
    let (uri, fields) = (request.uri(), request.headers());
    let protocol = request.extensions().get::<Protocol>();
    let is_websocket = match (request.method(), protocol) {
        (&Method::CONNECT, Some(it)) if it.as_str().eq_ignore_ascii_case(WEBSOCKET) => true,
        (_, Some(_)) => return Err(MalformedHead("the :protocol is not websocket")),
        (_, None) => false,
    };
    if is_websocket && fields.contains_key(CONTENT_LENGTH) {
        return Err(MalformedHead("a WebSocket has no length"));
    }
    let authority = uri.authority().map(Authority::as_str);
    // Without an :authority the library does not tell which one it was; `pseudo` looks at that.
    let is_http = |it: &str| ["http", "https"].iter().any(|known| it.eq_ignore_ascii_case(known));
    if uri.scheme_str().is_some_and(|it| !is_http(it)) {
        return Err(MalformedHead("the :scheme is neither http nor https"));
    }
    let target = match (uri.path_and_query(), authority) {
        (Some(target), _) => target.as_str(),
        // A plain CONNECT is refused where all heads are read.
        (None, Some(authority)) if request.method() == Method::CONNECT => authority,
        _ => return Err(MalformedHead("there is no :path")),
    };
    let is_asterisk = target == "*" && request.method() == Method::OPTIONS;
    if !target.starts_with('/') && !is_asterisk && request.method() != Method::CONNECT {
        return Err(MalformedHead("the :path is no path"));
    }
    let method = if is_websocket { "GET" } else { request.method().as_str() };
    out.reserve(512);
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    if let Some(authority) = authority {
        put(out, b"host", authority.as_bytes());
    }
    let port = default_port(uri.scheme_str().unwrap_or_default().as_bytes());
    let cookie_max = put_fields(out, fields, authority.map(|it| (it, port)))?;
    if is_websocket {
        let key = websocket::new_key();
        put(out, b"upgrade", WEBSOCKET.as_bytes());
        put(out, b"connection", b"upgrade");
        put(out, KEY.as_str().as_bytes(), key.as_bytes());
        out.extend_from_slice(b"\r\n");
        return Ok(RequestMeta { key: Some(key), cookie_max });
    }
    if !ends && !fields.contains_key(CONTENT_LENGTH) {
        put(out, b"transfer-encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");
    Ok(RequestMeta { key: None, cookie_max })
}

/// What stands behind the head of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ResponseFraming {
    /// A body.
    Body,
    /// Nothing, which is all there is.
    Empty,
    /// Nothing, since only the head was asked for.
    Head,
}

/// Puts a response as an HTTP/1 head. `key` is that of the WebSocket which it may open.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 does not allow.
pub(super) fn write_http1_response(
    out: &mut Vec<u8>,
    response: &Response<()>,
    framing: ResponseFraming,
    key: Option<&str>,
) -> Result<(), MalformedHead> {
    let status = response.status();
    let websocket_key = key.filter(|_| status.is_success());
    out.reserve(512);
    out.extend_from_slice(b"HTTP/1.1 ");
    let code = if websocket_key.is_some() { StatusCode::SWITCHING_PROTOCOLS } else { status };
    out.extend_from_slice(code.as_str().as_bytes());
    out.push(b' ');
    // HTTP/2 has no reasons, and some clients of HTTP/1 have no patience without one.
    out.extend_from_slice(code.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let has_accept = websocket_key.is_some() && response.headers().contains_key(ACCEPT);
    match has_accept {
        // It knows no key of ours: what it says is for nobody.
        true => {
            let mut others = response.headers().clone();
            others.remove(ACCEPT);
            put_fields(out, &others, None)?;
        }
        false => drop(put_fields(out, response.headers(), None)?),
    }
    if let Some(key) = websocket_key {
        put(out, b"upgrade", WEBSOCKET.as_bytes());
        put(out, b"connection", b"upgrade");
        put(
            out,
            ACCEPT.as_str().as_bytes(),
            websocket::websocket_accept(key.as_bytes()).as_bytes(),
        );
    } else if !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
        && !response.headers().contains_key(CONTENT_LENGTH)
    {
        match framing {
            ResponseFraming::Body => put(out, b"transfer-encoding", b"chunked"),
            ResponseFraming::Empty => put(out, b"content-length", b"0"),
            ResponseFraming::Head => {}
        }
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Puts trailers as lines.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 does not allow.
pub(super) fn write_http1_trailers(
    out: &mut Vec<u8>,
    trailers: &HeaderMap,
) -> Result<(), MalformedHead> {
    put_fields(out, trailers, None).map(drop)
}

/// The request that a head of our own asks. `is_tls` tells the scheme. The key of the WebSocket that
/// it asks for comes with it, since HTTP/2 has no place for it.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 has no words for.
pub(super) fn to_http2_request(
    head: &[u8],
    is_tls: bool,
) -> Result<(Request<()>, Option<String>), MalformedHead> {
    let unrepresentable = |_| MalformedHead("the head cannot be said in HTTP/2");
    let (first, lines) = split(head);
    let mut parts = first.splitn(3, |it| *it == b' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Err(MalformedHead("there is no request line"));
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method).map_err(|_| unrepresentable(()))?;
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    uri.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| unrepresentable(()))?);
    let (mut key, mut is_websocket) = (None, false);
    let mut fields = HeaderMap::with_capacity(24);
    each_field(&lines, |name, value| {
        match name {
            HOST => {
                let authority = Authority::try_from(value.as_bytes());
                uri.authority = Some(authority.map_err(|_| unrepresentable(()))?);
            }
            UPGRADE => is_websocket = true,
            KEY => key = value.to_str().ok().map(str::to_owned),
            TE if value.as_bytes().eq_ignore_ascii_case(b"trailers") => {
                fields.append(TE, value);
            }
            name if is_for_connection(&name) => {}
            name => drop(fields.append(name, value)),
        }
        Ok(())
    })?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| unrepresentable(()))?;
    *request.headers_mut() = fields;
    if is_websocket {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
        return Ok((request, Some(key.unwrap_or_default())));
    }
    if let Some(key) = key {
        let value = HeaderValue::from_maybe_shared(key).map_err(|_| unrepresentable(()))?;
        request.headers_mut().append(KEY, value);
    }
    Ok((request, None))
}

/// The response that a head of our own gives. One that opens a WebSocket has another code there:
/// RFC 8441, section 5. `key` is what was made up for it.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 has no words for, and for a WebSocket whose server did not
/// understand its key.
pub(super) fn to_http2_response(
    head: &[u8],
    key: Option<&str>,
) -> Result<Response<()>, MalformedHead> {
    let (first, lines) = split(head);
    let code = first.get("HTTP/1.1 ".len()..).and_then(|it| it.get(..3));
    let status = StatusCode::from_bytes(code.unwrap_or_default())
        .map_err(|_| MalformedHead("there is no status line"))?;
    let websocket_key = key.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS);
    let mut response = Response::new(());
    *response.status_mut() = if websocket_key.is_some() { StatusCode::OK } else { status };
    let mut fields = HeaderMap::with_capacity(24);
    let mut accepted = None;
    each_field(&lines, |name, value| {
        match name {
            ACCEPT if websocket_key.is_some() => accepted = Some(value),
            name if is_for_connection(&name) => {}
            name => drop(fields.append(name, value)),
        }
        Ok(())
    })?;
    *response.headers_mut() = fields;
    if let Some(key) = websocket_key
        && accepted.is_none_or(|it| {
            it.as_bytes() != websocket::websocket_accept(key.as_bytes()).as_bytes()
        })
    {
        return Err(MalformedHead("the Sec-WebSocket-Accept does not fit"));
    }
    Ok(response)
}

/// The trailers that lines of our own make.
///
/// # Errors
///
/// [`MalformedHead`] for what HTTP/2 has no words for.
pub(super) fn to_http2_trailers(lines: &[u8]) -> Result<HeaderMap, MalformedHead> {
    let mut fields = HeaderMap::new();
    each_field(&Bytes::copy_from_slice(lines), |name, value| {
        fields.append(name, value);
        Ok(())
    })?;
    Ok(fields)
}

/// Puts fields as lines, but for a `Host` that says what `authority` does, with the default port of its
/// scheme. Crumbs of a cookie become
/// one again: section 8.2.3. Returns how long the longest of them is.
fn put_fields(
    out: &mut Vec<u8>,
    fields: &HeaderMap,
    authority: Option<(&str, u16)>,
) -> Result<usize, MalformedHead> {
    let (mut has_cookie, mut cookie_max) = (false, 0);
    for (name, value) in fields {
        let value = value.as_bytes();
        if is_for_connection(name) && !(name == TE && value.eq_ignore_ascii_case(b"trailers")) {
            return Err(MalformedHead("a field is for connections of HTTP/1"));
        }
        // Section 8.2.1; the library has seen to the other letters.
        let is_space = |it: Option<&u8>| matches!(it, Some(b' ' | b'\t'));
        if is_space(value.first()) || is_space(value.last()) {
            return Err(MalformedHead("a value begins or ends with space"));
        }
        match authority {
            Some((it, port)) if name == HOST => {
                if !is_same_authority(value, it.as_bytes(), port) {
                    return Err(MalformedHead("the :authority and the Host name different hosts"));
                }
                continue;
            }
            _ => {}
        }
        if name == COOKIE {
            has_cookie = true;
            cookie_max = value.len().max(cookie_max);
            continue;
        }
        put(out, name.as_str().as_bytes(), value);
    }
    if has_cookie {
        out.extend_from_slice(b"cookie: ");
        for (index, part) in fields.get_all(COOKIE).iter().enumerate() {
            out.extend_from_slice(if index > 0 { b"; " } else { b"" });
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(cookie_max)
}

/// Section 8.2.2.
fn is_for_connection(name: &HeaderName) -> bool {
    const HEADERS: [HeaderName; 4] = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];
    HEADERS.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The first line, and the others in memory that values can share.
fn split(head: &[u8]) -> (&[u8], Bytes) {
    let end = memchr::memmem::find(head, b"\r\n").unwrap_or(head.len());
    let lines = head.get(end + 2..).unwrap_or_default();
    (&head[..end], Bytes::copy_from_slice(lines))
}

/// Calls `each` with every field of lines that we have written ourselves, or read strictly.
fn each_field(
    lines: &Bytes,
    mut each: impl FnMut(HeaderName, HeaderValue) -> Result<(), MalformedHead>,
) -> Result<(), MalformedHead> {
    let unrepresentable = MalformedHead("a line is no field");
    let mut start = 0;
    while let Some(length) = memchr::memchr(b'\r', &lines[start..]) {
        if length == 0 {
            break;
        }
        let line = &lines[start..start + length];
        let colon = memchr::memchr(b':', line).ok_or(unrepresentable)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| unrepresentable)?;
        let value = line[colon + 1..].trim_ascii();
        let at = start
            + colon
            + 1
            + (line[colon + 1..].len() - line[colon + 1..].trim_ascii_start().len());
        let value = lines.slice(at..at + value.len());
        each(name, HeaderValue::from_maybe_shared(value).map_err(|_| unrepresentable)?)?;
        start += length + 2;
    }
    Ok(())
}
