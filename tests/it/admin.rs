//! The calls of the admin API and their responses.

use serde_json::{Value, json};

use crate::support::{Client, TestProxy, Upstream, eventually, test_proxy::call};

#[tokio::test]
async fn the_status_is_the_whole_picture() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    eventually("probed", async || {
        let pools = proxy.status().await["services"]["web"]["pools"].clone();
        ["blue", "green"].iter().all(|it| pools[it]["endpoints"][0]["health"] == "up")
    })
    .await;
    let answer = proxy.call("GET", "/v1/status", "", "").await;
    assert_eq!(answer.field("etag"), Some("\"0\""));
    let pool = |role: &str, version: &str, address: String| {
        let endpoint = json!({
            "address": address, "health": "up", "in_flight": 0, "weight": 1, "connections": 0,
        });
        json!({
            "role": role, "version": version, "source": "file", "in_flight": 0, "queued": 0,
            "retry_budget": 30, "panicking": false, "endpoints": [endpoint],
        })
    };
    let pools = json!({
        "blue": pool("active", "1", blue.address.to_string()),
        "green": pool("preview", "2", green.address.to_string()),
    });
    let web = json!({"active": "blue", "previous": null, "pools": pools});
    let mut seen = answer.json();
    for color in ["blue", "green"] {
        let endpoint = &mut seen["services"]["web"]["pools"][color]["endpoints"][0];
        let since = endpoint.as_object_mut().and_then(|it| it.remove("since")).expect("a time");
        let since: jiff::Timestamp = since.as_str().expect("text").parse().expect("RFC 3339");
        assert!(since <= jiff::Timestamp::now());
    }
    assert_eq!(seen, json!({"generation": 0, "revision": 1, "services": {"web": web}}));
}

#[tokio::test]
async fn a_new_version_is_installed_on_the_idle_color() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let new = Upstream::start("new").await;
    let proxy = TestProxy::of(&blue, &green);
    let pool = |color: &str| format!("/v1/services/web/pools/{color}");
    let body = json!({"version": "8.0", "endpoints": [new.address.to_string()]}).to_string();

    let active = proxy.call("PUT", &pool("blue"), "", &body).await;
    assert_eq!((active.status, proxy.generation().await), (409, 0));
    let idle = proxy.call("PUT", &pool("green"), "", &body).await;
    assert_eq!((idle.status, idle.field("etag")), (200, Some("\"1\"")));
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.get("/").await, "new");
    // The one that answers is changed only by force.
    let forced = json!({"endpoints": [green.address.to_string()], "force": true}).to_string();
    assert_eq!(proxy.call("PUT", &pool("green"), "", &forced).await.status, 200);
    assert_eq!(proxy.get("/").await, "green");
    let emptied = proxy.call("PUT", &pool("green"), "", r#"{"endpoints":[],"force":true}"#).await;
    assert_eq!((emptied.status, proxy.get("/").await.as_str()), (409, "green"));
    // An emptied idle pool is not promoted.
    assert_eq!(proxy.call("PUT", &pool("blue"), "", r#"{"endpoints":[]}"#).await.status, 200);
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["pools"]["blue"]["role"], "empty");
    let body = r#"{"services":{"web":"blue"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", body).await.status, 409);
}

#[tokio::test]
async fn an_invalid_pool_is_refused_with_every_reason() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    for (path, body, status) in [
        ("/v1/services/shop/pools/green", r#"{"endpoints":[]}"#, 404),
        ("/v1/services/web/pools/red", r#"{"endpoints":[]}"#, 404),
        ("/v1/services/web/pools/green", r#"{"endpoints":["127.0.0.1"]}"#, 422),
        ("/v1/services/web/pools/green", r#"{"endpoints":["a:1","a:1"]}"#, 422),
        ("/v1/services/web/pools/green", r#"{"endpoints":["ftp://a:1"]}"#, 422),
        ("/v1/services/web/pools/green", r#"{"endpoints":[],"version":""}"#, 422),
        ("/v1/services/web/pools/green", r#"{"version":"1"}"#, 400),
        ("/v1/services/web/pools/green", r#"{"endpoints":[],"color":"green"}"#, 400),
        ("/v1/services/web/pools/green", "", 400),
        ("/v1/services/web/pools/green", "[", 400),
    ] {
        let answer = proxy.call("PUT", path, "", body).await;
        assert_eq!(answer.status, status, "{path} {body}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        let problem = answer.json();
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        assert_eq!(problem["status"], status);
    }
    let body = r#"{"endpoints":["no-port","b:0"],"version":"\n"}"#;
    let problem = proxy.call("PUT", "/v1/services/web/pools/green", "", body).await.json();
    assert_eq!(problem["reasons"].as_array().map(Vec::len), Some(3), "{problem}");
    assert_eq!(proxy.generation().await, 0);
}

#[tokio::test]
async fn a_call_under_a_used_key_changes_nothing_twice() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let key = "Idempotency-Key: deploy-7\r\n";
    let body = r#"{"services":{"web":"green"}}"#;
    let first = proxy.call("POST", "/v1/promote", key, body).await;
    assert_eq!((first.status, first.field("idempotent-replayed")), (200, None));
    let again = proxy.call("POST", "/v1/promote", key, body).await;
    assert_eq!((again.status, again.field("idempotent-replayed")), (200, Some("true")));
    assert_eq!(proxy.generation().await, 1);
    let other = proxy.call("POST", "/v1/promote", key, r#"{"services":{"web":"blue"}}"#).await;
    assert_eq!((other.status, proxy.generation().await), (422, 1));
    // Of two keys, neither can be the one that was meant.
    let two = format!("{key}Idempotency-Key: deploy-9\r\n");
    let refused = proxy.call("POST", "/v1/promote", &two, r#"{"services":{"web":"blue"}}"#).await;
    assert_eq!((refused.status, proxy.generation().await), (400, 1));
    // A refused call leaves its key free.
    let key = "Idempotency-Key: deploy-8\r\n";
    assert_eq!(proxy.call("POST", "/v1/promote", key, body).await.status, 422);
    let body = r#"{"services":{"web":"blue"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", key, body).await.status, 200);
    // A key outlives the process, as what it stands for does.
    let state = proxy.shut_down();
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&green]).start();
    let again = proxy.call("POST", "/v1/promote", key, body).await;
    assert_eq!((again.status, again.field("idempotent-replayed")), (200, Some("true")));
    assert_eq!(proxy.generation().await, 2);
}

/// With more keys than the 128 that were kept once, and another process in between.
#[tokio::test]
async fn a_key_is_known_after_a_thousand_others_and_a_replay_has_the_active_colors() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let key = "Idempotency-Key: deploy-1\r\n";
    let body = r#"{"services":{"web":"green"}}"#;
    let first = proxy.call("POST", "/v1/promote", key, body).await;
    assert_eq!((first.status, first.json().get("replayed")), (200, None));
    for number in 0..1000 {
        let key = format!("Idempotency-Key: other-{number}\r\n");
        let color = if number % 2 == 0 { "blue" } else { "green" };
        let body = format!(r#"{{"services":{{"web":"{color}"}}}}"#);
        assert_eq!(proxy.call("POST", "/v1/promote", &key, &body).await.status, 200);
    }
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    let state = proxy.shut_down();
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&green]).start();
    // The same call with its fields written otherwise.
    let body = r#"{"force": false, "services": {"web": "green"}}"#;
    let again = proxy.call("POST", "/v1/promote", key, body).await;
    assert_eq!((again.status, again.field("idempotent-replayed")), (200, Some("true")));
    let picture = again.json();
    assert_eq!(picture["replayed"], true);
    assert_eq!(picture["services"]["web"]["active"], "blue");
    let body = r#"{"services":{"web":"blue"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", key, body).await.status, 422);
    assert_eq!(proxy.generation().await, 1002);
}

#[tokio::test]
async fn a_change_can_require_if_match() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .admin("require_if_match = true")
        .service("web", &[&blue], &[&green])
        .start();
    let body = r#"{"services":{"web":"green"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", body).await.status, 428);
    assert_eq!(proxy.get("/").await, "blue");
    let answer = proxy.call("POST", "/v1/promote", "If-Match: \"0\"\r\n", body).await;
    assert_eq!((answer.status, proxy.get("/").await.as_str()), (200, "green"));
}

#[tokio::test]
async fn a_page_of_a_foreign_site_cannot_call() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .admin("hosts = [\"flip.internal\"]")
        .service("web", &[&blue], &[&green])
        .start();
    let port = proxy.admin.port();
    for (fields, status) in [
        ("Host: localhost\r\n".to_owned(), 200),
        (format!("Host: localhost:{port}\r\n"), 200),
        (format!("Host: 127.0.0.1:{port}\r\n"), 200),
        ("Host: [::1]\r\n".to_owned(), 200),
        ("Host: flip.internal\r\n".to_owned(), 200),
        ("Host: evil.example\r\n".to_owned(), 403),
        ("Host: 127.0.0.1.evil.example\r\n".to_owned(), 403),
        ("Host: localhost.evil.example\r\n".to_owned(), 403),
        ("Host: localhost\r\nHost: localhost\r\n".to_owned(), 400),
        (String::new(), 400),
        (format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n"), 200),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n".to_owned(), 403),
        ("Host: localhost\r\nOrigin: null\r\n".to_owned(), 403),
    ] {
        let mut client = Client::connect("127.0.0.1", proxy.admin).await;
        client.send(format!("GET /v1/status HTTP/1.1\r\n{fields}\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{fields} {}", answer.text());
    }
    let origin = "Origin: http://evil.example\r\n";
    let body = r#"{"services":{"web":"green"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", origin, body).await.status, 403);
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn a_token_allows_what_its_scope_says() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut tokens = String::new();
    for scope in ["read", "promote", "admin"] {
        let file = folder.path().join(scope);
        std::fs::write(&file, format!("{scope}-0123456789abcdef\n")).expect("written");
        tokens.push_str(&format!(
            "[[admin.token]]\nname = {scope:?}\nscope = {scope:?}\nfile = {file:?}\n"
        ));
    }
    let proxy = TestProxy::build().admin(&tokens).service("web", &[&blue], &[&green]).start();
    let promote = r#"{"services":{"web":"green"}}"#;
    let pool = r#"{"endpoints":["127.0.0.1:1"]}"#;
    for (token, [read, promoted, pooled, reloaded]) in [
        ("read", [200, 403, 403, 403]),
        ("promote", [200, 200, 409, 403]),
        ("admin", [200, 422, 409, 409]),
        ("nothing", [401, 401, 401, 401]),
    ] {
        let bearer = format!("Authorization: Bearer {token}-0123456789abcdef\r\n");
        let status =
            async |method, path, body| proxy.call(method, path, &bearer, body).await.status;
        assert_eq!(status("GET", "/v1/status", "").await, read, "{token}");
        assert_eq!(status("GET", "/metrics", "").await, read, "{token}");
        assert_eq!(status("POST", "/v1/promote", promote).await, promoted, "{token}");
        assert_eq!(status("PUT", "/v1/services/web/pools/green", pool).await, pooled, "{token}");
        assert_eq!(status("POST", "/v1/reload", "").await, reloaded, "{token}");
        // Whether the process lives is no secret.
        assert_eq!(status("GET", "/healthz", "").await, 200, "{token}");
    }
    let basic = "Authorization: Basic YTpi\r\n";
    let answer = proxy.call("GET", "/v1/status", basic, "").await;
    assert_eq!((answer.status, answer.field("www-authenticate")), (401, Some("Bearer")));
}

#[tokio::test]
async fn events_are_resumed_where_a_listener_left() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    proxy.promote(&[("web", "green")]).await;
    let mut all = Client::connect("127.0.0.1", proxy.admin).await;
    all.send("GET /v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 0\r\n\r\n").await;
    let head = all.head().await;
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    let seen = all.until("\"took_ms\"").await;
    let first = seen.split("id: ").nth(1).and_then(|it| it.lines().next()).expect("an id");
    let first: u64 = first.parse().expect("a number");
    for (id, event) in [(first, "started"), (first + 1, "promoted"), (first + 2, "drained")] {
        assert!(seen.contains(&format!("id: {id}\nevent: {event}\n")), "{seen}");
    }
    let mut later = Client::connect("127.0.0.1", proxy.admin).await;
    let id = first + 1;
    later
        .send(format!("GET /v1/events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {id}\r\n\r\n"))
        .await;
    let seen = later.until("\"took_ms\"").await;
    let drained = format!("id: {}\nevent: drained", first + 2);
    assert!(!seen.contains("promoted") && seen.contains(&drained), "{seen}");
    let body = json!({"endpoints": [green.address.to_string()]}).to_string();
    proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert!(later.until("\"color\":\"blue\"").await.contains("event: pool_changed"));
    let wrong = proxy.call("GET", "/v1/events", "Last-Event-ID: last\r\n", "").await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn readiness_says_what_is_missing() {
    let (mut blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    eventually("ready", async || proxy.call("GET", "/readyz", "", "").await.status == 200).await;
    blue.kill().await;
    eventually("not ready", async || proxy.call("GET", "/readyz", "", "").await.status == 503)
        .await;
    let answer = proxy.call("GET", "/readyz", "", "").await.json();
    assert_eq!(answer["reasons"], json!(["none of the 1 endpoints of web blue is up"]));
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.call("GET", "/readyz", "", "").await.status, 200);
    assert_eq!(proxy.call("GET", "/healthz", "", "").await.text(), "ok\n");
}

#[tokio::test]
async fn the_metrics_are_those_of_the_interface() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut early = proxy.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    proxy.get("/").await;
    proxy.promote(&[("web", "green")]).await;
    let answer = proxy.call("GET", "/metrics", "", "").await;
    assert!(
        answer.field("content-type").is_some_and(|it| it.starts_with("text/plain; version=0.0.4"))
    );
    let text = answer.text();
    for line in [
        "flipgate_requests_total{code=\"200\",color=\"blue\",service=\"web\"} 1\n",
        "flipgate_request_duration_seconds_count{color=\"blue\",service=\"web\"} 1\n",
        "flipgate_in_flight{color=\"blue\",service=\"web\"} 1\n",
        "flipgate_in_flight{color=\"green\",service=\"web\"} 0\n",
        "flipgate_upstream_connections{color=\"blue\",service=\"web\"} ",
        "flipgate_generation 1\n",
        "flipgate_active{color=\"blue\",service=\"web\"} 0\n",
        "flipgate_active{color=\"green\",service=\"web\"} 1\n",
        "flipgate_promotions_total{kind=\"promote\",result=\"promoted\"} 1\n",
        "flipgate_promotions_total{kind=\"promote\",result=\"stale\"} 0\n",
        "flipgate_drain_duration_seconds",
        "flipgate_downstream_connections ",
        "flipgate_build_info{version=\"",
        "# TYPE flipgate_preview_refused_total counter\n",
        "# TYPE flipgate_upstream_connect_errors_total counter\n",
    ] {
        let is_there = text.contains(line)
            || line.starts_with("# TYPE")
            || line == "flipgate_drain_duration_seconds";
        assert!(is_there, "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn the_description_names_every_call() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let api: Value = proxy.call("GET", "/v1/openapi.json", "", "").await.json();
    for (path, method) in [
        ("/v1/status", "get"),
        ("/v1/promote", "post"),
        ("/v1/rollback", "post"),
        ("/v1/services/{service}/drain", "get"),
        ("/v1/services/{service}/pools/{color}", "put"),
        ("/v1/reload", "post"),
        ("/v1/events", "get"),
        ("/metrics", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/v1/openapi.json", "get"),
    ] {
        assert!(api["paths"][path][method]["responses"].is_object(), "{method} {path}");
    }
    let promote = &api["paths"]["/v1/promote"]["post"];
    for status in ["200", "400", "409", "412", "422"] {
        assert!(promote["responses"][status].is_object(), "{status}");
    }
    for path in ["/v1/promote", "/v1/rollback", "/v1/services/{service}/pools/{color}"] {
        let (_, call) =
            api["paths"][path].as_object().expect("a path").iter().next().expect("a call");
        let parameters = call["parameters"].as_array().expect("parameters");
        for header in ["If-Match", "Idempotency-Key"] {
            let has =
                |it: &Value| it["name"] == header && it["in"] == "header" && it["required"] != true;
            assert!(parameters.iter().any(has), "{path} {header}: {parameters:?}");
        }
    }
    assert!(api["components"]["schemas"]["Status"].is_object());
}

#[tokio::test]
async fn an_unknown_call_is_a_problem_document() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = Client::connect("127.0.0.1", proxy.admin).await;
    for (method, path, body, status) in [
        ("GET", "/v2/status", "", 404),
        ("GET", "/", "", 404),
        ("DELETE", "/v1/status", "", 405),
        ("GET", "/v1/promote", "", 405),
        ("POST", "/v1/promote", "{", 400),
        ("POST", "/v1/promote", r#"{"service":{"web":"green"}}"#, 400),
        ("POST", "/v1/promote", r#"{"services":["web"]}"#, 400),
        ("POST", "/v1/reload", "", 409),
    ] {
        let answer = call(&mut client, method, path, "", body).await;
        assert_eq!(answer.status, status, "{method} {path}");
        let problem = answer.json();
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind.starts_with("urn:flipgate:problem:"), "{method} {path}: {problem}");
    }
    let huge = format!("{{\"services\":{{\"web\":\"{}\"}}}}", "x".repeat(300_000));
    assert_eq!(proxy.call("POST", "/v1/promote", "", &huge).await.status, 413);
    assert_eq!(proxy.generation().await, 0);
}
