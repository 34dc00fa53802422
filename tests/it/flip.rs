//! Where a request goes before and after a flip.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Client, TestProxy, Upstream};

#[tokio::test]
async fn the_public_gets_blue_before_and_green_after() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    assert_eq!(proxy.get("/").await, "blue");
    let picture = proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.get("/").await, "green");
    assert_eq!(picture["generation"], 1);
    assert_eq!(picture["services"]["web"]["active"], "green");
    assert_eq!(picture["services"]["web"]["previous"], "blue");
}

#[tokio::test]
async fn a_kept_alive_connection_moves_with_its_next_request() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(client.get("/", "").await.text(), "green");
    proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!(client.get("/", "").await.text(), "blue");
}

#[tokio::test]
async fn a_request_stays_where_it_was_admitted() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut early = proxy.public().await;
    early.ask("/hold", "").await;
    early.until("blue begins").await;
    // There, back and there again, while the request is under way.
    for color in ["green", "blue", "green"] {
        proxy.promote(&[("web", color)]).await;
        assert_eq!(proxy.get("/").await, color);
    }
    blue.release();
    let rest = early.until("0\r\n\r\n").await;
    assert!(rest.contains("blue ends") && !rest.contains("green"), "{rest}");
    // The same connection, a new request.
    assert_eq!(early.get("/", "").await.text(), "green");
}

#[tokio::test]
async fn a_request_without_a_response_yet_stays_too() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut early = proxy.public().await;
    early.ask("/wait", "").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    proxy.promote(&[("web", "green")]).await;
    blue.release();
    assert_eq!(early.answer().await.text(), "blue");
}

#[tokio::test]
async fn a_pipelined_request_behind_the_flip_goes_to_green() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    client.ask("/wait", "").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    proxy.promote(&[("web", "green")]).await;
    client.ask("/second", "").await;
    blue.release();
    assert_eq!(client.answer().await.text(), "blue");
    assert_eq!(client.answer().await.text(), "green");
}

#[tokio::test]
async fn a_promotion_decided_on_an_old_generation_changes_nothing() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let green_please = r#"{"services":{"web":"green"}}"#;
    let blue_please = r#"{"services":{"web":"blue"}}"#;
    let if_match = |tag: &str| format!("If-Match: {tag}\r\n");

    let first = proxy.call("POST", "/v1/promote", &if_match("\"0\""), green_please).await;
    assert_eq!((first.status, first.field("etag")), (200, Some("\"1\"")));
    let stale = proxy.call("POST", "/v1/promote", &if_match("\"0\""), blue_please).await;
    assert_eq!(stale.status, 412);
    assert_eq!(stale.field("content-type"), Some("application/problem+json"));
    assert_eq!(stale.json()["generation"], 1);
    assert_eq!((proxy.get("/").await.as_str(), proxy.generation().await), ("green", 1));
    // A weak tag promises less than a change needs; a list matches by any of its members.
    assert_eq!(
        proxy.call("POST", "/v1/promote", &if_match("W/\"1\""), blue_please).await.status,
        412
    );
    assert_eq!(
        proxy.call("POST", "/v1/promote", &if_match("nonsense"), blue_please).await.status,
        400
    );
    assert_eq!(proxy.generation().await, 1);
    let listed = proxy.call("POST", "/v1/promote", &if_match("\"7\", \"1\""), blue_please).await;
    assert_eq!(listed.status, 200);
    let any = proxy.call("POST", "/v1/promote", &if_match("*"), green_please).await;
    assert_eq!(any.status, 200);
}

#[tokio::test]
async fn of_concurrent_changes_to_one_generation_one_is_applied() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = Arc::new(TestProxy::of(&blue, &green));
    let mut callers = JoinSet::new();
    for _ in 0..12 {
        let proxy = Arc::clone(&proxy);
        callers.spawn(async move {
            let body = r#"{"services":{"web":"green"}}"#;
            proxy.call("POST", "/v1/promote", "If-Match: \"0\"\r\n", body).await.status
        });
    }
    let mut statuses = callers.join_all().await;
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, &[412; 11][..]));
    assert_eq!(proxy.generation().await, 1);
}

#[tokio::test]
async fn a_promotion_that_cannot_be_changes_none_of_its_services() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .service_at("api", "*", "/api", &[&blue], &[&green])
        .service("web", &[&blue], &[])
        .start();
    for (services, status, codes) in [
        (json!({"api": "green", "web": "green"}), 409, vec!["no_endpoints"]),
        (json!({"api": "green", "shop": "green"}), 422, vec!["unknown_service"]),
        (json!({"api": "green", "web": "red"}), 422, vec!["unknown_color"]),
        (json!({"api": "green", "web": "blue"}), 422, vec!["already_active"]),
        (json!({"api": "blue", "web": "green"}), 422, vec!["already_active", "no_endpoints"]),
        (json!({}), 422, vec!["nothing_named"]),
    ] {
        let body = json!({ "services": services, "force": true, "reason": "test" }).to_string();
        let answer = proxy.call("POST", "/v1/promote", "", &body).await;
        let found: Vec<String> = answer.json()["reasons"]
            .as_array()
            .expect("reasons")
            .iter()
            .map(|it| it["code"].as_str().expect("a word").to_owned())
            .collect();
        assert_eq!(
            (answer.status, found),
            (status, codes.iter().map(ToString::to_string).collect())
        );
        assert_eq!(proxy.generation().await, 0, "{services}");
        assert_eq!(proxy.get("/api").await, "blue", "{services}");
    }
}

/// Clients that ask both services in order, again and again, while both are flipped together: who
/// has seen the first on one color may not see the second on a color from before.
#[tokio::test]
async fn services_that_flip_together_are_never_seen_in_halves() {
    let names = ["api-blue", "api-green", "web-blue", "web-green"];
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(Upstream::start(name).await);
    }
    let [api_blue, api_green, web_blue, web_green] = &*upstreams else { panic!("four") };
    let proxy = TestProxy::build()
        .service_at("api", "*", "/api", &[api_blue], &[api_green])
        .service("web", &[web_blue], &[web_green])
        .start();
    // Even before an even number of flips are acknowledged: blue.
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let called = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..6 {
        let (acknowledged, called) = (Arc::clone(&acknowledged), Arc::clone(&called));
        let is_over = Arc::clone(&is_over);
        let mut client = proxy.public().await;
        clients.spawn(async move {
            let mut asked = 0;
            while !is_over.load(SeqCst) {
                let before = acknowledged.load(SeqCst);
                let api = client.get("/api", "").await.text();
                let web = client.get("/", "").await.text();
                let after = called.load(SeqCst);
                asked += 1;
                let flipped = |it: &str| usize::from(it.ends_with("green"));
                let allowed = |it: usize| (before..=after).any(|flips| flips % 2 == it);
                assert!(
                    allowed(flipped(&api)) && allowed(flipped(&web)),
                    "{api} {web} {before} {after}"
                );
                if before + 1 == after && flipped(&api) == after % 2 {
                    assert_eq!(flipped(&web), after % 2, "the flip was seen in halves");
                }
            }
            asked
        });
    }
    for flip in 0..60 {
        let color = if flip % 2 == 0 { "green" } else { "blue" };
        called.fetch_add(1, SeqCst);
        proxy.promote(&[("api", color), ("web", color)]).await;
        acknowledged.fetch_add(1, SeqCst);
    }
    is_over.store(true, SeqCst);
    let asked: usize = clients.join_all().await.into_iter().sum();
    assert!(asked > 60, "too few requests to prove anything: {asked}");
}

#[tokio::test]
async fn flips_under_load_lose_no_request() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..8 {
        let is_over = Arc::clone(&is_over);
        let to = proxy.public;
        clients.spawn(async move {
            let mut client = Client::connect("127.0.0.2", to).await;
            let mut asked = 0;
            while !is_over.load(SeqCst) {
                if number % 2 == 0 {
                    client = Client::connect("127.0.0.2", to).await;
                }
                let body = format!("{number} {asked}");
                let length = body.len();
                client
                    .send(format!(
                        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}"
                    ))
                    .await;
                let answer = client.answer().await;
                assert_eq!((answer.status, answer.text()), (200, body));
                asked += 1;
            }
            asked
        });
    }
    for flip in 0..200 {
        let color = if flip % 2 == 0 { "green" } else { "blue" };
        proxy.promote(&[("web", color)]).await;
    }
    is_over.store(true, SeqCst);
    let asked: usize = clients.join_all().await.into_iter().sum();
    assert_eq!(blue.requests() + green.requests(), asked, "each request came once");
    assert!(blue.requests() > 0 && green.requests() > 0);
}

#[tokio::test]
async fn a_rollback_is_the_same_way_back() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .service_at("api", "*", "/api", &[&blue], &[&green])
        .service("web", &[&blue], &[&green])
        .start();
    let nothing = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!((nothing.status, proxy.generation().await), (409, 0));
    proxy.promote(&[("api", "green"), ("web", "green")]).await;
    let back = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!(back.status, 200, "{}", back.text());
    assert_eq!((proxy.get("/api").await, proxy.get("/").await), ("blue".into(), "blue".into()));
    // One that is repeated must not bring back what it was to remove.
    let again = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!((again.status, proxy.get("/").await.as_str()), (409, "blue"));
    // By name, only what is named.
    proxy.promote(&[("api", "green"), ("web", "green")]).await;
    let one = proxy.call("POST", "/v1/rollback", "", r#"{"services":["web"]}"#).await;
    assert_eq!(one.status, 200);
    assert_eq!((proxy.get("/api").await, proxy.get("/").await), ("green".into(), "blue".into()));
    let unknown = proxy.call("POST", "/v1/rollback", "", r#"{"services":["shop"]}"#).await;
    assert_eq!((unknown.status, proxy.generation().await), (422, 4));
}

#[tokio::test]
async fn a_rollback_finds_its_connections_warm() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(client.get("/", "").await.text(), "green");
    proxy.promote(&[("web", "blue")]).await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    assert_eq!((blue.requests(), blue.connections()), (2, 1));
}
