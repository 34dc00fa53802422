//! What is kept of a request head.

use super::{error_page::AcceptedFormats, via::ReceivedVersion};
use crate::{
    http1::{FieldLines, FieldName, Framing, HttpVersion, RequestHead, TargetForm},
    net::HttpStream,
};

/// What the exchange needs to know of a request when its head is not there any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestTraits {
    pub(super) version: HttpVersion,
    pub(super) is_for_head: bool,
    pub(super) keeps_alive: bool,
    pub(super) takes_trailers: bool,
    /// Whether it is a stream of HTTP/2.
    pub(super) is_stream: bool,
    pub(super) wants_websocket: bool,
    /// Whether the method is idempotent and there is no body, so that it can be sent again.
    pub(super) is_repeatable: bool,
    /// Whether the client expects gRPC errors. Only over HTTP/2.
    pub(super) is_grpc: bool,
    /// The formats of error pages that the client accepts, if the head of a request that is not forwarded was read for
    /// it.
    pub(super) accepts: Option<AcceptedFormats>,
}

// === impl RequestTraits ===

impl RequestTraits {
    /// The traits of a request that could not be read.
    pub(super) const UNREAD: Self = Self {
        version: HttpVersion::Http11,
        is_for_head: false,
        keeps_alive: false,
        takes_trailers: false,
        is_stream: false,
        wants_websocket: false,
        is_repeatable: false,
        is_grpc: false,
        accepts: None,
    };

    pub(super) fn of(head: &RequestHead, channel: &HttpStream) -> Self {
        let bytes = channel.unread();
        // RFC 9110, section 9.2.2.
        let method = head.method(bytes);
        let is_idempotent = matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE");
        Self {
            version: head.version,
            is_for_head: method == b"HEAD",
            keeps_alive: head.keeps_alive,
            // Every HTTP/2 message may have trailers.
            takes_trailers: head.accepts_trailers || channel.is_stream(),
            is_stream: channel.is_stream(),
            wants_websocket: head.requests_websocket,
            is_repeatable: is_idempotent
                && matches!(head.framing, Framing::None | Framing::Exact(0)),
            is_grpc: channel.is_stream() && is_grpc(head.fields.lines(bytes)),
            accepts: None,
        }
    }

    /// The version of the request, for `Via`.
    pub(super) fn received(&self) -> ReceivedVersion {
        match (self.is_stream, self.version) {
            (true, _) => ReceivedVersion::Http2,
            (false, HttpVersion::Http11) => ReceivedVersion::Http11,
            (false, HttpVersion::Http10) => ReceivedVersion::Http10,
        }
    }

    /// The framing of a response body for this client.
    pub(super) fn framing_of(&self, framing: Framing) -> Framing {
        if self.is_stream && matches!(framing, Framing::Chunked | Framing::UntilClose) {
            return Framing::UntilClose;
        }
        match (framing, self.version) {
            (Framing::Chunked | Framing::UntilClose, HttpVersion::Http10) => Framing::UntilClose,
            (Framing::UntilClose, HttpVersion::Http11) => Framing::Chunked,
            (framing, _) => framing,
        }
    }
}

/// Whether a message is gRPC.
pub(super) fn is_grpc(lines: FieldLines<'_>) -> bool {
    let is_of_it = |it: &[u8]| it.get(..16).is_some_and(|it| it == b"application/grpc");
    lines.first(FieldName::ContentType).is_some_and(is_of_it)
}

/// The `https` URL of the request at another port.
pub(super) fn location(head: &RequestHead, bytes: &[u8], port: u16) -> Box<[u8]> {
    let host = head.host(bytes);
    // After the last bracket of an IPv6 address, if it is one.
    let begin = host.iter().rposition(|it| *it == b']').unwrap_or_default();
    let end = memchr::memchr(b':', &host[begin..]).map_or(host.len(), |it| begin + it);
    let mut location = [b"https://", &host[..end]].concat();
    if port != 443 {
        location.extend_from_slice(format!(":{port}").as_bytes());
    }
    if head.form != TargetForm::Path {
        location.push(b'/');
    }
    location.extend_from_slice(head.target(bytes));
    location.into()
}
