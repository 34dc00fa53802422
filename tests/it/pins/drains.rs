//! Pins and the drain: what holds a color, for how long, and what a change of its pool means.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{Browser, application, get, pinned};
use crate::support::{Client, TestProxy, Upstream, client, eventually};

#[tokio::test]
async fn pins_hold_a_color_until_the_last_one_can_have_ended() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "max_age = \"1s\"").start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    let held = proxy.drain("web").await;
    assert_eq!((&held["drained"], &held["safe_to_stop"]), (&json!(false), &json!(false)));
    assert_eq!((&held["held_by"], &held["pins"]["count"]), (&json!(["pins"]), &json!(null)));
    assert_eq!(held["until"], held["pins"]["until"]);
    assert_eq!(proxy.events("drained").len(), 0);
    // A wait returns at the end, not at its own timeout.
    let waited = proxy.call("GET", "/v1/services/web/drain?wait=60s", "", "").await.json();
    assert_eq!((&waited["drained"], &waited["pins"]), (&json!(true), &json!(null)));
    assert_eq!(browser.fetch("/api").await, "green");
    eventually("the event", async || proxy.events("drained").len() == 1).await;
    let role = proxy.status().await["services"]["web"]["pools"]["blue"]["role"].clone();
    assert_eq!(role, "standby");
}

#[tokio::test]
async fn a_color_that_nothing_was_ever_pinned_to_is_not_held() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    // The process does not know of earlier ones.
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.drain("web").await["drained"], false);
    let next = application("next").await;
    let body = json!({"endpoints": [next.address.to_string()], "force": true}).to_string();
    assert_eq!(proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await.status, 200);
    proxy.promote(&[("web", "blue")]).await;
    proxy.promote(&[("web", "green")]).await;
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
}

#[tokio::test]
async fn a_pinned_request_in_flight_is_waited_for_when_the_pins_have_ended() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let pin =
        "[service.web.pin]\nmax_age = \"1s\"\nstart = [\"header:X-Id\"]\ncarry = \"header:X-Id\"\n";
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).services(pin).start();
    assert_eq!(get(&proxy, "/", "X-Id: one\r\n").await.text(), "blue");
    proxy.promote(&[("web", "green")]).await;
    let mut client = proxy.public().await;
    client.ask("/hold", "X-Id: one\r\n").await;
    client.until("begins").await;
    let during = proxy.drain("web").await;
    assert_eq!((&during["pinned"], &during["previews"]), (&json!(1), &json!(0)));
    eventually("the pins have ended", async || proxy.drain("web").await["pins"].is_null()).await;
    let after = proxy.drain("web").await;
    assert_eq!((&after["drained"], &after["in_flight"]), (&json!(false), &json!(1)));
    let pool = proxy.status().await["services"]["web"]["pools"]["blue"].clone();
    assert_eq!((&pool["role"], &pool["safe_to_stop"]), (&json!("draining"), &json!(false)));
    assert_eq!(get(&proxy, "/", "X-Id: one\r\n").await.text(), "green");
    blue.release();
    client.until("0\r\n\r\n").await;
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    eventually("the event", async || !proxy.events("drained").is_empty()).await;
}

#[tokio::test]
async fn a_pool_that_pins_hold_is_only_changed_by_force() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    let next = application("next").await;
    let set = async |force: bool| {
        let body = json!({"endpoints": [next.address.to_string()], "force": force}).to_string();
        proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await
    };
    let refused = set(false).await;
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(refused.json()["reasons"][0]["code"], "pins_hold");
    assert_eq!(browser.fetch("/api").await, "blue", "nothing has changed");
    assert_eq!(set(true).await.status, 200);
    assert_eq!(browser.fetch("/api").await, "green");
    assert_eq!(proxy.drain("web").await["drained"], true);
    assert_eq!(set(false).await.status, 200, "no pin holds it any more");
}

#[tokio::test]
async fn beyond_its_share_the_oldest_pins_lapse() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "max_share = 10").start();
    let mut old = Browser::of(&proxy).await;
    old.navigate("/").await;
    // The order of pins is that of the seconds in which they were made.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let first = second();
    eventually("the next second", async || second() > first).await;
    let mut young = Browser::of(&proxy).await;
    young.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    eventually("the older one has lapsed", async || {
        for _ in 0..30 {
            old.fetch("/api").await;
        }
        young.fetch("/api").await;
        for _ in 0..30 {
            get(&proxy, "/api", "").await;
        }
        old.fetch("/api").await == "green"
    })
    .await;
    assert_eq!(young.fetch("/api").await, "blue");
}

#[tokio::test]
async fn pins_that_a_change_ends_are_reported_as_any_others() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(browser.fetch("/api").await, "blue");
    // What was in flight at the flip is reported first.
    eventually("released", async || proxy.events("released").len() == 1).await;
    assert_eq!(proxy.events("drained").len(), 0);
    let next = application("next").await;
    let body = json!({"endpoints": [next.address.to_string()], "force": true}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(browser.fetch("/api").await, "green");
    eventually("the event", async || proxy.events("drained").len() == 1).await;
}

#[tokio::test]
async fn streams_of_pinned_requests_end_by_their_policies_when_the_pins_have_ended() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let pin = "[service.web.pin]\nmax_age = \"2s\"\nstart = [\"header:X-Id\"]\ncarry = \"header:X-Id\"\n\
               [service.web.drain]\ndownload = { patience = \"0s\", spread = \"0s\" }\n";
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).services(pin).start();
    assert_eq!(get(&proxy, "/", "X-Id: one\r\n").await.text(), "blue");
    proxy.promote(&[("web", "green")]).await;
    let mut pinned = proxy.public().await;
    pinned.ask("/hold", "X-Id: one\r\n").await;
    pinned.until("begins").await;
    let mut preview = Client::connect(client::INTERNAL, proxy.public).await;
    preview.ask("/hold", "Flipgate-Preview: blue\r\n").await;
    preview.until("begins").await;
    assert!(!proxy.drain("web").await["pins"].is_null(), "pins hold the color");
    eventually("only the preview is left", async || {
        let drain = proxy.drain("web").await;
        drain["pins"].is_null() && drain["in_flight"] == 1
    })
    .await;
    assert_eq!(proxy.drain("web").await["pinned"], 0);
    // Flipgate does not end previews.
    blue.release();
    preview.until("0\r\n\r\n").await;
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
}

#[tokio::test]
async fn a_color_with_several_replaced_sides_is_reported_once() {
    for _ in 0..10 {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let pin = "[service.web.pin]\nmax_age = \"300ms\"\nstart = [\"header:X-Id\"]\ncarry = \"header:X-Id\"\n";
        let proxy = TestProxy::build().service("web", &[&blue], &[&green]).services(pin).start();
        assert_eq!(get(&proxy, "/", "X-Id: one\r\n").await.text(), "blue");
        let (mut before, mut pinned) = (proxy.public().await, proxy.public().await);
        before.ask("/hold", "").await;
        before.until("begins").await;
        proxy.promote(&[("web", "green")]).await;
        pinned.ask("/hold", "X-Id: one\r\n").await;
        pinned.until("begins").await;
        eventually("the pins have ended", async || proxy.drain("web").await["pins"].is_null())
            .await;
        blue.release();
        before.until("0\r\n\r\n").await;
        pinned.until("0\r\n\r\n").await;
        eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
        // Two sides were replaced: each is reported, as drained or as released.
        let count = || (proxy.events("drained").len(), proxy.events("released").len());
        eventually("both reports", async || count().0 + count().1 == 2).await;
        assert_eq!(count(), (1, 1));
    }
}
