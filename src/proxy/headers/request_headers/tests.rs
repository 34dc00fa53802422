use super::*;
use crate::{
    downstream::{Listener, ListenerContext, PeerIdentity, TlsDetails},
    model::Networks,
    proxy::{
        cookies::OwnCookies,
        samples::{self, values},
    },
    tls::ClientCertificate,
};

fn forward_from(
    peer: &str,
    fields: &[(&str, &str)],
    is_behind_proxy: bool,
    security: Option<Box<TlsDetails>>,
) -> Vec<(String, String)> {
    let (head, bytes) = samples::request(fields);
    let mut random = fastrand::Rng::with_seed(7);
    let address: IpAddr = peer.parse().expect("an address");
    let listener = Listener::plain(([127, 0, 0, 1], 80).into());
    let peer = Peer::new(
        PeerIdentity::Known((address, 40000).into()),
        ListenerContext::unbound(listener),
        security,
    );
    let client = (!is_behind_proxy).then_some(address);
    let forwarded = is_behind_proxy
        .then(|| ForwardedInfo::of(head.fields.lines(&bytes), &Networks::default()).1);
    let rewrite = RequestRewrite {
        expects_continue: false,
        peer: &peer,
        client,
        forwarded,
        keeps_trace: false,
        own_cookies: OwnCookies::of(head.fields.lines(&bytes)),
        mark: b"Via: 1.1 fg-0000000000000007\r\n",
    };
    let out = put_request(&head, &bytes, &rewrite, &mut random);
    let end = memchr::memchr(b'\n', &out).expect("a request line") + 1;
    assert_eq!(&out[..end], b"GET / HTTP/1.1\r\n");
    samples::read(&out[end..])
}

fn forward(fields: &[(&str, &str)], is_behind_proxy: bool) -> Vec<(String, String)> {
    forward_from("192.0.2.7", fields, is_behind_proxy, None)
}

#[test]
fn hop_by_hop_fields_are_removed() {
    let sent = forward(
        &[
            ("host", "example.com"),
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other ,upgrade, host, content-length, ,bad name"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("proxy", "http://evil"),
            ("x_real_ip", "1.2.3.4"),
            ("flipgate-preview", "green"),
            ("flipgate-anything", "1"),
            ("content-length", "5"),
            ("accept", "*/*"),
        ],
        false,
    );
    let mut names: Vec<_> = sent.iter().map(|it| &*it.0).collect();
    names.sort_unstable();
    let forwarding = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    let mut expected = vec!["accept", "content-length", "forwarded", "host", "traceparent"];
    expected.extend(forwarding);
    expected.insert(5, "via");
    expected.extend(["x-real-ip", "x-request-id"]);
    assert_eq!(names, expected);
}

#[test]
fn a_cookie_that_connection_names_is_removed_with_and_without_cookies_of_flipgate() {
    for cookie in ["a=b", "a=b; flipgate_pin_web=x"] {
        let fields = forward(&[("Connection", "cookie"), ("Cookie", cookie)], false);
        assert!(!fields.iter().any(|it| it.0.eq_ignore_ascii_case("cookie")), "{fields:?}");
    }
    let kept = forward(&[("Connection", "close"), ("Cookie", "a=b; flipgate_pin_web=x")], false);
    assert!(kept.iter().any(|it| it.0.eq_ignore_ascii_case("cookie") && it.1 == "a=b"), "{kept:?}");
}

#[test]
fn every_hop_is_in_via() {
    let sent = forward(&[("via", "1.0 fred"), ("cdn-loop", "other")], false);
    assert_eq!(values(&sent, "via"), ["1.0 fred", "1.1 fg-0000000000000007"]);
    assert_eq!(values(&sent, "cdn-loop"), ["other"]);
}

#[test]
fn the_body_is_framed_in_our_own_words() {
    let sent = forward(&[("Transfer-Encoding", "CHUNKED")], false);
    assert_eq!(values(&sent, "transfer-encoding"), ["chunked"]);
    let sent = forward(&[("Content-Length", "0012")], false);
    assert_eq!(values(&sent, "content-length"), ["12"]);
}

#[test]
fn trailers_are_the_only_coding_that_is_asked_for() {
    let sent = forward(&[("te", "gzip;q=0.5, Trailers")], false);
    assert_eq!(values(&sent, "te"), ["trailers"]);
    assert_eq!(values(&sent, "connection"), ["te"]);
}

#[test]
fn a_websocket_is_the_only_upgrade_that_is_asked_for() {
    let asked = [("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")];
    let sent = forward(&asked, false);
    assert_eq!(values(&sent, "upgrade"), ["websocket"]);
    assert_eq!(values(&sent, "connection"), ["upgrade"]);
    let sent = forward(&[("Connection", "Upgrade"), ("Upgrade", "h2c")], false);
    assert!(values(&sent, "upgrade").is_empty() && values(&sent, "connection").is_empty());
}

#[test]
fn the_forwarding_fields_of_an_untrusted_peer_are_replaced() {
    let forged = [
        ("host", "example.com:8080"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-port", "1"),
        ("x-real-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-request-id", "mine"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
    ];
    let sent = forward(&forged, false);
    assert_eq!(values(&sent, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(values(&sent, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&sent, "x-forwarded-host"), ["example.com:8080"]);
    let forwarded = "for=192.0.2.7;host=\"example.com:8080\";proto=http";
    assert_eq!(values(&sent, "forwarded"), [forwarded]);
    assert_eq!(values(&sent, "x-real-ip"), ["192.0.2.7"]);
    for gone in ["x-forwarded-port", "tracestate"] {
        assert!(values(&sent, gone).is_empty(), "{gone}");
    }
    let (id, trace) = (values(&sent, "x-request-id"), values(&sent, "traceparent"));
    assert!(id[0].len() == 32 && trace[0].len() == 55 && !trace[0].contains("0af765"));
    assert_eq!(trace[0].get(3..35), Some(id[0]));
    assert!(trace[0].ends_with("-00"), "not sampled: {}", trace[0]);
}

#[test]
fn the_forwarding_fields_of_a_trusted_proxy_are_continued() {
    let forwarded = [
        ("host", "example.com"),
        ("x-forwarded-for", "203.0.113.5"),
        ("x-forwarded-for", "10.0.0.2"),
        ("x-forwarded-proto", "https"),
        ("forwarded", "for=203.0.113.5"),
        ("x-request-id", "theirs"),
        ("traceparent", "theirs too"),
        ("tracestate", "a=b"),
    ];
    let sent = forward(&forwarded, true);
    assert_eq!(values(&sent, "x-forwarded-for"), ["203.0.113.5, 10.0.0.2, 192.0.2.7"]);
    assert_eq!(values(&sent, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&sent, "x-forwarded-host"), ["example.com"]);
    let chain = "for=203.0.113.5;host=example.com;proto=https, for=10.0.0.2, \
                     for=192.0.2.7;host=example.com;proto=https";
    assert_eq!(values(&sent, "forwarded"), [chain]);
    assert_eq!(values(&sent, "x-request-id"), ["theirs"]);
    assert_eq!(values(&sent, "traceparent"), ["theirs too"]);
    assert_eq!(values(&sent, "tracestate"), ["a=b"]);
}

#[test]
fn the_client_certificate_is_forwarded_and_cannot_be_forged() {
    let forged = [("x-forwarded-client-cert", "Hash=forged"), ("host", "a")];
    let identity = ClientCertificate { element: "Hash=00;Subject=\"CN=a\"".into() };
    let secured = |identity| {
        let names = std::sync::Arc::default();
        let security = TlsDetails { names, client_certificate: identity, makes_internal: false };
        forward_from("192.0.2.7", &forged, false, Some(Box::new(security)))
    };
    let sent = secured(Some(identity));
    assert_eq!(values(&sent, "x-forwarded-proto"), ["https"]);
    assert_eq!(values(&sent, "forwarded"), ["for=192.0.2.7;host=a;proto=https"]);
    assert_eq!(values(&sent, "x-forwarded-client-cert"), ["Hash=00;Subject=\"CN=a\""]);
    assert!(values(&secured(None), "x-forwarded-client-cert").is_empty());
    assert!(values(&forward(&forged, false), "x-forwarded-client-cert").is_empty());
}

#[test]
fn an_address_of_ipv6_is_written_in_brackets_where_that_is_the_rule() {
    let sent = forward_from("2001:db8::7", &[("host", "a")], false, None);
    assert_eq!(values(&sent, "x-forwarded-for"), ["2001:db8::7"]);
    assert_eq!(values(&sent, "forwarded"), ["for=\"[2001:db8::7]\";host=a;proto=http"]);
}
