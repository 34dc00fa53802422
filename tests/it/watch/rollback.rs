//! A color that turns bad is taken back by itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use serde_json::json;

use super::{Fragile, active, event, load_until, request_from, watched};
use crate::support::{Application, Fault, Reply, TestProxy, eventually};

#[tokio::test]
async fn a_color_that_turns_bad_is_rolled_back_once() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"10m\", requests = 10").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(request_from(&proxy, 2).await, 200);
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["watch"]["errors"], 0.0, "{status}");
    green.fail();
    load_until(&proxy, "the rollback", async || active(&proxy, "web").await == "blue").await;
    let promoted = proxy.events("promoted");
    let (back, by) = (&promoted[1]["rollback"], &promoted[1]["by"]);
    assert_eq!((back, by), (&true.into(), &"watch".into()), "{promoted:?}");
    let failed = event(&proxy, "watch_failed").await;
    assert_eq!((&failed["color"], &failed["rollback"]), (&"green".into(), &true.into()));
    let reason = failed["reason"].as_str().expect("a text");
    assert!(reason.contains("requests failed (") && reason.contains("limit 5 %"), "{reason}");
    let automatic = "flipgate_promotions_total{kind=\"automatic\",result=\"promoted\"}";
    assert!((proxy.metric(automatic).await - 1.0).abs() < 0.1);
    assert_eq!(proxy.status().await["services"]["web"]["watch"], json!(null));
    // Blue is not watched: it stays, whatever comes.
    blue.fail();
    for client in 2..20 {
        assert_eq!(request_from(&proxy, client).await, 500);
    }
    assert_eq!(active(&proxy, "web").await, "blue");
    assert_eq!(proxy.events("promoted").len(), 2);
}

#[tokio::test]
async fn a_color_that_hangs_is_rolled_back_before_its_timeouts() {
    let blue = Fragile::start("blue").await;
    let green = Fragile::failing_with("green", Reply::Hang).await;
    let watch = "for = \"10m\", latency = \"p99 200ms\", latency_after = \"0s\", requests = 4";
    let proxy = watched(&blue, &green, watch).start();
    proxy.promote(&[("web", "green")]).await;
    green.fail();
    let mut waiting = Vec::new();
    let mut client = 2;
    eventually("the rollback", async || {
        client = if client == 6 { 2 } else { client + 1 };
        let mut connection =
            crate::support::Client::connect(&format!("127.0.0.{client}"), proxy.public).await;
        connection.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        waiting.push(connection);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        active(&proxy, "web").await == "blue"
    })
    .await;
    assert_eq!(request_from(&proxy, 2).await, 200);
    assert_eq!(proxy.events("watch_failed").len(), 1);
}

/// The last check of blue was good.
#[tokio::test]
async fn a_bad_color_is_not_rolled_back_to_one_that_has_just_died() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = TestProxy::build()
        .service_of(
            "web",
            "web.test",
            "/",
            &[blue.application.address],
            &[green.application.address],
        )
        .services("health = { interval = \"24h\" }\nwatch = { for = \"10m\", requests = 10 }")
        .start();
    proxy.wait_for_health("blue", 0, "up").await;
    proxy.promote(&[("web", "green")]).await;
    drop(blue);
    green.fail();
    load_until(&proxy, "the verdict", async || !proxy.events("watch_failed").is_empty()).await;
    let failed = event(&proxy, "watch_failed").await;
    assert_eq!(failed["rollback"], false, "{failed}");
    let stays = failed["stays"].as_str().expect("a text");
    assert!(stays.contains("0 of 1 endpoints of blue are up"), "{stays}");
    assert_eq!(active(&proxy, "web").await, "green");
}

/// A version with a manifest that turns bad together with others.
async fn with_manifest(is_broken: &Arc<AtomicBool>) -> Application {
    let broken = Arc::clone(is_broken);
    Application::start(move |request| match &*request.path {
        "/manifest.json" => Reply::ok("{}"),
        _ if broken.load(SeqCst) => Reply::status(500, "broken"),
        _ => Reply::ok("fine"),
    })
    .await
}

/// The rules of one rollback are evaluated while the other one is made.
#[tokio::test]
async fn colors_that_turn_bad_at_the_same_time_are_all_rolled_back() {
    let is_broken = Arc::new(AtomicBool::new(false));
    let healthy = Arc::new(AtomicBool::new(false));
    let blue = with_manifest(&healthy).await;
    let (web, api) = (with_manifest(&is_broken).await, with_manifest(&is_broken).await);
    let gate = |name: &str| {
        format!(
            "watch = {{ for = \"10m\", requests = 4 }}\n[service.{name}.gate.compatible]\n\
             manifest = \"/manifest.json\"\n[[service.{name}.gate.compatible.rules]]\nname = \"x\"\n\
             require = \"new == old\"\n"
        )
    };
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[web.address])
        .services(&gate("web"))
        .service_of("api", "api.test", "/", &[blue.address], &[api.address])
        .services(&gate("api"))
        .start();
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("api", "green")]).await;
    is_broken.store(true, SeqCst);
    let mut client = 2;
    eventually("both rollbacks", async || {
        client = if client == 5 { 2 } else { client + 1 };
        for host in ["web.test", "api.test"] {
            let mut connection =
                crate::support::Client::connect(&format!("127.0.0.{client}"), proxy.public).await;
            connection.send(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            connection.answer().await;
        }
        active(&proxy, "web").await == "blue" && active(&proxy, "api").await == "blue"
    })
    .await;
    let failed = proxy.events("watch_failed");
    assert!(failed.iter().all(|it| it["rollback"] == true), "{failed:?}");
}

#[tokio::test]
async fn a_watch_ends_although_its_end_could_not_be_written_at_first() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let (proxy, faults) =
        watched(&blue, &green, "for = \"10m\", requests = 4, action = \"alert\"").start_faulty();
    proxy.promote(&[("web", "green")]).await;
    faults.next(Fault::Refuse);
    green.fail();
    load_until(&proxy, "the alarm", async || !proxy.events("watch_failed").is_empty()).await;
    eventually("its end", async || proxy.status().await["services"]["web"]["watch"] == json!(null))
        .await;
    assert_eq!(active(&proxy, "web").await, "green");
    assert_eq!(proxy.events("watch_failed").len(), 1);
}

#[tokio::test]
async fn responses_that_break_off_are_failures() {
    let blue = Fragile::start("blue").await;
    let bad =
        crate::support::Scripted::closing("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.application.address], &[bad.address])
        .services("ejection.failures = \"none\"\nwatch = { requests = 10 }")
        .start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = 2;
    eventually("the rollback", async || {
        client = if client == 5 { 2 } else { client + 1 };
        let mut connection =
            crate::support::Client::connect(&format!("127.0.0.{client}"), proxy.public).await;
        connection.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        connection.read_until_quiet().await;
        active(&proxy, "web").await == "blue"
    })
    .await;
}

#[tokio::test]
async fn services_that_were_promoted_together_are_rolled_back_together() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let (other_blue, other_green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "requests = 10")
        .service_of(
            "api",
            "api.test",
            "/",
            &[other_blue.application.address],
            &[other_green.application.address],
        )
        .services("watch = { for = \"10m\" }")
        .start();
    proxy.promote(&[("web", "green"), ("api", "green")]).await;
    green.fail();
    load_until(&proxy, "the rollback", async || active(&proxy, "web").await == "blue").await;
    assert_eq!(active(&proxy, "api").await, "blue");
    let promoted = proxy.events("promoted");
    assert_eq!(promoted.len(), 2, "in one step: {promoted:?}");
    assert_eq!(promoted[1]["services"], json!({"web": "blue", "api": "blue"}));
}

#[tokio::test]
async fn without_a_healthy_color_before_the_promotion_stays_and_an_alarm_is_raised() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "requests = 10")
        .services("health = { interval = \"100ms\", path = \"/\", status = [\"200\", \"500\"], fall = 1 }")
        .start();
    proxy.wait_for_health("green", 0, "up").await;
    proxy.promote(&[("web", "green")]).await;
    drop(blue);
    proxy.wait_for_health("blue", 0, "down").await;
    green.fail();
    load_until(&proxy, "the alarm", async || !proxy.events("watch_failed").is_empty()).await;
    let failed = event(&proxy, "watch_failed").await;
    assert_eq!(failed["rollback"], false);
    let stays = failed["stays"].as_str().expect("a text");
    assert!(stays.contains("0 of 1 endpoints of blue are up"), "{stays}");
    // The alarm does not wait until its end is written.
    eventually("its end", async || proxy.status().await["services"]["web"]["watch"] == json!(null))
        .await;
    assert_eq!(active(&proxy, "web").await, "green");
}

#[tokio::test]
async fn an_alert_rolls_nothing_back() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "requests = 10, action = \"alert\"").start();
    proxy.promote(&[("web", "green")]).await;
    green.fail();
    load_until(&proxy, "the alarm", async || !proxy.events("watch_failed").is_empty()).await;
    let failed = event(&proxy, "watch_failed").await;
    assert_eq!(
        (&failed["rollback"], &failed["stays"]),
        (&false.into(), &"the action of the watch is `alert`".into())
    );
    assert_eq!(active(&proxy, "web").await, "green");
}
