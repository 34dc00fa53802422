//! What waits, what does not, and where it goes.

use super::*;
use crate::support::Http2;

#[tokio::test]
async fn held_requests_wait_and_go_in_order_to_the_color_of_the_release() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    assert_eq!(proxy.get("/before").await, "blue");
    hold(&proxy, json!({"for": "60s"})).await;
    let mut clients = Vec::new();
    for number in 0..6 {
        clients.push(held(&proxy, &format!("/{number}")).await);
    }
    let pools = web(&proxy).await["pools"].clone();
    assert_eq!((&pools["blue"]["in_flight"], &pools["green"]["in_flight"]), (&json!(0), &json!(0)));
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.drain("web").await["drained"], true, "nothing held blue");
    assert!(paths(&green).is_empty(), "they still wait");
    release(&proxy).await;
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "green");
    }
    assert_eq!(paths(&green), ["/0", "/1", "/2", "/3", "/4", "/5"]);
    assert_eq!(paths(&blue), ["/before"]);
    eventually("no hold", async || web(&proxy).await["hold"].is_null()).await;
    assert_eq!(proxy.get("/after").await, "green");
}

#[tokio::test]
async fn a_flip_of_two_services_under_a_hold_is_one_for_every_request() {
    let (blue, green) = (application("blue").await, application("green").await);
    let (old, new) = (application("old").await, application("new").await);
    let proxy = service(&blue, &green, "")
        .service_of("api", "*", "/api", &[old.address], &[new.address])
        .start();
    for name in ["web", "api"] {
        call(&proxy, "POST", &format!("{name}/hold"), &json!({"for": "60s"})).await;
    }
    let mut page = held(&proxy, "/page").await;
    let mut data = proxy.public().await;
    data.ask("/api/data", "").await;
    eventually("both wait", async || {
        proxy.status().await["services"]["api"]["hold"]["waiting"] == 1
    })
    .await;
    proxy.promote(&[("web", "green"), ("api", "green")]).await;
    assert!(paths(&blue).is_empty() && paths(&old).is_empty());
    for name in ["web", "api"] {
        call(&proxy, "POST", &format!("{name}/release"), &json!({})).await;
    }
    assert_eq!(
        (page.answer().await.text(), data.answer().await.text()),
        ("green".into(), "new".into())
    );
    assert!(paths(&blue).is_empty() && paths(&old).is_empty(), "none was admitted before");
}

#[tokio::test]
async fn http2_requests_are_held_and_released_and_a_reset_gives_the_place_up() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut http2 = Http2::connect(client::PUBLIC, proxy.public).await;
    let mut one = http2.ask("GET", "/one", "", true).await;
    let mut two = http2.ask("POST", "/two", "", false).await;
    wait_for_waiting(&proxy, 2).await;
    two.sending.send_reset(h2::Reason::CANCEL);
    wait_for_waiting(&proxy, 1).await;
    proxy.promote(&[("web", "green")]).await;
    release(&proxy).await;
    assert_eq!(one.answer().await.expect("an answer").text(), "green");
    assert_eq!(paths(&green), ["/one"]);
}

#[tokio::test]
async fn no_100_continue_is_sent_before_the_release() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut client = proxy.public().await;
    let head =
        "POST /body HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.send(head).await;
    wait_for_waiting(&proxy, 1).await;
    assert_eq!(client.read_until_quiet().await, "", "not asked for the body");
    release(&proxy).await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "blue");
    assert_eq!(blue.requests()[0].body, "body");
}

#[tokio::test]
async fn previews_and_flipgates_own_answers_and_declared_paths_do_not_wait() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "pass = [\"/healthz\", \"/live/\"]")
        .services("[service.web.version_signal]\n")
        .start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut insider = proxy.internal().await;
    let previewed = insider.get("/", "Flipgate-Preview: green\r\n").await;
    assert_eq!(previewed.text(), "green");
    for path in ["/healthz", "/healthz?x=1", "/live/a"] {
        assert_eq!(proxy.get(path).await, "blue", "{path}");
    }
    let signal = proxy.public().await.get("/.flipgate/version", "").await;
    assert_eq!(signal.status, 200);
    let mut options = proxy.public().await;
    options.send("OPTIONS * HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: 0\r\n\r\n").await;
    assert_eq!(options.answer().await.status, 200);
    // All others do: also insiders, and neighbors of a declared path.
    insider.ask("/", "").await;
    wait_for_waiting(&proxy, 1).await;
    let mut neighbor = held(&proxy, "/healthz/more").await;
    release(&proxy).await;
    assert_eq!(
        (insider.answer().await.text(), neighbor.answer().await.text()),
        ("blue".into(), "blue".into())
    );
}

#[tokio::test]
async fn an_event_stream_is_accepted_told_when_to_come_again_and_ended() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = service(&blue, &green, "").start();
    hold(&proxy, json!({"for": "60s"})).await;
    let mut client = proxy.public().await;
    let answer = client.get("/events", "Accept: text/event-stream\r\n").await;
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
    assert_eq!(answer.field("proxy-status"), Some("flipgate"));
    let retry = answer.text().trim().strip_prefix("retry: ").and_then(|it| it.parse::<u64>().ok());
    assert!(retry.is_some_and(|it| (50_000..=63_000).contains(&it)), "{}", answer.text());
    // A POST that would accept one is no EventSource, and waits.
    client
        .send("POST /rpc HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\nContent-Length: 0\r\n\r\n")
        .await;
    wait_for_waiting(&proxy, 1).await;
    assert!(paths(&blue).is_empty());
    release(&proxy).await;
    assert_eq!(client.answer().await.text(), "blue");
    assert_eq!(
        proxy.metric("flipgate_hold_requests_total{result=\"stream\",service=\"web\"}").await,
        1.0
    );
}

#[tokio::test]
async fn a_pinned_request_waits_too_and_then_keeps_its_version() {
    let (blue, green) = (application("blue").await, application("green").await);
    let pin = "[service.web.pin]\nstart = [\"header:X-Scan-Id\"]\ncarry = \"header:X-Scan-Id\"\n";
    let proxy = service(&blue, &green, "").services(pin).start();
    let scan = "X-Scan-Id: one\r\n";
    let mut client = proxy.public().await;
    assert_eq!(client.get("/begin", scan).await.text(), "blue");
    hold(&proxy, json!({"for": "60s"})).await;
    client.ask("/next", scan).await;
    wait_for_waiting(&proxy, 1).await;
    let mut other = held(&proxy, "/other").await;
    proxy.promote(&[("web", "green")]).await;
    release(&proxy).await;
    assert_eq!(
        (client.answer().await.text(), other.answer().await.text()),
        ("blue".into(), "green".into())
    );
}
