//! Rollouts of several services: what one of them is in the way of, and what it must not be.

use serde_json::{Value, json};

use super::{Host, act, application, begin, settled, settled_for_good, show, until_stage};
use crate::support::{Application, Process, Reply, TestProxy, Upstream, eventually, process};

/// Services `web` and `api` with blue active and green empty.
fn both(blue: &Application, more: &str) -> TestProxy {
    TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[])
        .service_of("api", "api.test", "/", &[blue.address], &[])
        .services("health = { interval = \"100ms\", fall = 1, rise = 1 }")
        .services(more)
        .start()
}

async fn begin_both(proxy: &TestProxy, plan: &str, green: &Application) -> String {
    let of = || json!({"version": "8.0", "endpoints": [green.address.to_string()]});
    let body = json!({"plan": plan, "services": {"web": of(), "api": of()}}).to_string();
    let begun = proxy.call("POST", "/v1/rollouts", "", &body).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    begun.json()["id"].as_str().expect("an id").to_owned()
}

/// A service that is not configured any more is in the way of no other's rollback.
#[tokio::test]
async fn a_removed_service_is_in_the_way_of_no_rollback() {
    const PLAN: &str = "[[rollout.both.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                        [[rollout.both.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let text = std::fs::read_to_string(&config).expect("it is readable");
    let api = format!(
        "[service.api]\nhosts = [\"api.test\"]\nblue = {{ endpoints = [\"{}\"] }}\ngreen = {{ endpoints = [\"{}\"] }}\n",
        blue.address, green.address
    );
    std::fs::write(&config, format!("{text}\n{api}\n{PLAN}")).expect("it is writable");
    let process = Process::start_with(folder.path(), &config).await;
    let begun = process.cli(&["deploy", "web", "api", "--plan", "both", "--detach", "--json"]);
    assert_eq!(begun.status.code(), Some(0), "{}", String::from_utf8_lossy(&begun.stderr));
    let begun: Value = serde_json::from_slice(&begun.stdout).expect("JSON");
    let id = begun["id"].as_str().expect("an id");
    let rollout = || -> Value {
        serde_json::from_slice(&process.cli(&["rollout", id, "--json"]).stdout).expect("JSON")
    };
    eventually("it waits", async || rollout()["state"] == "waiting").await;
    assert_eq!(process.get("/").await, "green");
    std::fs::write(&config, format!("{text}\n{PLAN}")).expect("it is writable");
    assert_eq!(process.cli(&["reload"]).status.code(), Some(0));
    assert_eq!(process.cli(&["rollout", "cancel", id]).status.code(), Some(0));
    eventually("it is over", async || rollout()["over"] == true).await;
    assert_eq!(rollout()["state"], "cancelled", "{}", rollout());
    assert_eq!(process.get("/").await, "blue");
}

/// One that cannot be rolled back leaves the rollout stuck, but the others are rolled back.
#[tokio::test]
async fn a_service_that_cannot_be_rolled_back_is_in_the_way_of_no_other() {
    let (blue, green) = (application("blue").await, application("green").await);
    let plan = "[[rollout.both.stage]]\nname = \"pool\"\nkind = \"pool\"\n\
                [[rollout.both.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                [[rollout.both.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let proxy = both(&blue, plan);
    let id = begin_both(&proxy, "both", &green).await;
    until_stage(&proxy, &id, 2, "waiting").await;
    // The way back of `api` is changed.
    let put = json!({"endpoints": [green.address.to_string()], "force": true}).to_string();
    let put = proxy.call("PUT", "/v1/services/api/pools/blue", "", &put).await;
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(act(&proxy, &id, "cancel").await.status, 200);
    let stuck = settled(&proxy, &id).await;
    assert_eq!(stuck["state"], "stuck", "{stuck}");
    assert!(stuck.to_string().contains("blue was changed since"), "{stuck}");
    let active = async |it: &str| proxy.status().await["services"][it]["active"].clone();
    assert_eq!((active("web").await, active("api").await), (json!("blue"), json!("green")));
    // A person rolls it back, and the rest is undone.
    let force = r#"{"services":["api"],"force":true,"reason":"I know"}"#;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", force).await.status, 200);
    assert_eq!(act(&proxy, &id, "retry").await.status, 200);
    assert_eq!(settled_for_good(&proxy, &id).await["state"], "cancelled");
    assert_eq!(active("api").await, "blue");
}

/// A value that a stage saves for each service is used for each service, and never that of another.
#[tokio::test]
async fn a_value_that_is_saved_for_each_service_is_used_for_each() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let plan = format!(
        "[[rollout.each.stage]]\nname = \"take\"\nkind = \"call\"\nurl = \"http://{address}/take/{{service}}\"\nsave = {{ ticket = \"body.state + '-' + service\" }}\n\
         [[rollout.each.stage]]\nname = \"use\"\nkind = \"call\"\nurl = \"http://{address}/use?ticket={{ticket}}\"\n\
         undo = {{ kind = \"call\", url = \"http://{address}/undo?ticket={{ticket}}\" }}\n\
         [[rollout.each.stage]]\nname = \"ask\"\nkind = \"approve\"\n"
    );
    let proxy = both(&blue, &plan);
    let id = begin_both(&proxy, "each", &green).await;
    until_stage(&proxy, &id, 2, "waiting").await;
    act(&proxy, &id, "cancel").await;
    assert_eq!(settled_for_good(&proxy, &id).await["state"], "cancelled");
    let calls = [
        "/take/api",
        "/take/web",
        "/use?ticket=ok-api",
        "/use?ticket=ok-web",
        "/undo?ticket=ok-web",
        "/undo?ticket=ok-api",
    ];
    assert_eq!(host.calls(), calls);
}

#[tokio::test]
async fn the_undo_of_a_hold_leaves_a_hold_of_another_caller() {
    let (blue, green) = (application("blue").await, application("green").await);
    let plan = "[[rollout.held.stage]]\nname = \"hold\"\nkind = \"hold\"\n";
    let proxy = both(&blue, plan);
    let hold = proxy.call("POST", "/v1/services/web/hold", "", r#"{"for":"60s"}"#).await;
    assert_eq!(hold.status, 200, "{}", hold.text());
    let id = begin_both(&proxy, "held", &green).await;
    let over = settled_for_good(&proxy, &id).await;
    // The same caller may extend a hold, so that the rollout is done; its undo is another's business.
    assert_eq!(over["state"], "done", "{over}");
    let plan = "[[rollout.held.stage]]\nname = \"hold\"\nkind = \"hold\"\n\
                [[rollout.held.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let proxy = both(&blue, plan);
    let hold = proxy.call("POST", "/v1/services/web/hold", "", r#"{"for":"60s"}"#).await;
    assert_eq!(hold.status, 200, "{}", hold.text());
    let id = begin_both(&proxy, "held", &green).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    act(&proxy, &id, "cancel").await;
    assert_eq!(settled_for_good(&proxy, &id).await["state"], "cancelled");
    let status = proxy.status().await;
    assert!(!status["services"]["web"]["hold"].is_null(), "it was there before: {status}");
    assert!(status["services"]["api"]["hold"].is_null(), "the rollout began it: {status}");
}

/// What an approval is for is what is promoted.
#[tokio::test]
async fn a_pool_that_was_changed_since_it_was_deployed_is_not_promoted_and_stays() {
    let (blue, green) = (application("blue").await, application("green").await);
    let plan = "[[rollout.both.stage]]\nname = \"pool\"\nkind = \"pool\"\n\
                [[rollout.both.stage]]\nname = \"ask\"\nkind = \"approve\"\n\
                [[rollout.both.stage]]\nname = \"promote\"\nkind = \"promote\"\n";
    let proxy = both(&blue, plan);
    let id = begin(&proxy, "both", &green, json!({})).await;
    until_stage(&proxy, &id, 1, "waiting").await;
    let put = json!({"version": "9.9", "endpoints": [green.address.to_string()], "force": true});
    let put = proxy.call("PUT", "/v1/services/web/pools/green", "", &put.to_string()).await;
    assert_eq!(put.status, 200, "{}", put.text());
    assert_eq!(act(&proxy, &id, "approve").await.status, 200);
    let undone = settled_for_good(&proxy, &id).await;
    assert_eq!(undone["state"], "undone", "{undone}");
    assert!(undone["error"].as_str().is_some_and(|it| it.contains("changed since")), "{undone}");
    let web = proxy.status().await["services"]["web"].clone();
    assert_eq!(
        (&web["active"], &web["pools"]["green"]["version"]),
        (&json!("blue"), &json!("9.9"))
    );
    let shown = show(&proxy, &id).await.to_string();
    assert!(shown.contains("set again by another call"), "{shown}");
}

/// Another caller's promotion of the same color is not taken back.
#[tokio::test]
async fn a_promotion_of_another_caller_is_not_taken_back() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let plan = format!(
        "[[rollout.late.stage]]\nname = \"pool\"\nkind = \"pool\"\n\
         [[rollout.late.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
         [[rollout.late.stage]]\nname = \"last\"\nkind = \"call\"\nurl = \"http://{address}/last\"\n\
         undo = {{ kind = \"until\", url = \"http://{address}/undo\", condition = \"body.state == 'ok'\", interval = \"50ms\" }}\n"
    );
    let proxy = both(&blue, &plan);
    host.fail("/last");
    host.fail("/undo");
    let id = begin(&proxy, "late", &green, json!({})).await;
    until_stage(&proxy, &id, 2, "undoing").await;
    let rollback = r#"{"services":["web"],"reason":"by hand"}"#;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", rollback).await.status, 200);
    let again = r#"{"services":{"web":"green"},"force":true,"reason":"mine now"}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", again).await.status, 200);
    host.recover();
    let over = settled(&proxy, &id).await;
    // Its pool is active, so it cannot be put back: a person decides.
    assert_eq!(over["state"], "stuck", "{over}");
    assert_eq!(proxy.status().await["services"]["web"]["active"], "green");
}

/// After the patience of a drain, the streams of all services end, and not those of the first one alone.
#[tokio::test]
async fn the_streams_of_all_services_are_ended() {
    let blue = Application::start(|_| Reply::Held("blue".to_owned())).await;
    let green = application("green").await;
    let plan = "[[rollout.drained.stage]]\nname = \"pool\"\nkind = \"pool\"\nhealthy_within = \"none\"\n\
                [[rollout.drained.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                [[rollout.drained.stage]]\nname = \"drain\"\nkind = \"drain\"\nuntil = \"drained\"\npatience = \"100ms\"\nthen = \"end_streams\"\n";
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[])
        .service_of("api", "api.test", "/", &[blue.address], &[])
        .services(plan)
        .start();
    let (mut web, mut api) = (proxy.public().await, proxy.public().await);
    web.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    api.send("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    proxy.wait_for_in_flight("api", "blue", 1).await;
    let id = begin_both(&proxy, "drained", &green).await;
    eventually("both end", async || proxy.events("streams_ending").len() == 2).await;
    assert_eq!(show(&proxy, &id).await["stages"][2]["state"], "running", "a request is no stream");
    blue.release();
    assert_eq!(settled(&proxy, &id).await["state"], "done");
    assert_eq!((web.head().await.status, api.head().await.status), (200, 200));
}

/// The second service has no endpoint to call, when the first one was called already: that one is undone.
#[tokio::test]
async fn a_call_that_was_made_for_one_service_is_undone_if_another_cannot_be_called() {
    let (blue, green) = (application("blue").await, application("green").await);
    let plan = "[[rollout.warm.stage]]\nname = \"warm\"\nkind = \"call\"\nat = \"candidate\"\npath = \"/warm/{service}\"\n\
                undo = { kind = \"call\", at = \"active\", path = \"/cool/{service}\" }\n";
    let proxy = both(&blue, plan);
    // Of `api`, which comes first. `web` has none: its pool is not set by this plan.
    let put = json!({"endpoints": [green.address.to_string()]}).to_string();
    assert_eq!(proxy.call("PUT", "/v1/services/api/pools/green", "", &put).await.status, 200);
    let id = begin_both(&proxy, "warm", &green).await;
    let over = settled_for_good(&proxy, &id).await;
    assert_eq!(over["state"], "undone", "{over}");
    assert!(over["error"].as_str().is_some_and(|it| it.contains("no endpoint in green")), "{over}");
    assert_eq!(green.requests_for("/warm/api").len(), 1);
    assert_eq!(blue.requests_for("/cool/api").len(), 1, "{over}");
}
