//! What a watch finds, and what it does not count.

use serde_json::json;

use super::{Fragile, active, event, load_until, request_from, watched};
use crate::support::{Client, client, eventually};

#[tokio::test]
async fn a_good_color_passes() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"1s\", requests = 5").start();
    proxy.promote(&[("web", "green")]).await;
    let started = event(&proxy, "watch_started").await;
    assert_eq!(
        (&started["service"], &started["color"], &started["generation"]),
        (&"web".into(), &"green".into(), &1.into())
    );
    load_until(&proxy, "the end", async || !proxy.events("watch_passed").is_empty()).await;
    let passed = event(&proxy, "watch_passed").await;
    assert!(passed["summary"].as_str().is_some_and(|it| it.starts_with("0 of ")), "{passed}");
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["watch"], json!(null), "{status}");
    assert_eq!(active(&proxy, "web").await, "green");
    green.fail();
    for client in 2..20 {
        request_from(&proxy, client).await;
    }
    assert_eq!(active(&proxy, "web").await, "green", "the watch is over");
}

#[tokio::test]
async fn too_few_requests_are_inconclusive() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"4s\"").start();
    proxy.promote(&[("web", "green")]).await;
    request_from(&proxy, 2).await;
    let inconclusive = event(&proxy, "watch_inconclusive").await;
    let reason = inconclusive["reason"].as_str().expect("a text");
    assert_eq!(reason, "0 of 1 requests failed (0 %, limit 5 %); at least 50 requests are needed");
    assert!(proxy.events("watch_passed").is_empty());
    assert_eq!(active(&proxy, "web").await, "green");
}

#[tokio::test]
async fn one_client_alone_causes_no_rollback() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"3s\", requests = 10").start();
    proxy.promote(&[("web", "green")]).await;
    green.fail();
    eventually("the end", async || {
        request_from(&proxy, 2).await;
        !proxy.events("watch_inconclusive").is_empty()
    })
    .await;
    assert_eq!(active(&proxy, "web").await, "green");
    // Behind one address it is the application.
    green.recover();
    proxy.promote(&[("web", "blue")]).await;
    let behind_nat = watched(&blue, &green, "for = \"10m\", requests = 10, clients = 1").start();
    behind_nat.promote(&[("web", "green")]).await;
    green.fail();
    eventually("the rollback", async || {
        request_from(&behind_nat, 2).await;
        active(&behind_nat, "web").await == "blue"
    })
    .await;
}

#[tokio::test]
async fn cancellations_of_clients_and_previews_do_not_count() {
    let blue = Fragile::start("blue").await;
    let green = Fragile::failing_with("green", crate::support::Reply::Hang).await;
    let proxy = watched(&blue, &green, "for = \"2s\", requests = 1").start();
    proxy.promote(&[("web", "green")]).await;
    green.fail();
    for client in 2..12_u8 {
        let mut leaving = Client::connect(&format!("127.0.0.{client}"), proxy.public).await;
        leaving.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        proxy.wait_for_in_flight("web", "green", 1).await;
        drop(leaving);
        proxy.wait_for_in_flight("web", "green", 0).await;
    }
    // A tester previews the other color, which fails.
    blue.fail();
    for _ in 0..5 {
        let mut tester = Client::connect(client::INTERNAL, proxy.public).await;
        tester.send("GET / HTTP/1.1\r\nHost: web.test\r\nFlipgate-Preview: blue\r\n\r\n").await;
        assert_eq!(tester.answer().await.status, 500);
    }
    let end = event(&proxy, "watch_inconclusive").await;
    assert!(
        end["reason"].as_str().is_some_and(|it| it.starts_with("0 of 0 requests failed")),
        "{end}"
    );
    assert_eq!(active(&proxy, "web").await, "green");
}

#[tokio::test]
async fn an_operator_can_end_a_watch() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "requests = 10").start();
    let path = "/v1/services/web/watch/stop";
    let none = proxy.call("POST", path, "", "{}").await;
    assert_eq!((none.status, &none.json()["reasons"][0]["code"]), (409, &"no_watch".into()));
    proxy.promote(&[("web", "green")]).await;
    let generation = proxy.generation().await;
    assert_eq!(proxy.call("POST", path, "", "{}").await.status, 200);
    let status = proxy.status().await;
    assert_eq!(
        (&status["services"]["web"]["watch"], &status["generation"]),
        (&json!(null), &generation.into())
    );
    green.fail();
    for client in 2..30 {
        request_from(&proxy, client).await;
    }
    assert_eq!(active(&proxy, "web").await, "green");
    assert_eq!(proxy.call("POST", "/v1/services/shop/watch/stop", "", "{}").await.status, 404);
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let build = || watched(&blue, &green, "for = \"10m\", requests = 10");
    let proxy = build().start();
    proxy.promote(&[("web", "green")]).await;
    let until = proxy.status().await["services"]["web"]["watch"]["until"].clone();
    let proxy = build().state(proxy.shut_down()).start();
    assert_eq!(proxy.status().await["services"]["web"]["watch"]["until"], until);
    green.fail();
    load_until(&proxy, "the rollback", async || active(&proxy, "web").await == "blue").await;
}

#[tokio::test]
async fn the_old_color_is_drained_but_not_safe_to_stop_while_it_may_be_needed() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"10m\"").start();
    proxy.promote(&[("web", "green")]).await;
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["safe_to_stop"], &drain["held_by"]), (&false.into(), &json!(["watch"])));
    let until = proxy.status().await["services"]["web"]["watch"]["until"].clone();
    assert_eq!(drain["until"], until);
    let pool = proxy.status().await["services"]["web"]["pools"]["blue"].clone();
    assert_eq!(
        (&pool["role"], &pool["safe_to_stop"], &pool["held_by"]),
        (&"standby".into(), &false.into(), &json!(["watch"]))
    );
    // The wait for safe to stop ends with the watch.
    let path = "/v1/services/web/drain?wait=30s&for=safe_to_stop";
    let stop = async {
        proxy.wait_for_in_flight("web", "blue", 0).await;
        proxy.call("POST", "/v1/services/web/watch/stop", "", "{}").await
    };
    let (waited, stopped) = tokio::join!(proxy.call("GET", path, "", ""), stop);
    assert_eq!(stopped.status, 200);
    let waited = waited.json();
    assert_eq!((&waited["safe_to_stop"], &waited["held_by"]), (&true.into(), &json!(null)));
    let short = proxy.call("GET", "/v1/services/web/drain?for=ever", "", "").await;
    assert_eq!(short.status, 400);
}

#[tokio::test]
async fn a_watch_goes_on_after_a_panic_of_its_task() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"10m\", requests = 10").start();
    proxy.promote(&[("web", "green")]).await;
    event(&proxy, "watch_started").await;
    assert!(proxy.app().plant_panic("watch"));
    eventually("it is started again", async || proxy.events("watch_started").len() == 2).await;
    green.fail();
    load_until(&proxy, "the rollback", async || active(&proxy, "web").await == "blue").await;
}
