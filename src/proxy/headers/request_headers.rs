//! Rewrites the request head of a client for the upstream.

use std::net::IpAddr;

use super::forwarding::put_forwarding;
use crate::{
    downstream::Peer,
    http1::{FieldLines, FieldName, Framing, RequestHead, TargetForm, put_field, put_number},
    proxy::{
        cookies, forwarded_chain::ForwardedInfo, max_forwards::hops_left, peer_cache::PeerCache,
    },
};

/// What the rewriting depends on besides the head.
pub(in crate::proxy) struct RequestRewrite<'a> {
    /// Whether the client waits for `100 Continue`. Otherwise `Expect` is dropped.
    pub(in crate::proxy) expects_continue: bool,
    pub(in crate::proxy) peer: &'a Peer<PeerCache>,
    /// The address of the client, if it is known.
    pub(in crate::proxy) client: Option<IpAddr>,
    /// What a trusted proxy says about the client; `None` for any other peer.
    pub(in crate::proxy) forwarded: Option<ForwardedInfo>,
    /// Whether the trace context of clients without a trusted proxy is kept.
    pub(in crate::proxy) keeps_trace: bool,
    /// The line with the loop mark.
    pub(in crate::proxy) mark: &'a [u8],
}

/// The most bytes that are added, without the host, which may be written twice.
const ADDED: usize = 512;

/// Writes the request head for the upstream.
///
/// Removed: hop-by-hop fields (RFC 9110, section 7.6.1, and the fields that `Connection` lists), `Proxy`
/// (CVE-2016-5385), names with `_` (many applications read them as `-`), `Flipgate-*`, and forwarding fields of
/// untrusted peers. Added: client, host and scheme, and a request id.
pub(in crate::proxy) fn put_request(
    head: &RequestHead,
    bytes: &[u8],
    rewrite: &RequestRewrite<'_>,
    random: &mut fastrand::Rng,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.len + ADDED + 2 * head.host(bytes).len());
    let lines = head.fields.lines(bytes);
    put_request_line(&mut out, head, bytes);
    let is_traced = lines.has(FieldName::Traceparent)
        && (rewrite.forwarded.is_some() || rewrite.keeps_trace && has_parent(lines));
    put_kept(&mut out, head, bytes, rewrite, is_traced);
    if head.framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(match (head.accepts_trailers, head.requests_websocket) {
        (false, false) => b"",
        (true, false) => b"TE: trailers\r\nConnection: te\r\n",
        (false, true) => b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        (true, true) => b"TE: trailers\r\nUpgrade: websocket\r\nConnection: te, upgrade\r\n",
    });
    out.extend_from_slice(rewrite.mark);
    let is_named = rewrite.forwarded.is_some() && lines.has(FieldName::XRequestId);
    put_identity(&mut out, is_named, is_traced, random);
    put_forwarding(
        &mut out,
        head.host(bytes),
        lines,
        rewrite.peer,
        rewrite.client,
        rewrite.forwarded,
    );
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// The target in origin form: RFC 9112, section 3.2.1.
fn put_request_line(out: &mut Vec<u8>, head: &RequestHead, bytes: &[u8]) {
    out.extend_from_slice(head.method(bytes));
    out.push(b' ');
    match head.form {
        TargetForm::Path => {}
        TargetForm::Root => out.push(b'/'),
        TargetForm::Asterisk => out.push(b'*'),
    }
    if head.form != TargetForm::Asterisk {
        out.extend_from_slice(head.target(bytes));
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Copies the lines that stay as they are. All others are written anew, or dropped.
fn put_kept(
    out: &mut Vec<u8>,
    head: &RequestHead,
    bytes: &[u8],
    rewrite: &RequestRewrite<'_>,
    is_traced: bool,
) {
    let RequestRewrite { expects_continue, forwarded, .. } = *rewrite;
    let is_behind_proxy = forwarded.is_some();
    let (lines, host) = (head.fields.lines(bytes), head.host(bytes));
    let hops = hops_left(head, bytes);
    let has_list = lines.has(FieldName::Connection);
    let (mut has_cookies, mut has_host) = (false, false);
    lines.put_filtered(out, |name, line| match name {
        FieldName::Host => {
            has_host = !head.is_absolute || line.value() == host;
            has_host
        }
        FieldName::ContentLength => false,
        FieldName::Expect => expects_continue,
        FieldName::MaxForwards => hops == Ok(None),
        name if name.is_hop_by_hop() => false,
        FieldName::Proxy
        | FieldName::Flipgate
        | FieldName::FlipgatePreview
        | FieldName::Underscored => false,
        // Written by the caller.
        FieldName::XForwardedFor
        | FieldName::XForwardedHost
        | FieldName::XForwardedProto
        | FieldName::Forwarded => false,
        // `Tracestate` has no meaning without `Traceparent`.
        FieldName::Traceparent | FieldName::Tracestate => is_traced,
        name if name.is_forwarding() && !is_behind_proxy => false,
        _ if has_list && lines.connection_lists(line.name()) => false,
        FieldName::Cookie => {
            has_cookies |= cookies::has_ours(line.value());
            !cookies::has_ours(line.value())
        }
        _ => true,
    });
    if !has_host {
        // The host of the target, in its normalized form.
        put_field(out, b"Host", host);
    }
    if has_cookies {
        for line in lines.all(FieldName::Cookie).filter(|it| cookies::has_ours(it)) {
            if let Some(others) = cookies::without_ours(line) {
                put_field(out, b"Cookie", &others);
            }
        }
    }
    if let Ok(Some(hops)) = hops {
        out.extend_from_slice(b"Max-Forwards: ");
        // The next hop may not be able to read a larger number.
        put_number(out, hops.saturating_sub(1).min(u32::MAX.into()));
        out.extend_from_slice(b"\r\n");
    }
    if let Framing::Exact(length) = head.framing {
        out.extend_from_slice(b"Content-Length: ");
        put_number(out, length);
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether there is exactly one `Traceparent`, and it is valid: W3C Trace Context, section 3.2.
fn has_parent(lines: FieldLines<'_>) -> bool {
    let mut parents = lines.all(FieldName::Traceparent);
    let (Some(parent), None) = (parents.next(), parents.next()) else { return false };
    let is_hex = |it: &[u8]| it.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |it: &[u8]| is_hex(it) && it.iter().any(|it| *it != b'0');
    let Some((known, more)) = parent.split_at_checked(55) else { return false };
    let is_of_version = match &known[..2] {
        b"00" => more.is_empty(),
        b"ff" => false,
        later => is_hex(later) && more.first().is_none_or(|it| *it == b'-'),
    };
    is_of_version
        && [known[2], known[35], known[52]] == *b"---"
        && is_id(&known[3..35])
        && is_id(&known[36..52])
        && is_hex(&known[53..])
}

/// Adds a request id and a trace, unless the request has them. The trace is not sampled, because Flipgate records none:
/// the upstream decides.
fn put_identity(out: &mut Vec<u8>, is_named: bool, is_traced: bool, random: &mut fastrand::Rng) {
    if is_named && is_traced {
        return;
    }
    // An id of zeros is invalid: W3C Trace Context, section 3.2.
    let trace = hex::<16, 32>(random.u128(1..).to_be_bytes());
    if !is_named {
        out.extend_from_slice(b"X-Request-Id: ");
        out.extend_from_slice(&trace);
        out.extend_from_slice(b"\r\n");
    }
    if !is_traced {
        out.extend_from_slice(b"Traceparent: 00-");
        out.extend_from_slice(&trace);
        out.push(b'-');
        out.extend_from_slice(&hex::<8, 16>(random.u64(1..).to_be_bytes()));
        out.extend_from_slice(b"-00\r\n");
    }
}

/// Two digits for each byte. Not by `format!`, which costs ten times as much, for every request.
fn hex<const BYTES: usize, const DIGITS: usize>(bytes: [u8; BYTES]) -> [u8; DIGITS] {
    const PAIRS: [[u8; 2]; 256] = {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            pairs[byte] = [HEX[byte >> 4], HEX[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let mut digits = [b'0'; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(byte)]);
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        downstream::{Listener, ListenerContext, PeerIdentity, TlsDetails},
        model::Networks,
        proxy::samples::{self, values},
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
            let security =
                TlsDetails { names, client_certificate: identity, makes_internal: false };
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
}
