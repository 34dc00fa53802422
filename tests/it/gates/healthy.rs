//! `healthy`: a color in which no endpoint answers does not become active.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::{promote, refusal, service, verdicts};
use crate::support::{TestProxy, Upstream, eventually};

/// An address that refuses connections: nothing listens there, and no other test gets it.
fn closed_address() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    (socket.local_addr().expect("a bound socket"), socket)
}

#[tokio::test]
async fn a_color_without_a_healthy_endpoint_is_refused_unless_it_is_forced() {
    let blue = Upstream::start("blue").await;
    let (dead, _reserved) = closed_address();
    let proxy = service(&[blue.address], &[dead], "").start();
    let (code, detail) = refusal(&proxy).await;
    assert_eq!(code, "gate_healthy");
    assert!(detail.contains("0 of 1 endpoints of green are up, 1 needed"), "{detail}");
    assert!(detail.contains(&dead.to_string()) && detail.contains("refused"), "{detail}");
    assert_eq!(proxy.get("/").await, "blue");
    let events = proxy.events("gate_refused");
    assert_eq!(events[0]["gates"][0]["gate"], "healthy");

    let without_reason = r#"{"services":{"web":"green"},"force":true}"#;
    let refused = proxy.call("POST", "/v1/promote", "", without_reason).await;
    assert_eq!(
        (refused.status, &refused.json()["reasons"][0]["code"]),
        (422, &"reason_required".into())
    );
    let forced = r#"{"services":{"web":"green"},"force":true,"reason":"blue leaks data"}"#;
    let forced = proxy.call("POST", "/v1/promote", "", forced).await;
    assert_eq!(forced.json()["services"]["web"]["active"], "green");
    assert_eq!(proxy.public().await.get("/", "").await.status, 502);
}

#[tokio::test]
async fn an_endpoint_that_was_not_checked_yet_is_checked_at_once() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (dead, _reserved) = closed_address();
    let never = "health = { interval = \"24h\" }";
    let proxy = service(&[blue.address], &[], never).start();
    for (endpoint, status) in [(dead, 409), (green.address, 200)] {
        let body = serde_json::json!({"endpoints": [endpoint.to_string()]}).to_string();
        let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
        assert_eq!(set.status, 200);
        // Right behind the change, so that the first check of the schedule may not have run yet.
        assert_eq!(promote(&proxy).await.status, status);
    }
    assert_eq!(proxy.get("/").await, "green");
}

#[tokio::test]
async fn a_share_of_the_endpoints_is_needed() {
    let (blue, one, two) =
        (Upstream::start("blue").await, Upstream::start("one").await, Upstream::start("two").await);
    let (dead, _reserved) = closed_address();
    let all = [one.address, two.address, dead];
    for (gate, passes) in [
        ("gate.healthy.share = 66", true),
        ("gate.healthy.share = 67", false),
        ("gate.healthy.endpoints = 2", true),
        ("gate.healthy.endpoints = 3", false),
    ] {
        let proxy = service(&[blue.address], &all, gate).start();
        let report = verdicts(&proxy).await;
        assert_eq!(report["passed"], passes, "{gate}: {report}");
        assert_eq!(promote(&proxy).await.status, if passes { 200 } else { 409 }, "{gate}");
    }
}

#[tokio::test]
async fn an_endpoint_must_have_been_up_for_long_enough() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&[blue.address], &[green.address], "gate.healthy.for = \"1h\"").start();
    proxy.wait_for_health("green", 0, "up").await;
    let (code, detail) = refusal(&proxy).await;
    assert_eq!(code, "gate_healthy");
    assert!(detail.contains("is up, but not for 1 h yet; try again in"), "{detail}");
    let soon = service(&[blue.address], &[green.address], "gate.healthy.for = \"1ms\"").start();
    soon.wait_for_health("green", 0, "up").await;
    eventually("up for 1 ms", async || promote(&soon).await.status == 200).await;
}

#[tokio::test]
async fn a_promotion_to_a_healthy_color_sends_nothing() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gate =
        "health = { interval = \"24h\", path = \"/health\" }\ngate.preconnect.per_worker = 0";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    proxy.wait_for_health("green", 0, "up").await;
    let before = (green.requests(), green.connections());
    assert_eq!(promote(&proxy).await.status, 200);
    assert_eq!((green.requests(), green.connections()), before);
}

/// Its last check was good.
#[tokio::test]
async fn a_color_that_has_just_died_is_noticed_when_no_connection_can_be_opened_to_it() {
    let (blue, mut green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let checks = "health = { interval = \"24h\" }";
    let proxy = service(&[blue.address], &[green.address], checks).start();
    let blind = format!("{checks}\ngate.preconnect.per_worker = 0");
    let blind = service(&[blue.address], &[green.address], &blind).start();
    for proxy in [&proxy, &blind] {
        proxy.wait_for_health("green", 0, "up").await;
    }
    green.kill().await;
    let (code, detail) = refusal(&proxy).await;
    assert_eq!(code, "gate_healthy");
    assert!(detail.contains("0 of 1 endpoints of green are up, 1 needed"), "{detail}");
    assert_eq!(proxy.get("/").await, "blue");
    assert_eq!(promote(&blind).await.status, 200, "without a connection, the last check counts");
}

#[tokio::test]
async fn a_rollback_to_a_dead_color_is_refused_unless_it_is_forced() {
    let (mut blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gate = "health = { interval = \"100ms\", fall = 1 }";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    proxy.wait_for_health("green", 0, "up").await;
    proxy.promote(&[("web", "green")]).await;
    blue.kill().await;
    proxy.wait_for_health("blue", 0, "down").await;
    let refused = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!(
        (refused.status, &refused.json()["reasons"][0]["code"]),
        (409, &"gate_healthy".into())
    );
    assert_eq!(proxy.get("/").await, "green");
    let forced = r#"{"force":true,"reason":"green deletes accounts"}"#;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", forced).await.status, 200);
}

#[tokio::test]
async fn only_the_scope_admin_may_force() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut tokens = String::new();
    for scope in ["read", "approve", "promote", "admin"] {
        let file = folder.path().join(scope);
        std::fs::write(&file, format!("token-of-{scope}-0123456789")).expect("written");
        tokens +=
            &format!("[[admin.token]]\nname = {scope:?}\nscope = {scope:?}\nfile = {file:?}\n");
    }
    let proxy = TestProxy::build()
        .admin("require_token = true")
        .admin(&tokens)
        .service("web", &[&blue], &[&green])
        .start();
    let call = async |scope: &str, method: &str, path: &str, body: &str| {
        let token = format!("Authorization: Bearer token-of-{scope}-0123456789\r\n");
        proxy.call(method, path, &token, body).await.status
    };
    let forced = r#"{"services":{"web":"green"},"force":true,"reason":"test"}"#;
    for scope in ["read", "approve", "promote"] {
        assert_eq!(call(scope, "POST", "/v1/promote", forced).await, 403, "{scope}");
    }
    let pool = r#"{"endpoints":["127.0.0.1:9"],"force":true}"#;
    assert_eq!(call("promote", "PUT", "/v1/services/web/pools/green", pool).await, 403);
    assert_eq!(
        call("promote", "POST", "/v1/rollback", r#"{"force":true,"reason":"x"}"#).await,
        403
    );
    assert_eq!(call("admin", "POST", "/v1/promote", forced).await, 200);
    // A token that may approve may not promote, and the other way round.
    for (scope, path, status) in [
        ("approve", "/v1/promote", 403),
        ("promote", "/v1/services/web/approve", 403),
        ("read", "/v1/services/web/gate", 403),
        ("read", "/v1/services/web/approve", 403),
    ] {
        let body = if path == "/v1/promote" { forced } else { "{}" };
        assert_eq!(call(scope, "POST", path, body).await, status, "{scope} {path}");
    }
    assert_eq!(call("approve", "GET", "/v1/status", "").await, 200);
}
