//! What is changed in heads on their way through.

use std::{
    cell::{OnceCell, RefCell},
    net::IpAddr,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, TE, TRANSFER_ENCODING},
};

use hyper::body::Frame;

use super::{address::Standing, cookies, glance::Glance};

/// What is worked out once for a connection instead of once for each of its requests.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) standing: Standing,
    /// The peer's address as the value of a field.
    peer: OnceCell<HeaderValue>,
    /// The last request's `Host`, and the `Forwarded` that follows from it.
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Turns the head that came from a client into the one that an upstream gets.
///
/// Removed: what is for one hop only (RFC 9110, section 7.6.1, and whatever `Connection` lists),
/// `Proxy` (CVE-2016-5385), names with `_` (many applications read them as `-`), our own wishes,
/// and what an untrusted peer says of forwarding. Added: who asked, by which host and scheme, and
/// an id to find the request by.
pub(super) fn forward_request(
    headers: &mut HeaderMap,
    glance: Glance,
    memory: &Memory,
    peer: IpAddr,
    is_behind_proxy: bool,
    random: &mut fastrand::Rng,
) {
    let takes_trailers = glance.has_te && headers.get_all(TE).iter().any(lists_trailers);
    remove_hop_by_hop(headers, |name| {
        name.starts_with("flipgate-")
            || memchr::memchr(b'_', name.as_bytes()).is_some()
            || !is_behind_proxy && tells_of_forwarding(name)
            || name == "proxy"
    });
    if glance.has_cookies {
        cookies::strip(headers);
    }
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(host) = headers.get(HOST).cloned() {
        continue_forwarding(headers, memory, peer, &host, is_behind_proxy);
    }
    identify(headers, random, is_behind_proxy);
}

/// Turns the head that came from an upstream into the one that the client gets.
pub(super) fn forward_response(headers: &mut HeaderMap) {
    // A length beside a coding says nothing: RFC 9112, section 6.3.
    let is_coded = headers.keys().any(|it| *it == TRANSFER_ENCODING);
    // Only Flipgate's own answers may say that they are.
    let is_own_word =
        |line: &HeaderValue| memchr::memmem::find(line.as_bytes(), b"flipgate").is_some();
    let pretends = headers.iter().any(|(name, line)| name == "proxy-status" && is_own_word(line));
    remove_hop_by_hop(headers, |name| {
        name.starts_with("flipgate-")
            || is_coded && name == "content-length"
            || pretends && name == "proxy-status"
    });
}

/// Takes out of trailers what a head would not have brought through either.
pub(super) fn clean_trailers<T>(mut frame: Frame<T>) -> Frame<T> {
    if let Some(trailers) = frame.trailers_mut() {
        remove_hop_by_hop(trailers, |name| {
            name.starts_with("flipgate-")
                || memchr::memchr(b'_', name.as_bytes()).is_some()
                || tells_of_forwarding(name)
                || matches!(name, "content-length" | "host" | "cookie" | "authorization")
        });
    }
    frame
}

/// Forbids every cache to keep an answer, also those that prefer their own field to the common one.
pub(super) fn forbid_caching(headers: &mut HeaderMap) {
    let is_for_caches = |name: &&HeaderName| {
        let name = name.as_str();
        name.ends_with("cdn-cache-control")
            || matches!(name, "edge-control" | "expires" | "surrogate-control" | "x-accel-expires")
    };
    let removed: Vec<HeaderName> = headers.keys().filter(is_for_caches).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
}

fn remove_hop_by_hop(headers: &mut HeaderMap, is_ours: impl Fn(&str) -> bool) {
    let mut removed: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        let text = name.as_str();
        if is_hop_by_hop(text) || is_ours(text) {
            removed.push(name.clone());
        }
    }
    if removed.contains(&CONNECTION) {
        for line in headers.get_all(CONNECTION) {
            let listed = line.as_bytes().split(|it| *it == b',').map(<[u8]>::trim_ascii);
            removed.extend(
                listed.filter_map(|it| HeaderName::from_bytes(it).ok()).filter(may_be_listed),
            );
        }
    }
    for name in removed {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// A request must not be able to take away what says where it goes and where it ends.
fn may_be_listed(name: &HeaderName) -> bool {
    !matches!(*name, HOST | CONTENT_LENGTH)
}

fn tells_of_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(name, "forwarded" | "x-real-ip" | "x-request-id" | "traceparent" | "tracestate")
}

/// `trailers` among the members of a `TE`: the only coding that is passed on.
fn lists_trailers(line: &HeaderValue) -> bool {
    let members = line.as_bytes().split(|it| *it == b',');
    members.map(<[u8]>::trim_ascii).any(|it| it.eq_ignore_ascii_case(b"trailers"))
}

fn continue_forwarding(
    headers: &mut HeaderMap,
    memory: &Memory,
    peer: IpAddr,
    host: &HeaderValue,
    is_behind_proxy: bool,
) {
    let peer_value = memory.peer.get_or_init(|| {
        HeaderValue::from_str(&peer.to_string()).expect("an address is plain ASCII")
    });
    let own = {
        let mut known = memory.forwarded.borrow_mut();
        match &*known {
            Some((it, forwarded)) if it == host => forwarded.clone(),
            _ => {
                let forwarded = forwarded(peer, host);
                // A copy: the value itself is a part of the buffer that the request was read into.
                let host = HeaderValue::from_bytes(host.as_bytes()).expect("it is one already");
                *known = Some((host, forwarded.clone()));
                forwarded
            }
        }
    };
    if !is_behind_proxy {
        // What was there is gone by now.
        headers.insert(X_FORWARDED_FOR, peer_value.clone());
        headers.insert(FORWARDED, own);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        headers.insert(X_FORWARDED_HOST, host.clone());
        return;
    }
    let chain = joined(headers, &X_FORWARDED_FOR, peer_value);
    headers.insert(X_FORWARDED_FOR, chain);
    let chain = joined(headers, &FORWARDED, &own);
    headers.insert(FORWARDED, chain);
    // What a trusted proxy says of scheme and host is what the client saw.
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
}

/// `last` behind whatever is there already.
fn joined(headers: &HeaderMap, name: &HeaderName, last: &HeaderValue) -> HeaderValue {
    if !headers.contains_key(name) {
        return last.clone();
    }
    let lines = headers.get_all(name).iter().chain([last]);
    let chain = lines.map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..]);
    HeaderValue::from_bytes(&chain).expect("valid values joined by `, `")
}

/// One element of `Forwarded`: RFC 7239, section 4.
fn forwarded(peer: IpAddr, host: &HeaderValue) -> HeaderValue {
    let host = host.to_str().unwrap_or_default();
    let is_token =
        host.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_'));
    let quote = if is_token { "" } else { "\"" };
    let text = match peer {
        IpAddr::V4(peer) => format!("for={peer};host={quote}{host}{quote};proto=http"),
        IpAddr::V6(peer) => format!("for=\"[{peer}]\";host={quote}{host}{quote};proto=http"),
    };
    HeaderValue::from_str(&text).expect("a host was checked to have no quotes or controls")
}

/// Gives the request an id, and a place in a trace, unless a trusted proxy has.
fn identify(headers: &mut HeaderMap, random: &mut fastrand::Rng, is_behind_proxy: bool) {
    let is_named = is_behind_proxy && headers.contains_key(&X_REQUEST_ID);
    let is_traced = is_behind_proxy && headers.contains_key(&TRACEPARENT);
    if is_named && is_traced {
        return;
    }
    // W3C Trace Context, section 3.2: version, trace, parent, flags. An id of zeros is invalid.
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    write_hex(&mut text[3..35], &random.u128(1..).to_be_bytes());
    write_hex(&mut text[36..52], &random.u64(1..).to_be_bytes());
    let text = Bytes::copy_from_slice(&text);
    let value =
        |text: Bytes| HeaderValue::from_maybe_shared(text).expect("hexadecimal digits and dashes");
    if !is_named {
        headers.insert(X_REQUEST_ID, value(text.slice(3..35)));
    }
    if !is_traced {
        headers.insert(TRACEPARENT, value(text));
    }
}

/// Two digits for each byte. By hand, since formatting costs ten times as much, for every request.
fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn forward(fields: &[(&'static str, &'static str)], is_behind_proxy: bool) -> HeaderMap {
        let mut headers = headers(fields);
        let peer = "192.0.2.7".parse().expect("an address");
        let mut random = fastrand::Rng::with_seed(7);
        let (glance, memory) = (Glance::at(&headers), Memory::default());
        forward_request(&mut headers, glance, &memory, peer, is_behind_proxy, &mut random);
        headers
    }

    fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|it| it.to_str().expect("ASCII")).collect()
    }

    #[test]
    fn what_is_for_one_hop_does_not_go_further() {
        let sent = forward(
            &[
                ("host", "example.com"),
                ("connection", "keep-alive, X-Secret"),
                ("connection", "x-other ,upgrade, host, content-length, ,bad name"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("te", "gzip"),
                ("transfer-encoding", "chunked"),
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
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let forwarding = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
        let mut expected = vec!["accept", "content-length", "forwarded", "host", "traceparent"];
        expected.extend(forwarding);
        expected.push("x-request-id");
        assert_eq!(names, expected);
    }

    #[test]
    fn trailers_are_the_only_coding_that_is_asked_for() {
        let sent = forward(&[("host", "a"), ("te", "gzip;q=0.5, Trailers")], false);
        assert_eq!(values(&sent, "te"), ["trailers"]);
        assert_eq!(values(&sent, "connection"), ["te"]);
    }

    #[test]
    fn what_an_untrusted_peer_says_of_forwarding_is_replaced() {
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
        for gone in ["x-forwarded-port", "x-real-ip", "tracestate"] {
            assert!(!sent.contains_key(gone), "{gone}");
        }
        let (id, trace) = (values(&sent, "x-request-id"), values(&sent, "traceparent"));
        assert!(id[0].len() == 32 && trace[0].len() == 55 && !trace[0].contains("0af765"));
    }

    #[test]
    fn what_a_trusted_proxy_says_of_forwarding_is_continued() {
        let told = [
            ("host", "example.com"),
            ("x-forwarded-for", "203.0.113.5"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "for=203.0.113.5"),
            ("x-request-id", "theirs"),
            ("tracestate", "a=b"),
        ];
        let sent = forward(&told, true);
        assert_eq!(values(&sent, "x-forwarded-for"), ["203.0.113.5, 10.0.0.2, 192.0.2.7"]);
        assert_eq!(values(&sent, "x-forwarded-proto"), ["https"]);
        let chain = "for=203.0.113.5, for=192.0.2.7;host=example.com;proto=http";
        assert_eq!(values(&sent, "forwarded"), [chain]);
        assert_eq!(values(&sent, "x-request-id"), ["theirs"]);
        assert_eq!(values(&sent, "tracestate"), ["a=b"]);
    }

    #[test]
    fn an_answer_loses_what_is_for_one_hop_and_what_is_only_ours_to_say() {
        let mut answer = headers(&[
            ("connection", "close, x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("flipgate-color", "green"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("trailer", "x-sum"),
        ]);
        forward_response(&mut answer);
        assert_eq!(answer.len(), 3);
        assert_eq!(values(&answer, "set-cookie"), ["a=b", "c=d"]);
    }

    #[test]
    fn a_length_beside_a_coding_and_a_status_that_is_not_theirs_are_dropped() {
        let mut answer = headers(&[
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("proxy-status", "flipgate; error=dns_error"),
        ]);
        forward_response(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
        let mut answer = headers(&[("content-length", "5"), ("proxy-status", "other; error=x")]);
        forward_response(&mut answer);
        assert_eq!(answer.len(), 2);
    }

    #[test]
    fn trailers_bring_nothing_through_that_a_head_would_not() {
        let trailers = headers(&[
            ("x-sum", "1"),
            ("flipgate-preview", "green"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("content-length", "5"),
        ]);
        let frame = clean_trailers(Frame::<()>::trailers(trailers));
        let Ok(left) = frame.into_trailers() else { panic!("trailers") };
        assert_eq!((left.len(), values(&left, "x-sum")), (1, vec!["1"]));
    }

    #[test]
    fn no_cache_may_keep_a_preview() {
        let mut answer = headers(&[
            ("cache-control", "public, max-age=3600"),
            ("cache-control", "immutable"),
            ("cdn-cache-control", "max-age=60"),
            ("fastly-cdn-cache-control", "max-age=60"),
            ("x-accel-expires", "600"),
            ("expires", "Thu, 01 Dec 2094 16:00:00 GMT"),
        ]);
        forbid_caching(&mut answer);
        assert_eq!(values(&answer, "cache-control"), ["private, no-store"]);
        assert_eq!(answer.len(), 1);
    }
}
