//! The one table from what went wrong to what the client is told.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{proxy::ResponseBody, upstream::ConnectReason};

/// Why a request gets an answer of Flipgate's own.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be understood in one way only.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// A transfer coding other than `chunked`: RFC 9112, section 6.1.
    #[error("the only transfer coding that is understood is chunked")]
    TransferCoding,
    /// CONNECT or TRACE.
    #[error("this method is not served here")]
    Method,
    /// The public on a preview listener.
    #[error("this address is for the internal network")]
    Audience,
    /// No service has this host and path.
    #[error("no service is configured for this host and path")]
    NoRoute,
    /// An internal client asked for a color that does not exist, or for two.
    #[error("the color asked for does not exist: ask for blue or green, once")]
    UnclearWish,
    /// The pool has no endpoint.
    #[error("the service has no endpoint to answer this request")]
    NoEndpoint,
    /// No connection to an endpoint could be opened.
    #[error("the service cannot be reached")]
    Connect(ConnectReason),
    /// The endpoint closed the connection before its answer's head was complete.
    #[error("the service closed the connection before it had answered")]
    Closed,
    /// The endpoint's answer was not HTTP.
    #[error("the service's answer could not be understood")]
    Protocol,
    /// The client stopped sending its body.
    #[error("the request's body ended too early")]
    BodyIncomplete,
    /// The endpoint took too long to answer.
    #[error("the service did not answer in time")]
    Timeout,
}

// === impl Refusal ===

impl Refusal {
    /// The status and the error type of RFC 9209, section 2.3.
    #[must_use]
    pub fn status(self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "http_request_error"),
            Self::TransferCoding => (StatusCode::NOT_IMPLEMENTED, "http_request_error"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "http_request_denied"),
            Self::Audience => (StatusCode::FORBIDDEN, "http_request_denied"),
            Self::NoRoute => (StatusCode::NOT_FOUND, "destination_not_found"),
            Self::UnclearWish | Self::NoEndpoint => {
                (StatusCode::SERVICE_UNAVAILABLE, "destination_unavailable")
            }
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
            Self::Connect(ConnectReason::Other) => {
                (StatusCode::BAD_GATEWAY, "destination_unavailable")
            }
            Self::Closed => (StatusCode::BAD_GATEWAY, "connection_terminated"),
            Self::Protocol => (StatusCode::BAD_GATEWAY, "http_protocol_error"),
            Self::BodyIncomplete => (StatusCode::BAD_REQUEST, "http_request_error"),
            Self::Timeout => (StatusCode::GATEWAY_TIMEOUT, "http_response_timeout"),
        }
    }

    /// Whether the connection must not be used for another request: what follows on it may be a
    /// part of this one.
    fn closes(self) -> bool {
        matches!(
            self,
            Self::Malformed(_) | Self::TransferCoding | Self::Method | Self::BodyIncomplete
        )
    }

    /// The answer. It never names an endpoint: the client may be anybody.
    pub(super) fn answer(self) -> Response<ResponseBody> {
        let (status, error) = self.status();
        let text = format!("{} {}: {self}\n", status.as_u16(), reason(status));
        let mut answer = Response::new(ResponseBody::own(Bytes::from(text)));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, plain);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let proxy_status = HeaderValue::from_str(&format!("flipgate; error={error}"));
        headers.insert("proxy-status", proxy_status.expect("words of the table above"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            headers.insert(header::ALLOW, methods);
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
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
        use ConnectReason::{Dns, Other, Refused, Timeout, Unreachable};
        for (refusal, status, error) in [
            (Refusal::Malformed("x"), 400, "http_request_error"),
            (Refusal::TransferCoding, 501, "http_request_error"),
            (Refusal::Method, 405, "http_request_denied"),
            (Refusal::Audience, 403, "http_request_denied"),
            (Refusal::NoRoute, 404, "destination_not_found"),
            (Refusal::UnclearWish, 503, "destination_unavailable"),
            (Refusal::NoEndpoint, 503, "destination_unavailable"),
            (Refusal::Connect(Refused), 502, "connection_refused"),
            (Refusal::Connect(Timeout), 504, "connection_timeout"),
            (Refusal::Connect(Dns), 502, "dns_error"),
            (Refusal::Connect(Unreachable), 502, "destination_ip_unroutable"),
            (Refusal::Connect(Other), 502, "destination_unavailable"),
            (Refusal::Closed, 502, "connection_terminated"),
            (Refusal::Protocol, 502, "http_protocol_error"),
            (Refusal::BodyIncomplete, 400, "http_request_error"),
            (Refusal::Timeout, 504, "http_response_timeout"),
        ] {
            assert_eq!(refusal.status(), (StatusCode::from_u16(status).expect("a code"), error));
            let answer = refusal.answer();
            let value = answer.headers()["proxy-status"].to_str().expect("ASCII");
            assert_eq!(value, format!("flipgate; error={error}"));
            assert_eq!(answer.headers().contains_key("retry-after"), status == 503);
        }
    }
}
