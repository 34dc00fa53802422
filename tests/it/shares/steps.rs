//! The steps: each is judged, and the next one follows, or all is taken back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use super::{percent, promote, share};
use crate::{
    support::{Application, Reply, TestProxy, client, eventually},
    watch::{Fragile, active, event},
};

const WATCH: &str = "watch = { for = \"1m\", requests = 10, clients = 1 }\n\
                     share = { by = \"header:X-User\" }";

fn of(blue: &Fragile, green: &Fragile, settings: &str) -> TestProxy {
    TestProxy::build()
        .service_of("web", "*", "/", &[blue.application.address], &[green.application.address])
        .services(settings)
        .start()
}

/// Sends requests of many users until a condition holds.
async fn load_until(proxy: &TestProxy, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let mut client = crate::support::Client::connect(client::PUBLIC, proxy.public).await;
    let mut user = 0;
    eventually(what, async || {
        for _ in 0..20 {
            user += 1;
            client.get("/", &format!("X-User: {user}\r\n")).await;
        }
        condition().await
    })
    .await;
}

fn percents(events: &[Value]) -> Vec<u64> {
    events.iter().map(|it| it["percent"].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn a_good_candidate_becomes_active_step_by_step() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = of(&blue, &green, WATCH);
    promote(&proxy, &[20, 60, 100], json!({"step_for": "1s"})).await;
    assert_eq!(active(&proxy, "web").await, "blue");
    load_until(&proxy, "green", async || active(&proxy, "web").await == "green").await;
    assert_eq!(percents(&proxy.events("share_changed")), [20, 60]);
    assert_eq!(share(&proxy).await, json!(null));
    let promoted = event(&proxy, "promoted").await;
    assert_eq!(
        (&promoted["by"], &promoted["services"]),
        (&json!("share"), &json!({"web": "green"}))
    );
    // It is watched as any other promotion, and can be rolled back.
    assert!(proxy.status().await["services"]["web"]["watch"]["until"].is_string());
    green.fail();
    load_until(&proxy, "the rollback", async || active(&proxy, "web").await == "blue").await;
}

#[tokio::test]
async fn a_bad_candidate_is_taken_back_at_once() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = of(&blue, &green, WATCH);
    promote(&proxy, &[20, 100], json!({})).await;
    load_until(&proxy, "requests", async || {
        share(&proxy).await["requests"].as_u64().is_some_and(|it| it > 10)
    })
    .await;
    green.fail();
    load_until(&proxy, "the end", async || share(&proxy).await.is_null()).await;
    assert_eq!(active(&proxy, "web").await, "blue");
    let failed = event(&proxy, "share_failed").await;
    let reason = failed["reason"].as_str().expect("a text");
    assert!(reason.contains("requests failed (") && failed["percent"] == 20, "{failed}");
    assert_eq!(event(&proxy, "share_ended").await["color"], "green");
    let ended = proxy.status().await["services"]["web"]["share_ended"].clone();
    assert_eq!((&ended["by"], &ended["reason"]), (&"watch".into(), &failed["reason"]), "{ended}");
    assert_eq!(proxy.events("promoted").len(), 0);
    let drained = proxy.call("GET", "/v1/services/web/drain?color=green&wait=60s", "", "").await;
    assert_eq!(drained.json()["drained"], true);
    // It stays so.
    green.recover();
    load_until(&proxy, "requests", async || true).await;
    assert_eq!(percent(&proxy).await, 100, "there is no share");
}

#[tokio::test]
async fn too_few_requests_are_no_verdict() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = of(&blue, &green, WATCH);
    promote(&proxy, &[20, 100], json!({"step_for": "1s"})).await;
    let waiting = event(&proxy, "share_waiting").await;
    assert!(waiting["reason"].as_str().is_some_and(|it| it.contains("10")), "{waiting}");
    assert_eq!(percent(&proxy).await, 20);
    assert!(share(&proxy).await["waiting"].is_string());
    // As soon as there are enough, it goes on.
    load_until(&proxy, "green", async || active(&proxy, "web").await == "green").await;
    assert_eq!(proxy.events("share_waiting").len(), 1);
}

#[tokio::test]
async fn a_gate_that_refuses_at_the_last_step_takes_all_of_it_back() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let settings = format!("{WATCH}\n[service.web.gate.approval]\nexpires = \"2s\"\n");
    let proxy = of(&blue, &green, &settings);
    let refused = proxy
        .call("POST", "/v1/promote", "", r#"{"services":{"web":"green"},"steps":[20,100]}"#)
        .await;
    assert_eq!(refused.status, 409, "the gates come first");
    assert_eq!(share(&proxy).await, json!(null));
    assert_eq!(proxy.call("POST", "/v1/services/web/approve", "", "{}").await.status, 200);
    promote(&proxy, &[20, 100], json!({"step_for": "3s"})).await;
    load_until(&proxy, "the end", async || share(&proxy).await.is_null()).await;
    assert_eq!(active(&proxy, "web").await, "blue");
    let failed = event(&proxy, "share_failed").await;
    assert!(failed["reason"].as_str().is_some_and(|it| it.contains("approval")), "{failed}");
}

#[tokio::test]
async fn a_step_that_has_passed_is_judged_until_the_other_services_have() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let (b, g) = ([blue.application.address], [green.application.address]);
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &b, &g)
        .services(WATCH)
        .service_of("api", "api.test", "/", &b, &g)
        .start();
    let both = json!({"services": {"web": "green", "api": "green"}, "step_for": "1s"});
    promote(&proxy, &[50, 100], both).await;
    // No request comes for `api`, so it waits. `web` has passed.
    event(&proxy, "share_waiting").await;
    let begun = std::time::Instant::now();
    load_until(&proxy, "web has passed", async || begun.elapsed().as_millis() > 2_000).await;
    let waiting =
        async |name: &str| proxy.status().await["services"][name]["share"]["waiting"].is_string();
    assert!(waiting("api").await && !waiting("web").await);
    assert_eq!(percent(&proxy).await, 50);
    green.fail();
    load_until(&proxy, "the end", async || share(&proxy).await.is_null()).await;
    assert_eq!(event(&proxy, "share_failed").await["service"], "web");
    assert_eq!(proxy.status().await["services"]["api"]["share"], json!(null));
}

#[tokio::test]
async fn new_steps_stop_the_last_step_while_its_gates_run() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // The last step has to wait for the hook, the others have not.
    let hook = Application::start(move |_| match counted.fetch_add(1, SeqCst) {
        1 => Reply::Held("at last".to_owned()),
        _ => Reply::ok("yes"),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("hook.key");
    std::fs::write(&file, "the-key-that-is-in-use").expect("written");
    let settings = format!(
        "{WATCH}\n[service.web.gate.hook]\nurl = \"http://{}/\"\nsecret_file = {file:?}\ntimeout = \"30s\"\n",
        hook.address
    );
    let proxy = of(&blue, &green, &settings);
    promote(&proxy, &[90, 100], json!({"step_for": "1s"})).await;
    load_until(&proxy, "the last step", async || calls.load(SeqCst) == 2).await;
    promote(&proxy, &[40, 41, 99, 100], json!({"step_for": "1s"})).await;
    assert_eq!(percent(&proxy).await, 40);
    hook.release();
    // The services are free for the next step when the last one is given up.
    load_until(&proxy, "the next step", async || percent(&proxy).await == 41).await;
    assert_eq!(active(&proxy, "web").await, "blue");
    assert_eq!(proxy.events("promoted").len(), 0);
}
