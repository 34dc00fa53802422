//! A WebSocket keeps its color, and a drain waits for it.

use serde_json::json;

use crate::support::{Client, TestProxy, Upstream, eventually};

/// A client's handshake: RFC 6455, section 1.2.
const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn open(proxy: &TestProxy) -> Client {
    let mut client = proxy.public().await;
    client.send(HANDSHAKE).await;
    let head = client.head().await;
    assert_eq!(head.status, 101, "{}", head.head);
    assert_eq!(head.field("upgrade"), Some("websocket"));
    assert_eq!(head.field("connection"), Some("upgrade"));
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((head.field("date"), head.field("content-length")), (None, None));
    client
}

#[tokio::test]
async fn bytes_go_both_ways_until_both_ends_are_done() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = open(&proxy).await;
    for text in ["one", "two", "three"] {
        client.send(text).await;
        assert_eq!(client.until(text).await, format!("blue: {text}"));
    }
    let long = "x".repeat(3_000_000);
    client.send_and_read(long.as_bytes(), b'x').await;
    // An end that has closed its sending side still receives.
    client.finish().await;
    assert_eq!(client.read_to_end().await, "blue: bye");
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn bytes_right_behind_an_upgrade_belong_to_the_tunnel() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    client.send(format!("{HANDSHAKE}early")).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.until("early").await, "blue: early");
    let metrics = proxy.call("GET", "/metrics", "", "").await.text();
    let counted = "flipgate_requests_total{code=\"101\",color=\"blue\",service=\"web\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
    // And what the upstream sends in one piece with its answer.
    let mut client = proxy.public().await;
    client.send(HANDSHAKE.replace("/ws", "/ws-greets")).await;
    assert_eq!(client.head().await.status, 101);
    assert_eq!(client.until("hello").await, "hello");
}

#[tokio::test]
async fn a_tunnel_keeps_its_color_and_holds_up_its_drain() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut early = open(&proxy).await;
    proxy.promote(&[("web", "green")]).await;
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["color"], &drain["in_flight"]), (&json!("blue"), &json!(1)));
    assert_eq!(drain["kinds"], json!({"request": 0, "tunnel": 1}));
    assert_eq!(drain["drained"], false);
    early.send("still").await;
    assert_eq!(early.until("still").await, "blue: still");
    let mut late = open(&proxy).await;
    late.send("new").await;
    assert_eq!(late.until("new").await, "green: new");
    drop(early);
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    late.send("on").await;
    assert_eq!(late.until("on").await, "green: on");
}

#[tokio::test]
async fn an_upgrade_that_is_refused_is_an_answer_like_any_other() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    // What comes behind is a request then, and was kept back from the upstream until that was known.
    let second = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    client.send(format!("{}{second}", HANDSHAKE.replace("/ws", "/length"))).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.answer().await.text(), "blue");
    let drain = proxy.call("GET", "/v1/services/web/drain?color=blue", "", "").await.json();
    assert_eq!(drain["kinds"]["tunnel"], 0);
}

#[tokio::test]
async fn only_a_websocket_is_tunnelled() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    for handshake in [
        HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c"),
        HANDSHAKE.replace("Upgrade: websocket", "Upgrade: h2c, websockets"),
        HANDSHAKE.replace("keep-alive, Upgrade", "keep-alive"),
        HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"),
        HANDSHAKE.replace("GET", "POST"),
        HANDSHAKE.replace("\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx"),
    ] {
        let mut client = proxy.public().await;
        // The upstream opens a tunnel whatever it is asked.
        client.send(&handshake).await;
        assert_eq!(client.answer().await.status, 502, "{handshake}");
    }
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

/// The application answered 426, since a handshake with `Content-Length: 0` lost its `Upgrade`.
#[tokio::test]
async fn a_handshake_without_content_opens_a_tunnel_however_it_is_framed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let framed = |more: &str, content: &str| {
        format!(
            "{}\r\n{more}\r\n\r\n{content}",
            HANDSHAKE.strip_suffix("\r\n\r\n").expect("a head")
        )
    };
    let listed = |list: &str| HANDSHAKE.replace("Upgrade: websocket", list);
    for handshake in [
        framed("Content-Length: 0", ""),
        framed("Content-Length: 000", ""),
        framed("Transfer-Encoding: chunked", "0\r\n\r\n"),
        listed("Upgrade: websocket, h2c"),
        listed("Upgrade: h2c,WebSocket"),
        listed("Upgrade: h2c\r\nUpgrade: websocket"),
    ] {
        for size in [usize::MAX, 1] {
            let mut client = proxy.public().await;
            for part in handshake.as_bytes().chunks(size.min(handshake.len())) {
                client.send(part).await;
            }
            client.send("early").await;
            let head = client.head().await;
            assert_eq!(head.status, 101, "{handshake}: {}", head.head);
            assert_eq!(head.field("upgrade"), Some("websocket"), "{handshake}");
            // Nothing of the framing is taken for a part of the tunnel.
            assert_eq!(client.until("early").await, "blue: early", "{handshake}");
        }
    }
}

#[tokio::test]
async fn a_handshake_with_content_or_for_something_else_opens_none() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let framed = |more: &str, content: &str| {
        let head = HANDSHAKE.replace("/ws", "/head");
        format!("{}\r\n{more}\r\n\r\n{content}", head.strip_suffix("\r\n\r\n").expect("a head"))
    };
    for request in [
        framed("Content-Length: 1", "x"),
        framed("Transfer-Encoding: chunked", "1\r\nx\r\n0\r\n\r\n"),
        HANDSHAKE.replace("/ws", "/head").replace("websocket", "h2c, websockets"),
        HANDSHAKE.replace("/ws", "/head").replace("keep-alive, Upgrade", "keep-alive"),
        HANDSHAKE.replace("GET /ws", "POST /head"),
    ] {
        let mut client = proxy.public().await;
        client.send(&request).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{request}");
        assert!(!answer.text().contains("Upgrade:"), "{request}: {}", answer.text());
        assert_eq!(client.get("/", "").await.text(), "blue", "{request}");
    }
}

#[tokio::test]
async fn a_tunnel_that_nothing_passes_through_is_cut_after_its_time() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[timeouts]\ntunnel = \"1s\"\nkeep_alive = \"1s\"\nrequest = \"1s\"")
        .service("web", &[&blue], &[&green])
        .start();
    let mut silent = open(&proxy).await;
    let mut busy = open(&proxy).await;
    let mut silence = std::pin::pin!(silent.read_to_end());
    let mut words = 0;
    loop {
        tokio::select! {
            biased;
            rest = &mut silence => {
                assert_eq!(rest, "");
                break;
            }
            _ = async {
                busy.send("on").await;
                busy.until("on").await
            } => words += 1,
        }
    }
    assert!(words > 0);
    busy.send("still").await;
    busy.until("still").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
}

/// A client that had heard the end, and did not say so, once held up a drain for an hour.
#[tokio::test]
async fn a_tunnel_that_only_one_end_has_left_is_over_soon() {
    let (mut blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = open(&proxy).await;
    blue.kill().await;
    assert_eq!(client.read_to_end().await, "");
    proxy.wait_for_in_flight("web", "blue", 0).await;
    drop(client);
}

#[tokio::test]
async fn a_tunnel_ends_when_its_upstream_dies() {
    let (mut blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = open(&proxy).await;
    blue.kill().await;
    assert_eq!(client.read_to_end().await, "");
    drop(client);
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn a_service_can_have_a_time_of_its_own_for_silent_tunnels() {
    let blue = Upstream::start("blue").await;
    let address = blue.address;
    let pool = format!("blue = {{ endpoints = [\"{address}\"] }}");
    let proxy = TestProxy::build()
        .services(&format!("[service.web]\ntunnel_idle = \"1s\"\n{pool}\n"))
        .services(&format!("[service.long]\nhosts = [\"long.test\"]\n{pool}\n"))
        .start();
    let mut long = proxy.public().await;
    long.send(HANDSHAKE.replace("a.test", "long.test")).await;
    assert_eq!(long.head().await.status, 101);
    let mut short = open(&proxy).await;
    short.send("one").await;
    assert_eq!(short.until("one").await, "blue: one");
    short.read_to_end().await;
    proxy.wait_for_in_flight("web", "blue", 0).await;
    long.send("still").await;
    assert_eq!(long.until("still").await, "blue: still");
}
