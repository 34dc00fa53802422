//! A promotion that is not confirmed in time takes itself back.

use serde_json::json;

use super::{Fragile, active, event, promote_within};
use crate::support::{TestProxy, eventually, test_proxy::TestProxyBuilder};

fn service(blue: &Fragile, green: &Fragile) -> TestProxyBuilder {
    TestProxy::build().service_of(
        "web",
        "*",
        "/",
        &[blue.application.address],
        &[green.application.address],
    )
}

#[tokio::test]
async fn a_promotion_that_is_not_confirmed_is_taken_back() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = service(&blue, &green).start();
    let status = promote_within(&proxy, "1s").await;
    assert!(status["services"]["web"]["confirm_by"].is_string(), "{status}");
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["safe_to_stop"], &drain["held_by"]), (&false.into(), &json!(["confirm"])));
    assert_eq!(proxy.get("/").await, "green");
    eventually("it is taken back", async || active(&proxy, "web").await == "blue").await;
    let expired = event(&proxy, "confirm_expired").await;
    assert_eq!((&expired["service"], &expired["rollback"]), (&"web".into(), &true.into()));
    let promoted = proxy.events("promoted");
    assert_eq!((&promoted[1]["rollback"], &promoted[1]["by"]), (&true.into(), &"confirm".into()));
    assert_eq!(proxy.status().await["services"]["web"]["confirm_by"], json!(null));
}

#[tokio::test]
async fn a_confirmed_promotion_stays() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let (other_blue, other_green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let [other_blue, other_green] = [&other_blue, &other_green].map(|it| [it.application.address]);
    let proxy = service(&blue, &green);
    let proxy = proxy.service_of("api", "api.test", "/", &other_blue, &other_green).start();
    let none = proxy.call("POST", "/v1/confirm", "", "{}").await;
    assert_eq!(
        (none.status, &none.json()["reasons"][0]["code"]),
        (409, &"nothing_to_confirm".into())
    );
    promote_within(&proxy, "2s").await;
    let confirmed = proxy.call("POST", "/v1/confirm", "", r#"{"services":["web"]}"#).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text());
    assert_eq!(event(&proxy, "confirmed").await["service"], "web");
    let again = proxy.call("POST", "/v1/confirm", "", r#"{"services":["web"]}"#).await;
    assert_eq!(again.status, 409);
    // Another promotion with the same time, called later, is taken back: then the time of this one is over, too.
    let later = r#"{"services": {"api": "green"}, "confirm_within": "2s"}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", later).await.status, 200);
    assert_eq!(event(&proxy, "confirm_expired").await["service"], "api");
    assert_eq!(active(&proxy, "web").await, "green");
    assert_eq!(proxy.events("confirm_expired").len(), 1);
    let unknown = proxy.call("POST", "/v1/confirm", "", r#"{"services":["shop"]}"#).await;
    assert_eq!(unknown.status, 422);
}

#[tokio::test]
async fn a_restart_keeps_the_deadline() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = service(&blue, &green).start();
    promote_within(&proxy, "2s").await;
    let by = proxy.status().await["services"]["web"]["confirm_by"].clone();
    let proxy = service(&blue, &green).state(proxy.shut_down()).start();
    assert_eq!(proxy.status().await["services"]["web"]["confirm_by"], by);
    eventually("it is taken back", async || active(&proxy, "web").await == "blue").await;
}

#[tokio::test]
async fn a_repeated_promotion_extends_the_time() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = service(&blue, &green).start();
    let first = promote_within(&proxy, "1s").await;
    let second = promote_within(&proxy, "1h").await;
    let by = |status: &serde_json::Value| {
        let text = status["services"]["web"]["confirm_by"].as_str().expect("a time").to_owned();
        text.parse::<jiff::Timestamp>().expect("RFC 3339")
    };
    assert!(by(&second).duration_since(by(&first)) > jiff::SignedDuration::from_mins(50));
    assert_eq!(first["generation"], second["generation"], "the routing table stays as it is");
    // Without a time, it is active already.
    let body = json!({"services": {"web": "green"}}).to_string();
    assert_eq!(proxy.call("POST", "/v1/promote", "", &body).await.status, 422);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(active(&proxy, "web").await, "green");
}

#[tokio::test]
async fn without_a_healthy_color_before_it_stays() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy =
        service(&blue, &green).services("health = { interval = \"100ms\", fall = 1 }").start();
    promote_within(&proxy, "1s").await;
    drop(blue);
    let expired = event(&proxy, "confirm_expired").await;
    assert_eq!(expired["rollback"], false);
    assert!(
        expired["stays"].as_str().is_some_and(|it| it.contains("endpoints of blue are up")),
        "{expired}"
    );
    eventually("it is over", async || {
        proxy.status().await["services"]["web"]["confirm_by"] == json!(null)
    })
    .await;
    assert_eq!(active(&proxy, "web").await, "green");
}

#[tokio::test]
async fn a_time_that_is_no_duration_is_refused() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = service(&blue, &green).start();
    for time in ["", "2", "0s", "-1s", "25h", "soon"] {
        let body = json!({"services": {"web": "green"}, "confirm_within": time}).to_string();
        assert_eq!(proxy.call("POST", "/v1/promote", "", &body).await.status, 400, "{time}");
    }
    assert_eq!(proxy.generation().await, 0);
}
