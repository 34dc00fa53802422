//! The rules hold over HTTP/2, and messages arrive unchanged.

use http::{HeaderMap, HeaderValue, Request};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::support::{
    Http2, Scripted, TestProxy, Upstream,
    client::{INTERNAL, PUBLIC},
    eventually,
};

async fn colors() -> (Upstream, Upstream, TestProxy) {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    (blue, green, proxy)
}

#[tokio::test]
async fn over_http2_a_stream_keeps_its_color_and_the_next_one_has_the_new() {
    let (blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut early = client.ask("GET", "/hold", "", true).await;
    assert_eq!(early.head().await.expect("an answer").status, 200);
    early.until("blue begins\n").await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(client.get("/", "").await.text(), "green", "on the same connection");
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["color"], &drain["in_flight"]), (&json!("blue"), &json!(1)));
    blue.release();
    early.until("blue ends\n").await;
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
}

#[tokio::test]
async fn over_http2_only_insiders_see_green() {
    let (_blue, _green, proxy) = colors().await;
    for (from, color) in [(INTERNAL, "green"), (PUBLIC, "blue")] {
        for preview in ["flipgate-preview: green", "cookie: a=b\ncookie: flipgate_preview=green"] {
            let mut client = Http2::connect(from, proxy.public).await;
            assert_eq!(client.get("/", preview).await.text(), color, "{from} {preview}");
        }
        let mut client = Http2::connect(from, proxy.preview).await;
        let status = if from == INTERNAL { 200 } else { 403 };
        assert_eq!(client.get("/", "").await.status, status);
    }
}

#[tokio::test]
async fn a_head_arrives_as_one_of_http1_with_its_cookie_whole() {
    let (_blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let fields =
        "cookie: a=b\ncookie: c=d\nx-own: 1\nx_under: 1\nforwarded: for=10.0.0.1\nte: trailers";
    let sent = client.get("/head?q", fields).await.text();
    assert!(sent.starts_with("GET /head?q HTTP/1.1\r\nhost: localhost\r\n"), "{sent}");
    for line in
        ["cookie: a=b; c=d\r\n", "x-own: 1\r\n", "Forwarded: for=127.0.0.2;", "TE: trailers"]
    {
        assert_eq!(sent.matches(line).count(), 1, "{line}: {sent}");
    }
    for gone in ["x_under", "10.0.0.1", ":path", "Transfer-Encoding"] {
        assert!(!sent.contains(gone), "{gone}: {sent}");
    }
}

#[tokio::test]
async fn bodies_and_trailers_come_through_both_ways() {
    let (_blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let long: Vec<u8> = (0..2_000_000_u32).map(|it| it as u8).collect();
    let mut call = client.ask("POST", "/echo", "", false).await;
    call.push(&long, false).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    trailers.insert("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    call.sending.send_trailers(trailers).expect("an open stream");
    let answer = call.answer().await.expect("an answer");
    assert!(answer.body == long, "{} bytes", answer.body.len());
    assert_eq!(answer.trailers, "x-sum: 42\r\n", "and nothing that a head would not bring through");
    // A length goes on as one, and so does a body that is none.
    let mut call = client.ask("POST", "/head", "content-length: 5", false).await;
    call.push(b"hello", true).await;
    let sent = call.answer().await.expect("an answer").text();
    assert!(
        sent.contains("Content-Length: 5\r\n") && !sent.contains("Transfer-Encoding"),
        "{sent}"
    );
    for (method, path, status, length) in [
        ("HEAD", "/length", 200, Some("12345")),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("5")),
    ] {
        let answer = client.ask(method, path, "", true).await.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.field("content-length")), (status, length), "{path}");
        assert!(answer.body.is_empty());
    }
}

#[tokio::test]
async fn a_slow_reader_slows_the_sender_down() {
    let (blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut call = client.ask("GET", "/endless", "", true).await;
    assert_eq!(call.head().await.expect("an answer").status, 200);
    // Others on the same connection do not wait for it.
    assert_eq!(client.get("/", "").await.text(), "blue");
    let mut before = usize::MAX;
    eventually("the upstream stands still", async || {
        let sent = blue.sent();
        std::mem::replace(&mut before, sent) == sent && sent > 0
    })
    .await;
    assert!(blue.sent() < 32 << 20, "{} bytes are somewhere", blue.sent());
    let held = blue.sent();
    let mut taken = 0;
    while taken < 4 << 20 {
        taken += call.some().await.expect("more").len();
    }
    eventually("it goes on", async || blue.sent() > held).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_is_given_up_upstream_and_its_claim_ends() {
    let (_blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut call = client.ask("GET", "/hold", "", true).await;
    assert_eq!(call.head().await.expect("an answer").status, 200);
    proxy.wait_for_in_flight("web", "blue", 1).await;
    call.sending.send_reset(h2::Reason::CANCEL);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    let call = client.ask("GET", "/wait", "", true).await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    drop(call);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(client.get("/", "").await.text(), "blue", "the connection goes on");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (_blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut call = client.ask("GET", "/cut", "", true).await;
    let error = call.answer().await.expect_err("it is not whole");
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    assert_eq!(client.get("/", "").await.text(), "blue");
    let answer = client.get("/close", "").await;
    let said = Some("flipgate; error=connection_terminated");
    assert_eq!((answer.status, answer.field("proxy-status")), (502, said));
}

#[tokio::test]
async fn interim_answers_come_through() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
    let upstream =
        Scripted::start(&format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
    let proxy = TestProxy::at(upstream.address);
    // The client of the tests does not show them; the bytes do.
    let mut frames = crate::support::frames::Frames::connect(PUBLIC, proxy.public).await;
    frames.send(&crate::http2_wire::get(1, &[])).await;
    assert_eq!(frames.fate(1).await, crate::support::frames::Fate::Status(103));
    assert_eq!(frames.fate(1).await, crate::support::frames::Fate::Status(200));
}

#[tokio::test]
async fn many_interim_answers_come_through() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n".repeat(100);
    let upstream =
        Scripted::start(&format!("{early}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
    let proxy = TestProxy::at(upstream.address);
    let mut frames = crate::support::frames::Frames::connect(PUBLIC, proxy.public).await;
    frames.send(&crate::http2_wire::get(1, &[])).await;
    let mut heads = 0;
    loop {
        match frames.next().await.expect("open").kind {
            crate::support::frames::HEADERS => heads += 1,
            crate::support::frames::DATA => break,
            crate::support::frames::RST_STREAM => panic!("reset after {heads}"),
            _ => {}
        }
    }
    assert_eq!(heads, 101);
}

#[tokio::test]
async fn a_body_that_is_broken_from_its_first_byte_is_a_502() {
    // Over HTTP/2 the stream was reset, though nothing had been sent.
    for body in ["zz\r\n", "\r\n", "5;a\nhello", "11111111111111111\r\n", "2\r\nokay", "-1\r\n"] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let upstream = Scripted::start(format!("{head}{body}")).await;
        let proxy = TestProxy::at(upstream.address);
        let mut client = Http2::connect(PUBLIC, proxy.public).await;
        let answers = [client.get("/", "").await, proxy.public().await.get("/", "").await];
        for answer in answers {
            assert_eq!(answer.status, 502, "{body:?}");
            assert_eq!(answer.field("proxy-status"), Some("flipgate; error=http_protocol_error"));
        }
        assert_eq!(client.get("/", "").await.status, 502, "the connection goes on: {body:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_after_its_beginning_was_sent_is_reset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = TestProxy::at(listener.local_addr().expect("a bound socket"));
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut call = client.ask("GET", "/", "", true).await;
    let (mut upstream, _) = crate::reuse::accept(&listener).await;
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    upstream.write_all(head).await.expect("open");
    let head = call.head().await.expect("a head");
    assert_eq!(head.status, 200);
    upstream.write_all(b"zz\r\n").await.expect("open");
    let error = call.rest(head).await.expect_err("it has no end");
    assert!(error.is_reset(), "{error}");
}

/// Once the time of its request was over, such a WebSocket was cut.
#[tokio::test]
async fn a_websocket_over_http2_outlives_the_time_of_an_exchange() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[timeouts]\nrequest = \"1s\"")
        .service("web", &[&blue], &[&green])
        .start();
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    let mut request = Request::builder()
        .method("CONNECT")
        .uri("https://localhost/ws")
        .header("sec-websocket-version", "13")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let mut call = client.send(request, false).await;
    assert_eq!(call.head().await.expect("an answer").status, 200);
    let begin = std::time::Instant::now();
    while begin.elapsed() < std::time::Duration::from_secs(4) {
        call.push(b"on", false).await;
        call.until("on").await;
    }
}

#[tokio::test]
async fn a_websocket_over_http2_is_a_tunnel_that_keeps_its_color() {
    let (_blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    assert!(client.takes_tunnels(), "RFC 8441, section 3");
    let open = |path: &str| {
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(format!("https://localhost{path}"))
            .header("sec-websocket-version", "13")
            .body(())
            .expect("a request");
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        request
    };
    let mut early = client.send(open("/ws"), false).await;
    let head = early.head().await.expect("an answer");
    assert_eq!(head.status, 200, "{}", head.head);
    for gone in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
        assert_eq!(head.field(gone), None, "{}", head.head);
    }
    early.push(b"one", false).await;
    assert_eq!(early.until("one").await, "blue: one");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.drain("web").await["kinds"], json!({"request": 0, "tunnel": 1}));
    early.push(b"two", false).await;
    assert_eq!(early.until("two").await, "blue: two");
    let mut late = client.send(open("/ws"), false).await;
    assert_eq!(late.head().await.expect("an answer").status, 200);
    late.push(b"new", false).await;
    assert_eq!(late.until("new").await, "green: new");
    early.push(b"", true).await;
    early.until("bye").await;
    assert!(early.some().await.expect("an end").is_empty());
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    late.sending.send_reset(h2::Reason::CANCEL);
    proxy.wait_for_in_flight("web", "green", 0).await;
    // A normal response opens no WebSocket, and Flipgate does not report one.
    let mut call = client.send(open("/"), false).await;
    assert_eq!(call.head().await.expect("an answer").status, 502);
}

#[tokio::test]
async fn bytes_before_a_websocket_is_open_are_not_a_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Scripted::start(answer).await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut request = Request::builder().method("CONNECT").uri("https://localhost/ws");
    request = request.header("x-own", "1");
    let mut request = request.body(()).expect("a request");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let mut call = client.send(request, false).await;
    call.push(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", true).await;
    assert_eq!(call.head().await.expect("an answer").status, 502);
    let answer = client.get("/after", "").await;
    assert_eq!(answer.text(), "ok");
    let seen = upstream.take();
    assert!(seen.contains("GET /ws ") && seen.contains("GET /after "), "{seen}");
    assert!(!seen.contains("smuggled"), "{seen}");
}

#[tokio::test]
async fn a_websocket_with_a_wrong_accept_key_is_refused() {
    let upstream = Scripted::start(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut request = Request::builder()
        .method("CONNECT")
        .uri("https://localhost/ws")
        .body(())
        .expect("a request");
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let mut call = client.send(request, false).await;
    assert_eq!(call.head().await.expect("an answer").status, 502);
}

#[tokio::test]
async fn a_stop_lets_streams_finish_and_takes_no_new_ones() {
    let (blue, _green, proxy) = colors().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut held = client.ask("GET", "/hold", "", true).await;
    assert_eq!(held.head().await.expect("an answer").status, 200);
    held.until("blue begins\n").await;
    let stopping = std::thread::spawn(move || proxy.shut_down());
    client.ends().await;
    blue.release();
    held.until("blue ends\n").await;
    assert!(held.some().await.expect("an end").is_empty());
    let stopped = tokio::task::spawn_blocking(move || stopping.join());
    assert!(stopped.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_response_timeout_is_a_504_as_over_http1() {
    let blue = Upstream::start("blue").await;
    let top = "timeouts.upstream_response = \"1s\"";
    let proxy = TestProxy::build().with(top).service("web", &[&blue], &[]).start();
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut plain = client.ask("GET", "/wait", "", true).await;
    let mut grpc = client.ask("POST", "/wait", "content-type: application/grpc", true).await;
    let answer = plain.answer().await.expect("an answer");
    let said = Some("flipgate; error=http_response_timeout");
    assert_eq!((answer.status, answer.field("proxy-status")), (504, said));
    let answer = grpc.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")), "{}", answer.head);
    // An upstream that neither takes nor refuses what it was asked to expect.
    let mut call =
        client.ask("POST", "/echo-silent", "expect: 100-continue\ncontent-length: 2", false).await;
    call.push(b"ok", true).await;
    assert_eq!(call.answer().await.expect("an answer").text(), "ok");
}
