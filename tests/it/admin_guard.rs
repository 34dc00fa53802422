//! Who may call the admin API, in what form, and which connections close at its limit.

use serde_json::{Value, json};

use crate::support::{
    Answer, Client, TestProxy, Upstream, client::INTERNAL, eventually, test_proxy::call,
};

async fn proxy() -> (Upstream, TestProxy) {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build().service("web", &[&blue], &[&blue]).start();
    (blue, proxy)
}

/// What comes back for bytes as they are written.
async fn raw(proxy: &TestProxy, bytes: &str) -> Answer {
    let mut client = Client::connect(INTERNAL, proxy.admin).await;
    client.send(bytes).await;
    client.answer().await
}

const PROMOTE: &str = r#"{"services":{"web":"green"}}"#;

/// A browser's form and a server that can be led to call any address can send an empty POST, or one of some
/// content types: `POST /v1/rollback` with nothing at all was obeyed.
#[tokio::test]
async fn a_write_needs_a_content_type_that_a_form_cannot_send() {
    let (_blue, proxy) = proxy().await;
    proxy.promote(&[("web", "green")]).await;
    for fields in [
        "",
        "Content-Type: text/plain\r\n",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Type: multipart/form-data; boundary=application/json\r\n",
        "Content-Type: application/json\r\nContent-Type: text/plain\r\n",
        "Content-Type: text/plain;application/json\r\n",
    ] {
        for (method, path, body) in [
            ("POST", "/v1/rollback", ""),
            ("POST", "/v1/rollback", "{}"),
            ("POST", "/v1/reload", ""),
            ("POST", "/v1/promote", r#"{"services":{"web":"blue"}}"#),
            ("PUT", "/v1/services/web/pools/blue", r#"{"endpoints":["127.0.0.1:1"]}"#),
        ] {
            let length = body.len();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
            let answer =
                raw(&proxy, &format!("{head}Content-Length: {length}\r\n{fields}\r\n{body}")).await;
            assert_eq!(answer.status, 415, "{method} {path} {fields}");
            assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        }
    }
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "").await.status, 400, "without a body");
    assert_eq!(proxy.generation().await, 1);
    let json = "Content-Type: Application/JSON; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}";
    let answer =
        raw(&proxy, &format!("POST /v1/rollback HTTP/1.1\r\nHost: localhost\r\n{json}")).await;
    assert_eq!((answer.status, proxy.generation().await), (200, 2));
}

#[tokio::test]
async fn with_require_token_callers_on_this_machine_need_one_too() {
    let blue = Upstream::start("blue").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("written");
    let tokens = format!(
        "require_token = true\n[[admin.token]]\nname = \"ops\"\nscope = \"admin\"\nfile = {file:?}\n"
    );
    let proxy = TestProxy::build().admin(&tokens).service("web", &[&blue], &[&blue]).start();
    assert_eq!(proxy.call("GET", "/v1/status", "", "").await.status, 401);
    assert_eq!(proxy.call("POST", "/v1/promote", "", PROMOTE).await.status, 401);
    assert_eq!(proxy.call("GET", "/healthz", "", "").await.status, 200, "probes have no token");
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(proxy.call("POST", "/v1/promote", token, PROMOTE).await.status, 200);
}

/// A pool with the admin address as an endpoint let the public promote: the request came from loopback.
#[tokio::test]
async fn a_forwarded_request_is_not_a_local_call() {
    let blue = Upstream::start("blue").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("written");
    let tokens = format!("[[admin.token]]\nname = \"ops\"\nscope = \"admin\"\nfile = {file:?}\n");
    let proxy = TestProxy::build().admin(&tokens).service("web", &[&blue], &[&blue]).start();
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    for (field, with_token) in [
        ("X-Forwarded-For: 192.0.2.1\r\n", 200),
        ("X-Forwarded-Host: a.test\r\n", 200),
        ("Forwarded: for=192.0.2.1\r\n", 200),
        ("Via: 1.1 other\r\n", 200),
        ("CDN-Loop: other\r\n", 200),
        ("Via: 1.1 flipgate\r\n", 403),
        ("Via: 1.1 fg-0123456789abcdef\r\n", 403),
        ("CDN-Loop: fg-0123456789abcdef\r\n", 403),
        ("Via: 1.1 other, 1.1 flipgate\r\n", 403),
        ("Flipgate-Preview: green\r\n", 403),
    ] {
        let answer = proxy.call("GET", "/v1/status", field, "").await;
        assert_eq!(answer.status, 403, "{field}");
        assert_eq!(proxy.call("POST", "/v1/promote", field, PROMOTE).await.status, 403, "{field}");
        let answer = proxy.call("GET", "/v1/status", &format!("{field}{token}"), "").await;
        assert_eq!(answer.status, with_token, "{field}");
        assert_eq!(proxy.call("GET", "/healthz", field, "").await.status, 200, "no secret");
    }
    assert_eq!(proxy.generation().await, 0);
}

#[tokio::test]
async fn the_api_is_read_as_strictly_as_the_public_listeners() {
    let (_blue, proxy) = proxy().await;
    for (request, status) in [
        ("GET /v1/status HTTP/1.1\nHost: localhost\n\n", 400),
        ("GET /v1/status HTTP/1.1\r\nHost: localhost\n\r\n", 400),
        ("GET /v1/status HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
        (
            "GET /v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("GET http://evil.test/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET http://evil.test/v1/status HTTP/1.1\r\nHost: evil.test\r\n\r\n", 403),
        ("GET http://localhost/v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        ("GET /.rejected HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /v1/services/%ff/drain HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("GET /v1/services/web/drain?wait=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (
            "PUT /v1/services/web/pools/%80 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            400,
        ),
        ("GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    ] {
        let answer = raw(&proxy, request).await;
        assert_eq!(answer.status, status, "{request:?}: {}", answer.text());
        if status != 200 {
            assert_eq!(
                answer.field("content-type"),
                Some("application/problem+json"),
                "{request:?}"
            );
            let problem = answer.json();
            assert_eq!(problem["status"], status, "{request:?}");
            assert!(problem["detail"].as_str().is_some_and(|it| it.len() > 5), "{problem}");
        }
    }
}

#[tokio::test]
async fn every_error_is_described_as_it_is_sent() {
    let (_blue, proxy) = proxy().await;
    let api: Value = proxy.call("GET", "/v1/openapi.json", "", "").await.json();
    let mut errors = 0;
    for (path, item) in api["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let responses = operation["responses"].as_object().expect("responses");
            for needed in ["400", "401", "403", "503"] {
                assert!(responses.contains_key(needed), "{method} {path} {needed}");
            }
            let has_type = !matches!(&**method, "get" | "delete");
            assert_eq!(responses.contains_key("415"), has_type, "{method} {path}");
            for (status, response) in responses.iter().filter(|(it, _)| it.as_str() >= "400") {
                let types: Vec<_> =
                    response["content"].as_object().expect("types").keys().collect();
                // What a probe says is no problem document.
                if !(path.ends_with("z") && status == "503") {
                    assert_eq!(types, ["application/problem+json"], "{method} {path} {status}");
                }
                errors += 1;
            }
        }
    }
    assert!(errors > 50, "{errors}");
    let answer = proxy.call("POST", "/v1/promote", "", "{").await;
    assert_eq!(answer.field("content-type"), Some("application/problem+json"));
}

/// 512 connections that sent nothing, or that followed the events, kept a liveness probe and an operator out.
#[tokio::test]
async fn idle_connections_and_event_streams_do_not_block_new_callers() {
    let (_blue, proxy) = proxy().await;
    for said in [
        "",
        "GET /v1/st",
        "POST /v1/promote HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/services/web/drain?wait=1h&color=blue HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ] {
        let mut idle = Vec::new();
        for _ in 0..700 {
            let mut client = Client::connect(INTERNAL, proxy.admin).await;
            client.try_send(said).await;
            idle.push(client);
        }
        assert_eq!(proxy.call("GET", "/healthz", "", "").await.status, 200, "{said:?}");
        assert_eq!(proxy.status().await["services"]["web"]["active"], "blue", "{said:?}");
        proxy.promote(&[("web", "green")]).await;
        assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200, "{said:?}");
    }
}

#[tokio::test]
async fn followers_of_events_are_refused_past_their_number_and_those_there_are_stay() {
    let (_blue, proxy) = proxy().await;
    let mut followers = Vec::new();
    let refused = loop {
        let mut client = Client::connect(INTERNAL, proxy.admin).await;
        client.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let head = client.head().await;
        match head.status {
            200 => followers.push(client),
            _ => break client.rest(head).await,
        }
    };
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["type"], "urn:flipgate:problem:too-many-waiting");
    assert_eq!(followers.len(), 256);
    // More connections than there are places: the idle ones go, the followers stay.
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(Client::connect(INTERNAL, proxy.admin).await);
    }
    proxy.promote(&[("web", "green")]).await;
    for client in &mut followers {
        client.until("event: promoted").await;
    }
    followers.pop();
    eventually("there is room for another one", async || {
        let mut client = Client::connect(INTERNAL, proxy.admin).await;
        client.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.head().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_caller_goes_on_after_a_refusal() {
    let (_blue, proxy) = proxy().await;
    let mut client = Client::connect(INTERNAL, proxy.admin).await;
    client.send("GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 404);
    assert_eq!(call(&mut client, "POST", "/v1/promote", "", PROMOTE).await.status, 200);
    let body = json!({"services": {"web": "blue"}}).to_string();
    assert_eq!(call(&mut client, "POST", "/v1/promote", "", &body).await.status, 200);
}
