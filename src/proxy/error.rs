//! The one table from what went wrong to what the client is told.

use std::num::NonZeroU32;

use http::StatusCode;

use super::headers::{FlipgateHeaders, put_marks};
use crate::{
    downstream::{DATE_LENGTH, HeadError},
    http1::{BodyError, HeadRejection, Version, put_field, put_number},
    upstream::ConnectReason,
};

/// Why a request gets an answer of Flipgate's own.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyError {
    /// The request cannot be understood in one way only.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// A transfer coding other than `chunked`: RFC 9112, section 6.1.
    #[error("the only transfer coding that is understood is chunked")]
    TransferCoding,
    /// CONNECT or TRACE.
    #[error("this method is not served here")]
    Method,
    /// The target is longer than we read.
    #[error("the request's target is too long: it has more bytes than a line may have here")]
    TargetTooLong,
    /// The head is larger than we read.
    #[error(
        "the request's head is too large: it has more than 100 lines, or more bytes in one or in all than it may have here"
    )]
    HeadTooLarge,
    /// The head did not come to its end in time.
    #[error("the request's head took too long")]
    HeadTooSlow,
    /// The host is none that the connection's certificate is for: RFC 9110, section 15.5.20.
    #[error("this connection is not for this host: its certificate has other names")]
    Misdirected,
    /// The listener only sends clients to another one.
    #[error("the same is to be had by https")]
    Redirect,
    /// The request was here before: RFC 5842, section 7.2.
    #[error("the request came back to the proxy that has sent it")]
    Loop,
    /// What is asked is what Flipgate itself can do: the request may go no further.
    #[error("this is answered by the proxy")]
    Options,
    /// The body is larger than the service takes.
    #[error("the request's body is larger than this service takes")]
    BodyTooLarge,
    /// The public on a preview listener.
    #[error("this address is for the internal network")]
    Audience,
    /// No service has this host and path.
    #[error("no service is configured for this host and path")]
    NoRoute,
    /// An internal client asked for a color that does not exist, or for two.
    #[error("the color asked for does not exist: ask for blue or green, once")]
    UnclearPreview,
    /// The pool has no endpoint.
    #[error("the service has no endpoint to answer this request")]
    NoEndpoint,
    /// There is as much to do as may be at once.
    #[error("there is too much to do at the moment: try again soon")]
    Overloaded,
    /// The client asks too often.
    #[error("too many requests: try again in {0} s")]
    TooMany(NonZeroU32),
    /// No connection to an endpoint could be opened.
    #[error("the service cannot be reached")]
    Connect(ConnectReason),
    /// The endpoint closed the connection before its answer's head was complete.
    #[error("the service closed the connection before it had answered")]
    Closed,
    /// The endpoint's answer was not HTTP.
    #[error("the service's answer could not be understood")]
    Protocol,
    /// The request's body cannot be read in one way only.
    #[error("malformed body: {0}")]
    Body(BodyError),
    /// The client stopped sending its body.
    #[error("the request's body ended too early")]
    BodyIncomplete,
    /// The whole exchange took too long, for whatever reason.
    #[error("the request took too long")]
    TooLong,
    /// The endpoint took too long to answer.
    #[error("the service did not answer in time")]
    Timeout,
}

/// How a refusal is told to a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ErrorReply<'a> {
    /// The client's version.
    pub(super) version: Version,
    /// Whether only the head is wanted.
    pub(super) is_for_head: bool,
    /// Whether the connection goes on.
    pub(super) goes_on: bool,
    pub(super) marks: FlipgateHeaders,
    /// `Strict-Transport-Security`, over TLS.
    pub(super) hsts: Option<&'a str>,
    /// Whether the client reads `grpc-status`.
    pub(super) is_grpc: bool,
    /// Where it is sent instead.
    pub(super) location: Option<&'a [u8]>,
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
            Self::Audience => (StatusCode::FORBIDDEN, "http_request_denied"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "destination_not_found"),
            Self::UnclearPreview | Self::NoEndpoint => {
                (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable")
            }
            Self::Overloaded | Self::Connect(ConnectReason::Limit | ConnectReason::Descriptors) => {
                (StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached")
            }
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "http_request_denied"),
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
            Self::Timeout | Self::TooLong => (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout"),
        }
    }

    /// Whether nobody knows where the next request on this connection would begin.
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

    /// Whether it is for what an endpoint has done, or not done.
    pub(super) fn is_upstreams(self) -> bool {
        matches!(self, Self::Closed | Self::Protocol | Self::Timeout)
    }

    /// In how many seconds it may be worth trying again.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::TooMany(seconds) => Some(seconds.get()),
            _ if self.status().0 == StatusCode::SERVICE_UNAVAILABLE => Some(1),
            _ => None,
        }
    }

    /// What gRPC calls it: its mapping from statuses of HTTP, but for what that has better words for.
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

    /// Writes the answer, and returns how many bytes of it are its body. It never names an endpoint: the
    /// client may be anybody.
    pub(super) fn put(self, out: &mut Vec<u8>, told: &ErrorReply<'_>) -> usize {
        let ErrorReply { version, is_for_head, goes_on, marks, hsts, is_grpc, location, date } =
            told;
        let (status, error) = self.status();
        let text = format!("{} {}: {self}\n", status.as_u16(), reason(status));
        let (is_bodiless, shown) = match is_grpc {
            // A call has come to an end by HTTP's measure, whatever has become of it.
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
                // Nothing in our messages needs the escapes of a grpc-message.
                put_field(out, b"Grpc-Message", format!("flipgate: {self}").as_bytes());
            }
            false => put_field(out, b"Content-Type", b"text/plain; charset=utf-8"),
        }
        match self {
            // Nothing is wrong with it.
            Self::Redirect | Self::Options => put_field(out, b"Proxy-Status", b"flipgate"),
            _ => put_field(out, b"Proxy-Status", format!("flipgate; error={error}").as_bytes()),
        }
        if !marks.is_private {
            put_field(out, b"Cache-Control", b"no-store");
        }
        put_marks(out, marks);
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
        match (goes_on, version) {
            (false, _) => put_field(out, b"Connection", b"close"),
            (true, Version::Http10) => put_field(out, b"Connection", b"keep-alive"),
            (true, Version::Http11) => {}
        }
        if !is_grpc {
            out.extend_from_slice(b"Content-Length: ");
            put_number(out, text.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if is_bodiless {
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
mod tests {
    use super::*;

    /// What scripts and people hold on to. A changed line here is a changed interface.
    #[test]
    fn every_refusal_has_its_status_and_its_error_type() {
        use ConnectReason::{
            Certificate, Descriptors, Dns, Limit, Other, Protocol, Refused, Timeout, Tls,
            Unreachable,
        };
        for (proxy_error, status, error) in [
            (ProxyError::Malformed("x"), 400, "http_request_error"),
            (ProxyError::TransferCoding, 501, "http_request_error"),
            (ProxyError::Method, 405, "http_request_denied"),
            (ProxyError::TargetTooLong, 414, "http_request_error"),
            (ProxyError::HeadTooLarge, 431, "http_request_error"),
            (ProxyError::HeadTooSlow, 408, "http_request_error"),
            (ProxyError::Misdirected, 421, "http_request_denied"),
            (ProxyError::BodyTooLarge, 413, "http_request_error"),
            (ProxyError::Connect(Certificate), 502, "tls_certificate_error"),
            (ProxyError::Connect(Tls), 502, "tls_protocol_error"),
            (ProxyError::Connect(Protocol), 502, "http_upgrade_failed"),
            (ProxyError::Loop, 508, "proxy_loop_detected"),
            (ProxyError::Audience, 403, "http_request_denied"),
            (ProxyError::NoRoute, 404, "destination_not_found"),
            (ProxyError::UnclearPreview, 503, "destination_unavailable"),
            (ProxyError::NoEndpoint, 503, "destination_unavailable"),
            (ProxyError::Overloaded, 503, "connection_limit_reached"),
            (ProxyError::Connect(Limit), 503, "connection_limit_reached"),
            (ProxyError::Connect(Descriptors), 503, "connection_limit_reached"),
            (ProxyError::TooMany(NonZeroU32::MIN), 429, "http_request_denied"),
            (ProxyError::Connect(Refused), 502, "connection_refused"),
            (ProxyError::Connect(Timeout), 504, "connection_timeout"),
            (ProxyError::Connect(Dns), 502, "dns_error"),
            (ProxyError::Connect(Unreachable), 502, "destination_ip_unroutable"),
            (ProxyError::Connect(Other), 502, "destination_unavailable"),
            (ProxyError::Closed, 502, "connection_terminated"),
            (ProxyError::Protocol, 502, "http_protocol_error"),
            (ProxyError::BodyIncomplete, 400, "http_request_error"),
            (ProxyError::Timeout, 504, "http_response_timeout"),
            (ProxyError::TooLong, 504, "http_response_timeout"),
        ] {
            assert_eq!(
                proxy_error.status(),
                (StatusCode::from_u16(status).expect("a code"), error)
            );
            let mut out = Vec::new();
            proxy_error.put(&mut out, &told(true));
            let text = String::from_utf8(out).expect("ASCII");
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            let proxy_status = format!("\r\nProxy-Status: flipgate; error={error}\r\n");
            assert!(text.contains(&proxy_status), "{text}");
            assert_eq!(text.contains("\r\nRetry-After: 1\r\n"), matches!(status, 429 | 503));
            assert_eq!(text.contains("\r\nAllow: "), status == 405);
            let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{text}");
        }
    }

    #[test]
    fn what_the_proxy_can_do_is_no_error() {
        let mut out = Vec::new();
        ProxyError::Options.put(&mut out, &told(true));
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("\r\nAllow: GET, HEAD,"), "{text}");
        assert!(text.contains("\r\nProxy-Status: flipgate\r\n"), "{text}");
    }

    #[test]
    fn whoever_asks_for_the_head_gets_the_head() {
        let mut out = Vec::new();
        ProxyError::NoRoute.put(&mut out, &ErrorReply { is_for_head: true, ..told(false) });
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.ends_with("\r\n\r\n") && text.contains("\r\nConnection: close\r\n"), "{text}");
    }

    fn told(goes_on: bool) -> ErrorReply<'static> {
        ErrorReply {
            version: Version::Http11,
            is_for_head: false,
            goes_on,
            marks: FlipgateHeaders::default(),
            hsts: None,
            is_grpc: false,
            location: None,
            date: *b"Sun, 06 Nov 1994 08:49:37 GMT",
        }
    }
}
