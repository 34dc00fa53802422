//! Server-sent events: ended between two events, as a body ends.

use serde_json::json;

use super::{Proxy, Transport};
use crate::support::{Client, eventually};

const AT_ONCE: &str = "sse = { patience = \"0s\", spread = \"0s\" }";

/// The head of a response of events.
fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{fields}\r\n")
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// A chunk.
fn chunk(content: &str) -> String {
    format!("{:x}\r\n{content}\r\n", content.len())
}

/// Asks for events over HTTP/1.1, and answers with this head.
async fn open(proxy: &Proxy, transport: Transport, head: &str) -> (Client, Client) {
    let mut client = proxy.http1(transport).await;
    client
        .send("GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
        .await;
    let (mut app, _) = proxy.blue.accept().await;
    app.send(head).await;
    (client, app)
}

#[tokio::test]
async fn events_end_between_two_of_them_and_the_connection_goes_on() {
    for transport in [Transport::Http1, Transport::Tls] {
        let proxy = Proxy::with(AT_ONCE).await;
        let (mut client, mut app) = open(&proxy, transport, &head(CHUNKED)).await;
        app.send(chunk("data: one\n\nda")).await;
        let answer = client.head().await;
        client.until("da\r\n").await;
        proxy.flip().await;
        proxy.wait_for_worker().await;
        // The event is complete, and what comes behind it in one chunk is not sent.
        app.send(chunk("ta: two\n\ndata: three\n\n")).await;
        let rest = client.rest(answer).await;
        assert_eq!(rest.text(), "ta: two\n\n", "{transport:?}");
        assert_eq!(app.read_to_end().await, "", "the application's connection is closed");
        // The same connection gets the new version.
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "green", "{transport:?}");
        proxy.wait_for_ended(&json!({"sse": {"ended": 1}})).await;
    }
}

#[tokio::test]
async fn events_end_wherever_they_are_split() {
    let proxy =
        Proxy::with("sse = { patience = \"0s\", spread = \"0s\", retry = \"1500ms\" }").await;
    let all = "id: 1\r\ndata: a\r\n\r\n:ping\n\ndata: b\n\n";
    // Behind these bytes nothing is open.
    let borders = [0, 17, 18, 24, 25, 34];
    let mut streams = Vec::new();
    for split in 1..=all.len() {
        let (mut client, mut app) = open(&proxy, Transport::Http1, &head(CHUNKED)).await;
        app.send(chunk(&all[..split])).await;
        let answer = client.head().await;
        let begin = chunk(&all[..split]);
        assert_eq!(client.exactly(begin.len()).await, begin.as_bytes());
        streams.push((split, client, answer, app));
    }
    proxy.flip().await;
    proxy.wait_for_worker().await;
    for (split, mut client, answer, mut app) in streams {
        if split < all.len() {
            app.try_send(chunk(&all[split..])).await;
        }
        let end = borders.into_iter().find(|it| *it >= split).expect("the last one");
        let rest = client.rest(answer).await;
        assert_eq!(rest.text(), format!("{}retry: 1500\n\n", &all[split..end]), "from {split}");
    }
}

#[tokio::test]
async fn events_over_http2_end_with_their_stream() {
    for retry in ["none", "3s"] {
        let drain = format!("sse = {{ patience = \"0s\", spread = \"0s\", retry = \"{retry}\" }}");
        let proxy = Proxy::with(&drain).await;
        let mut client = proxy.http2().await;
        let mut call = client.ask("GET", "/events", "accept: text/event-stream", true).await;
        let (mut app, _) = proxy.blue.accept().await;
        app.send(head(CHUNKED) + &chunk("data: one\n\n")).await;
        let answer = call.head().await.expect("an answer");
        assert_eq!(call.until("one\n\n").await, "data: one\n\n");
        proxy.flip().await;
        let rest = call.rest(answer).await.expect("END_STREAM, and no reset");
        let expected = if retry == "none" { "" } else { "retry: 3000\n\n" };
        assert_eq!((rest.text().as_str(), rest.trailers.as_str()), (expected, ""));
        assert_eq!(client.get("/", "").await.text(), "green");
        proxy.wait_for_ended(&json!({"sse": {"ended": 1}})).await;
    }
}

#[tokio::test]
async fn events_until_the_close_end_with_the_close_and_without_a_reset() {
    let proxy = Proxy::with(AT_ONCE).await;
    let mut client = proxy.http1(Transport::Http1).await;
    client.send("GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let (mut app, _) = proxy.blue.accept().await;
    app.send(head("") + "data: one\n\n").await;
    client.until("one\n\n").await;
    proxy.flip().await;
    assert!(!client.ends_in_reset().await);
    proxy.wait_for_ended(&json!({"sse": {"ended": 1}})).await;
}

#[tokio::test]
async fn compressed_events_and_those_of_a_declared_length_are_cut() {
    for (fields, kind) in [
        ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", "sse"),
        ("Content-Encoding: identity, br\r\nTransfer-Encoding: chunked\r\n", "sse"),
        ("Content-Length: 1000\r\n", "download"),
    ] {
        let all = format!("{AT_ONCE}\ndownload = {{ patience = \"0s\", spread = \"0s\" }}");
        let proxy = Proxy::with(&all).await;
        let (mut client, mut app) = open(&proxy, Transport::Http1, &head(fields)).await;
        app.send("b\r\ndata: one\n\n\r\n").await;
        client.until("one\n\n").await;
        proxy.flip().await;
        let rest = client.read_to_end().await;
        assert!(!rest.contains("0\r\n\r\n"), "it does not look complete: {rest:?}");
        eventually("it is counted", async || proxy.ended().await == json!({kind: {"cut": 1}}))
            .await;
    }
}

#[tokio::test]
async fn an_event_that_does_not_end_is_cut_after_its_time() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut client, mut app) = open(&proxy, Transport::Http1, &head(CHUNKED)).await;
    app.send(chunk("data: half")).await;
    client.until("half\r\n").await;
    proxy.flip().await;
    assert_eq!(client.read_to_end().await, "", "no last chunk");
    proxy.wait_for_ended(&json!({"sse": {"cut": 1}})).await;
}

#[tokio::test]
async fn events_that_end_by_themselves_are_not_counted_and_keep_what_they_sent() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut client, mut app) = open(&proxy, Transport::Http1, &head(CHUNKED)).await;
    app.send(chunk("data: half")).await;
    let answer = client.head().await;
    client.until("half\r\n").await;
    proxy.flip().await;
    proxy.wait_for_worker().await;
    // The end comes in the same bytes as two more events.
    app.send(chunk("\n\ndata: two\n\n") + "0\r\n\r\n").await;
    assert_eq!(client.rest(answer).await.text(), "\n\ndata: two\n\n");
    assert_eq!(proxy.ended().await, json!({}));
}

#[tokio::test]
async fn without_a_policy_for_events_they_go_on_and_on_the_active_color_too() {
    let other = Proxy::with("websocket = { patience = \"0s\", spread = \"0s\" }").await;
    let active = Proxy::with(AT_ONCE).await;
    for (proxy, flips) in [(&other, true), (&active, false)] {
        let (mut client, mut app) = open(proxy, Transport::Http1, &head(CHUNKED)).await;
        app.send(chunk("data: one\n\n")).await;
        client.until("one\n\n").await;
        if flips {
            proxy.flip().await;
        }
        proxy.wait_for_worker().await;
        app.send(chunk("data: two\n\n")).await;
        client.until("two\n\n").await;
    }
    assert_eq!(other.ended().await, json!({}));
}

#[tokio::test]
async fn a_rollback_keeps_events_that_wait_for_the_end_of_one() {
    let proxy = Proxy::with(AT_ONCE).await;
    let (mut client, mut app) = open(&proxy, Transport::Http1, &head(CHUNKED)).await;
    app.send(chunk("data: half")).await;
    client.until("half\r\n").await;
    proxy.flip().await;
    proxy.wait_for_worker().await;
    proxy.roll_back().await;
    app.send(chunk("\n\n") + &chunk("data: two\n\n")).await;
    client.until("two\n\n").await;
    app.send("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    assert_eq!(proxy.ended().await, json!({}));
}
