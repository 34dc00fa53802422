//! HTTP/2 is read as strictly as HTTP/1, and misuse ends the connection. Bytes in, outcome out.

use crate::support::{
    TestProxy, Upstream,
    client::PUBLIC,
    eventually,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Fate, Frames, GOAWAY, HEADERS, PING, PRIORITY,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, frame,
    },
};

use Fate::{Closed, GoAway, Reset, Status};

const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a.test");

/// A name, the fields of a head, and what may become of it.
type Shape<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [Fate]);

/// A name, the fields of trailers, and whether they are good.
type Section<'a> = (&'a str, &'a [(&'a str, &'a str)], bool);

/// A request without a body, and with these fields too.
pub(crate) fn get(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    ask(stream, &[&[METHOD, SCHEME, PATH, AUTHORITY], more].concat())
}

fn ask(stream: u32, lines: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(lines))
}

async fn proxy() -> (Upstream, TestProxy) {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build().service("web", &[&blue], &[]).start();
    (blue, proxy)
}

/// Shapes that are not even fields to the library.
const UNDECODABLE: &[&str] = &[
    "a method with a space",
    "an unknown pseudo-field",
    "capitals",
    "a name with a space",
    "a name with a colon",
    "a name with a line end",
    "an empty name",
    "CR LF in a value",
    "LF in a value",
    "NUL in a value",
];

/// Heads of which nothing may reach an upstream.
#[tokio::test]
async fn a_malformed_head_is_reset_or_refused_and_goes_nowhere() {
    let (blue, proxy) = proxy().await;
    let long = "x".repeat(9000);
    let shapes: &[Shape<'_>] = &[
        ("no method", &[SCHEME, PATH, AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        ("no scheme", &[METHOD, PATH, AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        ("an empty scheme", &[METHOD, (":scheme", ""), PATH, AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        (
            "another scheme",
            &[METHOD, (":scheme", "ftp"), PATH, AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a scheme that only begins like one",
            &[METHOD, (":scheme", "httpx"), PATH, AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "an empty scheme and a Host",
            &[METHOD, (":scheme", ""), PATH, ("host", "a.test")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "another scheme and a Host",
            &[METHOD, (":scheme", "ftp"), PATH, ("host", "a.test")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("a fragment", &[METHOD, SCHEME, (":path", "/a?b#c"), AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        (
            "only a fragment",
            &[METHOD, SCHEME, (":path", "/#"), AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("no path", &[METHOD, SCHEME, AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        ("an empty path", &[METHOD, SCHEME, (":path", ""), AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        (
            "a path that is none",
            &[METHOD, SCHEME, (":path", "a"), AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a path that is a URL",
            &[METHOD, SCHEME, (":path", "http://a.test/"), AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "an asterisk for GET",
            &[METHOD, SCHEME, (":path", "*"), AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a path with a space",
            &[METHOD, SCHEME, (":path", "/a HTTP/1.1\r\nx: y"), AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("two methods", &[METHOD, METHOD, SCHEME, PATH, AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        ("two paths", &[METHOD, SCHEME, PATH, PATH, AUTHORITY], &[Reset(PROTOCOL_ERROR)]),
        (
            "a method with a space",
            &[(":method", "GET /x"), SCHEME, PATH, AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a status",
            &[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "an unknown pseudo-field",
            &[METHOD, SCHEME, PATH, AUTHORITY, (":x", "1")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a pseudo-field behind others",
            &[METHOD, SCHEME, ("x", "1"), PATH, AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("capitals", &[METHOD, SCHEME, PATH, AUTHORITY, ("X-Y", "1")], &[Reset(PROTOCOL_ERROR)]),
        (
            "a name with a space",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x y", "1")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a name with a colon",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x:y", "1")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a name with a line end",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x\r\ny", "1")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("an empty name", &[METHOD, SCHEME, PATH, AUTHORITY, ("", "1")], &[Reset(PROTOCOL_ERROR)]),
        (
            "CR LF in a value",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "1\r\nhost: b")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "LF in a value",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "1\ny: 2")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "NUL in a value",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x", "1\0")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "space around a value",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("x", " 1")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "connection",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("connection", "close")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "keep-alive",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("keep-alive", "1")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "proxy-connection",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("proxy-connection", "x")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "transfer-encoding",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("transfer-encoding", "chunked")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "upgrade",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("upgrade", "websocket")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "te that is not trailers",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("te", "gzip")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a length beside the end",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "5")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "two lengths",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "0"), ("content-length", "0")],
            &[Reset(PROTOCOL_ERROR), Status(400)],
        ),
        (
            "a length that is none",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("content-length", "+0")],
            &[Reset(PROTOCOL_ERROR), Status(400)],
        ),
        (
            "a host that is another",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "b.test")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a host at another port",
            &[METHOD, SCHEME, PATH, AUTHORITY, ("host", "a.test:443")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a host at the default port of another scheme",
            &[METHOD, (":scheme", "https"), PATH, AUTHORITY, ("host", "a.test:80")],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("no host", &[METHOD, SCHEME, PATH], &[Status(400)]),
        ("two hosts", &[METHOD, SCHEME, PATH, ("host", "a"), ("host", "a")], &[Status(400)]),
        (
            "a user in the authority",
            &[METHOD, SCHEME, PATH, (":authority", "me@a.test")],
            &[Status(400), Reset(PROTOCOL_ERROR)],
        ),
        (
            "an authority with a path",
            &[METHOD, SCHEME, PATH, (":authority", "a.test/b")],
            &[Status(400), Reset(PROTOCOL_ERROR)],
        ),
        ("CONNECT", &[(":method", "CONNECT"), (":authority", "a.test:80")], &[Status(405)]),
        ("TRACE", &[(":method", "TRACE"), SCHEME, PATH, AUTHORITY], &[Status(405)]),
        (
            "another protocol",
            &[(":method", "CONNECT"), (":protocol", "x"), SCHEME, PATH, AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        (
            "a protocol for GET",
            &[METHOD, (":protocol", "websocket"), SCHEME, PATH, AUTHORITY],
            &[Reset(PROTOCOL_ERROR)],
        ),
        ("a long value", &[METHOD, SCHEME, PATH, AUTHORITY, ("x", &long)], &[Status(431)]),
        (
            "a long path",
            &[METHOD, SCHEME, (":path", &format!("/{long}")), AUTHORITY],
            &[Status(414)],
        ),
        ("a path in two ways", &[METHOD, SCHEME, (":path", "/a%00"), AUTHORITY], &[Status(400)]),
    ];
    let mut undecodable = Vec::new();
    for (name, lines, fates) in shapes {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        frames.send(&ask(1, lines)).await;
        let fate = frames.fate(1).await;
        // What cannot be decoded is the connection's fault, since its compression has a memory.
        if fate == GoAway(PROTOCOL_ERROR) {
            undecodable.push(*name);
            continue;
        }
        assert!(fates.contains(&fate), "{name}: {fate:?}");
        // Only that stream was wrong.
        frames.send(&get(3, &[])).await;
        assert_eq!(frames.fate(3).await, Status(200), "{name}");
    }
    assert_eq!(undecodable, UNDECODABLE);
    let good = shapes.len() - undecodable.len();
    assert_eq!(blue.requests(), good, "only the good ones");
}

#[tokio::test]
async fn a_host_that_differs_from_the_authority_by_the_default_port_is_the_same() {
    let (_blue, proxy) = proxy().await;
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    let mut stream = 1;
    for (scheme, authority, host) in [
        ("http", "a.test", "a.test:80"),
        ("http", "a.test:80", "a.test"),
        ("http", "a.test:", "a.test"),
        ("http", "A.test", "a.test:"),
        ("https", "a.test:443", "a.test"),
    ] {
        let authority_field = (":authority", authority);
        let lines = [METHOD, (":scheme", scheme), PATH, authority_field, ("host", host)];
        frames.send(&ask(stream, &lines)).await;
        assert_eq!(frames.fate(stream).await, Status(200), "{scheme} {authority} {host}");
        stream += 2;
    }
}

#[tokio::test]
async fn a_limit_is_for_the_fields_of_a_head_as_they_were_sent() {
    // Two cookies were joined, and refused together for a size that neither of them had.
    let (blue, proxy) = proxy().await;
    let crumb = |length: usize| format!("c={}", "x".repeat(length - 2));
    let (small, large, too_large) = (crumb(4090), crumb(8192 - 6), crumb(8192 - 5));
    let shapes: &[(&[&str], u16)] = &[
        (&[&small, &small], 200),
        (&[&large, &small], 200),
        (&[&large, &large, &large], 200),
        (&[&too_large], 431),
        (&[&small, &too_large], 431),
        (&[&large, &large, &large, &large], 431),
    ];
    for (cookies, status) in shapes {
        let cookies: Vec<_> = cookies.iter().map(|it| ("cookie", *it)).collect();
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        for part in
            head_frames(1, &fields(&[&[METHOD, SCHEME, PATH, AUTHORITY], &*cookies].concat()))
        {
            frames.send(&part).await;
        }
        assert_eq!(frames.fate(1).await, Status(*status), "{} cookies", cookies.len());
    }
    // As many as HTTP/1 takes.
    let many: Vec<_> = (0..99).map(|it| (format!("x-{it}"), "x".repeat(300))).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (&**name, &**value)).collect();
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    for part in head_frames(1, &fields(&[&[METHOD, SCHEME, PATH, AUTHORITY], &*many].concat())) {
        frames.send(&part).await;
    }
    assert_eq!(frames.fate(1).await, Status(200));
    assert_eq!(blue.requests(), 4);
}

/// The frames of a head that may be too large for one.
fn head_frames(stream: u32, block: &[u8]) -> Vec<Vec<u8>> {
    let parts: Vec<_> = block.chunks(16_000).collect();
    let last = parts.len() - 1;
    let frame_of = |(place, part): (usize, &&[u8])| {
        let end = if place == last { END_HEADERS } else { 0 };
        match place {
            0 => frame(HEADERS, END_STREAM | end, stream, part),
            _ => frame(CONTINUATION, end, stream, part),
        }
    };
    parts.iter().enumerate().map(frame_of).collect()
}

#[tokio::test]
async fn pseudo_fields_in_trailers_reset_the_stream() {
    // They were dropped, and the request was passed on as if it were well-formed: RFC 9113, section 8.1.
    let (_blue, proxy) = proxy().await;
    let good = ("x-sum", "1");
    let shapes: &[Section<'_>] = &[
        ("a path", &[(":path", "/")], false),
        ("a path behind a field", &[good, (":path", "/")], false),
        ("a status", &[(":status", "200")], false),
        ("a method", &[(":method", "GET"), good], false),
        ("a scheme", &[(":scheme", "http")], false),
        ("an authority", &[(":authority", "a.test")], false),
        ("a protocol", &[(":protocol", "websocket")], false),
        ("a field", &[good], true),
        ("nothing", &[], true),
    ];
    let head = [(":method", "POST"), SCHEME, (":path", "/echo"), AUTHORITY];
    let head = frame(HEADERS, END_HEADERS, 1, &fields(&head));
    let trailers = |block: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, 1, block);
    let indexed = |byte: u8| vec![byte];
    let in_two = |lines: &[(&str, &str)]| {
        let first = frame(HEADERS, END_STREAM, 1, &fields(&[good]));
        [first, frame(CONTINUATION, END_HEADERS, 1, &fields(lines))].concat()
    };
    let mut cases: Vec<(String, Vec<u8>, bool)> = Vec::new();
    for (name, lines, is_good) in shapes {
        cases.push(((*name).to_owned(), trailers(&fields(lines)), *is_good));
        cases.push((
            format!("{name}, behind a size"),
            trailers(&[&[0x20], &*fields(lines)].concat()),
            *is_good,
        ));
        cases.push((format!("{name}, in two frames"), in_two(lines), *is_good));
    }
    // Of the static table: RFC 7541, appendix A.
    for (name, byte) in
        [("a method", 0x82), ("a path", 0x84), ("a scheme", 0x87), ("a status", 0x88)]
    {
        cases.push((format!("{name} by its index"), trailers(&indexed(byte)), false));
    }
    for (name, trailers, is_good) in &cases {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        frames.send(&[&*head, &frame(DATA, 0, 1, b"body"), trailers].concat()).await;
        let fate = frames.fate(1).await;
        let wanted = if *is_good { Status(200) } else { Reset(PROTOCOL_ERROR) };
        assert_eq!(fate, wanted, "{name}");
        frames.send(&get(3, &[])).await;
        assert_eq!(frames.fate(3).await, Status(200), "only that stream was wrong: {name}");
    }
}

#[tokio::test]
async fn a_good_head_is_answered_however_it_is_cut() {
    let (_blue, proxy) = proxy().await;
    let block = fields(&[METHOD, SCHEME, PATH, AUTHORITY, ("te", "trailers"), ("host", "A.test")]);
    for cut in 0..block.len() {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        let (one, two) = block.split_at(cut);
        frames.send(&frame(HEADERS, END_STREAM, 1, one)).await;
        frames.send(&frame(CONTINUATION, END_HEADERS, 1, two)).await;
        assert_eq!(frames.fate(1).await, Status(200), "{cut}");
    }
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    for byte in get(1, &[]) {
        frames.send(&[byte]).await;
    }
    assert_eq!(frames.fate(1).await, Status(200));
}

#[tokio::test]
async fn a_body_of_another_length_than_it_says_is_no_request() {
    let (_blue, proxy) = proxy().await;
    for (length, parts) in
        [("5", &[&b"hell"[..]][..]), ("5", &[b"hello!"]), ("0", &[b"x"]), ("5", &[b"hello", b"!"])]
    {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        let head = [
            (":method", "POST"),
            SCHEME,
            (":path", "/echo"),
            AUTHORITY,
            ("content-length", length),
        ];
        frames.send(&frame(HEADERS, END_HEADERS, 1, &fields(&head))).await;
        for (place, part) in parts.iter().enumerate() {
            let flags = if place + 1 == parts.len() { END_STREAM } else { 0 };
            frames.send(&frame(DATA, flags, 1, part)).await;
        }
        assert_eq!(frames.fate(1).await, Reset(PROTOCOL_ERROR), "{length} {parts:?}");
    }
}

#[tokio::test]
async fn a_request_without_content_is_passed_on_when_it_is_known_to_have_none() {
    // Its head went on at once; the content that it was not to have came later.
    let (blue, proxy) = proxy().await;
    let post =
        [(":method", "POST"), SCHEME, (":path", "/head"), AUTHORITY, ("content-length", "0")];
    let head = |stream| frame(HEADERS, END_HEADERS, stream, &fields(&post));
    let trailers = fields(&[("x-sum", "1")]);
    for (name, ends, is_good) in [
        ("content", vec![frame(DATA, END_STREAM, 1, b"x")], false),
        ("content later", vec![frame(DATA, 0, 1, &[]), frame(DATA, 0, 1, b"x")], false),
        ("a reset", vec![frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())], false),
        ("an end", vec![frame(DATA, END_STREAM, 1, &[])], true),
        ("trailers", vec![frame(HEADERS, END_STREAM | END_HEADERS, 1, &trailers)], true),
    ] {
        let before = blue.requests();
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        frames.send(&head(1)).await;
        // It has been read: what came behind it was.
        assert!(frames.is_alive().await);
        frames.send(&get(3, &[])).await;
        assert_eq!(frames.fate(3).await, Status(200));
        assert_eq!(blue.requests(), before + 1, "only the other one: {name}");
        for part in &ends {
            frames.send(part).await;
        }
        if name != "a reset" {
            let wanted = if is_good { Status(200) } else { Reset(PROTOCOL_ERROR) };
            assert_eq!(frames.fate(1).await, wanted, "{name}");
        }
        frames.send(&get(5, &[])).await;
        assert_eq!(frames.fate(5).await, Status(200), "{name}");
        assert_eq!(blue.requests(), before + 2 + usize::from(is_good), "{name}");
    }
}

#[tokio::test]
async fn a_broken_connection_ends_with_goaway() {
    let (blue, proxy) = proxy().await;
    let window = |by: u32| by.to_be_bytes();
    for (name, bytes) in [
        ("DATA for an unknown stream", frame(DATA, END_STREAM, 1, b"x")),
        ("HEADERS of stream 0", frame(HEADERS, END_HEADERS, 0, &[0x82])),
        ("an even stream", ask(2, &[METHOD, SCHEME, PATH, AUTHORITY])),
        (
            "a compression that is none",
            frame(HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0xff, 0xff]),
        ),
        ("CONTINUATION alone", frame(CONTINUATION, END_HEADERS, 1, &[0x82])),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[])),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &window(0))),
        (
            "a window over its end",
            [
                frame(WINDOW_UPDATE, 0, 0, &window(0x7fff_ffff)),
                frame(WINDOW_UPDATE, 0, 0, &window(0x7fff_ffff)),
            ]
            .concat(),
        ),
        ("RST_STREAM of an unknown stream", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("a frame that is too large", frame(DATA, 0, 1, &[0; 20_000])),
        (
            "a frame between the parts of a head",
            [frame(HEADERS, 0, 1, &[0x82]), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("GOAWAY of 2 bytes", frame(GOAWAY, 0, 0, &[0; 2])),
    ] {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        frames.try_send(&bytes).await;
        let fate = frames.fate(1).await;
        assert!(matches!(fate, GoAway(_) | Closed), "{name}: {fate:?}");
    }
    assert_eq!(blue.requests(), 0);
    assert_eq!(proxy.get("/").await, "blue", "and no other connection is affected");
}

/// CVE-2023-44487 and its relatives: requests that are taken back as soon as they were passed on.
#[tokio::test]
async fn a_client_with_more_resets_than_responses_gets_enhance_your_calm() {
    let blue = Upstream::start("blue").await;
    let proxy =
        TestProxy::build().with("limits.h2_resets = 20").service("web", &[&blue], &[]).start();
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    let wait = [METHOD, SCHEME, (":path", "/wait"), AUTHORITY];
    let mut fate = None;
    for turn in 0..200 {
        let stream = 2 * turn + 1;
        let sent = frames.try_send(&ask(stream, &wait)).await;
        let alive = sent && frames.is_alive().await;
        if !alive || !frames.try_send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).await {
            fate = Some(turn);
            break;
        }
    }
    let turns = fate.expect("a setting");
    assert!((20..60).contains(&turns), "{turns}");
    proxy.wait_for_in_flight("web", "blue", 0).await;
    // One that lets itself be answered may take back as many.
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    for turn in 0..60 {
        let stream = 4 * turn + 1;
        frames.send(&get(stream, &[])).await;
        assert_eq!(frames.fate(stream).await, Status(200));
        frames.send(&ask(stream + 2, &wait)).await;
        frames.send(&frame(RST_STREAM, 0, stream + 2, &CANCEL.to_be_bytes())).await;
    }
    assert!(frames.is_alive().await);
}

#[tokio::test]
async fn a_connection_that_is_closed_for_misuse_is_counted() {
    const TURNED_AWAY: &str = "flipgate_downstream_turned_away_total{reason=\"http2_abuse\"}";
    const CALM_DOWN: u32 = 11;
    let blue = Upstream::start("blue").await;
    let proxy =
        TestProxy::build().with("limits.h2_resets = 20").service("web", &[&blue], &[]).start();
    let cancel = |stream| frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    // One that takes back a few is not.
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    frames.send(&[get(1, &[]), cancel(1), get(3, &[])].concat()).await;
    assert_eq!(frames.fate(3).await, Status(200));
    assert_eq!(proxy.metric(TURNED_AWAY).await, 0.0);
    // Canceled before the proxy has seen them, which the library counts.
    for times in 1..=3 {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        let burst: Vec<_> =
            (0..300).map(|it| 2 * it + 1).flat_map(|it| [get(it, &[]), cancel(it)]).collect();
        frames.try_send(&burst.concat()).await;
        assert!(matches!(frames.fate(9999).await, GoAway(CALM_DOWN) | Closed));
        eventually("counted once", async || proxy.metric(TURNED_AWAY).await == f64::from(times))
            .await;
    }
    // Taken back when they were passed on, which we count.
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    for stream in (0..60).map(|it| 2 * it + 1) {
        let wait = ask(stream, &[METHOD, SCHEME, (":path", "/wait"), AUTHORITY]);
        if !frames.try_send(&wait).await || !frames.is_alive().await {
            break;
        }
        frames.try_send(&cancel(stream)).await;
    }
    eventually("counted once", async || proxy.metric(TURNED_AWAY).await == 4.0).await;
}

#[tokio::test]
async fn floods_end_the_connection_and_nothing_else() {
    // A client that does not read the responses to its frames is cut for that first.
    let blue = Upstream::start("blue").await;
    let top = "timeouts.stall = \"1s\"";
    let proxy = TestProxy::build().with(top).service("web", &[&blue], &[]).start();
    let header_without_end: Vec<u8> = std::iter::once(frame(HEADERS, END_STREAM, 1, &[]))
        .chain(std::iter::repeat_n(
            frame(CONTINUATION, 0, 1, &fields(&[("x", &"y".repeat(100))])),
            2000,
        ))
        .flatten()
        .collect();
    let open = frame(
        HEADERS,
        END_HEADERS,
        1,
        &fields(&[(":method", "POST"), SCHEME, (":path", "/echo"), AUTHORITY]),
    );
    for (name, before, flood, times) in [
        ("pings", &[][..], frame(PING, 0, 0, &[0; 8]), 700_000),
        ("settings", &[], frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), 700_000),
        ("priorities", &[], frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]), 700_000),
        ("windows", &open, frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()), 700_000),
        ("empty data", &open, frame(DATA, 0, 1, &[]), 700_000),
        ("a head without end", &[], header_without_end, 1),
    ] {
        let mut frames = Frames::connect(PUBLIC, proxy.public).await;
        frames.send(before).await;
        let mut sent = 0;
        while sent < times {
            let many = flood.repeat(1000.min(times));
            if !frames.try_send(&many).await {
                break;
            }
            sent += 1000;
        }
        let fate = frames.fate(99).await;
        assert!(matches!(fate, GoAway(_) | Closed), "{name}: {fate:?}");
        assert_eq!(proxy.get("/").await, "blue", "{name}");
    }
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let blue = Upstream::start("blue").await;
    let proxy =
        TestProxy::build().with("limits.h2_streams = 3").service("web", &[&blue], &[]).start();
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    for turn in 0..4 {
        frames.send(&ask(2 * turn + 1, &[METHOD, SCHEME, (":path", "/wait"), AUTHORITY])).await;
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(frames.fate(7).await, Reset(REFUSED_STREAM));
    eventually("the other requests arrived", async || blue.requests() == 3).await;
    blue.release();
    assert_eq!(frames.fate(1).await, Status(200));
    assert_eq!(blue.requests(), 3);
}

#[tokio::test]
async fn a_connection_is_asked_to_end_after_so_many_requests() {
    let blue = Upstream::start("blue").await;
    let top = "limits.requests_per_connection = 3";
    let proxy = TestProxy::build().with(top).service("web", &[&blue], &[]).start();
    let mut client = proxy.public().await;
    for turn in 1..=3 {
        let answer = client.get("/", "").await;
        assert_eq!(answer.field("connection"), (turn == 3).then_some("close"));
    }
    assert_eq!(client.read_to_end().await, "");
    let mut client = crate::support::Http2::connect(PUBLIC, proxy.public).await;
    for _ in 0..3 {
        assert_eq!(client.get("/", "").await.text(), "blue");
    }
    client.ends().await;
}
