//! The answer to an event stream while its service takes no requests: accepted, told when to come again, and ended.
//!
//! A browser reconnects after the end of an event stream, and never again after another status than 200 (WHATWG HTML,
//! server-sent events).

use std::time::Duration;

use bytes::Bytes;

use super::{
    headers::{hsts, put_connection},
    peer_cache::PeerCache,
    request_traits::RequestTraits,
};
use crate::{
    downstream::ClientConnection,
    http1::{FieldName, RequestHead, members, put_field, put_number},
};

/// The shortest time after which a client comes again.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// Whether a request is for an event stream: a GET that accepts one by name.
pub(super) fn wants_events(head: &RequestHead, bytes: &[u8]) -> bool {
    let is_events = |range: &[u8]| {
        let name = range.split(|it| *it == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    };
    let mut values = head.fields.lines(bytes).all(FieldName::Accept);
    head.method(bytes) == b"GET" && values.any(|it| members(it).any(is_events))
}

/// The head and the content of the answer. `retry` is the time after which the client should come again.
pub(super) fn refuse_stream(
    traits: &RequestTraits,
    connection: &ClientConnection<PeerCache>,
    keeps_alive: bool,
    retry: Duration,
) -> (Vec<u8>, Bytes) {
    let content = format!("retry: {}\n\n", retry.max(RETRY_MIN).as_millis());
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(traits.version.as_bytes());
    out.extend_from_slice(b" 200 OK\r\n");
    put_field(&mut out, b"Content-Type", b"text/event-stream");
    put_field(&mut out, b"Proxy-Status", b"flipgate");
    put_field(&mut out, b"Cache-Control", b"no-store, no-transform");
    if let Some(hsts) = hsts(connection.peer()) {
        put_field(&mut out, b"Strict-Transport-Security", hsts.as_bytes());
    }
    put_field(&mut out, b"Date", &connection.date());
    put_connection(&mut out, traits.version, keeps_alive);
    out.extend_from_slice(b"Content-Length: ");
    put_number(&mut out, content.len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
    (out, content.into())
}
