//! Which requests hold a color, and when it is drained.

use std::time::Duration;

use flipgate::{control::DrainGoal, model::Color};
use futures_util::FutureExt;
use serde_json::json;

use crate::support::{Client, TestProxy, Upstream, eventually};

#[tokio::test]
async fn in_flight_is_exact_and_drained_comes_with_the_last_one() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = proxy.public().await;
        client.ask("/hold", "").await;
        client.until("begins").await;
        clients.push(client);
    }
    let before = proxy.drain("web").await;
    assert_eq!((&before["color"], &before["drained"]), (&json!("green"), &json!(true)));
    proxy.promote(&[("web", "green")]).await;
    let held = proxy.drain("web").await;
    assert_eq!(held["color"], "blue");
    assert_eq!((&held["in_flight"], &held["drained"]), (&json!(5), &json!(false)));
    assert_eq!(held["kinds"], json!({"request": 5, "tunnel": 0}));
    assert_eq!(proxy.status().await["services"]["web"]["pools"]["blue"]["role"], "draining");
    // A client that leaves is inside no more.
    drop(clients.pop());
    proxy.wait_for_in_flight("web", "blue", 4).await;
    assert_eq!(proxy.drain("web").await["in_flight"], 4);
    blue.release();
    for client in &mut clients {
        client.until("0\r\n\r\n").await;
    }
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    let done = proxy.drain("web").await;
    assert_eq!((&done["in_flight"], &done["oldest_ms"]), (&json!(0), &json!(0)));
    assert_eq!(proxy.status().await["services"]["web"]["pools"]["blue"]["role"], "standby");
}

#[tokio::test]
async fn a_wait_for_the_drain_returns_at_its_end_and_not_before() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut early = proxy.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    proxy.promote(&[("web", "green")]).await;

    let in_vain = proxy.call("GET", "/v1/services/web/drain?wait=50ms", "", "").await.json();
    assert_eq!((&in_vain["drained"], &in_vain["in_flight"]), (&json!(false), &json!(1)));

    let mut waiting = Client::connect("127.0.0.1", proxy.admin).await;
    waiting.send("GET /v1/services/web/drain?wait=60s HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answered = tokio::spawn(async move { waiting.answer().await.json() });
    // A call without a wait gets its response at once; the waiting one does not.
    assert_eq!(proxy.drain("web").await["drained"], false);
    assert!(!answered.is_finished());
    blue.release();
    early.until("0\r\n\r\n").await;
    let answer = answered.await.expect("answered");
    assert_eq!((&answer["drained"], &answer["color"]), (&json!(true), &json!("blue")));
}

#[tokio::test]
async fn a_claim_lasts_until_the_last_byte_is_written_to_the_client() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    // A body that the upstream has sent whole, and that the client does not take.
    let body = "x".repeat(12 * 1024 * 1024);
    let mut slow = Client::connect_narrow("127.0.0.2", proxy.public).await;
    let length = body.len();
    slow.send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    slow.send(&body).await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    proxy.promote(&[("web", "green")]).await;
    let in_vain = proxy.call("GET", "/v1/services/web/drain?wait=300ms", "", "").await.json();
    assert_eq!(in_vain["drained"], false);
    let answer = slow.answer().await;
    assert!(answer.body == body.as_bytes(), "the body came whole");
    let done = proxy.call("GET", "/v1/services/web/drain?wait=30s", "", "").await.json();
    assert_eq!(done["drained"], true);
}

#[tokio::test]
async fn a_rollback_ends_the_wait_for_a_drain_that_is_no_longer_one() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut early = proxy.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    proxy.promote(&[("web", "green")]).await;
    let (web, patience) = ("web".parse().expect("a name"), Duration::from_secs(60));
    let control = proxy.app().control();
    let mut waiting =
        Box::pin(control.wait_for_drain(&web, Some(Color::Blue), patience, DrainGoal::Drained));
    // Begun while blue is drained: a wait for a color that is active is for something else.
    assert!((&mut waiting).now_or_never().is_none());
    proxy.promote(&[("web", "blue")]).await;
    let seen = tokio::time::timeout(patience / 2, waiting).await.expect("it is over at once");
    let seen = seen.expect("it is configured");
    assert_eq!((seen.color, seen.is_active, seen.is_drained), (Color::Blue, true, false));
    // And the request of the first generation still has its pool.
    blue.release();
    assert!(early.until("0\r\n\r\n").await.contains("blue ends"));
}

#[tokio::test]
async fn generations_of_one_color_drain_apart() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut first = proxy.public().await;
    first.ask("/hold", "").await;
    first.until("begins").await;
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("web", "blue")]).await;
    let mut second = proxy.public().await;
    second.ask("/hold", "").await;
    second.until("begins").await;
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["pools"]["blue"]["in_flight"], 2);
    assert_eq!(proxy.drain("web").await["color"], "green");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.drain("web").await["in_flight"], 2);
    drop((first, second));
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
}

#[tokio::test]
async fn drained_is_an_event_and_comes_once_for_each_replaced_side() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut listener = Client::connect("127.0.0.1", proxy.admin).await;
    listener.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n").await;
    listener.until("event: started").await;
    let mut early = proxy.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    proxy.promote(&[("web", "green")]).await;
    let promoted = listener.until("\"services\":{\"web\":\"green\"}").await;
    assert!(promoted.contains("event: promoted") && !promoted.contains("drained"), "{promoted}");
    blue.release();
    early.until("0\r\n\r\n").await;
    let drained = listener.until("\"took_ms\"").await;
    assert!(
        drained.contains("event: drained") && drained.contains("\"color\":\"blue\""),
        "{drained}"
    );
    proxy.promote(&[("web", "blue")]).await;
    let next = listener.until("\"took_ms\"").await;
    assert!(next.contains("\"color\":\"green\"") && !next.contains("\"color\":\"blue\""), "{next}");
}

#[tokio::test]
async fn endpoints_that_leave_an_idle_pool_finish_what_they_have() {
    let (blue, old) = (Upstream::start("blue").await, Upstream::start("old").await);
    let new = Upstream::start("new").await;
    let proxy = TestProxy::of(&blue, &old);
    let mut tester = proxy.internal().await;
    tester.ask("/hold", "Flipgate-Preview: green\r\n").await;
    tester.until("old begins").await;
    let body = json!({"version": "8.1", "endpoints": [new.address.to_string()]}).to_string();
    let answer = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let pool = &answer.json()["services"]["web"]["pools"]["green"];
    assert_eq!((&pool["version"], &pool["source"]), (&json!("8.1"), &json!("runtime")));
    assert_eq!((&pool["role"], &pool["in_flight"]), (&json!("preview"), &json!(1)));
    // What the change left behind is what its drain waits for.
    assert_eq!(proxy.drain("web").await["in_flight"], 1);
    let later = proxy.internal().await.get("/", "Flipgate-Preview: green\r\n").await;
    assert_eq!(later.text(), "new");
    old.release();
    assert!(tester.until("0\r\n\r\n").await.contains("old ends"));
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.get("/").await, "new");
}

#[tokio::test]
async fn previews_of_the_replaced_color_do_not_delay_its_drain_but_are_counted() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    proxy.promote(&[("web", "green")]).await;
    let mut tester = proxy.internal().await;
    tester.ask("/hold", "Flipgate-Preview: blue\r\n").await;
    tester.until("blue begins").await;
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["drained"], &drain["in_flight"]), (&json!(true), &json!(0)));
    assert_eq!(drain["previews"], 1);
    assert_eq!((&drain["safe_to_stop"], &drain["held_by"]), (&json!(false), &json!(["previews"])));
    assert_eq!(proxy.status().await["services"]["web"]["pools"]["blue"]["in_flight"], 1);
}

#[tokio::test]
async fn a_drained_pool_gets_no_public_request_any_more() {
    let (mut blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = proxy.public().await;
        client.get("/", "").await;
        clients.push(client);
    }
    proxy.promote(&[("web", "green")]).await;
    let done = proxy.call("GET", "/v1/services/web/drain?wait=30s", "", "").await.json();
    assert_eq!(done["drained"], true);
    let served = blue.requests();
    blue.kill().await;
    for client in &mut clients {
        assert_eq!(client.get("/", "").await.text(), "green");
    }
    assert_eq!(blue.requests(), served);
}

#[tokio::test]
async fn the_drain_of_what_does_not_exist_is_a_clear_answer() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    for (path, status) in [
        ("/v1/services/shop/drain", 404),
        ("/v1/services/Not%20A%20Name/drain", 404),
        ("/v1/services/web/drain?color=red", 404),
        ("/v1/services/web/drain?wait=soon", 400),
        ("/v1/services/web/drain?wait=-5s", 400),
        ("/v1/services/web/drain?what=1", 400),
        ("/v1/services/web/drain?color=blue", 200),
    ] {
        assert_eq!(proxy.call("GET", path, "", "").await.status, status, "{path}");
    }
    // The active color is not being drained, whatever is inside.
    let active = proxy.call("GET", "/v1/services/web/drain?color=blue", "", "").await.json();
    assert_eq!(active["drained"], false);
}
