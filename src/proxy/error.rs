//! The one table of errors and their responses.

use std::num::NonZeroU32;

use http::StatusCode;

use super::headers::{FlipgateHeaders, put_connection, put_marks};
use crate::{
    downstream::{DATE_LENGTH, HeadError},
    http1::{BodyError, HeadRejection, HttpVersion, put_field, put_number},
    metrics::Outcome,
    upstream::ConnectReason,
};

/// Why Flipgate responds to a request itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyError {
    /// The request is malformed or ambiguous.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// A transfer coding other than `chunked`: RFC 9112, section 6.1.
    #[error("unsupported transfer coding; only chunked is supported")]
    TransferCoding,
    /// CONNECT or TRACE.
    #[error("method not allowed")]
    Method,
    /// The target is over `limits.max_line`.
    #[error("request target too long")]
    TargetTooLong,
    /// The head is over a limit.
    #[error(
        "request head too large: more than 100 fields, or a field or the head over its size limit"
    )]
    HeadTooLarge,
    /// The head was incomplete when its timeout expired.
    #[error("the request head did not arrive in time")]
    HeadTooSlow,
    /// The certificate of the connection is not for this host: RFC 9110, section 15.5.20.
    #[error("the certificate of this connection is not for this host")]
    Misdirected,
    /// The listener redirects every request to https.
    #[error("use https")]
    Redirect,
    /// This process has sent the request itself: RFC 5842, section 7.2.
    #[error("loop detected: the request came back to the proxy that sent it")]
    Loop,
    /// `OPTIONS` for Flipgate itself: a health check, or `Max-Forwards: 0`.
    #[error("OK")]
    Options,
    /// The body is over `max_body` of the service.
    #[error("the request body is over the limit of the service")]
    BodyTooLarge,
    /// A public client on a preview listener.
    #[error("this listener is for internal clients only")]
    PublicOnPreviewListener,
    /// No service has this host and path.
    #[error("no service is configured for this host and path")]
    NoRoute,
    /// An internal client requested a color that does not exist, or two colors.
    #[error("invalid preview color; request blue or green, once")]
    UnclearPreview,
    /// The pool has no endpoint.
    #[error("the service has no endpoint for this request")]
    NoEndpoint,
    /// A limit of requests in flight or the queue is full.
    #[error("overloaded; try again later")]
    Overloaded,
    /// The service is held, and the request has no place, or Flipgate stops.
    #[error("the service is held for a moment; try again in {0} s")]
    Held(NonZeroU32),
    /// The service is in maintenance.
    #[error("the service is in maintenance; try again in {0} s")]
    Maintenance(NonZeroU32),
    /// The client is over its rate.
    #[error("too many requests; try again in {0} s")]
    RateLimited(NonZeroU32),
    /// No connection to an endpoint could be opened.
    #[error("cannot connect to the service")]
    Connect(ConnectReason),
    /// The endpoint closed the connection before its response head was complete.
    #[error("the service closed the connection without a response")]
    Closed,
    /// The response of the endpoint is not valid HTTP.
    #[error("invalid response of the service")]
    Protocol,
    /// The request body is malformed or ambiguous.
    #[error("malformed body: {0}")]
    Body(BodyError),
    /// The client stopped sending its body.
    #[error("the request body ended too early")]
    BodyIncomplete,
    /// The exchange exceeded `timeouts.request`.
    #[error("the request timed out")]
    RequestTimeout,
    /// The endpoint exceeded its response timeout.
    #[error("the service did not respond in time")]
    ResponseTimeout,
}

/// How an error response is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorReply<'a> {
    /// The client's version.
    pub(super) version: HttpVersion,
    /// Whether the request is a HEAD.
    pub(super) is_for_head: bool,
    /// Whether the connection stays open.
    pub(super) keeps_alive: bool,
    pub(super) headers: FlipgateHeaders,
    /// `Strict-Transport-Security`, over TLS.
    pub(super) hsts: Option<&'a str>,
    /// Whether the client expects gRPC errors.
    pub(super) is_grpc: bool,
    /// The `Location` of a redirect.
    pub(super) location: Option<&'a [u8]>,
    /// The type and the length of the page that is sent in place of the text. Not for gRPC.
    pub(super) page: Option<(&'static str, usize)>,
    pub(super) date: [u8; DATE_LENGTH],
}

// === impl ProxyError ===

impl ProxyError {
    /// The status and the error type of RFC 9209, section 2.3.
    #[must_use]
    pub fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "http_request_error"),
            Self::TransferCoding => (StatusCode::NOT_IMPLEMENTED, "http_request_error"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "http_request_denied"),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "http_request_error"),
            Self::HeadTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error")
            }
            Self::HeadTooSlow => (StatusCode::REQUEST_TIMEOUT, "http_request_error"),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "http_request_denied"),
            Self::Redirect => (StatusCode::PERMANENT_REDIRECT, "http_request_denied"),
            Self::Loop => (StatusCode::LOOP_DETECTED, "proxy_loop_detected"),
            // Not an error.
            Self::Options => (StatusCode::OK, ""),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "http_request_error"),
            Self::PublicOnPreviewListener => (StatusCode::FORBIDDEN, "http_request_denied"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "destination_not_found"),
            Self::UnclearPreview | Self::NoEndpoint | Self::Held(_) | Self::Maintenance(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable")
            }
            Self::Overloaded | Self::Connect(ConnectReason::Limit | ConnectReason::Descriptors) => {
                (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached")
            }
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "http_request_denied"),
            Self::Connect(ConnectReason::Refused) => {
                (StatusCode::BAD_GATEWAY, "connection_refused")
            }
            Self::Connect(ConnectReason::Timeout) => {
                (StatusCode::GATEWAY_TIMEOUT, "connection_timeout")
            }
            Self::Connect(ConnectReason::Dns) => (StatusCode::BAD_GATEWAY, "dns_error"),
            Self::Connect(ConnectReason::Unreachable) => {
                (StatusCode::BAD_GATEWAY, "destination_ip_unroutable")
            }
            // RFC 9209, section 2.3.5.
            Self::Connect(ConnectReason::Own) => {
                (StatusCode::BAD_GATEWAY, "destination_ip_prohibited")
            }
            Self::Connect(ConnectReason::Certificate) => {
                (StatusCode::BAD_GATEWAY, "tls_certificate_error")
            }
            Self::Connect(ConnectReason::Tls) => (StatusCode::BAD_GATEWAY, "tls_protocol_error"),
            Self::Connect(ConnectReason::Protocol) => {
                (StatusCode::BAD_GATEWAY, "http_upgrade_failed")
            }
            Self::Connect(ConnectReason::Other) => {
                (StatusCode::BAD_GATEWAY, "destination_unavailable")
            }
            Self::Closed => (StatusCode::BAD_GATEWAY, "connection_terminated"),
            Self::Protocol => (StatusCode::BAD_GATEWAY, "http_protocol_error"),
            Self::Body(_) | Self::BodyIncomplete => (StatusCode::BAD_REQUEST, "http_request_error"),
            Self::ResponseTimeout | Self::RequestTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout")
            }
        }
    }

    /// Whether the start of the next request on this connection is not known.
    pub(super) fn ends_connection(self) -> bool {
        matches!(
            self,
            Self::Malformed(_)
                | Self::TransferCoding
                | Self::Method
                | Self::TargetTooLong
                | Self::HeadTooLarge
                | Self::HeadTooSlow
                | Self::BodyTooLarge
                | Self::Body(_)
                | Self::BodyIncomplete
        )
    }

    /// The error type of RFC 9209 as it is counted. `None` for what is no error.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Self::Redirect | Self::Options => None,
            _ => Some(self.status().1),
        }
    }

    /// Whether each response with this error should be in the log: the service failed, and not the client.
    pub(super) fn is_logged(self) -> bool {
        matches!(self.status().0, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
            || matches!(self, Self::NoEndpoint)
    }

    /// Whether the endpoint caused it.
    pub(super) fn is_upstream_failure(self) -> bool {
        matches!(self, Self::Closed | Self::Protocol | Self::ResponseTimeout)
    }

    /// What it says of the application. An endpoint that Flipgate has no descriptor or permit for says nothing.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Closed | Self::Protocol | Self::ResponseTimeout | Self::NoEndpoint => {
                Outcome::Failed
            }
            Self::Connect(
                ConnectReason::Limit | ConnectReason::Descriptors | ConnectReason::Own,
            ) => Outcome::Excluded,
            Self::Connect(_) => Outcome::Failed,
            _ => Outcome::Excluded,
        }
    }

    /// Seconds after which a retry makes sense.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::RateLimited(seconds) | Self::Held(seconds) | Self::Maintenance(seconds) => {
                Some(seconds.get())
            }
            _ if self.status().0 == StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        }
    }

    /// The gRPC status: its mapping from HTTP statuses, with more specific codes where there are some.
    fn grpc_status(self) -> u8 {
        const DEADLINE_EXCEEDED: u8 = 4;
        const PERMISSION_DENIED: u8 = 7;
        const RESOURCE_EXHAUSTED: u8 = 8;
        const UNIMPLEMENTED: u8 = 12;
        const INTERNAL: u8 = 13;
        const UNAVAILABLE: u8 = 14;
        match self.status().0.as_u16() {
            504 | 408 => DEADLINE_EXCEEDED,
            403 => PERMISSION_DENIED,
            413 | 414 | 431 => RESOURCE_EXHAUSTED,
            404 | 405 | 501 => UNIMPLEMENTED,
            429 | 502 | 503 => UNAVAILABLE,
            _ => INTERNAL,
        }
    }

    /// Writes the response, and returns the length of its body; 0 if a page is to follow. It never names an endpoint: the
    /// client may be public.
    pub(super) fn put(self, out: &mut Vec<u8>, reply: &ErrorReply<'_>) -> usize {
        let ErrorReply {
            version,
            is_for_head,
            keeps_alive: goes_on,
            headers,
            hsts,
            is_grpc,
            location,
            page,
            date,
        } = reply;
        let (status, error) = self.status();
        let text = format!("{} {}: {self}\n", status.as_u16(), reason(status));
        let (is_bodiless, shown) = match is_grpc {
            // A gRPC error is a 200 for HTTP.
            true => (true, StatusCode::OK),
            false => (*is_for_head, status),
        };
        out.extend_from_slice(version.as_bytes());
        out.push(b' ');
        out.extend_from_slice(shown.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(reason(shown).as_bytes());
        out.extend_from_slice(b"\r\n");
        match is_grpc {
            true => {
                put_field(out, b"Content-Type", b"application/grpc");
                put_field(out, b"Grpc-Status", self.grpc_status().to_string().as_bytes());
                // The messages need no percent-encoding.
                put_field(out, b"Grpc-Message", format!("flipgate: {self}").as_bytes());
            }
            false => {
                let content_type = page.map_or("text/plain; charset=utf-8", |it| it.0);
                put_field(out, b"Content-Type", content_type.as_bytes());
            }
        }
        match self {
            // Not an error.
            Self::Redirect | Self::Options => put_field(out, b"Proxy-Status", b"flipgate"),
            _ => put_field(out, b"Proxy-Status", format!("flipgate; error={error}").as_bytes()),
        }
        if !headers.is_private {
            put_field(out, b"Cache-Control", b"no-store");
        }
        put_marks(out, headers);
        if let Some(seconds) = self.retry_after() {
            put_field(out, b"Retry-After", seconds.to_string().as_bytes());
        }
        if matches!(self, Self::Method | Self::Options) {
            put_field(out, b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        }
        if let Some(location) = location {
            put_field(out, b"Location", location);
        }
        if let Some(hsts) = hsts {
            put_field(out, b"Strict-Transport-Security", hsts.as_bytes());
        }
        put_field(out, b"Date", date);
        put_connection(out, *version, *goes_on);
        if !is_grpc {
            out.extend_from_slice(b"Content-Length: ");
            put_number(out, page.map_or(text.len(), |it| it.1) as u64);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if is_bodiless || page.is_some() {
            return 0;
        }
        out.extend_from_slice(text.as_bytes());
        text.len()
    }
}

impl From<HeadError> for ProxyError {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::TooSlow => Self::HeadTooSlow,
            HeadError::Rejected(HeadRejection::Malformed(what)) => Self::Malformed(what),
            HeadError::Rejected(HeadRejection::Coding) => Self::TransferCoding,
            HeadError::Rejected(HeadRejection::Method) => Self::Method,
            HeadError::Rejected(HeadRejection::TargetTooLong) => Self::TargetTooLong,
            HeadError::Rejected(HeadRejection::TooLarge) => Self::HeadTooLarge,
        }
    }
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

#[cfg(test)]
mod tests;
