//! Gradual promotion: a candidate gets a share of the clients, which is raised as long as it is good.

mod changes;
mod clients;
mod first;
mod steps;

use serde_json::{Value, json};

use crate::{
    pins::Browser,
    support::{Application, Client, Reply, TestProxy, client, test_proxy::TestProxyBuilder},
};

/// An application that names itself.
async fn application(name: &'static str) -> Application {
    Application::start(move |request| {
        let caching = match request.path.as_str() {
            "/unstated" => None,
            path if path.starts_with("/public") => Some("public, max-age=60"),
            _ => Some("no-store"),
        };
        let headers = caching.map(|it| ("Cache-Control", it.to_owned()));
        Reply::Full(200, headers.into_iter().collect(), name.to_owned())
    })
    .await
}

/// A service `web` with blue active.
fn of(blue: &Application, green: &Application, settings: &str) -> TestProxyBuilder {
    TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[green.address])
        .services(settings)
}

/// Promotes green in these steps, and returns the status after the first one.
async fn promote(proxy: &TestProxy, steps: &[u8], more: Value) -> Value {
    let mut body = json!({"services": {"web": "green"}, "steps": steps, "step_for": "1h"});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let answer = proxy.call("POST", "/v1/promote", "", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn share(proxy: &TestProxy) -> Value {
    proxy.status().await["services"]["web"]["share"].clone()
}

async fn percent(proxy: &TestProxy) -> u64 {
    share(proxy).await["percent"].as_u64().unwrap_or(100)
}

/// New clients, with the color that each of them gets.
async fn clients(proxy: &TestProxy, count: usize) -> Vec<(Browser, String)> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut browser = Browser::of(proxy).await;
        let color = browser.navigate("/").await.text();
        clients.push((browser, color));
    }
    clients
}

/// Checks that every client that has green keeps it. Returns how many have it now.
async fn moved(clients: &mut [(Browser, String)]) -> usize {
    let mut count = 0;
    for (browser, color) in clients {
        let now = browser.fetch("/api").await;
        assert!(color.as_str() == "blue" || now == "green", "a client is back on blue");
        color.clone_from(&now);
        count += usize::from(now == "green");
    }
    count
}

/// The answer to a public client with these header lines.
async fn get(proxy: &TestProxy, path: &str, fields: &str) -> client::Answer {
    Client::connect(client::PUBLIC, proxy.public).await.get(path, fields).await
}
