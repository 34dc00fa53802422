//! Holds: new requests wait without a claim, and go in order to the color of that moment. And maintenance.

mod bounds;
mod calls;
mod commands;
mod lifecycle;
mod maintenance;
mod waiting;

use serde_json::{Value, json};

use crate::support::{
    Application, Client, Reply, TestProxy, client, eventually, test_proxy::TestProxyBuilder,
};

/// An application that names itself.
async fn application(name: &'static str) -> Application {
    Application::start(move |_| Reply::ok(name)).await
}

/// A service `web` with these settings of its holds.
fn service(blue: &Application, green: &Application, hold: &str) -> TestProxyBuilder {
    TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[green.address])
        .services(&format!("[service.web.hold]\n{hold}\n"))
}

/// Calls the admin API; panics with the problem if that is refused.
async fn call(proxy: &TestProxy, method: &str, path: &str, body: &Value) -> Value {
    let path = format!("/v1/services/{path}");
    let body = if method == "DELETE" { String::new() } else { body.to_string() };
    let answer = proxy.call(method, &path, "", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn hold(proxy: &TestProxy, body: Value) -> Value {
    call(proxy, "POST", "web/hold", &body).await["services"]["web"]["hold"].clone()
}

async fn release(proxy: &TestProxy) {
    call(proxy, "POST", "web/release", &json!({})).await;
}

/// What status says of a service.
async fn web(proxy: &TestProxy) -> Value {
    proxy.status().await["services"]["web"].clone()
}

/// Waits until so many requests wait.
async fn wait_for_waiting(proxy: &TestProxy, count: u64) {
    eventually(&format!("{count} waiting"), async || {
        web(proxy).await["hold"]["waiting"] == json!(count)
    })
    .await;
}

/// A client of the public that has asked for a path, and waits.
async fn held(proxy: &TestProxy, path: &str) -> Client {
    let before = web(proxy).await["hold"]["waiting"].as_u64().expect("a hold");
    let mut client = proxy.public().await;
    client.ask(path, "").await;
    wait_for_waiting(proxy, before + 1).await;
    client
}

/// The paths that an application has seen, in order.
fn paths(application: &Application) -> Vec<String> {
    application.requests().into_iter().map(|it| it.path).collect()
}
