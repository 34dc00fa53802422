//! Which heads are valid, what they mean, and which are rejected.

use super::*;
use crate::http1::scan::has_end;

fn parse(text: &str) -> Result<Option<RequestHead>, HeadRejection> {
    RequestHead::parse(text.as_bytes())
}

fn valid(text: &str) -> RequestHead {
    parse(text).expect("a valid head").expect("a complete head")
}

fn with(line: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")
}

#[test]
fn a_head_is_complete_at_its_end_however_it_is_split() {
    let text = "GET /a?b HTTP/1.1\r\nHost: a.test:80\r\nX: \r\nAccept:  */* \r\n\r\nGET";
    let len = text.len() - 3;
    for end in 0..=text.len() {
        let head = parse(&text[..end]).expect("valid so far");
        assert_eq!(head.map(|it| it.len), (end >= len).then_some(len), "{end}");
        assert_eq!(has_end(&text.as_bytes()[..end], 0), end >= len, "{end}");
        assert!(end != len || (1..=len).all(|new| has_end(&text.as_bytes()[..end], end - new)));
    }
    let (head, bytes) = (valid(text), text.as_bytes());
    assert_eq!((head.method(bytes), head.target(bytes)), (&b"GET"[..], &b"/a?b"[..]));
    assert_eq!((head.path(bytes), head.host(bytes)), (&b"/a"[..], &b"a.test:80"[..]));
    let lines: Vec<_> =
        head.fields.lines(bytes).each().map(|(_, name, value)| (name, value)).collect();
    assert_eq!(lines[1..], [(&b"X"[..], &b""[..]), (b"Accept", b"*/*")]);
}

#[test]
fn the_framing_follows_from_the_fields() {
    for (lines, framing) in [
        ("X: 1", Framing::None),
        ("Content-Length: 0", Framing::Exact(0)),
        ("content-length: 00012", Framing::Exact(12)),
        ("Content-Length: 9223372036854775807", Framing::Exact(9_223_372_036_854_775_807)),
        ("Transfer-Encoding: Chunked", Framing::Chunked),
    ] {
        assert_eq!(valid(&with(lines)).framing, framing, "{lines}");
    }
}

#[test]
fn a_length_over_the_signed_maximum_is_rejected() {
    for length in ["9223372036854775808", "9999999999999999999", "18446744073709551615"] {
        let found = parse(&with(&format!("Content-Length: {length}")));
        assert!(matches!(found, Err(HeadRejection::Malformed(_))), "{length}");
    }
}

#[test]
fn a_connection_is_kept_alive_unless_a_side_closes_it() {
    for (version, line, keeps_alive) in [
        ("1.1", "X: 1", true),
        ("1.1", "Connection: x, CLOSE", false),
        ("1.1", "Connection: x\r\nConnection: close", false),
        ("1.0", "X: 1", false),
        ("1.0", "Connection: Keep-Alive", true),
        ("1.0", "Connection: keep-alive, close", false),
    ] {
        let head = valid(&format!("GET / HTTP/{version}\r\nHost: a\r\n{line}\r\n\r\n"));
        assert_eq!(head.keeps_alive, keeps_alive, "{version} {line}");
    }
}

#[test]
fn only_a_websocket_can_be_requested_as_a_tunnel() {
    for (lines, expected) in [
        ("Connection: Upgrade\r\nUpgrade: WebSocket", true),
        ("Connection: keep-alive, upgrade\r\nUpgrade: websocket", true),
        ("Upgrade: websocket", false),
        ("Connection: upgrade\r\nUpgrade: h2c", false),
        ("Connection: upgrade\r\nUpgrade: websocket, h2c", true),
        ("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: WebSocket", true),
        ("Connection: upgrade\r\nUpgrade: h2c, websockets", false),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0", true),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", false),
    ] {
        let head = valid(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
        assert_eq!(head.requests_websocket, expected, "{lines}");
        let head = valid(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
        assert!(!head.requests_websocket);
    }
}

#[test]
fn a_handshake_with_an_empty_chunked_body_is_one_without_content() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    for (after, expected) in [
        ("", None),
        ("0\r\n\r", None),
        ("0\r\n\r\n", Some(true)),
        ("0\r\n\r\nframes", Some(true)),
        ("5", Some(false)),
        ("0\r\nx", Some(false)),
    ] {
        let head = parse(&format!("{text}{after}")).expect("valid so far");
        assert_eq!(head.as_ref().map(|it| it.requests_websocket), expected, "{after:?}");
        let Some(head) = head else { continue };
        let (content, framing) =
            if expected == Some(true) { (5, Framing::None) } else { (0, Framing::Chunked) };
        assert_eq!((head.len, head.framing), (text.len() + content, framing), "{after:?}");
    }
    // A client that expects `100 Continue` has not sent its body yet.
    let waits = text.replace("Host: a", "Host: a\r\nExpect: 100-continue");
    assert!(!valid(&waits).requests_websocket);
}

#[test]
fn only_a_plain_health_check_needs_no_host() {
    for target in ["*", "/"] {
        let text = format!("OPTIONS {target} HTTP/1.0\r\n\r\n");
        assert_eq!(valid(&text).host(text.as_bytes()), b"");
    }
    for line in ["OPTIONS * HTTP/1.1", "OPTIONS /a HTTP/1.0", "GET / HTTP/1.0", "HEAD / HTTP/1.0"] {
        assert!(parse(&format!("{line}\r\n\r\n")).is_err(), "{line}");
    }
    assert!(parse("OPTIONS * HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").is_err());
}

#[test]
fn targets_become_paths() {
    for (method, target, form, rest) in [
        ("GET", "/x?y", TargetForm::Path, "/x?y"),
        ("GET", "//x", TargetForm::Path, "//x"),
        ("GET", "http://A/x", TargetForm::Path, "/x"),
        ("GET", "HTTPS://a/x", TargetForm::Path, "/x"),
        ("GET", "http://a", TargetForm::Root, ""),
        ("GET", "http://a?b", TargetForm::Root, "?b"),
        ("OPTIONS", "*", TargetForm::Asterisk, "*"),
        ("OPTIONS", "http://a", TargetForm::Asterisk, ""),
    ] {
        let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = valid(&text);
        assert_eq!((head.form, head.target(text.as_bytes())), (form, rest.as_bytes()));
    }
    for (target, host, expected) in [
        ("http://a.test:80/", "a.test", "a.test:80"),
        ("http://a.test/", "a.test:80", "a.test"),
        ("http://a.test:/", "a.test", "a.test:"),
        ("http://a.test/", "A.test:", "a.test"),
        ("https://a.test:443/", "a.test", "a.test:443"),
        ("HTTPS://a.test/", "a.test:443", "a.test"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(valid(&text).host(text.as_bytes()), expected.as_bytes(), "{target} {host}");
    }
    for (target, host) in [
        ("http://a.test:443/", "a.test"),
        ("https://a.test:80/", "a.test"),
        ("https://a.test/", "a.test:80"),
        ("http://a.test/", "a.test:8080"),
        ("http://a.test:80/", "b.test"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert!(matches!(parse(&text), Err(HeadRejection::Malformed(_))), "{target} {host}");
    }
    for target in ["*", "x", "a:80", "ftp://a/", "http://b/", "http://a@a/", "http:///", "/x#y"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(matches!(parse(&text), Err(HeadRejection::Malformed(_))), "{target}");
    }
}

#[test]
fn line_ends_are_crlf_everywhere() {
    let text = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n";
    for at in text.match_indices("\r\n").map(|(at, _)| at) {
        let bare = format!("{}{}", &text[..at], &text[at + 1..]);
        assert!(matches!(parse(&bare), Err(HeadRejection::Malformed(_))), "{bare:?}");
        let cr = format!("{}{}", &text[..=at], &text[at + 2..]);
        assert!(!matches!(parse(&cr), Ok(Some(_))), "{cr:?}");
    }
    for empty_line in ["\n", "\r\n", "\r\r\n"] {
        assert!(parse(&format!("{empty_line}{text}")).is_err(), "{empty_line:?}");
    }
}

const HEAD_MAX: usize = 32 * 1024;
const LINE_MAX: usize = 8 * 1024;

#[test]
fn configured_limits_apply() {
    let line = |count: usize| with(&format!("X: {}", "x".repeat(count)));
    let limits = HeadLimits { line: 1000, head: 2000 };
    let read = |text: &str| RequestHead::parse_within(text.as_bytes(), limits).map(drop);
    assert_eq!(read(&line(999)), Ok(()));
    assert_eq!(read(&line(1000)), Err(HeadRejection::TooLarge));
    assert_eq!(
        read(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(1000))),
        Err(HeadRejection::TargetTooLong)
    );
    let two = with(&format!("X: {0}\r\nY: {0}\r\nZ: {0}", "x".repeat(700)));
    assert_eq!(read(&two), Err(HeadRejection::TooLarge));
    let wide = HeadLimits { line: 20_000, head: RequestHead::BYTES_MAX };
    let head = line(20_000 - 1);
    assert!(RequestHead::parse_within(head.as_bytes(), wide).is_ok_and(|it| it.is_some()));
}

#[test]
fn a_joined_cookie_may_exceed_the_line_limit() {
    let limits = HeadLimits::default();
    let joined = |head: &str, longest| {
        RequestHead::parse_joined(head.as_bytes(), limits, longest).map(|it| it.is_some())
    };
    let cookie = format!("cookie: {}", "x".repeat(9000));
    assert_eq!(joined(&with(&cookie), 4500), Ok(true));
    assert_eq!(joined(&with(&cookie), LINE_MAX - 5), Err(HeadRejection::TooLarge));
    assert_eq!(joined(&with(&format!("{cookie}\r\n{cookie}")), 4500), Err(HeadRejection::TooLarge));
    assert_eq!(
        joined(&with(&format!("{cookie}\r\nX: {}", "x".repeat(9000))), 1),
        Err(HeadRejection::TooLarge)
    );
    assert_eq!(parse(&with(&cookie)).err(), Some(HeadRejection::TooLarge), "not joined");
}

#[test]
fn each_limit_has_its_own_rejection() {
    let long = |count: usize| "x".repeat(count);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(LINE_MAX));
    assert_eq!(parse(&target).err(), Some(HeadRejection::TargetTooLong));
    assert_eq!(parse(&target[..=LINE_MAX]).err(), Some(HeadRejection::TargetTooLong));
    assert_eq!(
        parse(&with(&format!("X: {}", long(LINE_MAX)))).err(),
        Some(HeadRejection::TooLarge)
    );
    let many: Vec<_> = (0..FIELDS_MAX - 1).map(|it| format!("X-{it}: 1")).collect();
    assert!(parse(&with(&many.join("\r\n"))).is_ok());
    assert_eq!(
        parse(&with(&format!("{}\r\nY: 1", many.join("\r\n")))).err(),
        Some(HeadRejection::TooLarge)
    );
    let large: Vec<_> = (0..5).map(|it| format!("X-{it}: {}", long(8000))).collect();
    let large = with(&large.join("\r\n"));
    assert_eq!(parse(&large).err(), Some(HeadRejection::TooLarge));
    assert_eq!(parse(&large[..HEAD_MAX]).err(), Some(HeadRejection::TooLarge));
    assert!(parse(&large[..HEAD_MAX - 1]).is_ok());
}
