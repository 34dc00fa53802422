//! A panic in one task does not affect the others.

use http::Request;

use crate::support::{
    Authority, Client, Fault, Http2, LONG, Panics, Place, TestProxy, Upstream,
    client::{self, INTERNAL, PUBLIC},
    eventually,
    test_proxy::{TestProxyBuilder, call},
};

const WEBSOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

async fn colors() -> (Upstream, Upstream, TestProxyBuilder) {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]);
    (blue, green, proxy)
}

async fn panicking() -> (Upstream, Upstream, TestProxy, Panics) {
    let (blue, green, proxy) = colors().await;
    let (proxy, panics) = proxy.start_panicking();
    (blue, green, proxy, panics)
}

/// Waits until so many tasks of a kind have died, and checks that it were no more.
async fn wait_for_deaths(proxy: &TestProxy, task: &str, count: u32) {
    let series = format!("flipgate_task_panics_total{{task=\"{task}\"}}");
    let expected = f64::from(count);
    eventually(&series, async || proxy.metric(&series).await > expected - 0.5).await;
    let counted = proxy.metric(&series).await;
    assert!(counted < expected + 0.5, "{counted} of {expected} {task}");
}

async fn health(proxy: &TestProxy) -> (u16, String) {
    let answer = proxy.call("GET", "/healthz", "", "").await;
    (answer.status, answer.text())
}

/// A client with half of its answer.
async fn held(proxy: &TestProxy, fields: &str) -> Client {
    let mut client = proxy.public().await;
    client.ask("/hold", fields).await;
    client.until("blue begins\n").await;
    client
}

#[tokio::test]
async fn the_tasks_of_the_control_plane_have_an_owner() {
    let (_blue, _green, proxy) = colors().await;
    let proxy = proxy.start();
    let tasks = proxy.app().tasks();
    let known =
        ["admin", "care", "certificates", "control", "reload", "rollout", "watch", "worker"];
    assert_eq!(tasks, known);
    assert!(!proxy.app().plant_panic("no such task"));
    assert!(proxy.app().plant_panic("reload"));
    wait_for_deaths(&proxy, "reload", 1).await;
    assert_eq!(health(&proxy).await.0, 200);
}

#[tokio::test]
async fn health_checks_go_on_after_a_panic() {
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let endpoints = [one.address.to_string(), two.address.to_string()];
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = {endpoints:?} }}\n\
             health = {{ path = \"/health\", interval = \"100ms\" }}"
        ))
        .start();
    proxy.wait_for_health("blue", 0, "up").await;
    assert!(proxy.app().plant_panic("care"));
    wait_for_deaths(&proxy, "care", 1).await;
    one.ail(true);
    proxy.wait_for_health("blue", 0, "down").await;
    one.ail(false);
    proxy.wait_for_health("blue", 0, "up").await;
    assert_eq!(health(&proxy).await, (200, "ok\n".to_owned()));
}

#[tokio::test]
async fn the_admin_api_goes_on_after_a_panic() {
    let (_blue, _green, proxy) = colors().await;
    let proxy = proxy.start();
    let mut open = Client::connect(INTERNAL, proxy.admin).await;
    let ask = async |open: &mut Client| call(open, "GET", "/healthz", "", "").await.status;
    assert_eq!(ask(&mut open).await, 200);
    assert!(proxy.app().plant_panic("admin"));
    wait_for_deaths(&proxy, "admin", 1).await;
    assert_eq!(ask(&mut open).await, 200, "a connection from before");
    proxy.promote(&[("web", "green")]).await;
}

#[tokio::test]
async fn certificates_are_renewed_after_a_panic() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let (_blue, _green, proxy) = colors().await;
    let proxy = proxy.listener(&format!("[listener.tls]\n{}", authority.listener(&pair))).start();
    assert!(proxy.app().plant_panic("certificates"));
    wait_for_deaths(&proxy, "certificates", 1).await;
    let tls = authority.client(&["http/1.1"], None);
    let is_named =
        async |name| client::connect_tls(PUBLIC, proxy.others[0], name, &tls).await.is_ok();
    assert!(is_named("localhost").await && !is_named("new.test").await);
    authority.issue("server", &["localhost", "new.test"]);
    eventually("the new certificate", async || is_named("new.test").await).await;
    assert_eq!(health(&proxy).await.0, 200);
}

#[tokio::test]
async fn a_dead_control_task_ends_the_process_gently_and_with_an_error() {
    let (blue, _green, proxy) = colors().await;
    let mut proxy = proxy.start();
    proxy.wait_for_health("blue", 0, "up").await;
    assert_eq!(proxy.call("GET", "/readyz", "", "").await.status, 200);
    let mut early = held(&proxy, "").await;
    assert!(proxy.app().plant_panic("control"));
    eventually("bad health", async || health(&proxy).await.0 == 503).await;
    let text = health(&proxy).await.1;
    assert!(text.contains("`control`") && text.contains("planted"), "{text}");
    wait_for_deaths(&proxy, "control", 1).await;
    let ready = proxy.call("GET", "/readyz", "", "").await;
    assert!(ready.status == 503 && ready.text().contains("`control`"), "{}", ready.text());
    assert_eq!(proxy.get("/").await, "blue", "clients are served until it ends");

    let run = proxy.run();
    eventually("no new connections", async || {
        tokio::net::TcpStream::connect(proxy.public).await.is_err()
    })
    .await;
    assert_eq!(proxy.call("GET", "/readyz", "", "").await.status, 503);
    blue.release();
    assert!(early.until("0\r\n\r\n").await.contains("blue ends"));
    drop(early);
    let ended = tokio::task::spawn_blocking(|| run.join()).await.expect("no panic");
    let ended = ended.expect("it ends by itself");
    assert_eq!((ended.cut, ended.at_once, ended.has_failed), (0, false, true));
}

#[tokio::test]
async fn a_dead_worker_ends_the_process_gently_and_with_an_error() {
    let (blue, _green, mut proxy, panics) = panicking().await;
    // Of so many, each of the two workers has some.
    let mut early = Vec::new();
    for _ in 0..16 {
        early.push(held(&proxy, "").await);
    }
    panics.plant(Place::Tick);
    eventually("bad health", async || health(&proxy).await.0 == 503).await;
    assert!(health(&proxy).await.1.contains("`worker`"));
    wait_for_deaths(&proxy, "worker", 1).await;
    assert_eq!(proxy.call("GET", "/readyz", "", "").await.status, 503);
    let run = proxy.run();
    eventually("no new connections", async || {
        tokio::net::TcpStream::connect(proxy.public).await.is_err()
    })
    .await;
    blue.release();
    for client in &mut early {
        assert!(client.until("0\r\n\r\n").await.contains("blue ends"));
    }
    drop(early);
    let ended = tokio::task::spawn_blocking(|| run.join()).await.expect("no panic");
    let ended = ended.expect("it ends by itself");
    assert_eq!((ended.cut, ended.at_once, ended.has_failed), (0, false, true));
}

#[tokio::test]
async fn a_process_ends_when_a_worker_dies_while_it_runs() {
    let (_blue, _green, mut proxy, panics) = panicking().await;
    let run = proxy.run();
    assert_eq!(proxy.get("/").await, "blue");
    panics.plant(Place::Tick);
    let joined = tokio::task::spawn_blocking(|| run.join());
    let ended = tokio::time::timeout(LONG, joined).await.expect("in time").expect("no panic");
    assert!(ended.expect("it ends by itself").has_failed);
}

#[tokio::test]
async fn an_acceptor_that_panics_is_replaced_at_once() {
    let (_blue, _green, proxy) = colors().await;
    let proxy = proxy.with("limits.connections_per_client = 2");
    let (proxy, panics) = proxy.start_panicking();
    let _two = [held(&proxy, "").await, held(&proxy, "").await];
    for count in 1..=3 {
        panics.plant(Place::TurnedAway);
        let mut third = proxy.public().await;
        third.read_to_end().await;
        wait_for_deaths(&proxy, "acceptor", count).await;
        // Of so many, each of the two sockets has some.
        for _ in 0..32 {
            let answer = proxy.internal().await.get("/", "").await;
            assert_eq!((answer.status, answer.text()), (200, "blue".to_owned()));
        }
    }
    let third = proxy.public().await.read_to_end().await;
    assert!(third.starts_with("HTTP/1.1 429 "), "without a panic it is refused: {third}");
    assert_eq!(health(&proxy).await.0, 200);
}

#[tokio::test]
async fn a_panic_in_one_connection_costs_that_connection() {
    let (blue, _green, proxy, panics) = panicking().await;
    let (mut one, mut other) = (held(&proxy, "x-panic: 1\r\n").await, held(&proxy, "").await);
    proxy.wait_for_in_flight("web", "blue", 2).await;
    proxy.promote(&[("web", "green")]).await;
    panics.plant(Place::Exchange);
    blue.release();
    let rest = one.read_to_end().await;
    assert!(!rest.contains("0\r\n\r\n"), "what is not whole does not look so: {rest}");
    assert!(other.until("0\r\n\r\n").await.contains("blue ends"));
    assert_eq!(other.get("/", "").await.text(), "green");
    wait_for_deaths(&proxy, "connection", 1).await;
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
    eventually("the event", async || proxy.events("drained").len() == 1).await;
    drop((one, other));
    eventually("no request is in flight", async || {
        let connections = proxy.metric("flipgate_downstream_connections").await;
        let status = proxy.status().await;
        let pools = &status["services"]["web"]["pools"];
        connections < 0.5
            && ["blue", "green"].iter().all(|color| {
                let pool = &pools[color];
                pool["in_flight"] == 0 && pool["endpoints"][0]["in_flight"] == 0
            })
    })
    .await;
    assert_eq!(health(&proxy).await.0, 200);
}

#[tokio::test]
async fn a_panic_in_a_tunnel_costs_that_tunnel() {
    let (_blue, _green, proxy, panics) = panicking().await;
    let (mut one, mut other) = (proxy.public().await, proxy.public().await);
    for client in [&mut one, &mut other] {
        client.send(WEBSOCKET).await;
        assert_eq!(client.head().await.status, 101);
    }
    one.send("hello").await;
    one.until("blue: hello").await;
    panics.plant(Place::Tunnel);
    one.send("again").await;
    assert_eq!(one.read_to_end().await, "");
    wait_for_deaths(&proxy, "connection", 1).await;
    other.send("hello").await;
    other.until("blue: hello").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
}

#[tokio::test]
async fn a_panic_in_one_stream_costs_that_stream() {
    let (blue, _green, proxy, panics) = panicking().await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let panicking = Request::get("https://localhost/hold").header("x-panic", "1");
    let mut one = client.send(panicking.body(()).expect("a request"), true).await;
    let mut other = client.ask("GET", "/hold", "", true).await;
    let head = one.head().await.expect("an answer");
    one.until("blue begins\n").await;
    other.head().await.expect("an answer");
    other.until("blue begins\n").await;
    panics.plant(Place::Exchange);
    blue.release();
    let rest = one.rest(head).await;
    assert!(rest.is_err(), "what is not whole does not look so: {rest:?}");
    other.until("blue ends\n").await;
    assert_eq!(client.get("/", "").await.text(), "blue", "on the same connection");
    wait_for_deaths(&proxy, "connection", 1).await;
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn a_panic_in_a_handshake_costs_that_connection() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let (_blue, _green, proxy) = colors().await;
    let proxy = proxy.listener(&format!("[listener.tls]\n{}", authority.listener(&pair)));
    let (proxy, panics) = proxy.start_panicking();
    panics.plant(Place::TurnedAway);
    let mut wrong = Client::connect(PUBLIC, proxy.others[0]).await;
    wrong.send("this is no handshake of TLS\r\n\r\n").await;
    wrong.read_to_end().await;
    wait_for_deaths(&proxy, "connection", 1).await;
    let acceptors = proxy.metric("flipgate_task_panics_total{task=\"acceptor\"}").await;
    assert!(acceptors < 0.5, "the acceptor had nothing to do with it");
    let tls = authority.client(&["http/1.1"], None);
    for _ in 0..8 {
        let mut client = Client::connect_tls(PUBLIC, proxy.others[0], &tls).await;
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.answer().await.text(), "blue");
    }
}

#[tokio::test]
async fn a_disk_error_is_no_dead_task() {
    let (_blue, _green, proxy) = colors().await;
    let (proxy, faults) = proxy.start_faulty();
    proxy.wait_for_health("blue", 0, "up").await;
    faults.next(Fault::Forget);
    let body = r#"{"services":{"web":"green"}}"#;
    let refused = proxy.call("POST", "/v1/promote", "", body).await;
    assert!(refused.status >= 500, "{}", refused.text());
    let ready = proxy.call("GET", "/readyz", "", "").await;
    assert!(ready.status == 503 && ready.text().contains("read-only"), "{}", ready.text());
    assert_eq!(health(&proxy).await, (200, "ok\n".to_owned()));
    assert_eq!(proxy.get("/").await, "blue");
    assert!(!proxy.call("GET", "/metrics", "", "").await.text().contains("task_panics_total{"));
}
