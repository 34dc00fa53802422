//! The event stream: it follows flips without reconnecting, holds nothing up, and is bounded.

use std::fs;

use super::{id, preview, service, version};
use crate::support::{Client, Http2, Process, TestProxy, Upstream, client, eventually};

const EVENTS: &str = "/.flipgate/events";

/// Opens the stream over HTTP/1.1, and checks its head.
async fn subscribe(proxy: &TestProxy) -> Client {
    let mut client = proxy.public().await;
    client.ask(EVENTS, "Accept: text/event-stream\r\n").await;
    let head = client.head().await;
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(head.field("cache-control"), Some("no-store, no-transform"));
    assert_eq!(head.field("transfer-encoding"), Some("chunked"));
    assert_eq!(head.field("connection"), Some("close"));
    client
}

/// The id of the next event.
async fn next(client: &mut Client) -> String {
    client.until("data: ").await;
    id(client.until("\n").await.trim_end())
}

#[tokio::test]
async fn a_subscriber_learns_of_each_flip_on_the_same_connection() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let (of_blue, of_green) = (version(&proxy).await, preview(&proxy, "green").await.0);
    let mut client = subscribe(&proxy).await;
    let begins = client.until("data: ").await;
    assert!(begins.contains("retry: "), "{begins}");
    assert_eq!(id(client.until("\n").await.trim_end()), of_blue, "at once");
    for (color, expected) in [("green", &of_green), ("blue", &of_blue), ("green", &of_green)] {
        proxy.promote(&[("web", color)]).await;
        assert_eq!(next(&mut client).await, *expected);
    }
}

#[tokio::test]
async fn over_http2_and_http_1_0_it_is_the_same_stream() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let (of_blue, of_green) = (version(&proxy).await, preview(&proxy, "green").await.0);
    let mut http2 = Http2::connect(client::PUBLIC, proxy.public).await;
    let mut stream = http2.ask("GET", EVENTS, "", true).await;
    let head = stream.head().await.expect("a head");
    assert_eq!((head.status, head.field("content-type")), (200, Some("text/event-stream")));
    assert!(stream.until(&of_blue).await.starts_with("retry: "));
    let mut old = proxy.public().await;
    old.send(format!("GET {EVENTS} HTTP/1.0\r\nHost: a\r\n\r\n")).await;
    let head = old.head().await;
    assert_eq!(head.field("transfer-encoding"), None, "{}", head.head);
    assert_eq!(next(&mut old).await, of_blue);
    proxy.promote(&[("web", "green")]).await;
    stream.until(&of_green).await;
    assert_eq!(next(&mut old).await, of_green);
    // Other requests of the connection go on meanwhile.
    assert_eq!(http2.get("/", "").await.text(), "green");
}

#[tokio::test]
async fn a_subscriber_holds_no_drain_up_and_no_place_of_its_service() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").services("limits.in_flight = 1").start();
    let mut client = subscribe(&proxy).await;
    next(&mut client).await;
    assert_eq!(proxy.get("/").await, "blue", "the one place is free");
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["pools"]["blue"]["in_flight"], 0, "{status}");
    proxy.promote(&[("web", "green")]).await;
    next(&mut client).await;
    assert_eq!(proxy.drain("web").await["drained"], true);
}

#[tokio::test]
async fn subscribers_count_against_the_limit_of_the_process_until_they_leave() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").with("limits.in_flight = 2").start();
    let (mut first, mut second) = (subscribe(&proxy).await, subscribe(&proxy).await);
    next(&mut first).await;
    next(&mut second).await;
    let third = proxy.public().await.get(EVENTS, "").await;
    assert_eq!(third.status, 503, "{}", third.head);
    drop(first);
    eventually("its place is free", async || proxy.public().await.get("/", "").await.status == 200)
        .await;
    // The second one goes on.
    proxy.promote(&[("web", "green")]).await;
    next(&mut second).await;
}

#[tokio::test]
async fn a_preview_keeps_its_color_and_learns_when_its_pool_is_set() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let of_green = preview(&proxy, "green").await.0;
    let mut client = proxy.internal().await;
    client.ask(EVENTS, "Flipgate-Preview: green\r\n").await;
    let head = client.head().await;
    assert_eq!(head.field("cache-control"), Some("private, no-store"), "{}", head.head);
    assert_eq!(next(&mut client).await, of_green);
    // A flip does not change what this client gets.
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("web", "blue")]).await;
    let pool = serde_json::json!({"version": "3", "endpoints": [green.address.to_string()]});
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &pool.to_string()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(next(&mut client).await, preview(&proxy, "green").await.0);
}

#[tokio::test]
async fn a_stop_ends_the_streams_completely() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let mut client = subscribe(&proxy).await;
    next(&mut client).await;
    let mut http2 = Http2::connect(client::PUBLIC, proxy.public).await;
    let mut stream = http2.ask("GET", EVENTS, "", true).await;
    let head = stream.head().await.expect("a head");
    stream.until("data: ").await;
    let stopping = tokio::task::spawn_blocking(move || proxy.shut_down());
    let rest = client.read_to_end().await;
    assert!(rest.ends_with("0\r\n\r\n"), "the last chunk: {rest:?}");
    stream.rest(head).await.expect("END_STREAM and no reset");
    drop((client, http2));
    stopping.await.expect("within its time");
}

#[tokio::test]
async fn a_reload_that_removes_the_signal_ends_the_streams() {
    let blue = Upstream::start("blue").await;
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &blue).await;
    let path = folder.path().join("flipgate.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let load = async |more: &str| {
        fs::write(&path, format!("{text}{more}")).expect("written");
        process.caller().reload().await.expect("a good configuration");
    };
    assert_eq!(process.get(EVENTS).await, "blue", "it is opt-in");
    load("version_signal = {}\n").await;
    let mut client = process.public().await;
    client.ask(EVENTS, "").await;
    assert_eq!(client.head().await.status, 200);
    let before = next(&mut client).await;
    // Another setting of the service is no other version.
    load("version_signal = { spread = \"1s\" }\nmax_body = \"1B\"\n").await;
    assert_eq!(id(&process.get("/.flipgate/version").await), before);
    load("").await;
    let rest = client.read_to_end().await;
    assert!(!rest.contains("data:") && rest.ends_with("0\r\n\r\n"), "{rest:?}");
    assert_eq!(process.get(EVENTS).await, "blue");
}

/// Proxies and firewalls cut connections that are silent for a minute.
#[tokio::test]
async fn a_silent_stream_has_a_comment_now_and_then() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let mut client = subscribe(&proxy).await;
    next(&mut client).await;
    let silent = client.until(":\n\n").await;
    assert!(!silent.contains("data"), "{silent:?}");
}

/// A client that does not read misses no change: what is current is sent when it reads again, and nothing piles up.
#[tokio::test]
async fn a_slow_client_gets_the_last_version_and_not_each_one() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let of_green = preview(&proxy, "green").await.0;
    let mut slow = Client::connect_narrow(client::PUBLIC, proxy.public).await;
    slow.ask(EVENTS, "").await;
    let mut quick = subscribe(&proxy).await;
    next(&mut quick).await;
    for color in ["green", "blue", "green"] {
        proxy.promote(&[("web", color)]).await;
        next(&mut quick).await;
    }
    let mut last = String::new();
    while last != of_green {
        last = next(&mut slow).await;
    }
}
