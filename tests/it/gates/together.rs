//! Gates of several services, and changes while they run.

use serde_json::json;

use super::{promote, service, verdicts};
use crate::support::{Application, Client, Reply, TestProxy, Upstream, client, eventually};

const SMOKE: &str = "[[service.web.gate.smoke]]\npath = \"/smoke\"\nexpect.within = \"1h\"\n";

#[tokio::test]
async fn if_one_service_is_refused_nothing_changes_for_any_and_every_verdict_is_reported() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let bad = Application::start(|_| Reply::status(500, "broken")).await;
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[bad.address])
        .services("gate.warm_up = { requests = 1 }")
        .services(&SMOKE.replace("\"1h\"", "\"5s\""))
        .service_at("api", "api.test", "/", &[&blue], &[&green])
        .start();
    let body = json!({"services": {"web": "green", "api": "green"}}).to_string();
    let answer = proxy.call("POST", "/v1/promote", "", &body).await;
    assert_eq!(answer.status, 409);
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:flipgate:problem:refused-by-gate");
    let reasons = problem["reasons"].as_array().expect("a list");
    assert_eq!(reasons.len(), 1, "{problem}");
    assert_eq!(
        (&reasons[0]["service"], &reasons[0]["code"]),
        (&"web".into(), &"gate_smoke".into())
    );
    let verdict = |place: usize| {
        let gates = problem["gates"][place]["gates"].as_array().expect("a list");
        let of = |it: &serde_json::Value| {
            (it["gate"].to_string(), it["passed"] == true, it["not_run"] == true)
        };
        gates.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(problem["gates"][0]["service"], "api");
    assert_eq!(verdict(0), [("\"healthy\"".to_owned(), true, false)]);
    let of = |name: &str, passed, not_run| (format!("\"{name}\""), passed, not_run);
    assert_eq!(
        verdict(1),
        [of("healthy", true, false), of("smoke", false, false), of("warm_up", false, true)]
    );
    let status = proxy.status().await;
    assert_eq!(status["generation"], 0);
    for name in ["web", "api"] {
        assert_eq!(status["services"][name]["active"], "blue");
    }
    assert_eq!(
        proxy.metric("flipgate_promotions_total{kind=\"promote\",result=\"refused\"}").await as u64,
        1
    );
}

#[tokio::test]
async fn a_promotion_that_was_overtaken_while_its_gates_ran_is_stale() {
    let (blue, other) = (Upstream::start("blue").await, Upstream::start("other").await);
    let green = Application::start(|_| Reply::Held(String::new())).await;
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .services(SMOKE)
        .service_at("api", "api.test", "/", &[&blue], &[&other])
        .start();
    let overtake = async {
        eventually("the gates run", async || !green.requests().is_empty()).await;
        proxy.promote(&[("api", "green")]).await;
        green.release();
    };
    let (stale, ()) = tokio::join!(promote(&proxy), overtake);
    assert_eq!((stale.status, &stale.json()["generation"]), (412, &1.into()));
    let status = proxy.status().await;
    assert_eq!(
        (&status["generation"], &status["services"]["web"]["active"]),
        (&1.into(), &"blue".into())
    );
    assert_eq!(promote(&proxy).await.status, 200, "decided again");
}

#[tokio::test]
async fn of_two_promotions_with_slow_gates_one_is_made() {
    let blue = Upstream::start("blue").await;
    let green = Application::start(|_| Reply::Held(String::new())).await;
    let proxy = service(&[blue.address], &[green.address], SMOKE).start();
    let release = async {
        eventually("both gates run", async || green.requests().len() == 2).await;
        green.release();
    };
    let (one, two, ()) = tokio::join!(promote(&proxy), promote(&proxy), release);
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 412]);
    assert_eq!(proxy.generation().await, 1);
}

#[tokio::test]
async fn a_caller_that_disconnects_before_the_commit_cancels_the_promotion() {
    let blue = Upstream::start("blue").await;
    let slow = Application::start(|_| Reply::Hang).await;
    let proxy = service(&[blue.address], &[slow.address], SMOKE).start();
    let mut caller = Client::connect(client::INTERNAL, proxy.admin).await;
    let body = r#"{"services":{"web":"green"}}"#;
    let head = format!(
        "POST /v1/promote HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    caller.send(head).await;
    eventually("the gates run", async || !slow.requests().is_empty()).await;
    drop(caller);
    // The connections of its gates are closed, so nothing is left running.
    eventually("the gates have ended", async || slow.connections() == 0).await;
    assert_eq!(proxy.status().await["services"]["web"]["active"], "blue");
    assert_eq!(proxy.generation().await, 0);
}

#[tokio::test]
async fn an_idempotency_key_tells_a_retry_what_happened() {
    let (blue, green) =
        (Upstream::start("blue").await, Application::start(|_| Reply::ok("")).await);
    let gate = SMOKE.replace("\"1h\"", "\"5s\"");
    let proxy = service(&[blue.address], &[green.address], &gate).start();
    let body = json!({"services": {"web": "green"}}).to_string();
    let key = "Idempotency-Key: release-8\r\n";
    let first = proxy.call("POST", "/v1/promote", key, &body).await;
    assert_eq!(first.status, 200);
    let asked = green.requests().len();
    let again = proxy.call("POST", "/v1/promote", key, &body).await;
    assert_eq!((again.status, again.field("idempotent-replayed")), (200, Some("true")));
    assert_eq!(green.requests().len(), asked, "the gates do not run again");
}

#[tokio::test]
async fn gates_can_be_run_without_a_promotion() {
    let (blue, green) =
        (Upstream::start("blue").await, Application::start(|_| Reply::ok("")).await);
    let gate = SMOKE.replace("\"1h\"", "\"5s\"");
    let proxy = service(&[blue.address], &[green.address], &gate).start();
    let report = verdicts(&proxy).await;
    assert_eq!((&report["passed"], &report["color"]), (&true.into(), &"green".into()));
    assert_eq!(proxy.generation().await, 0);
    assert_eq!(proxy.events("gate_passed").len(), 1);
    let path = "/v1/services/web/gate";
    assert_eq!(proxy.call("POST", path, "", "{}").await.json()["color"], "green", "by default");
    for (path, body, status) in [
        (path, r#"{"color":"blue"}"#, 422),
        (path, r#"{"color":"red"}"#, 404),
        ("/v1/services/shop/gate", "{}", 404),
        (path, "[1]", 400),
    ] {
        assert_eq!(proxy.call("POST", path, "", body).await.status, status, "{path} {body}");
    }
}

#[tokio::test]
async fn promotions_of_different_services_do_not_make_each_other_stale() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let mut build = TestProxy::build();
    let names: Vec<_> = (0..20).map(|it| format!("s{it}")).collect();
    for name in &names {
        build = build.service_at(name, &format!("{name}.test"), "/", &[&blue], &[&green]);
    }
    let proxy = build.start();
    for name in &names {
        eventually("healthy", async || proxy.endpoint(name, "green", 0).await["health"] == "up")
            .await;
    }
    let promote = async |name: &String| {
        let body = json!({"services": {name: "green"}}).to_string();
        proxy.call("POST", "/v1/promote", "", &body).await.status
    };
    let statuses = futures_util::future::join_all(names.iter().map(promote)).await;
    assert_eq!(statuses, vec![200; names.len()]);
    assert_eq!(proxy.generation().await, 20);
}
