//! Pages learn that another version has become active: by polling, by an event stream, and by a header.

mod events;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{
    Answer, Client, Http2, TestProxy, Upstream, client, test_proxy::TestProxyBuilder,
};

/// A service with the signal and these further settings of it.
fn service(blue: &Upstream, green: &Upstream, settings: &str) -> TestProxyBuilder {
    TestProxy::build()
        .service("web", &[blue], &[green])
        .services(&format!("version_signal = {{ {settings} }}"))
}

/// The id in a body like `{"version":"…","spread_ms":30000}`.
fn id(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|it| panic!("{it}: {body}"));
    let id = body["version"].as_str().expect("an id").to_owned();
    assert!(
        id.len() == 16 && id.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(&it))
    );
    id
}

async fn version(proxy: &TestProxy) -> String {
    let answer = proxy.public().await.get("/.flipgate/version", "").await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    id(&answer.text())
}

async fn preview(proxy: &TestProxy, color: &str) -> (String, Answer) {
    let fields = format!("Flipgate-Preview: {color}\r\n");
    let answer = proxy.internal().await.get("/.flipgate/version", &fields).await;
    (id(&answer.text()), answer)
}

#[tokio::test]
async fn the_id_is_that_of_the_version_that_the_client_would_get() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "spread = \"5s\"").start();
    let answer = proxy.public().await.get("/.flipgate/version?x=1", "").await;
    assert_eq!(answer.field("content-type"), Some("application/json"));
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("proxy-status"), Some("flipgate"));
    assert_eq!(answer.json()["spread_ms"], 5000);
    let of_blue = id(&answer.text());
    let (of_green, previewed) = preview(&proxy, "green").await;
    assert_eq!(previewed.field("cache-control"), Some("private, no-store"));
    assert_ne!(of_blue, of_green);
    // The header of a public client has no effect.
    let asked = proxy.public().await.get("/.flipgate/version", "Flipgate-Preview: green\r\n").await;
    assert_eq!(id(&asked.text()), of_blue);

    proxy.promote(&[("web", "green")]).await;
    assert_eq!(version(&proxy).await, of_green, "the preview told what came");
    assert_eq!(preview(&proxy, "blue").await.0, of_blue);
    let back = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!((back.status, version(&proxy).await), (200, of_blue));
    assert_eq!((blue.requests(), green.requests()), (0, 0), "no endpoint was asked");
}

#[tokio::test]
async fn the_id_is_the_same_after_a_restart_and_another_one_for_a_pool_that_is_set() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let before = version(&proxy).await;
    let state = proxy.shut_down();
    let proxy = service(&blue, &green, "").state(state).start();
    assert_eq!(version(&proxy).await, before);
    let set = async |version: &str, endpoint: &Upstream| {
        let pool =
            serde_json::json!({"version": version, "endpoints": [endpoint.address.to_string()]});
        let answer = proxy.call("PUT", "/v1/services/web/pools/green", "", &pool.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        preview(&proxy, "green").await.0
    };
    let first = preview(&proxy, "green").await.0;
    let ids = [first, set("3", &green).await, set("3", &blue).await, before];
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    assert_eq!(set("2", &green).await, ids[0], "the same pool has the same id");
}

#[tokio::test]
async fn only_get_and_head_are_allowed_and_all_other_paths_are_the_applications() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let mut client = proxy.public().await;
    for path in ["/.flipgate/version", "/.flipgate/events", "/.flipgate/reload.js"] {
        client
            .send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")), "{path}");
        let proxy_status = Some("flipgate; error=http_request_denied");
        assert_eq!(answer.field("proxy-status"), proxy_status, "{path}");
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!(client.answer_to_head().await.status, 200, "{path}");
    }
    assert_eq!(blue.requests(), 0);
    for path in ["/.flipgate", "/.flipgate/", "/.flipgate/versions", "/x/.flipgate/version"] {
        assert_eq!(client.get(path, "").await.text(), "blue", "{path}");
    }
}

#[tokio::test]
async fn the_resources_are_below_the_prefix_of_their_service_and_opt_in() {
    let (shop, root) = (Upstream::start("shop").await, Upstream::start("root").await);
    let proxy = TestProxy::build()
        .service_at("shop", "*", "/shop", &[&shop], &[])
        .services("version_signal = { path = \"/-/deploy\" }")
        .service_at("web", "*", "/", &[&root], &[])
        .start();
    assert_eq!(id(&proxy.get("/shop/-/deploy/version").await).len(), 16);
    for path in ["/-/deploy/version", "/.flipgate/version"] {
        assert_eq!(proxy.get(path).await, "root", "{path}");
    }
    assert_eq!(proxy.get("/shop/.flipgate/version").await, "shop");
}

#[tokio::test]
async fn with_header_every_answer_of_the_service_has_the_id() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "header = true").start();
    let of_blue = version(&proxy).await;
    let mut client = proxy.public().await;
    for path in ["/", "/304", "/hop", "/close", "/.flipgate/version"] {
        let answer = client.get(path, "").await;
        assert_eq!(answer.field("flipgate-version"), Some(&*of_blue), "{path}: {}", answer.head);
        let timing = format!("flipgate;desc=\"{of_blue}\"");
        assert_eq!(answer.field("server-timing"), Some(&*timing), "{path}: {}", answer.head);
        assert!(path != "/close" || answer.status == 502, "an error of Flipgate");
        client = proxy.public().await;
    }
    let previewed = proxy.internal().await.get("/", "Flipgate-Preview: green\r\n").await;
    let of_green = preview(&proxy, "green").await.0;
    assert_eq!(previewed.field("flipgate-version"), Some(&*of_green));
    proxy.promote(&[("web", "green")]).await;
    let mut http2 = Http2::connect(client::PUBLIC, proxy.public).await;
    assert_eq!(http2.get("/", "").await.field("flipgate-version"), Some(&*of_green));
}

#[tokio::test]
async fn without_header_no_answer_has_the_id() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    for path in ["/", "/.flipgate/version"] {
        let answer = proxy.public().await.get(path, "").await;
        assert_eq!(answer.field("flipgate-version"), None, "{}", answer.head);
        assert_eq!(answer.field("server-timing"), None, "{}", answer.head);
    }
}

#[tokio::test]
async fn the_script_is_small_and_is_sent_once() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").start();
    let mut client = proxy.public().await;
    let script = client.get("/.flipgate/reload.js", "").await;
    assert_eq!(script.field("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(script.field("cache-control"), Some("public, max-age=3600"));
    assert_eq!(script.field("x-content-type-options"), Some("nosniff"));
    assert!(script.body.len() <= 1536, "{}", script.body.len());
    assert!(script.text().contains("sessionStorage"), "{}", script.text());
    let tag = script.field("etag").expect("a tag").to_owned();
    let known = client.get("/.flipgate/reload.js", &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((known.status, known.field("etag")), (304, Some(&*tag)));
    assert_eq!((known.field("content-length"), known.body.len()), (None, 0));
    let other = client.get("/.flipgate/reload.js", "If-None-Match: \"other\"\r\n").await;
    assert_eq!((other.status, other.body.len()), (200, script.body.len()));
    let mut http2 = Http2::connect(client::PUBLIC, proxy.public).await;
    assert_eq!(http2.get("/.flipgate/reload.js", "").await.text(), script.text());
}

#[tokio::test]
async fn a_client_over_its_rate_gets_no_id() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = service(&blue, &green, "").services("limits.client_rate = \"1/s\"").start();
    let mut answer = proxy.public().await.get("/.flipgate/version", "").await;
    assert_eq!(answer.status, 200);
    let mut client = Client::connect(client::PUBLIC, proxy.public).await;
    while answer.status == 200 {
        answer = client.get("/.flipgate/version", "").await;
    }
    assert_eq!(answer.status, 429);
}
