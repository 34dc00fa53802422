//! The watch after a promotion, and its confirmation: a bad color is taken back, a good one stays.

mod confirm;
mod rescue;
mod rollback;
mod verdicts;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::support::{
    Application, Client, Reply, TestProxy, eventually, test_proxy::TestProxyBuilder,
};

/// An application that fails when a test says so.
pub(crate) struct Fragile {
    pub(crate) application: Application,
    is_broken: Arc<AtomicBool>,
}

impl Fragile {
    pub(crate) async fn start(name: &'static str) -> Self {
        Self::failing_with(name, Reply::status(500, "broken")).await
    }

    /// One that fails with this reply.
    async fn failing_with(name: &'static str, failure: Reply) -> Self {
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&is_broken);
        let application = Application::start(move |_| match broken.load(SeqCst) {
            true => failure.clone(),
            false => Reply::ok(name),
        })
        .await;
        Self { application, is_broken }
    }

    pub(crate) fn fail(&self) {
        self.is_broken.store(true, SeqCst);
    }

    pub(crate) fn recover(&self) {
        self.is_broken.store(false, SeqCst);
    }
}

/// A service `web` with a watch.
pub(crate) fn watched(blue: &Fragile, green: &Fragile, watch: &str) -> TestProxyBuilder {
    TestProxy::build()
        .service_of(
            "web",
            "web.test",
            "/",
            &[blue.application.address],
            &[green.application.address],
        )
        .services(&format!("watch = {{ {watch} }}"))
}

/// A request of a client with this address. Returns the status.
async fn request_from(proxy: &TestProxy, client: u8) -> u16 {
    let mut client = Client::connect(&format!("127.0.0.{client}"), proxy.public).await;
    client.send("GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
    client.answer().await.status
}

/// Sends requests of four clients until a condition holds.
pub(crate) async fn load_until(
    proxy: &TestProxy,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let mut client = 2;
    eventually(what, async || {
        client = if client == 5 { 2 } else { client + 1 };
        request_from(proxy, client).await;
        condition().await
    })
    .await;
}

pub(crate) async fn active(proxy: &TestProxy, service: &str) -> Value {
    proxy.status().await["services"][service]["active"].clone()
}

/// Waits for the first event of this name.
pub(crate) async fn event(proxy: &TestProxy, name: &str) -> Value {
    eventually(name, async || !proxy.events(name).is_empty()).await;
    proxy.events(name)[0].clone()
}

/// Makes green active, with a time for the confirmation.
async fn promote_within(proxy: &TestProxy, time: &str) -> Value {
    let body = json!({"services": {"web": "green"}, "confirm_within": time}).to_string();
    let answer = proxy.call("POST", "/v1/promote", "", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}
