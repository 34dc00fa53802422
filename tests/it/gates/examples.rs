//! The compatibility conditions of `config/examples/compatibility.toml`, in both directions.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{promote, reasons_of, verdicts};
use crate::support::{Application, Reply, TestProxy};

async fn application(manifest: &Value) -> Application {
    let manifest = manifest.to_string();
    Application::start(move |_| Reply::ok(&manifest)).await
}

/// The services of the example with these endpoints.
fn example(blue: SocketAddr, green: SocketAddr) -> TestProxy {
    let text = std::fs::read_to_string("config/examples/compatibility.toml").expect("the example");
    let services = &text[text.find("[service.web]").expect("a service")..];
    let services = services.replace("127.0.0.1:9001", &blue.to_string());
    let services = services.replace("127.0.0.1:9002", &green.to_string());
    TestProxy::build().services(&services).start()
}

fn manifest() -> Value {
    json!({
        "version": "7.9", "schema": 104, "index": "7", "billing": "2",
        "plugins": {"java": "7.3", "go": "1.0"},
        "rules": {"java:S100": true, "java:S101": true},
        "properties": {"sonar.sources": true},
    })
}

/// A version with one change.
fn with(pointer: &str, value: Option<Value>) -> Value {
    let mut manifest = manifest();
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let parent = manifest.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    match value {
        Some(value) => drop(parent.insert(key.to_owned(), value)),
        None => drop(parent.remove(key)),
    }
    manifest
}

async fn rollback(proxy: &TestProxy) -> (u16, Value) {
    let answer = proxy.call("POST", "/v1/rollback", "", "{}").await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn compatible_versions_can_be_promoted_and_rolled_back() {
    let old = application(&manifest()).await;
    for new in [
        with("/version", Some(json!("8.0"))),
        with("/plugins/java", Some(json!("8.0"))),
        with("/rules/java:S999", Some(json!(true))),
        with("/properties/sonar.tests", Some(json!(true))),
    ] {
        let new = application(&new).await;
        let proxy = example(old.address, new.address);
        let report = verdicts(&proxy).await;
        assert_eq!(report["passed"], true, "{report}");
        assert_eq!(promote(&proxy).await.status, 200);
        let (status, body) = rollback(&proxy).await;
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test]
async fn each_condition_refuses_the_promotion_and_the_rollback() {
    let old = application(&manifest()).await;
    for (rule, new) in [
        ("database migration", with("/schema", Some(json!(105)))),
        ("search index", with("/index", Some(json!("8")))),
        ("plugins", with("/plugins/rust", Some(json!("1.0")))),
        ("plugins", with("/plugins/go", None)),
        ("rule keys", with("/rules/java:S101", None)),
        ("property keys", with("/properties/sonar.sources", None)),
        ("billing backend", with("/billing", Some(json!("3")))),
        // No proof, no promotion.
        ("database migration", with("/schema", None)),
        ("plugins", with("/plugins", None)),
    ] {
        let new = application(&new).await;
        let proxy = example(old.address, new.address);
        let reasons = reasons_of(&verdicts(&proxy).await, "compatible");
        assert_eq!(reasons.len(), 1, "{rule}: {reasons:?}");
        assert!(reasons[0].starts_with(&format!("{rule}: `")), "{reasons:?}");
        assert_eq!(promote(&proxy).await.status, 409);
        // An operator has forced it. The way back is judged in the order of release, too.
        let forced = r#"{"services":{"web":"green"},"force":true,"reason":"maintenance window"}"#;
        assert_eq!(proxy.call("POST", "/v1/promote", "", forced).await.status, 200);
        let (status, body) = rollback(&proxy).await;
        assert_eq!(
            (status, &body["reasons"][0]["code"]),
            (409, &"gate_compatible".into()),
            "{rule}"
        );
        let detail = body["reasons"][0]["detail"].as_str().expect("a text");
        assert!(detail.starts_with(&format!("{rule}: `")), "{detail}");
    }
}
