//! Gates: conditions for a promotion, each of which allows and refuses with its evidence.

mod approval;
mod compatible;
mod examples;
mod healthy;
mod hook;
mod killed;
mod mistakes;
mod preconnect;
mod samples;
mod shadow;
mod smoke;
mod together;
mod warm_up;

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Answer, TestProxy, test_proxy::TestProxyBuilder};

/// A service `web` with these endpoints and gates.
fn service(blue: &[SocketAddr], green: &[SocketAddr], gate: &str) -> TestProxyBuilder {
    TestProxy::build().service_of("web", "*", "/", blue, green).services(gate)
}

/// Tries to promote `web` to green.
async fn promote(proxy: &TestProxy) -> Answer {
    let body = json!({"services": {"web": "green"}}).to_string();
    proxy.call("POST", "/v1/promote", "", &body).await
}

/// The verdicts of the gates of `web` for green.
async fn verdicts(proxy: &TestProxy) -> Value {
    let answer = proxy.call("POST", "/v1/services/web/gate", "", r#"{"color":"green"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The first reason of a refused promotion, with its code. Nothing has changed.
async fn refusal(proxy: &TestProxy) -> (String, String) {
    let before = proxy.status().await;
    let answer = promote(proxy).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let after = proxy.status().await;
    for key in ["generation", "revision"] {
        assert_eq!(before[key], after[key], "{key}: nothing has changed");
    }
    assert_eq!(after["services"]["web"]["active"], "blue");
    let reason = &answer.json()["reasons"][0];
    assert_eq!(reason["service"], "web");
    let text = |key: &str| reason[key].as_str().expect("a text").to_owned();
    (text("code"), text("detail"))
}

/// The reasons of one gate in a report.
fn reasons_of(report: &Value, gate: &str) -> Vec<String> {
    let gates = report["gates"].as_array().expect("a list");
    let gate = gates.iter().find(|it| it["gate"] == gate).expect("the gate");
    let reasons = gate["reasons"].as_array().expect("a list").iter();
    reasons.map(|it| it.as_str().expect("a text").to_owned()).collect()
}
