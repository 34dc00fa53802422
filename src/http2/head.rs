//! Converts heads between HTTP/2 and the bytes of HTTP/1.
//!
//! Two rules prevent request smuggling by the conversion: fields that HTTP/2 does not allow are rejected here (section
//! 8.2), and allowed ones are then parsed by the same strict parser as HTTP/1 heads.

use bytes::Bytes;
use h2::ext::Protocol;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};

use super::websocket;
use crate::model::{default_port, is_same_authority};

/// Why an HTTP/2 head is malformed (section 8.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedHead(pub(super) &'static str);

const WEBSOCKET: &str = "websocket";
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Properties of a request that its HTTP/1 head does not have.
#[derive(Debug)]
pub(super) struct RequestMeta {
    /// The generated key of a WebSocket, which its HTTP/1 handshake needs.
    pub(super) key: Option<String>,
    /// Bytes of the longest `Cookie` field.
    pub(super) cookie_max: usize,
}

/// Appends a request as an HTTP/1 head. `ends` means that no body follows.
///
/// # Errors
///
/// [`MalformedHead`] if HTTP/2 does not allow it.
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
        return Err(MalformedHead("a WebSocket request must not have a Content-Length"));
    }
    let authority = uri.authority().map(Authority::as_str);
    // Without an :authority, h2 does not expose the :scheme; `pseudo` checks that case.
    let is_http = |it: &str| ["http", "https"].iter().any(|known| it.eq_ignore_ascii_case(known));
    if uri.scheme_str().is_some_and(|it| !is_http(it)) {
        return Err(MalformedHead("the :scheme is neither http nor https"));
    }
    let target = match (uri.path_and_query(), authority) {
        (Some(target), _) => target.as_str(),
        // The HTTP/1 parser rejects a plain CONNECT.
        (None, Some(authority)) if request.method() == Method::CONNECT => authority,
        _ => return Err(MalformedHead("the :path is missing")),
    };
    let is_asterisk = target == "*" && request.method() == Method::OPTIONS;
    if !target.starts_with('/') && !is_asterisk && request.method() != Method::CONNECT {
        return Err(MalformedHead("the :path is not a path"));
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

/// What follows the head of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ResponseFraming {
    /// A body.
    Body,
    /// Nothing: the body is empty.
    Empty,
    /// Nothing: the request was HEAD.
    Head,
}

/// Appends a response as an HTTP/1 head. `key` is that of the WebSocket that it may accept.
///
/// # Errors
///
/// [`MalformedHead`] if HTTP/2 does not allow it.
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
    // HTTP/2 has no reason phrases, and some HTTP/1 clients require one.
    out.extend_from_slice(code.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let has_accept = websocket_key.is_some() && response.headers().contains_key(ACCEPT);
    match has_accept {
        // The upstream cannot know the generated key, so its accept value is dropped.
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

/// Appends trailers as field lines.
///
/// # Errors
///
/// [`MalformedHead`] if HTTP/2 does not allow them.
pub(super) fn write_http1_trailers(
    out: &mut Vec<u8>,
    trailers: &HeaderMap,
) -> Result<(), MalformedHead> {
    put_fields(out, trailers, None).map(drop)
}

/// The HTTP/2 request for an HTTP/1 head that Flipgate has written. `is_tls` determines the scheme. For a WebSocket,
/// also returns the key, which HTTP/2 cannot carry.
///
/// # Errors
///
/// [`MalformedHead`] if HTTP/2 cannot represent it.
pub(super) fn to_http2_request(
    head: &[u8],
    is_tls: bool,
) -> Result<(Request<()>, Option<String>), MalformedHead> {
    let unrepresentable = |_| MalformedHead("the head cannot be represented in HTTP/2");
    let (first, lines) = split(head);
    let mut parts = first.splitn(3, |it| *it == b' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Err(MalformedHead("the request line is missing"));
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

/// The HTTP/2 response for an HTTP/1 head that Flipgate has written. One that accepts a WebSocket gets status 200 (RFC
/// 8441, section 5). `key` is the generated key.
///
/// # Errors
///
/// [`MalformedHead`] if HTTP/2 cannot represent it, or if a WebSocket's accept value does not match the key.
pub(super) fn to_http2_response(
    head: &[u8],
    key: Option<&str>,
) -> Result<Response<()>, MalformedHead> {
    let (first, lines) = split(head);
    let code = first.get("HTTP/1.1 ".len()..).and_then(|it| it.get(..3));
    let status = StatusCode::from_bytes(code.unwrap_or_default())
        .map_err(|_| MalformedHead("the status line is missing"))?;
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
        return Err(MalformedHead("the Sec-WebSocket-Accept does not match the key"));
    }
    Ok(response)
}

/// The HTTP/2 trailers for field lines that Flipgate has written.
///
/// # Errors
///
/// [`MalformedHead`] if HTTP/2 cannot represent them.
pub(super) fn to_http2_trailers(lines: &[u8]) -> Result<HeaderMap, MalformedHead> {
    let mut fields = HeaderMap::new();
    each_field(&Bytes::copy_from_slice(lines), |name, value| {
        fields.append(name, value);
        Ok(())
    })?;
    Ok(fields)
}

/// Appends fields as lines, without a `Host` that equals `authority` (with the default port of its scheme). Several
/// `Cookie` fields are joined into one (section 8.2.3). Returns the length of the longest of them.
fn put_fields(
    out: &mut Vec<u8>,
    fields: &HeaderMap,
    authority: Option<(&str, u16)>,
) -> Result<usize, MalformedHead> {
    let (mut has_cookie, mut cookie_max) = (false, 0);
    for (name, value) in fields {
        let value = value.as_bytes();
        if is_for_connection(name) && !(name == TE && value.eq_ignore_ascii_case(b"trailers")) {
            return Err(MalformedHead("a connection-specific field is not allowed in HTTP/2"));
        }
        // Section 8.2.1; h2 checks the other characters.
        let is_space = |it: Option<&u8>| matches!(it, Some(b' ' | b'\t'));
        if is_space(value.first()) || is_space(value.last()) {
            return Err(MalformedHead("a field value begins or ends with whitespace"));
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

/// Connection-specific fields (section 8.2.2).
fn is_for_connection(name: &HeaderName) -> bool {
    const HEADERS: [HeaderName; 4] = [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];
    HEADERS.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

fn put(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The start line, and the other lines in memory that field values can share.
fn split(head: &[u8]) -> (&[u8], Bytes) {
    let end = memchr::memmem::find(head, b"\r\n").unwrap_or(head.len());
    let lines = head.get(end + 2..).unwrap_or_default();
    (&head[..end], Bytes::copy_from_slice(lines))
}

/// Calls `each` with every field of lines that Flipgate has written or strictly parsed.
fn each_field(
    lines: &Bytes,
    mut each: impl FnMut(HeaderName, HeaderValue) -> Result<(), MalformedHead>,
) -> Result<(), MalformedHead> {
    let unrepresentable = MalformedHead("a line is not a field");
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
