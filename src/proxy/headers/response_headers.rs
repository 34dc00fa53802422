//! Rewrites the response head of an upstream for the client.

use memchr::memmem;

use super::cache_control::put_private;
use crate::{
    downstream::{DATE_LENGTH, Peer},
    http1::{FieldLines, FieldName, Framing, HttpVersion, ResponseHead, put_field, put_number},
    model::{Color, Generation, VersionId},
    proxy::peer_cache::PeerCache,
};

/// The headers of Flipgate on a response.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::proxy) struct FlipgateHeaders {
    /// The color and generation, for clients that may know them.
    pub(in crate::proxy) origin: Option<(Color, Generation)>,
    /// The active color, if it could not be connected and `origin` is the color before. Only with `origin`.
    pub(in crate::proxy) rescued_from: Option<Color>,
    /// The color that an asset comes from, if the color that the client gets does not have it. Only with `origin`.
    pub(in crate::proxy) asset_from: Option<Color>,
    /// Whether the response says that an asset is missing: no cache may store that.
    pub(in crate::proxy) is_missing: bool,
    /// Whether no cache may store the response, and it is for this client only.
    pub(in crate::proxy) is_private: bool,
    /// Whether the request's transaction is pinned to the color of `origin`. Only with that.
    pub(in crate::proxy) is_pinned: bool,
    /// The id of the version, if the service tells it on every response.
    pub(in crate::proxy) version: Option<VersionId>,
}

/// The cookies of Flipgate on a response.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct CookieLines<'a> {
    /// The header lines.
    pub(in crate::proxy) lines: &'a [u8],
    /// Whether the response is made private for it.
    pub(in crate::proxy) makes_private: bool,
}

/// What the rewriting depends on besides the head.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ResponseRewrite<'a> {
    /// The client's version.
    pub(in crate::proxy) version: HttpVersion,
    /// The framing of the body for the client.
    pub(in crate::proxy) framing: Framing,
    /// Whether the connection stays open.
    pub(in crate::proxy) goes_on: bool,
    /// Whether the connection becomes a WebSocket.
    pub(in crate::proxy) is_websocket: bool,
    pub(in crate::proxy) headers: FlipgateHeaders,
    /// What keeps the client on a version.
    pub(in crate::proxy) cookies: Option<CookieLines<'a>>,
    /// `Strict-Transport-Security`, for a response over TLS that has none.
    pub(in crate::proxy) hsts: Option<&'a str>,
    /// The `Via` line.
    pub(in crate::proxy) via: Option<&'static [u8]>,
    /// The `Date`, for a response that has none.
    pub(in crate::proxy) date: [u8; DATE_LENGTH],
}

/// The value of `Strict-Transport-Security` for a client over TLS: RFC 6797, section 7.2.
pub(in crate::proxy) fn hsts(peer: &Peer<PeerCache>) -> Option<&str> {
    peer.listener().hsts.as_deref().filter(|_| peer.tls().is_some())
}

/// The most bytes that are added.
const ADDED: usize = 256;

/// Writes the head of a final response, or of a `101`.
pub(in crate::proxy) fn put_answer(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    bytes: &[u8],
    answer: &ResponseRewrite<'_>,
) {
    let ResponseRewrite {
        version,
        framing,
        goes_on,
        is_websocket,
        headers,
        cookies,
        hsts,
        via,
        date,
    } = answer;
    out.reserve(head.len + ADDED);
    put_status_line(out, *version, head, bytes);
    let makes_private = cookies.is_some_and(|it| it.makes_private);
    let is_stored = !(headers.is_private || headers.is_missing || makes_private);
    put_kept(out, head.fields.lines(bytes), !is_stored);
    put_framing(out, head, *framing);
    if !head.has_date && !is_websocket {
        // RFC 9110, section 6.6.1.
        out.extend_from_slice(b"Date: ");
        out.extend_from_slice(date);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(via) = via {
        out.extend_from_slice(via);
    }
    put_marks(out, headers);
    if let Some(cookies) = cookies {
        if makes_private {
            put_private(out, head.fields.lines(bytes));
        }
        out.extend_from_slice(cookies.lines);
    }
    if let Some(hsts) = hsts
        && !head.fields.lines(bytes).has(FieldName::StrictTransport)
    {
        put_field(out, b"Strict-Transport-Security", hsts.as_bytes());
    }
    out.extend_from_slice(match (is_websocket, goes_on, version) {
        (true, _, _) => b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        (false, true, HttpVersion::Http11) => b"\r\n",
        (false, true, HttpVersion::Http10) => b"Connection: keep-alive\r\n\r\n",
        (false, false, _) => b"Connection: close\r\n\r\n",
    });
}

/// Writes the head of an interim response: RFC 9110, section 15.2.
pub(in crate::proxy) fn put_interim(out: &mut Vec<u8>, head: &ResponseHead, bytes: &[u8]) {
    put_status_line(out, HttpVersion::Http11, head, bytes);
    put_kept(out, head.fields.lines(bytes), false);
    out.extend_from_slice(b"\r\n");
}

/// Writes the headers of Flipgate.
pub(in crate::proxy) fn put_marks(out: &mut Vec<u8>, headers: &FlipgateHeaders) {
    if headers.is_private {
        out.extend_from_slice(b"Cache-Control: private, no-store\r\n");
    } else if headers.is_missing {
        out.extend_from_slice(b"Cache-Control: no-store\r\n");
    }
    if let Some((color, generation)) = headers.origin {
        put_field(out, b"Flipgate-Color", color.as_str().as_bytes());
        out.extend_from_slice(b"Flipgate-Generation: ");
        put_number(out, generation.0);
        out.extend_from_slice(b"\r\n");
        if let Some(color) = headers.rescued_from {
            put_field(out, b"Flipgate-Rescued-From", color.as_str().as_bytes());
        }
        if let Some(color) = headers.asset_from {
            put_field(out, b"Flipgate-Asset-From", color.as_str().as_bytes());
        }
        if headers.is_pinned {
            put_field(out, b"Flipgate-Pinned", color.as_str().as_bytes());
        }
    }
    if let Some(version) = headers.version {
        put_field(out, b"Flipgate-Version", version.as_bytes());
        // Scripts can read this field of the response that their page came with, and no other one.
        out.extend_from_slice(b"Server-Timing: flipgate;desc=\"");
        out.extend_from_slice(version.as_bytes());
        out.extend_from_slice(b"\"\r\n");
    }
}

/// Writes what a complete response of Flipgate says of its connection.
pub(in crate::proxy) fn put_connection(out: &mut Vec<u8>, version: HttpVersion, keeps_alive: bool) {
    match (keeps_alive, version) {
        (false, _) => put_field(out, b"Connection", b"close"),
        (true, HttpVersion::Http10) => put_field(out, b"Connection", b"keep-alive"),
        (true, HttpVersion::Http11) => {}
    }
}

fn put_status_line(out: &mut Vec<u8>, version: HttpVersion, head: &ResponseHead, bytes: &[u8]) {
    let code_and_reason = head.code_and_reason(bytes);
    out.extend_from_slice(version.as_bytes());
    out.push(b' ');
    out.extend_from_slice(code_and_reason);
    if code_and_reason.len() == "200".len() {
        // The space is written without a reason phrase, too: RFC 9112, section 4.
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\n");
}

/// Copies the lines that stay as they are.
fn put_kept(out: &mut Vec<u8>, lines: FieldLines<'_>, is_private: bool) {
    let has_list = lines.has(FieldName::Connection);
    lines.put_filtered(out, |name, line| match name {
        FieldName::ContentLength => false,
        name if name.is_flipgates() => false,
        FieldName::CacheControl if is_private => false,
        // Only local replies may claim to be of Flipgate.
        FieldName::ProxyStatus => {
            memmem::find(&line.value().to_ascii_lowercase(), b"flipgate").is_none()
        }
        name if name.is_hop_by_hop() => false,
        _ => !has_list || !lines.connection_lists(line.name()),
    });
}

fn put_framing(out: &mut Vec<u8>, head: &ResponseHead, framing: Framing) {
    let length = match framing {
        Framing::Exact(length) => Some(length),
        // The length that a GET would have; but never with these two statuses: RFC 9110, section 8.6.
        Framing::None if !matches!(head.status, 100..=199 | 204) => head.declared_length(),
        Framing::None | Framing::Chunked | Framing::UntilClose => None,
    };
    if let Some(length) = length {
        out.extend_from_slice(b"Content-Length: ");
        put_number(out, length);
        out.extend_from_slice(b"\r\n");
    }
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples::{self, values};

    fn answer(framing: Framing) -> ResponseRewrite<'static> {
        ResponseRewrite {
            version: HttpVersion::Http11,
            framing,
            goes_on: true,
            is_websocket: false,
            headers: FlipgateHeaders::default(),
            cookies: None,
            hsts: None,
            via: None,
            date: *b"Sun, 06 Nov 1994 08:49:37 GMT",
        }
    }

    fn rewritten(fields: &[(&str, &str)], answer: &ResponseRewrite<'_>) -> Vec<(String, String)> {
        let (head, bytes) = samples::response(fields);
        let mut out = Vec::new();
        put_answer(&mut out, &head, &bytes, answer);
        let end = memchr::memchr(b'\n', &out).expect("a status line") + 1;
        let version = String::from_utf8_lossy(answer.version.as_bytes()).into_owned();
        assert_eq!(String::from_utf8_lossy(&out[..end]), format!("{version} 200 OK\r\n"));
        samples::read(&out[end..])
    }

    #[test]
    fn a_response_loses_hop_by_hop_fields_and_fields_of_flipgate() {
        let forwarded = rewritten(
            &[
                ("connection", "close, x-hop, date"),
                ("x-hop", "1"),
                ("transfer-encoding", "chunked"),
                ("flipgate-color", "green"),
                ("set-cookie", "a=b"),
                ("set-cookie", "c=d"),
                ("trailer", "x-sum"),
                ("proxy-status", "FlipGate; error=dns_error"),
                ("x_kept", "1"),
            ],
            &answer(Framing::Chunked),
        );
        assert_eq!(values(&forwarded, "set-cookie"), ["a=b", "c=d"]);
        let names: Vec<_> = forwarded.iter().map(|it| &*it.0).collect();
        let expected =
            ["set-cookie", "set-cookie", "trailer", "x_kept", "transfer-encoding", "date"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_length_beside_a_coding_and_a_status_that_is_not_theirs_are_dropped() {
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        for framing in [Framing::Chunked, Framing::UntilClose, Framing::None] {
            assert!(values(&rewritten(&both, &answer(framing)), "content-length").is_empty());
        }
        let forwarded = rewritten(
            &[("content-length", "5"), ("proxy-status", "other; error=x")],
            &answer(Framing::Exact(5)),
        );
        assert_eq!(values(&forwarded, "content-length"), ["5"]);
        assert_eq!(values(&forwarded, "proxy-status"), ["other; error=x"]);
    }

    #[test]
    fn the_date_is_the_upstreams_where_it_has_one() {
        let forwarded = rewritten(&[("date", "yesterday")], &answer(Framing::Chunked));
        assert_eq!(values(&forwarded, "date"), ["yesterday"]);
        let forwarded = rewritten(&[], &answer(Framing::Chunked));
        assert_eq!(values(&forwarded, "date"), ["Sun, 06 Nov 1994 08:49:37 GMT"]);
    }

    #[test]
    fn an_http_1_0_client_gets_explicit_connection_headers() {
        let old = ResponseRewrite { version: HttpVersion::Http10, ..answer(Framing::Exact(5)) };
        let fields = [("content-length", "5")];
        assert_eq!(values(&rewritten(&fields, &old), "connection"), ["keep-alive"]);
        let last = ResponseRewrite { goes_on: false, ..old };
        assert_eq!(values(&rewritten(&fields, &last), "connection"), ["close"]);
        assert!(values(&rewritten(&fields, &answer(Framing::Exact(5))), "connection").is_empty());
    }

    #[test]
    fn no_cache_may_keep_a_preview() {
        let private = FlipgateHeaders { is_private: true, ..FlipgateHeaders::default() };
        let forwarded = rewritten(
            &[
                ("cache-control", "public, max-age=3600"),
                ("cache-control", "immutable"),
                ("cdn-cache-control", "max-age=60"),
                ("fastly-cdn-cache-control", "max-age=60"),
                ("surrogate-control", "max-age=60"),
                ("edge-control", "max-age=60"),
                ("x-accel-expires", "600"),
                ("expires", "Thu, 01 Dec 2094 16:00:00 GMT"),
            ],
            &ResponseRewrite { headers: private, ..answer(Framing::None) },
        );
        let names: Vec<_> = forwarded.iter().map(|it| &*it.0).collect();
        assert_eq!(names, ["date", "cache-control"]);
        assert_eq!(values(&forwarded, "cache-control"), ["private, no-store"]);
    }

    #[test]
    fn flipgate_headers_have_color_and_generation() {
        let headers = FlipgateHeaders {
            origin: Some((Color::Green, Generation(7))),
            ..FlipgateHeaders::default()
        };
        let forwarded = rewritten(&[], &ResponseRewrite { headers, ..answer(Framing::None) });
        assert_eq!(values(&forwarded, "flipgate-color"), ["green"]);
        assert_eq!(values(&forwarded, "flipgate-generation"), ["7"]);
    }
}
