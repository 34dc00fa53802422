//! `approval`: a person has approved the version, and a change of the pool voids that.

use serde_json::json;
use tempfile::TempDir;

use super::{promote, refusal, service};
use crate::support::{TestProxy, Upstream};

/// Writes the tokens of these callers, and returns the configuration that has them.
fn tokens(folder: &TempDir, callers: &[(&str, &str)]) -> String {
    let mut toml = "require_token = true\n".to_owned();
    for (name, scope) in callers {
        let file = folder.path().join(name);
        std::fs::write(&file, token(name)).expect("written");
        toml += &format!("[[admin.token]]\nname = {name:?}\nscope = {scope:?}\nfile = {file:?}\n");
    }
    toml
}

fn token(name: &str) -> String {
    format!("token-of-{name}-0123456789")
}

/// Calls as one of them.
async fn call_as(
    proxy: &TestProxy,
    name: &str,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let fields = format!("Authorization: Bearer {}\r\n", token(name));
    let answer = proxy.call(method, path, &fields, body).await;
    (answer.status, answer.text())
}

#[tokio::test]
async fn an_approval_allows_the_promotion_of_that_version() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gate = "gate.approval = { expires = \"1h\" }";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    let (code, detail) = refusal(&proxy).await;
    assert_eq!(code, "gate_approval");
    assert_eq!(detail, "green is not approved; approve it with `flipgate approve web=green`");

    let path = "/v1/services/web/approve";
    let other = proxy.call("POST", path, "", r#"{"color":"green","version":"9"}"#).await;
    assert_eq!((other.status, &other.json()["reasons"][0]["code"]), (409, &"other_version".into()));
    let generation = proxy.generation().await;
    let approved = proxy.call("POST", path, "", r#"{"color":"green","version":"2"}"#).await;
    assert_eq!(approved.status, 200, "{}", approved.text());
    assert_eq!(proxy.generation().await, generation, "the routing table stays as it is");
    let event = &proxy.events("approved")[0];
    assert_eq!(
        (&event["service"], &event["version"], &event["by"]),
        (&"web".into(), &"2".into(), &"local".into())
    );
    assert_eq!(promote(&proxy).await.status, 200);
}

#[tokio::test]
async fn a_change_of_the_pool_voids_the_approval_and_a_restart_does_not() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gate = "gate.approval = { expires = \"1h\" }";
    let build = || service(&[blue.address], &[green.address], gate);
    let proxy = build().start();
    let path = "/v1/services/web/approve";
    assert_eq!(
        proxy.call("POST", path, "", "{}").await.status,
        200,
        "the color that is not active"
    );
    let approvals = async |proxy: &TestProxy| {
        proxy.status().await["services"]["web"]["pools"]["green"]["approvals"].clone()
    };
    let given = approvals(&proxy).await;
    assert!(given[0]["by"] == "local" && given[0]["until"].is_string(), "{given}");
    let body = json!({"version": "3", "endpoints": [green.address.to_string()]}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    assert_eq!(set.status, 200);
    assert_eq!(refusal(&proxy).await.0, "gate_approval");
    assert_eq!(approvals(&proxy).await, json!(null));
    assert_eq!(proxy.call("POST", path, "", "{}").await.status, 200);
    let given = approvals(&proxy).await;
    let proxy = build().state(proxy.shut_down()).start();
    assert_eq!(approvals(&proxy).await, given);
    assert_eq!(promote(&proxy).await.status, 200);
}

#[tokio::test]
async fn an_approval_expires() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gate = "gate.approval = { expires = \"1s\" }";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    proxy.call("POST", "/v1/services/web/approve", "", "{}").await;
    crate::support::eventually("the approval has expired", async || {
        let report = super::verdicts(&proxy).await;
        super::reasons_of(&report, "approval").iter().any(|it| it.contains("has expired after 1 s"))
    })
    .await;
    assert_eq!(promote(&proxy).await.status, 409);
}

#[tokio::test]
async fn an_approval_that_would_have_no_effect_is_refused() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let without = service(&[blue.address], &[green.address], "").start();
    let path = "/v1/services/web/approve";
    let answer = without.call("POST", path, "", "{}").await;
    assert_eq!(
        (answer.status, &answer.json()["reasons"][0]["code"]),
        (409, &"no_approval_gate".into())
    );
    let empty = service(&[blue.address], &[], "gate.approval.expires = \"1h\"").start();
    for (body, status) in [
        (r#"{"color":"green"}"#, 409),
        (r#"{"color":"blue"}"#, 422),
        (r#"{"color":"red"}"#, 404),
        (r#"{"colour":"green"}"#, 400),
    ] {
        assert_eq!(empty.call("POST", path, "", body).await.status, status, "{body}");
    }
    assert_eq!(empty.call("POST", "/v1/services/shop/approve", "", "{}").await.status, 404);
}

#[tokio::test]
async fn four_eyes_needs_two_identities() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let callers = [("ada", "admin"), ("bob", "approve"), ("cy", "approve")];
    let proxy = service(&[blue.address], &[green.address], "gate.approval.four_eyes = true")
        .admin(&tokens(&folder, &callers))
        .start();
    let approve = async |name: &str| {
        assert_eq!(call_as(&proxy, name, "POST", "/v1/services/web/approve", "{}").await.0, 200);
    };
    let promote = async || {
        let body = r#"{"services":{"web":"green"}}"#;
        call_as(&proxy, "ada", "POST", "/v1/promote", body).await
    };
    // The file has set the pool, so two people must approve it.
    approve("bob").await;
    let (status, text) = promote().await;
    assert!(status == 409 && text.contains("four_eyes needs a second approval"), "{text}");
    approve("bob").await;
    assert_eq!(promote().await.0, 409, "the same person twice");
    approve("cy").await;
    assert_eq!(promote().await.0, 200);
    assert_eq!(
        call_as(&proxy, "ada", "POST", "/v1/rollback", "{}").await.0,
        200,
        "no gate for a rollback"
    );

    // Ada sets the pool, and cannot approve it herself.
    let body = json!({"version": "3", "endpoints": [green.address.to_string()]}).to_string();
    assert_eq!(call_as(&proxy, "ada", "PUT", "/v1/services/web/pools/green", &body).await.0, 200);
    approve("ada").await;
    let (status, text) = promote().await;
    assert!(
        status == 409 && text.contains("was set by ada; four_eyes needs another person"),
        "{text}"
    );
    approve("bob").await;
    assert_eq!(promote().await.0, 200);
}
