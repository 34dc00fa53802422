//! Do the promises hold over HTTP/2, and does everything come through it?

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use serde_json::json;

use crate::support::{
    Client, House, Http2, Http2Upstream, Scripted, Upstream,
    client::{INTERNAL, PUBLIC},
    eventually, http2,
};

async fn colors() -> (Upstream, Upstream, House) {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let house = House::of(&blue, &green);
    (blue, green, house)
}

/// A house in front of an application that speaks HTTP/2.
fn in_front_of(upstream: &Http2Upstream) -> House {
    let address = upstream.address;
    let pool = format!("{{ endpoints = [\"{address}\"], protocol = \"h2\" }}");
    House::build().services(&format!("[service.web]\nblue = {pool}\ngreen = {pool}\n")).start()
}

#[tokio::test]
async fn over_http2_a_stream_keeps_its_color_and_the_next_one_has_the_new() {
    let (blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
    let mut early = client.ask("GET", "/hold", "", true).await;
    assert_eq!(early.head().await.expect("an answer").status, 200);
    early.until("blue begins\n").await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    house.promote(&[("web", "green")]).await;
    assert_eq!(client.get("/", "").await.text(), "green", "on the same connection");
    let drain = house.drain("web").await;
    assert_eq!((&drain["color"], &drain["in_flight"]), (&json!("blue"), &json!(1)));
    blue.release();
    early.until("blue ends\n").await;
    eventually("drained", async || house.drain("web").await["drained"] == true).await;
}

#[tokio::test]
async fn over_http2_only_insiders_see_green() {
    let (_blue, _green, house) = colors().await;
    for (from, color) in [(INTERNAL, "green"), (PUBLIC, "blue")] {
        for wish in ["flipgate-preview: green", "cookie: a=b\ncookie: flipgate_preview=green"] {
            let mut client = Http2::connect(from, house.public).await;
            assert_eq!(client.get("/", wish).await.text(), color, "{from} {wish}");
        }
        let mut client = Http2::connect(from, house.preview).await;
        let status = if from == INTERNAL { 200 } else { 403 };
        assert_eq!(client.get("/", "").await.status, status);
    }
}

#[tokio::test]
async fn a_head_arrives_as_one_of_http1_with_its_cookie_whole() {
    let (_blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
    let (_blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
async fn who_takes_slowly_is_sent_slowly() {
    let (blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
    let (_blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
    let mut call = client.ask("GET", "/hold", "", true).await;
    assert_eq!(call.head().await.expect("an answer").status, 200);
    house.wait_for_in_flight("web", "blue", 1).await;
    call.sending.send_reset(h2::Reason::CANCEL);
    house.wait_for_in_flight("web", "blue", 0).await;
    let call = client.ask("GET", "/wait", "", true).await;
    house.wait_for_in_flight("web", "blue", 1).await;
    drop(call);
    house.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(client.get("/", "").await.text(), "blue", "the connection goes on");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (_blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
    let house = House::at(upstream.address);
    // The client of the tests does not show them; the bytes do.
    let mut frames = crate::support::frames::Frames::connect(PUBLIC, house.public).await;
    frames.send(&crate::http2_wire::get(1, &[])).await;
    assert_eq!(frames.fate(1).await, crate::support::frames::Fate::Status(103));
    assert_eq!(frames.fate(1).await, crate::support::frames::Fate::Status(200));
}

#[tokio::test]
async fn a_websocket_over_http2_is_a_tunnel_that_keeps_its_color() {
    let (_blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
    house.promote(&[("web", "green")]).await;
    assert_eq!(house.drain("web").await["kinds"], json!({"request": 0, "tunnel": 1}));
    early.push(b"two", false).await;
    assert_eq!(early.until("two").await, "blue: two");
    let mut late = client.send(open("/ws"), false).await;
    assert_eq!(late.head().await.expect("an answer").status, 200);
    late.push(b"new", false).await;
    assert_eq!(late.until("new").await, "green: new");
    early.push(b"", true).await;
    early.until("bye").await;
    assert!(early.some().await.expect("an end").is_empty());
    eventually("drained", async || house.drain("web").await["drained"] == true).await;
    late.sending.send_reset(h2::Reason::CANCEL);
    house.wait_for_in_flight("web", "green", 0).await;
    // Whoever answers as if nothing had been asked has opened no WebSocket, and none is told of.
    let mut call = client.send(open("/"), false).await;
    assert_eq!(call.head().await.expect("an answer").status, 502);
}

#[tokio::test]
async fn what_comes_before_a_websocket_is_open_is_no_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let upstream = Scripted::start(answer).await;
    let house = House::at(upstream.address);
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
async fn a_websocket_whose_server_has_not_understood_it_is_refused() {
    let upstream = Scripted::start(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )
    .await;
    let house = House::at(upstream.address);
    let mut client = Http2::connect(PUBLIC, house.public).await;
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
async fn an_application_that_speaks_http2_is_spoken_to_on_one_connection() {
    let upstream = Http2Upstream::start(async |mut request, response| {
        let (body, trailers) = http2::read(request.body_mut()).await;
        let sum = trailers.get("x-sum").and_then(|it| it.to_str().ok()).unwrap_or("none");
        let text = format!(
            "{} {} {:?} {} {} {sum}",
            request.method(),
            request.uri(),
            request.headers().get("te"),
            request.headers().contains_key("connection"),
            body.len()
        );
        http2::say(response, &text);
    })
    .await;
    let house = in_front_of(&upstream);
    let mut client = house.public().await;
    let answer = client.get("/a?b", "TE: trailers\r\n").await;
    assert_eq!(answer.text(), "GET http://a.test/a?b Some(\"trailers\") false 0 none");
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    client
        .send("POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "POST http://a.test/c None false 5 42");
    let mut client = Http2::connect(PUBLIC, house.public).await;
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(client.ask("GET", "/d", "", true).await);
    }
    for mut call in calls {
        let answer = call.answer().await.expect("an answer");
        assert_eq!(answer.text(), "GET http://localhost/d None false 0 none");
    }
    let metrics = house.call("GET", "/metrics", "", "").await.text();
    let open = metrics
        .lines()
        .find(|it| it.starts_with("flipgate_upstream_connections{color=\"blue\",service=\"web\"}"));
    let open = open.and_then(|it| it.rsplit(' ').next()?.parse::<usize>().ok()).expect("a number");
    assert!((1..=2).contains(&open), "one for each worker: {open}");
}

#[tokio::test]
async fn grpc_calls_come_through_with_their_trailers_and_errors_speak_its_language() {
    let upstream = Http2Upstream::start(async |mut request, mut response| {
        if request.uri().path() == "/no" {
            let mut head = Response::new(());
            head.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            response.send_response(head, true).expect("an open stream");
            return;
        }
        let head = Response::builder().header("content-type", "application/grpc").body(());
        let mut sending = response.send_response(head.expect("a head"), false).expect("open");
        // Every message is answered when it has come.
        while let Some(data) = request.body_mut().data().await {
            let Ok(data) = data else { return };
            let flow = request.body_mut().flow_control();
            flow.release_capacity(data.len()).expect("no more than came");
            sending.send_data(Bytes::from(data.to_ascii_uppercase()), false).expect("open");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        sending.send_trailers(trailers).expect("open");
    })
    .await;
    let house = in_front_of(&upstream);
    let mut client = Http2::connect(PUBLIC, house.public).await;
    let fields = "content-type: application/grpc\nte: trailers";
    let mut call = client.ask("POST", "/chat", fields, false).await;
    call.push(b"one", false).await;
    let head = call.head().await.expect("an answer before the end of the request");
    assert_eq!(call.until("ONE").await, "ONE");
    call.push(b"two", false).await;
    assert_eq!(call.until("TWO").await, "TWO");
    call.push(b"", true).await;
    let answer = call.rest(head).await.expect("an end");
    assert_eq!(answer.trailers, "grpc-status: 0\r\n");
    let answer = client.ask("POST", "/no", fields, true).await.answer().await.expect("an answer");
    assert_eq!(answer.field("grpc-status"), Some("5"));
    assert!(answer.body.is_empty() && answer.trailers.is_empty());

    // Nobody listens there: what Flipgate says is a status of gRPC, to whoever speaks it.
    let nobody = House::build()
        .services("[service.web]\nblue = { endpoints = [\"127.0.0.1:9\"], protocol = \"h2\" }\n")
        .start();
    let mut client = Http2::connect(PUBLIC, nobody.public).await;
    let answer = client.ask("POST", "/chat", fields, true).await.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")), "{}", answer.head);
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=connection_refused"));
    assert!(answer.body.is_empty());
    assert_eq!(client.get("/", "").await.status, 502);
}

#[tokio::test]
async fn what_an_application_has_not_touched_is_sent_again() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let upstream = Http2Upstream::start(move |request, mut response| {
        let count = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            match (request.uri().path(), count) {
                ("/refuse", 0) => response.send_reset(h2::Reason::REFUSED_STREAM),
                ("/break", _) => response.send_reset(h2::Reason::INTERNAL_ERROR),
                _ => http2::say(response, "done"),
            }
        }
    })
    .await;
    let house = in_front_of(&upstream);
    let mut client = house.public().await;
    client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "done", "REFUSED_STREAM: RFC 9113, section 8.7");
    let before = count.load(std::sync::atomic::Ordering::SeqCst);
    client.send("POST /break HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), before + 1, "once only");
}

#[tokio::test]
async fn a_websocket_of_http1_goes_on_over_http2_where_that_is_spoken() {
    let upstream = Http2Upstream::start(async |mut request, mut response| {
        let protocol = request.extensions().get::<h2::ext::Protocol>().cloned();
        assert_eq!(protocol.as_ref().map(h2::ext::Protocol::as_str), Some("websocket"));
        let mut head = Response::new(());
        // Some answer a key that they were not shown.
        head.headers_mut().insert("sec-websocket-accept", HeaderValue::from_static("x"));
        let mut sending = response.send_response(head, false).expect("open");
        while let Some(Ok(data)) = request.body_mut().data().await {
            sending.send_data(Bytes::from(data.to_ascii_uppercase()), false).expect("open");
        }
        sending.send_data(Bytes::from_static(b"bye"), true).expect("open");
    })
    .await;
    let house = in_front_of(&upstream);
    let mut client: Client = house.public().await;
    client
        .send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await;
    let head = client.head().await;
    assert_eq!(head.status, 101, "{}", head.head);
    assert!(head.head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{}", head.head);
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("one").await;
    assert_eq!(client.until("ONE").await, "ONE");
    client.finish().await;
    assert_eq!(client.read_to_end().await, "bye");
    house.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn a_stop_lets_streams_finish_and_takes_no_new_ones() {
    let (blue, _green, house) = colors().await;
    let mut client = Http2::connect(PUBLIC, house.public).await;
    let mut held = client.ask("GET", "/hold", "", true).await;
    assert_eq!(held.head().await.expect("an answer").status, 200);
    held.until("blue begins\n").await;
    let stopping = std::thread::spawn(move || house.shut_down());
    client.ends().await;
    blue.release();
    held.until("blue ends\n").await;
    assert!(held.some().await.expect("an end").is_empty());
    let stopped = tokio::task::spawn_blocking(move || stopping.join());
    assert!(stopped.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_told_of_as_over_http1() {
    let blue = Upstream::start("blue").await;
    let top = "timeouts.upstream_response = \"1s\"";
    let house = House::build().with(top).service("web", &[&blue], &[]).start();
    let mut client = Http2::connect(PUBLIC, house.public).await;
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

/// What an upstream does when it is restarted: it takes no more requests, and finishes those it has.
#[tokio::test]
async fn an_application_that_says_farewell_gets_no_more_and_finishes_what_it_has() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let release = Arc::new(tokio::sync::Notify::new());
    let released = Arc::clone(&release);
    let app = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let release = Arc::clone(&released);
            connections.spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut response))) = connection.accept().await {
                    if request.uri().path() != "/hold" {
                        http2::say(response, "done");
                        continue;
                    }
                    let mut sending =
                        response.send_response(Response::new(()), false).expect("open");
                    connection.graceful_shutdown();
                    let release = Arc::clone(&release);
                    tokio::spawn(async move {
                        release.notified().await;
                        sending.send_data(Bytes::from_static(b"held"), true).expect("open");
                    });
                }
            });
        }
    });
    let pool = format!("{{ endpoints = [\"{address}\"], protocol = \"h2\" }}");
    let house = House::build().services(&format!("[service.web]\nblue = {pool}\n")).start();
    let mut client = Http2::connect(PUBLIC, house.public).await;
    let mut held = client.ask("GET", "/hold", "", true).await;
    assert_eq!(held.head().await.expect("an answer").status, 200);
    for _ in 0..20 {
        assert_eq!(client.get("/", "").await.text(), "done");
    }
    release.notify_one();
    held.until("held").await;
    app.abort();
}

#[tokio::test]
async fn one_that_refuses_everything_is_not_asked_without_end() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let upstream = Http2Upstream::start(move |_, mut response| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { response.send_reset(h2::Reason::REFUSED_STREAM) }
    })
    .await;
    let house = in_front_of(&upstream);
    for _ in 0..2 {
        assert_eq!(house.public().await.get("/", "").await.status, 502);
    }
    let asked = count.load(std::sync::atomic::Ordering::SeqCst);
    assert!(asked <= 8, "{asked} times for two requests");
}

#[tokio::test]
async fn what_http2_has_no_words_for_is_refused_and_harms_nobody_else() {
    let upstream = Http2Upstream::start(async |_, response| http2::say(response, "done")).await;
    let house = in_front_of(&upstream);
    let mut other = house.public().await;
    assert_eq!(other.get("/", "").await.text(), "done");
    for target in ["/?q=<x>", "/a`b", "/a<b"] {
        let mut client = house.public().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let status = client.head().await.status;
        assert!(matches!(status, 200 | 400), "{target}: {status}");
    }
    assert_eq!(other.get("/", "").await.text(), "done");
}

#[tokio::test]
async fn an_early_answer_arrives_whole_whatever_becomes_of_the_request() {
    let upstream = Http2Upstream::start(async |_, mut response| {
        // The rest of the request is not read: the library resets it with NO_ERROR, as RFC 9113,
        // section 8.1, has it.
        let mut sending = response.send_response(Response::new(()), false).expect("open");
        sending.send_data(Bytes::from_static(b"enough"), true).expect("open");
    })
    .await;
    let house = in_front_of(&upstream);
    let mut client = house.public().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "enough"), "{}", answer.head);
}

#[tokio::test]
async fn nothing_is_made_up_about_the_length_of_what_was_not_sent() {
    let upstream = Http2Upstream::start(async |request, mut response| {
        let mut head = Response::new(());
        if request.uri().path() == "/length" {
            head.headers_mut().insert("content-length", HeaderValue::from_static("123"));
        }
        response.send_response(head, true).expect("open");
    })
    .await;
    let house = in_front_of(&upstream);
    let mut client = house.public().await;
    for (path, length) in [("/", None), ("/length", Some("123"))] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = client.answer_to_head().await;
        assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (length, None));
    }
    assert_eq!(client.get("/", "").await.field("content-length"), Some("0"));
}
