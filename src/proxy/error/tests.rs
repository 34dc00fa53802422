use super::*;

/// Scripts depend on this table.
#[test]
fn every_refusal_has_its_status_and_its_error_type() {
    use ConnectReason::{
        Certificate, Descriptors, Dns, Limit, Other, Protocol, Refused, Timeout, Tls, Unreachable,
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
        (ProxyError::PublicOnPreviewListener, 403, "http_request_denied"),
        (ProxyError::NoRoute, 404, "destination_not_found"),
        (ProxyError::UnclearPreview, 503, "destination_unavailable"),
        (ProxyError::NoEndpoint, 503, "destination_unavailable"),
        (ProxyError::Overloaded, 503, "connection_limit_reached"),
        (ProxyError::Connect(Limit), 503, "connection_limit_reached"),
        (ProxyError::Connect(Descriptors), 503, "connection_limit_reached"),
        (ProxyError::RateLimited(NonZeroU32::MIN), 429, "http_request_denied"),
        (ProxyError::Connect(Refused), 502, "connection_refused"),
        (ProxyError::Connect(Timeout), 504, "connection_timeout"),
        (ProxyError::Connect(Dns), 502, "dns_error"),
        (ProxyError::Connect(Unreachable), 502, "destination_ip_unroutable"),
        (ProxyError::Connect(Other), 502, "destination_unavailable"),
        (ProxyError::Closed, 502, "connection_terminated"),
        (ProxyError::Protocol, 502, "http_protocol_error"),
        (ProxyError::BodyIncomplete, 400, "http_request_error"),
        (ProxyError::ResponseTimeout, 504, "http_response_timeout"),
        (ProxyError::RequestTimeout, 504, "http_response_timeout"),
    ] {
        assert_eq!(proxy_error.status(), (StatusCode::from_u16(status).expect("a code"), error));
        let mut out = Vec::new();
        proxy_error.put(&mut out, &reply(true));
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
fn options_for_the_proxy_is_no_error() {
    let mut out = Vec::new();
    ProxyError::Options.put(&mut out, &reply(true));
    let text = String::from_utf8(out).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(text.contains("\r\nAllow: GET, HEAD,"), "{text}");
    assert!(text.contains("\r\nProxy-Status: flipgate\r\n"), "{text}");
}

#[test]
fn a_head_request_gets_the_head_only() {
    let mut out = Vec::new();
    ProxyError::NoRoute.put(&mut out, &ErrorReply { is_for_head: true, ..reply(false) });
    let text = String::from_utf8(out).expect("ASCII");
    assert!(text.ends_with("\r\n\r\n") && text.contains("\r\nConnection: close\r\n"), "{text}");
}

fn reply(goes_on: bool) -> ErrorReply<'static> {
    ErrorReply {
        version: HttpVersion::Http11,
        is_for_head: false,
        keeps_alive: goes_on,
        headers: FlipgateHeaders::default(),
        hsts: None,
        is_grpc: false,
        location: None,
        page: None,
        date: *b"Sun, 06 Nov 1994 08:49:37 GMT",
    }
}
