//! The responses of the version signal, as bytes.

use bytes::Bytes;
use http::StatusCode;

use super::script::{HASH, SCRIPT};
use crate::{
    downstream::{ClientConnection, DATE_LENGTH},
    http1::{HttpVersion, members, put_field, put_number},
    model::{VersionId, VersionSignal},
    proxy::{
        headers::{FlipgateHeaders, hsts, put_connection, put_marks},
        peer_cache::PeerCache,
    },
};

/// A complete response.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    content_type: &'static str,
    cache_control: &'static str,
    /// Whether it has the entity tag of the script.
    has_tag: bool,
    pub(super) content: Bytes,
}

/// What the head of a response depends on besides the response.
pub(super) struct AnswerContext<'a> {
    version: HttpVersion,
    keeps_alive: bool,
    headers: FlipgateHeaders,
    hsts: Option<&'a str>,
    date: [u8; DATE_LENGTH],
}

// === impl Answer ===

impl Answer {
    /// The id of the version.
    pub(super) fn version(signal: &VersionSignal, version: VersionId) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            cache_control: "no-store",
            has_tag: false,
            content: format!("{}\n", message(signal, version)).into(),
        }
    }

    /// The script, or that the client has it already.
    pub(super) fn script(is_known: bool) -> Self {
        let (status, content) = match is_known {
            true => (StatusCode::NOT_MODIFIED, Bytes::new()),
            false => (StatusCode::OK, Bytes::from_static(&SCRIPT)),
        };
        Self {
            status,
            content_type: "text/javascript; charset=utf-8",
            cache_control: "public, max-age=3600",
            has_tag: true,
            content,
        }
    }

    /// The head of the event stream, as a response without content.
    pub(super) fn events() -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/event-stream",
            cache_control: "no-store, no-transform",
            has_tag: false,
            content: Bytes::new(),
        }
    }

    /// Neither GET nor HEAD.
    pub(super) fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            content_type: "text/plain; charset=utf-8",
            cache_control: "no-store",
            has_tag: false,
            content: Bytes::from_static(b"405 Method Not Allowed: use GET or HEAD\n"),
        }
    }

    /// Writes the head. `framing` is the line that says how the end of the content is found.
    pub(super) fn put_head(&self, out: &mut Vec<u8>, context: &AnswerContext<'_>, framing: &[u8]) {
        let Self { status, content_type, cache_control, has_tag, content: _ } = self;
        let AnswerContext { version, keeps_alive, headers, hsts, date } = context;
        out.extend_from_slice(version.as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
        out.extend_from_slice(b"\r\n");
        put_field(out, b"Content-Type", content_type.as_bytes());
        put_field(out, b"X-Content-Type-Options", b"nosniff");
        match *status {
            StatusCode::METHOD_NOT_ALLOWED => {
                put_field(out, b"Allow", b"GET, HEAD");
                put_field(out, b"Proxy-Status", b"flipgate; error=http_request_denied");
            }
            _ => put_field(out, b"Proxy-Status", b"flipgate"),
        }
        if !headers.is_private {
            put_field(out, b"Cache-Control", cache_control.as_bytes());
        }
        if *has_tag {
            put_field(out, b"ETag", tag().as_bytes());
        }
        put_marks(out, headers);
        if let Some(hsts) = hsts {
            put_field(out, b"Strict-Transport-Security", hsts.as_bytes());
        }
        put_field(out, b"Date", date);
        out.extend_from_slice(framing);
        put_connection(out, *version, *keeps_alive);
        out.extend_from_slice(b"\r\n");
    }

    /// The line with the length of the content. None for a 304, which has no content (RFC 9110, section 15.4.5).
    pub(super) fn length(&self) -> Vec<u8> {
        let mut line = Vec::new();
        if self.status != StatusCode::NOT_MODIFIED {
            line.extend_from_slice(b"Content-Length: ");
            put_number(&mut line, self.content.len() as u64);
            line.extend_from_slice(b"\r\n");
        }
        line
    }
}

// === impl AnswerContext ===

impl<'a> AnswerContext<'a> {
    pub(super) fn new(
        version: HttpVersion,
        keeps_alive: bool,
        headers: FlipgateHeaders,
        connection: &'a ClientConnection<PeerCache>,
    ) -> Self {
        let (hsts, date) = (hsts(connection.peer()), connection.date());
        Self { version, keeps_alive, headers, hsts, date }
    }
}

/// The content of the version resource and of an event, without a line end.
pub(super) fn message(signal: &VersionSignal, version: VersionId) -> String {
    format!("{{\"version\":\"{version}\",\"spread_ms\":{}}}", signal.spread.as_millis())
}

fn tag() -> String {
    format!("\"{HASH:016x}\"")
}

/// Whether the values of `If-None-Match` have the tag of the script (RFC 9110, section 13.1.2).
pub(super) fn has_script<'a>(values: impl Iterator<Item = &'a [u8]>) -> bool {
    let tag = tag();
    let is_tag = |it: &[u8]| it == b"*" || it.strip_prefix(b"W/").unwrap_or(it) == tag.as_bytes();
    values.flat_map(members).any(is_tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_script_is_recognized_by_its_tag() {
        let tag = tag();
        let weak = format!("\"other\", W/{tag}");
        for known in [&*tag, &weak, "*"] {
            assert!(has_script([known.as_bytes()].into_iter()), "{known}");
        }
        for unknown in ["", "\"other\"", &tag[1..], "W/"] {
            assert!(!has_script([unknown.as_bytes()].into_iter()), "{unknown}");
        }
        assert!(!has_script(std::iter::empty()));
    }
}
