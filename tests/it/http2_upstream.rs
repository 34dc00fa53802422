//! Upstreams that speak HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};

use crate::support::{Client, Http2, Http2Upstream, TestProxy, client::PUBLIC, http2};

/// A Flipgate in front of an application that speaks HTTP/2.
fn in_front_of(upstream: &Http2Upstream) -> TestProxy {
    let address = upstream.address;
    let pool = format!("{{ endpoints = [\"{address}\"], protocol = \"h2\" }}");
    TestProxy::build().services(&format!("[service.web]\nblue = {pool}\ngreen = {pool}\n")).start()
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
    let proxy = in_front_of(&upstream);
    let mut client = proxy.public().await;
    let answer = client.get("/a?b", "TE: trailers\r\n").await;
    assert_eq!(answer.text(), "GET http://a.test/a?b Some(\"trailers\") false 0 none");
    assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
    client
        .send("POST /c HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.text(), "POST http://a.test/c None false 5 42");
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(client.ask("GET", "/d", "", true).await);
    }
    for mut call in calls {
        let answer = call.answer().await.expect("an answer");
        assert_eq!(answer.text(), "GET http://localhost/d None false 0 none");
    }
    let metrics = proxy.call("GET", "/metrics", "", "").await.text();
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
    let proxy = in_front_of(&upstream);
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
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

    // No endpoint is there: Flipgate responds with a gRPC status to gRPC clients.
    let unreachable = TestProxy::build()
        .services("[service.web]\nblue = { endpoints = [\"127.0.0.1:9\"], protocol = \"h2\" }\n")
        .start();
    let mut client = Http2::connect(PUBLIC, unreachable.public).await;
    let answer = client.ask("POST", "/chat", fields, true).await.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")), "{}", answer.head);
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=connection_refused"));
    assert!(answer.body.is_empty());
    assert_eq!(client.get("/", "").await.status, 502);
}

#[tokio::test]
async fn an_unprocessed_request_is_retried() {
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
    let proxy = in_front_of(&upstream);
    let mut client = proxy.public().await;
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
    let proxy = in_front_of(&upstream);
    let mut client: Client = proxy.public().await;
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
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

/// What an upstream does when it is restarted: it takes no more requests, and finishes those it has.
#[tokio::test]
async fn an_application_that_sends_goaway_gets_no_more_requests_and_completes_its_own() {
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
    let proxy = TestProxy::build().services(&format!("[service.web]\nblue = {pool}\n")).start();
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
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
async fn an_endpoint_that_refuses_every_stream_gets_a_limited_number_of_attempts() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let upstream = Http2Upstream::start(move |_, mut response| {
        counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move { response.send_reset(h2::Reason::REFUSED_STREAM) }
    })
    .await;
    let proxy = in_front_of(&upstream);
    for _ in 0..2 {
        assert_eq!(proxy.public().await.get("/", "").await.status, 502);
    }
    let asked = count.load(std::sync::atomic::Ordering::SeqCst);
    assert!(asked <= 8, "{asked} times for two requests");
}

#[tokio::test]
async fn a_response_that_http2_cannot_carry_is_a_502_for_its_request_only() {
    let upstream = Http2Upstream::start(async |_, response| http2::say(response, "done")).await;
    let proxy = in_front_of(&upstream);
    let mut other = proxy.public().await;
    assert_eq!(other.get("/", "").await.text(), "done");
    for target in ["/?q=<x>", "/a`b", "/a<b"] {
        let mut client = proxy.public().await;
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
    let proxy = in_front_of(&upstream);
    let mut client = proxy.public().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "enough"), "{}", answer.head);
}

#[tokio::test]
async fn an_answer_that_is_reset_before_its_end_is_not_whole_whatever_the_reason() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::CANCEL, h2::Reason::INTERNAL_ERROR] {
        let seen = Arc::new(tokio::sync::Notify::new());
        let read = Arc::clone(&seen);
        let upstream = Http2Upstream::start(move |_, mut response| {
            let seen = Arc::clone(&seen);
            async move {
                let mut sending = response.send_response(Response::new(()), false).expect("open");
                sending.send_data(Bytes::from_static(b"part"), false).expect("open");
                // A reset takes with it what is still on its way.
                seen.notified().await;
                sending.send_reset(reason);
            }
        })
        .await;
        let proxy = in_front_of(&upstream);
        let mut client = proxy.public().await;
        client.ask("/", "").await;
        client.until("part").await;
        read.notify_one();
        let rest = client.read_to_end().await;
        assert!(!rest.ends_with("0\r\n\r\n"), "{reason:?}: {rest:?}");
        let mut client = Http2::connect(PUBLIC, proxy.public).await;
        let mut call = client.ask("GET", "/", "", true).await;
        let head = call.head().await.expect("an answer");
        call.until("part").await;
        read.notify_one();
        assert!(call.rest(head).await.is_err(), "{reason:?}");
    }
}

#[tokio::test]
async fn a_response_without_content_gets_no_invented_content_length() {
    let upstream = Http2Upstream::start(async |request, mut response| {
        let mut head = Response::new(());
        if request.uri().path() == "/length" {
            head.headers_mut().insert("content-length", HeaderValue::from_static("123"));
        }
        response.send_response(head, true).expect("open");
    })
    .await;
    let proxy = in_front_of(&upstream);
    let mut client = proxy.public().await;
    for (path, length) in [("/", None), ("/length", Some("123"))] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = client.answer_to_head().await;
        assert_eq!((head.field("content-length"), head.field("transfer-encoding")), (length, None));
    }
    assert_eq!(client.get("/", "").await.field("content-length"), Some("0"));
}

#[tokio::test]
async fn many_interim_answers_of_an_application_that_speaks_http2_are_passed_on() {
    let upstream = Http2Upstream::start(async |_, mut response| {
        for _ in 0..100 {
            let interim = Response::builder().status(102).body(()).expect("a response");
            response.send_informational(interim).expect("an open stream");
        }
        http2::say(response, "at last");
    })
    .await;
    let proxy = in_front_of(&upstream);
    let mut client = proxy.public().await;
    client.ask("/", "").await;
    for _ in 0..100 {
        assert_eq!(client.head().await.status, 102);
    }
    assert_eq!(client.answer().await.text(), "at last");
}
