//! Downloads and uploads are cut at the end of their patience, and nothing else is.

use serde_json::json;

use super::{Proxy, Transport};
use crate::support::eventually;

const BOTH: &str = "download = { patience = \"0s\", spread = \"0s\" }\nupload = { patience = \"0s\", spread = \"0s\" }";
const UPLOAD: &str = "upload = { patience = \"0s\", spread = \"0s\" }";
const DOWNLOAD: &str = "download = { patience = \"0s\", spread = \"0s\" }";

#[tokio::test]
async fn a_response_is_cut_and_does_not_look_complete() {
    for transport in [Transport::Http1, Transport::Tls] {
        for head in ["Content-Length: 1000\r\n", "Transfer-Encoding: chunked\r\n", ""] {
            let proxy = Proxy::with(DOWNLOAD).await;
            let mut client = proxy.http1(transport).await;
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            let (mut app, _) = proxy.blue.accept().await;
            app.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n4\r\nsome\r\n")).await;
            client.until("some").await;
            proxy.flip().await;
            let rest = client.read_to_end().await;
            assert!(!rest.contains("0\r\n"), "{transport:?} {head:?}: {rest:?}");
            eventually("it is counted", async || {
                proxy.ended().await == json!({"download": {"cut": 1}})
            })
            .await;
            proxy.proxy.wait_for_in_flight("web", "blue", 0).await;
        }
    }
    let proxy = Proxy::with(DOWNLOAD).await;
    let mut client = proxy.http2().await;
    let mut call = client.ask("GET", "/", "", true).await;
    let (mut app, _) = proxy.blue.accept().await;
    app.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n").await;
    let answer = call.head().await.expect("an answer");
    call.until("some").await;
    proxy.flip().await;
    let error = call.rest(answer).await.expect_err("it is not complete");
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.get("/", "").await.text(), "green", "the connection goes on");
}

/// The application's connection is closed with it: it would wait for the rest of the body.
#[tokio::test]
async fn a_request_body_that_is_being_sent_is_cut() {
    for transport in [Transport::Http1, Transport::Tls] {
        let proxy = Proxy::with(UPLOAD).await;
        let mut client = proxy.http1(transport).await;
        client.send("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome").await;
        let (mut app, _) = proxy.blue.accept().await;
        app.until("some").await;
        proxy.flip().await;
        assert_eq!(client.read_to_end().await, "", "{transport:?}");
        assert_eq!(app.read_to_end().await, "");
        proxy.wait_for_ended(&json!({"upload": {"cut": 1}})).await;
    }
    let proxy = Proxy::with(UPLOAD).await;
    let mut client = proxy.http2().await;
    let mut call = client.ask("PUT", "/", "", false).await;
    call.push(b"some", false).await;
    let (mut app, _) = proxy.blue.accept().await;
    app.until("some").await;
    proxy.flip().await;
    let error = call.head().await.expect_err("there is no response");
    assert!(error.is_reset(), "{error}");
    proxy.wait_for_ended(&json!({"upload": {"cut": 1}})).await;
}

#[tokio::test]
async fn a_request_that_waits_for_its_response_is_not_cut() {
    let proxy = Proxy::with(BOTH).await;
    let mut get = proxy.proxy.public().await;
    get.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (mut get_app, _) = proxy.blue.accept().await;
    // The body of another becomes complete between the flip and the end of its patience.
    let mut put = proxy.proxy.public().await;
    put.send("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n").await;
    let (mut put_app, _) = proxy.blue.accept().await;
    put.send("some").await;
    put_app.until("some").await;
    proxy.flip().await;
    proxy.wait_for_worker().await;
    proxy.wait_for_worker().await;
    for (client, app) in [(&mut get, &mut get_app), (&mut put, &mut put_app)] {
        app.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nblue").await;
        assert_eq!(client.answer().await.text(), "blue");
    }
    assert_eq!(proxy.ended().await, json!({}));
}

#[tokio::test]
async fn a_kind_without_a_policy_goes_on_beside_one_with_a_policy() {
    let proxy = Proxy::with(UPLOAD).await;
    let mut client = proxy.proxy.public().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (mut app, _) = proxy.blue.accept().await;
    app.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsome").await;
    client.until("some").await;
    // The response has begun, and the rest of the request with a policy is cut with it.
    let mut both = proxy.proxy.public().await;
    both.send("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nsome").await;
    let (mut both_app, _) = proxy.blue.accept().await;
    both_app.until("some").await;
    both_app.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    both.until("half").await;
    proxy.flip().await;
    assert_eq!(both.read_to_end().await, "");
    proxy.wait_for_worker().await;
    app.send("more").await;
    client.until("more").await;
    proxy.wait_for_ended(&json!({"upload": {"cut": 1}})).await;

    let proxy = Proxy::with(DOWNLOAD).await;
    let mut client = proxy.proxy.public().await;
    client.send("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nsome").await;
    let (mut app, _) = proxy.blue.accept().await;
    app.until("some").await;
    proxy.flip().await;
    proxy.wait_for_worker().await;
    client.send("more").await;
    app.until("more").await;
    app.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nblue").await;
    assert_eq!(
        client.answer().await.text(),
        "blue",
        "a short response is complete before it is cut"
    );
}

/// The policy that was in force at the flip counts, and a request that becomes a stream after the flip has it, too.
#[tokio::test]
async fn a_response_that_begins_after_the_flip_ends_like_the_others() {
    let proxy = Proxy::with("sse = { patience = \"0s\", spread = \"0s\" }").await;
    let mut client = proxy.proxy.public().await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (mut app, _) = proxy.blue.accept().await;
    proxy.flip().await;
    proxy.wait_for_worker().await;
    app.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )
    .await;
    app.send("b\r\ndata: one\n\n\r\n").await;
    assert_eq!(client.answer().await.text(), "data: one\n\n");
    proxy.wait_for_ended(&json!({"sse": {"ended": 1}})).await;
}
