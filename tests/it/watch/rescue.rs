//! While the watch runs, the color before serves what cannot be connected to the new one, if the service asks for it.

use serde_json::json;

use super::{Fragile, active, event, request_from, watched};
use crate::support::{
    Answer, Application, Client, Reply, Scripted, TestProxy,
    client::{INTERNAL, PUBLIC},
    eventually,
};

/// Sends a GET to the service `web`, with this client address and more header lines.
async fn get(proxy: &TestProxy, from: &str, fields: &str) -> Answer {
    let mut client = Client::connect(from, proxy.public).await;
    client.send(&format!("GET / HTTP/1.1\r\nHost: web.test\r\n{fields}\r\n")).await;
    client.answer().await
}

async fn has_rescue(proxy: &TestProxy) -> bool {
    proxy.status().await["services"]["web"]["watch"]["rescue"] == true
}

async fn rescued(proxy: &TestProxy) -> f64 {
    let series = "flipgate_rescued_requests_total{color=\"green\",service=\"web\"}";
    proxy.metric(series).await
}

fn lines_of<'a>(answer: &'a Answer, name: &str) -> Vec<&'a str> {
    answer.head.lines().filter_map(|it| it.strip_prefix(name)).collect()
}

/// A proxy that has made green active with a watch of ten minutes, with the rescue in place.
async fn rescuing(blue: &Fragile, green: &Fragile, more: &str) -> TestProxy {
    let proxy = watched(blue, green, &format!("for = \"10m\", rescue = true{more}")).start();
    proxy.promote(&[("web", "green")]).await;
    eventually("the rescue", async || has_rescue(&proxy).await).await;
    assert_eq!(get(&proxy, PUBLIC, "").await.text(), "green");
    proxy
}

#[tokio::test]
async fn what_cannot_be_connected_is_served_by_the_color_before() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = rescuing(&blue, &green, ", action = \"alert\"").await;
    drop(green);
    let answer = get(&proxy, INTERNAL, "").await;
    assert_eq!((answer.status, &*answer.text()), (200, "blue"));
    assert_eq!(lines_of(&answer, "Flipgate-Color: "), ["blue"]);
    assert_eq!(lines_of(&answer, "Flipgate-Rescued-From: "), ["green"]);
    let answer = get(&proxy, PUBLIC, "").await;
    assert_eq!((answer.status, &*answer.text()), (200, "blue"));
    assert!(!answer.head.contains("Flipgate-"), "the public sees no mark: {}", answer.head);
    let mut client = Client::connect(PUBLIC, proxy.public).await;
    client.send("POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 5\r\n\r\nhello").await;
    assert_eq!(client.answer().await.status, 200, "nothing was sent, so a POST is rescued too");
    let requests = blue.application.requests();
    assert_eq!(requests.last().map(|it| it.body.clone()), Some("hello".to_owned()));
    assert!((rescued(&proxy).await - 3.0).abs() < 0.1);
    let watch = &proxy.status().await["services"]["web"]["watch"];
    eventually("the failures", async || {
        proxy.status().await["services"]["web"]["watch"]["failures"] == 3
    })
    .await;
    assert_eq!(watch["rescue"], true);
}

#[tokio::test]
async fn a_color_that_dies_is_rolled_back_and_no_request_fails() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = rescuing(&blue, &green, ", requests = 10").await;
    drop(green);
    let mut client = 2;
    eventually("the rollback", async || {
        client = if client == 5 { 2 } else { client + 1 };
        assert_eq!(request_from(&proxy, client).await, 200);
        active(&proxy, "web").await == "blue"
    })
    .await;
    assert_eq!(event(&proxy, "watch_failed").await["rollback"], true);
    let before = rescued(&proxy).await;
    assert!(before >= 4.0, "{before}");
    assert_eq!(request_from(&proxy, 2).await, 200);
    assert!((rescued(&proxy).await - before).abs() < 0.1, "blue is active: nothing is rescued");
}

#[tokio::test]
async fn without_rescue_and_after_the_watch_such_a_request_fails() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let off = watched(&blue, &green, "for = \"10m\", action = \"alert\"").start();
    off.promote(&[("web", "green")]).await;
    let on = rescuing(&blue, &green, ", action = \"alert\"").await;
    drop(green);
    assert_eq!(get(&off, PUBLIC, "").await.status, 502);
    assert!(!has_rescue(&off).await);
    assert_eq!(get(&on, PUBLIC, "").await.status, 200);
    let stopped = on.call("POST", "/v1/services/web/watch/stop", "", "{}").await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    // When the watch has ended, so has the rescue.
    let requests = blue.application.requests().len();
    assert_ne!(get(&on, PUBLIC, "").await.status, 200);
    assert_eq!(blue.application.requests().len(), requests);
}

#[tokio::test]
async fn a_pool_that_was_set_after_the_flip_serves_nothing() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let unreleased = Fragile::start("unreleased").await;
    let proxy = rescuing(&blue, &green, ", action = \"alert\"").await;
    let body = json!({"version": "9", "endpoints": [unreleased.application.address.to_string()]});
    let path = "/v1/services/web/pools/blue";
    let set = proxy.call("PUT", path, "", &body.to_string()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    drop(green);
    assert_eq!(get(&proxy, PUBLIC, "").await.status, 502);
    assert!(unreleased.application.requests().is_empty());
}

/// The next version runs at the old addresses: the pool looks the same, and is another one.
#[tokio::test]
async fn a_pool_that_was_set_to_the_same_addresses_serves_nothing() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = rescuing(&blue, &green, ", action = \"alert\"").await;
    let body = json!({"endpoints": [blue.application.address.to_string()]}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let requests = blue.application.requests().len();
    drop(green);
    for _ in 0..30 {
        assert_ne!(get(&proxy, PUBLIC, "").await.status, 200);
    }
    assert_eq!(blue.application.requests().len(), requests);
    eventually("the status says so", async || !has_rescue(&proxy).await).await;
}

#[tokio::test]
async fn a_request_that_was_sent_and_a_preview_are_not_rescued() {
    let blue = Fragile::start("blue").await;
    let silent = Scripted::closing("").await;
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.application.address], &[silent.address])
        .services("ejection.failures = \"none\"\nwatch = { rescue = true, action = \"alert\" }")
        .start();
    proxy.promote(&[("web", "green")]).await;
    eventually("the rescue", async || has_rescue(&proxy).await).await;
    assert_eq!(get(&proxy, PUBLIC, "").await.status, 502, "green took it and sent no response");
    assert!(blue.application.requests().is_empty());

    let green = Fragile::start("green").await;
    let proxy = rescuing(&blue, &green, ", action = \"alert\"").await;
    drop(green);
    let preview = get(&proxy, INTERNAL, "Flipgate-Preview: green\r\n").await;
    assert_eq!(preview.status, 502, "{}", preview.head);
    assert_eq!(get(&proxy, INTERNAL, "").await.status, 200);
}

#[tokio::test]
async fn a_rescued_request_in_flight_does_not_undo_the_drain_but_is_not_safe_to_stop() {
    let blue = Application::start(|request| match &*request.path {
        "/held" => Reply::Held("blue".to_owned()),
        _ => Reply::ok("blue"),
    })
    .await;
    let green = Fragile::start("green").await;
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.application.address])
        .services("watch = { rescue = true, action = \"alert\" }")
        .start();
    proxy.promote(&[("web", "green")]).await;
    eventually("the rescue", async || has_rescue(&proxy).await).await;
    drop(green);
    let mut client = Client::connect(PUBLIC, proxy.public).await;
    client.send("GET /held HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
    eventually("it is there", async || !blue.requests_for("/held").is_empty()).await;
    let stopped = proxy.call("POST", "/v1/services/web/watch/stop", "", "{}").await;
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["drained"], &drain["safe_to_stop"]), (&true.into(), &false.into()));
    assert_eq!((&drain["rescued"], &drain["previews"]), (&1.into(), &0.into()), "{drain}");
    assert_eq!(drain["held_by"], json!(["rescue"]), "{drain}");
    let pool = &proxy.status().await["services"]["web"]["pools"]["blue"];
    assert_eq!(pool["held_by"], json!(["rescue"]), "{pool}");
    blue.release();
    assert_eq!(client.answer().await.status, 200);
    let path = "/v1/services/web/drain?wait=30s&for=safe_to_stop";
    let waited = proxy.call("GET", path, "", "").await.json();
    assert_eq!((&waited["safe_to_stop"], &waited["held_by"]), (&true.into(), &json!(null)));
}

/// The endpoint of green has kept connections when it dies: requests are sent on them before that is noticed.
#[tokio::test]
async fn repeatable_requests_on_kept_connections_are_rescued() {
    for _ in 0..20 {
        let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
        let proxy = rescuing(&blue, &green, ", action = \"alert\"").await;
        let mut client = Client::connect(PUBLIC, proxy.public).await;
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "green");
        drop(green);
        client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        let answer = client.answer().await;
        assert_eq!((answer.status, &*answer.text()), (200, "blue"));
    }
}

/// An application with a manifest.
async fn with_manifest(name: &'static str, manifest: &'static str) -> Application {
    Application::start(move |request| match &*request.path {
        "/manifest.json" => Reply::ok(manifest),
        _ => Reply::ok(name),
    })
    .await
}

#[tokio::test]
async fn rules_that_forbid_a_rollback_and_a_forced_promotion_prevent_the_rescue() {
    let blue = with_manifest("blue", r#"{"schema": 1}"#).await;
    for (on, forces, is_allowed) in
        [("promote", false, true), ("rollback", false, false), ("promote", true, true)]
    {
        let green = with_manifest("green", r#"{"schema": 2}"#).await;
        let rule = match on {
            "promote" => "new.schema == 2",
            _ => "new.schema == old.schema",
        };
        let gate = format!(
            "watch = {{ rescue = true, action = \"alert\" }}\n[service.web.gate.compatible]\n\
             manifest = \"/manifest.json\"\n[[service.web.gate.compatible.rules]]\nname = \"x\"\n\
             require = \"{rule}\"\non = [\"{on}\"]\n"
        );
        let proxy = TestProxy::build()
            .service_of("web", "web.test", "/", &[blue.address], &[green.address])
            .services(&gate)
            .start();
        let body = json!({"services": {"web": "green"}, "force": forces, "reason": "test"});
        let promoted = proxy.call("POST", "/v1/promote", "", &body.to_string()).await;
        assert_eq!(promoted.status, 200, "{}", promoted.text());
        if is_allowed && !forces {
            eventually("the rescue", async || has_rescue(&proxy).await).await;
        }
        drop(green);
        // More than one: what must not come may come a little later.
        for _ in 0..30 {
            let status = get(&proxy, PUBLIC, "").await.status;
            assert_eq!(status == 200, is_allowed && !forces, "{on} {forces}: {status}");
        }
    }
}
