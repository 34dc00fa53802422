//! Other changes while a rollout is in progress.

use serde_json::{Value, json};

use super::{
    Host, act, application, begin, pools, settled_for_good, states, story, try_begin, until_stage,
};
use crate::support::{TestProxy, eventually};

/// A plan that waits for an approval before the promotion and after it.
const WAITING: &str = "[[rollout.waiting.stage]]\nname = \"pool\"\nkind = \"pool\"\n\
                       [[rollout.waiting.stage]]\nname = \"ask\"\nkind = \"approve\"\n\
                       [[rollout.waiting.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                       [[rollout.waiting.stage]]\nname = \"ask again\"\nkind = \"approve\"\n";

fn code(answer: &Value) -> &Value {
    &answer["reasons"][0]["code"]
}

#[tokio::test]
async fn other_changes_of_its_services_are_refused_unless_forced() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, WAITING).start();
    let id = begin(&proxy, "waiting", &green, json!({})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    assert_eq!(proxy.status().await["services"]["web"]["rollout"], id);
    let second = try_begin(&proxy, "story", &green, json!({})).await;
    assert_eq!((second.status, code(&second.json())), (409, &json!("in_rollout")));
    assert!(second.text().contains(&id), "{}", second.text());
    let promote = r#"{"services":{"web":"green"}}"#;
    let promoted = proxy.call("POST", "/v1/promote", "", promote).await;
    assert_eq!((promoted.status, code(&promoted.json())), (409, &json!("in_rollout")));
    let put =
        |force: bool| json!({"endpoints": [blue.address.to_string()], "force": force}).to_string();
    let path = "/v1/services/web/pools/green";
    let set = proxy.call("PUT", path, "", &put(false)).await;
    assert_eq!((set.status, code(&set.json())), (409, &json!("in_rollout")));
    // The gates change nothing.
    assert_eq!(proxy.call("POST", "/v1/services/web/gate", "", "{}").await.status, 200);
    assert_eq!(proxy.call("PUT", path, "", &put(true)).await.status, 200);
    let forced = r#"{"services":{"web":"green"},"force":true,"reason":"now"}"#;
    let forced = proxy.call("POST", "/v1/promote", "", forced).await;
    assert_eq!(forced.status, 200, "{}", forced.text());
}

#[tokio::test]
async fn a_rollback_by_hand_is_noticed_and_everything_is_undone() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, WAITING).start();
    let before = pools(&proxy).await;
    let id = begin(&proxy, "waiting", &green, json!({})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    assert_eq!(act(&proxy, &id, "approve").await.status, 200);
    until_stage(&proxy, &id, 3, "waiting").await;
    assert_eq!(proxy.get("/").await, "green");
    let rollback = r#"{"services":["web"],"reason":"too slow"}"#;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", rollback).await.status, 200);
    let undone = settled_for_good(&proxy, &id).await;
    assert_eq!(
        (&undone["state"], &undone["cause"]),
        (&json!("undone"), &json!("taken_back")),
        "{undone}"
    );
    assert!(undone["error"].as_str().is_some_and(|it| it.contains("too slow")), "{undone}");
    assert_eq!(pools(&proxy).await, before);
}

#[tokio::test]
async fn a_rollback_of_one_service_takes_the_others_with_it() {
    let (blue, green) = (application("blue").await, application("green").await);
    let service = "health = { interval = \"100ms\", rise = 1 }";
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[])
        .services(service)
        .service_of("api", "api.test", "/", &[blue.address], &[])
        .services(service)
        .services(WAITING)
        .start();
    let of = || json!({"version": "8.0", "endpoints": [green.address.to_string()]});
    let body = json!({"plan": "waiting", "services": {"web": of(), "api": of()}}).to_string();
    let id = proxy.call("POST", "/v1/rollouts", "", &body).await.json();
    let id = id["id"].as_str().expect("an id");
    until_stage(&proxy, id, 1, "waiting").await;
    act(&proxy, id, "approve").await;
    until_stage(&proxy, id, 3, "waiting").await;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", r#"{"services":["api"]}"#).await.status, 200);
    assert_eq!(settled_for_good(&proxy, id).await["state"], "undone");
    let status = proxy.status().await;
    for service in ["web", "api"] {
        assert_eq!(status["services"][service]["active"], "blue", "{service}");
    }
}

#[tokio::test]
async fn a_promotion_that_is_not_confirmed_is_undone_with_its_rollout() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, WAITING).start();
    let id = begin(&proxy, "waiting", &green, json!({"confirm_within": "1s"})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    act(&proxy, &id, "approve").await;
    let undone = settled_for_good(&proxy, &id).await;
    assert_eq!(
        (&undone["state"], &undone["cause"]),
        (&json!("undone"), &json!("taken_back")),
        "{undone}"
    );
    // And one that is confirmed goes on.
    let id = begin(&proxy, "waiting", &green, json!({"confirm_within": "20s"})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    act(&proxy, &id, "approve").await;
    until_stage(&proxy, &id, 3, "waiting").await;
    assert_eq!(act(&proxy, &id, "confirm").await.status, 200);
    assert_eq!(proxy.status().await["services"]["web"].get("confirm_by"), None);
    act(&proxy, &id, "approve").await;
    assert_eq!(settled_for_good(&proxy, &id).await["state"], "done");
}

#[tokio::test]
async fn a_cancelled_rollout_is_undone() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, WAITING).start();
    let before = pools(&proxy).await;
    for is_promoted in [false, true] {
        let id = begin(&proxy, "waiting", &green, json!({})).await;
        until_stage(&proxy, &id, 1, "waiting").await;
        if is_promoted {
            act(&proxy, &id, "approve").await;
            until_stage(&proxy, &id, 3, "waiting").await;
        }
        let path = format!("/v1/rollouts/{id}/cancel");
        let cancel = proxy.call("POST", &path, "", r#"{"reason":"wrong version"}"#).await;
        assert_eq!(cancel.status, 200, "{}", cancel.text());
        let over = settled_for_good(&proxy, &id).await;
        assert_eq!(
            (&over["state"], &over["cause"]),
            (&json!("cancelled"), &json!("cancelled")),
            "{over}"
        );
        assert!(over["error"].as_str().is_some_and(|it| it.contains("wrong version")), "{over}");
        assert_eq!(states(&over)[0], "undone");
        assert_eq!(pools(&proxy).await, before);
        assert_eq!(act(&proxy, &id, "cancel").await.status, 409, "it is over");
    }
}

#[tokio::test]
async fn pools_are_put_back_exactly_as_they_were() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, WAITING).start();
    // Green is the way back: it was active, with endpoints that were set at run time.
    let put = json!({"version": "7.8", "endpoints": [green.address.to_string()]}).to_string();
    assert_eq!(proxy.call("PUT", "/v1/services/web/pools/green", "", &put).await.status, 200);
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("web", "blue")]).await;
    let id = begin(&proxy, "waiting", &host.application, json!({})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    assert_eq!(pools(&proxy).await["green"][0], "8.0");
    act(&proxy, &id, "cancel").await;
    assert_eq!(settled_for_good(&proxy, &id).await["state"], "cancelled");
    assert_eq!(
        pools(&proxy).await["green"],
        json!(["7.8", "runtime", [green.address.to_string()]])
    );
    let rolled = proxy.call("POST", "/v1/rollback", "", r#"{"services":["web"]}"#).await;
    assert_eq!(rolled.status, 200, "the way back is open again: {}", rolled.text());
}

#[tokio::test]
async fn a_reload_changes_no_rollout_in_progress() {
    use crate::support::{Process, Upstream, process};
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let text = std::fs::read_to_string(&config).expect("it is readable");
    std::fs::write(&config, format!("{text}\n{WAITING}")).expect("it is writable");
    let process = Process::start_with(folder.path(), &config).await;
    let begun = process.cli(&[
        "deploy",
        "web",
        "--version",
        "8.0",
        "--plan",
        "waiting",
        "--detach",
        "--json",
    ]);
    assert_eq!(begun.status.code(), Some(0), "{}", String::from_utf8_lossy(&begun.stderr));
    let begun: Value = serde_json::from_slice(&begun.stdout).expect("JSON");
    let id = begun["id"].as_str().expect("an id");
    std::fs::write(&config, &text).expect("it is writable");
    assert_eq!(process.cli(&["reload"]).status.code(), Some(0));
    let unknown = process.cli(&["deploy", "web", "--version", "9", "--plan", "waiting"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", String::from_utf8_lossy(&unknown.stderr));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no plan `waiting`"));
    for _ in 0..2 {
        eventually("it waits", async || {
            process.cli(&["rollout", "approve", id]).status.code() == Some(0)
        })
        .await;
    }
    let over = process.cli(&["rollout", id, "--wait", "30s", "--json"]);
    assert_eq!(over.status.code(), Some(0), "{}", String::from_utf8_lossy(&over.stdout));
    assert_eq!(process.get("/").await, "green");
}
