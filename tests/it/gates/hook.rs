//! `hook`: another program allows or refuses the promotion.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use super::{promote, refusal, service};
use crate::support::{AppRequest, Application, Reply, TestProxy, Upstream};

const KEYS: [&str; 2] = ["the-key-that-is-in-use", "the-key-that-is-next"];

/// A Flipgate with a hook at this address, and its endpoints.
async fn proxy(folder: &TempDir, address: &str, more: &str) -> (TestProxy, [Upstream; 2]) {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let file = folder.path().join("hook.key");
    std::fs::write(&file, KEYS.join("\n")).expect("written");
    let gate = format!(
        "[service.web.gate.hook]\nurl = \"http://{address}/allow?a=b\"\nsecret_file = {file:?}\n{more}\n"
    );
    let proxy = service(&[blue.address], &[green.address], &gate).start();
    (proxy, [blue, green])
}

/// Whether a key has signed a request, as a receiver checks it.
fn is_signed(request: &AppRequest, key: &str) -> bool {
    let [id, at] = ["webhook-id", "webhook-timestamp"].map(|it| request.header(it));
    let signed = format!("{id}.{at}.{}", request.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let mut signatures = request.header("webhook-signature").split(' ');
    signatures.any(|it| {
        let bytes = it.strip_prefix("v1,").and_then(|it| STANDARD.decode(it).ok());
        bytes.is_some_and(|it| hmac::verify(&key, signed.as_bytes(), &it).is_ok())
    })
}

#[tokio::test]
async fn a_signed_call_describes_the_promotion_and_success_allows_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let hook = Application::start(|_| Reply::status(204, "")).await;
    let (proxy, _endpoints) = proxy(&folder, &hook.address.to_string(), "").await;
    assert_eq!(promote(&proxy).await.status, 200);
    let [request] = &*hook.requests() else { panic!("one call") };
    assert_eq!((&*request.method, &*request.path), ("POST", "/allow?a=b"));
    assert_eq!(request.header("content-type"), "application/json");
    let body: Value = serde_json::from_str(&request.body).expect("JSON");
    for (key, value) in [
        ("service", "web".into()),
        ("action", "promote".into()),
        ("by", "local".into()),
        ("generation", 0.into()),
        ("candidate", serde_json::json!({"color": "green", "version": "2"})),
        ("active", serde_json::json!({"color": "blue", "version": "1"})),
    ] {
        assert_eq!(body[key], value, "{key}");
    }
    assert_eq!(body["id"], request.header("webhook-id"));
    assert!(KEYS.iter().all(|it| is_signed(request, it)), "each key signs, for its rotation");
    assert!(!is_signed(request, "another key"));
    let at: i64 = request.header("webhook-timestamp").parse().expect("seconds");
    assert!((jiff::Timestamp::now().as_second() - at).abs() < 60);
}

#[tokio::test]
async fn anything_but_success_refuses_with_the_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    for (reply, what) in [
        (
            Reply::status(403, "change freeze until Monday\n"),
            "refused it with status 403: change freeze until Monday",
        ),
        (
            Reply::Full(302, vec![("location", "/elsewhere".to_owned())], String::new()),
            "refused it with status 302",
        ),
        (Reply::Hang, "did not respond within 200 ms (gate.hook.timeout)"),
    ] {
        let hook = Application::start(move |_| reply.clone()).await;
        let (proxy, _endpoints) =
            proxy(&folder, &hook.address.to_string(), "timeout = \"200ms\"").await;
        let (code, detail) = refusal(&proxy).await;
        assert_eq!(code, "gate_hook");
        assert!(detail.ends_with(what), "{detail}");
        assert!(hook.requests_for("/elsewhere").is_empty(), "no redirect is followed");
    }
    let closed = tokio::net::TcpSocket::new_v4().expect("a socket");
    closed.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = closed.local_addr().expect("a bound socket").to_string();
    let (proxy, _endpoints) = proxy(&folder, &address, "").await;
    let (_, detail) = refusal(&proxy).await;
    assert!(detail.contains("cannot be called: ") && detail.contains("refused"), "{detail}");
}
