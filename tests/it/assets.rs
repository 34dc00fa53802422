//! A missing asset is asked of the other color, and nothing else is.

mod claims;

use crate::support::{
    AppRequest, Application, Http2, Reply, TestProxy, client, test_proxy::TestProxyBuilder,
};

/// A script of blue, and one of green.
const BLUE: &str = "/static/app.b10eb10e.js";
const GREEN: &str = "/static/app.96ee0096.js";

/// An application with these files. For all other paths it has a 404 that caches may keep.
async fn app(name: &'static str, files: &'static [&'static str]) -> Application {
    Application::start(move |request| {
        let path = request.path.split('?').next().unwrap_or_default();
        match files.contains(&path) {
            true => file(request, &format!("{name} {path}")),
            false => missing(404, name),
        }
    })
    .await
}

/// A file with a validator, which can be asked for in parts.
fn file(request: &AppRequest, content: &str) -> Reply {
    let kind = ("content-type", "text/javascript".to_owned());
    let cache = ("cache-control", "max-age=31536000, immutable".to_owned());
    let tag = ("etag", "\"1\"".to_owned());
    if request.header("if-none-match") == "\"1\"" {
        return Reply::Full(304, vec![tag], String::new());
    }
    match request.header("range") {
        "bytes=0-3" => {
            let range = ("content-range", format!("bytes 0-3/{}", content.len()));
            Reply::Full(206, vec![kind, tag, range], content[..4].to_owned())
        }
        _ => Reply::Full(200, vec![kind, cache, tag], content.to_owned()),
    }
}

fn missing(status: u16, name: &str) -> Reply {
    let cache = ("cache-control", "public, max-age=60".to_owned());
    Reply::Full(status, vec![cache], format!("{name} has no such file"))
}

fn service(blue: &Application, green: &Application, settings: &str) -> TestProxyBuilder {
    TestProxy::build().service_of("web", "*", "/", &[blue.address], &[green.address]).services(
        &format!("health.interval = \"1h\"\nassets = {{ prefixes = [\"/static/\"] {settings} }}"),
    )
}

/// Blue with its script, and green with its own.
async fn colors() -> (Application, Application) {
    (app("blue", &[BLUE, "/static/sw.js"]).await, app("green", &[GREEN]).await)
}

async fn get(proxy: &TestProxy, path: &str) -> (u16, String) {
    let answer = proxy.public().await.get(path, "").await;
    (answer.status, answer.text())
}

fn found(color: &str, path: &str) -> (u16, String) {
    (200, format!("{color} {path}"))
}

#[tokio::test]
async fn before_during_and_after_a_flip_the_assets_of_both_active_versions_are_found() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    assert_eq!(get(&proxy, BLUE).await, found("blue", BLUE));
    assert_eq!(get(&proxy, GREEN).await.0, 404, "green was never active");
    assert!(green.requests_for(GREEN).is_empty(), "and was not asked");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, GREEN).await, found("green", GREEN));
    assert_eq!(get(&proxy, BLUE).await, found("blue", BLUE));
    proxy.promote(&[("web", "blue")]).await;
    assert_eq!(get(&proxy, GREEN).await, found("green", GREEN), "it was active");
    // Endpoints that are set anew were never active.
    let pool = serde_json::json!({"version": "3", "endpoints": [green.address.to_string()]});
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &pool.to_string()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(get(&proxy, GREEN).await.0, 404);
}

/// A page that the candidate has sent needs its files, also from a client that keeps no cookies, and also after a rollback.
#[tokio::test]
async fn the_assets_of_a_candidate_are_found_since_it_has_a_share_of_the_public() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    let promote = async |body: &str| {
        let body = format!(r#"{{"services": {{"web": "green"}}, "step_for": "1h", {body}}}"#);
        let answer = proxy.call("POST", "/v1/promote", "", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    promote(r#""steps": [1, 100], "first": true"#).await;
    assert_eq!(get(&proxy, GREEN).await.0, 404, "its share is 0 %");
    promote(r#""steps": [1, 100]"#).await;
    assert_eq!(get(&proxy, GREEN).await, found("green", GREEN));
    assert_eq!(get(&proxy, BLUE).await, found("blue", BLUE));
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    assert_eq!(get(&proxy, GREEN).await, found("green", GREEN), "it was taken back");
    let proxy = service(&blue, &green, "").state(proxy.shut_down()).start();
    assert_eq!(get(&proxy, GREEN).await, found("green", GREEN), "a restart forgets nothing");
    let pool = serde_json::json!({"version": "3", "endpoints": [green.address.to_string()]});
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &pool.to_string()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(get(&proxy, GREEN).await.0, 404, "these endpoints had no share");
}

#[tokio::test]
async fn an_internal_client_may_ask_a_color_that_was_never_active_and_sees_where_it_comes_from() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    let answer = proxy.internal().await.get(GREEN, "").await;
    assert_eq!((answer.status, answer.text()), found("green", GREEN));
    assert_eq!(answer.field("flipgate-asset-from"), Some("green"));
    assert_eq!(answer.field("flipgate-color"), Some("green"));
    assert_eq!(answer.field("cache-control"), Some("max-age=31536000, immutable"));
    // A preview of green gets the files of blue, and no cache keeps it.
    let answer = proxy.internal().await.get(BLUE, "Flipgate-Preview: green\r\n").await;
    assert_eq!((answer.status, answer.text()), found("blue", BLUE));
    assert_eq!(answer.field("cache-control"), Some("private, no-store"));
    let own = proxy.internal().await.get(BLUE, "").await;
    assert_eq!(own.field("flipgate-asset-from"), None);
    proxy.promote(&[("web", "green")]).await;
    let public = proxy.public().await.get(BLUE, "").await;
    assert_eq!((public.status, public.field("flipgate-asset-from")), (200, None));
}

#[tokio::test]
async fn a_final_404_is_the_first_one_and_no_cache_keeps_it() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    for path in ["/static/none.0123abcd.js", "/static/none.js"] {
        let answer = proxy.public().await.get(path, "").await;
        assert_eq!((answer.status, &*answer.text()), (404, "green has no such file"));
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{path}");
        let asked = usize::from(path.contains("0123abcd"));
        assert_eq!(blue.requests_for(path).len(), asked, "{path}: once, if it has a hash");
    }
    // Elsewhere a 404 is the application's own.
    let answer = proxy.public().await.get("/page.0123abcd.js", "").await;
    assert_eq!((answer.status, answer.field("cache-control")), (404, Some("public, max-age=60")));
}

#[tokio::test]
async fn only_names_with_a_hash_fall_back_unless_the_service_says_otherwise() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, "/static/sw.js").await.0, 404);
    let proxy = service(&blue, &green, ", hashed_only = false").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, "/static/sw.js").await, found("blue", "/static/sw.js"));
}

#[tokio::test]
async fn only_get_and_head_below_a_prefix_fall_back() {
    let (blue, green) = (app("blue", &[BLUE, "/app.b10eb10e.js"]).await, app("green", &[]).await);
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = proxy.public().await;
    client.send(format!("HEAD {BLUE}?v=1 HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let answer = client.answer_to_head().await;
    assert_eq!((answer.status, answer.field("etag")), (200, Some("\"1\"")));
    for method in ["POST", "DELETE"] {
        client
            .send(format!("{method} {BLUE} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.field("cache-control")),
            (404, Some("public, max-age=60"))
        );
    }
    assert_eq!(get(&proxy, "/app.b10eb10e.js").await.0, 404);
    // The path counts as it is routed.
    assert_eq!(get(&proxy, "/static/../app.b10eb10e.js").await.0, 404);
    assert_eq!(blue.requests().len(), 1, "{:?}", blue.requests());
}

#[tokio::test]
async fn ranges_and_conditions_are_those_of_the_color_that_has_the_asset() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    let ask = async || {
        let mut client = proxy.public().await;
        let part = client.get(BLUE, "Range: bytes=0-3\r\n").await;
        assert_eq!((part.status, &*part.text()), (206, "blue"), "{}", part.head);
        let known = client.get(BLUE, "If-None-Match: \"1\"\r\n").await;
        assert_eq!((known.status, known.field("etag")), (304, Some("\"1\"")), "{}", known.head);
        assert_eq!(known.field("cache-control"), None);
    };
    ask().await;
    proxy.promote(&[("web", "green")]).await;
    ask().await;
    proxy.promote(&[("web", "blue")]).await;
    ask().await;
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = Http2::connect(client::PUBLIC, proxy.public).await;
    let answer = client.get(BLUE, "range: bytes=0-3").await;
    assert_eq!((answer.status, &*answer.text()), (206, "blue"));
    let answer = client.get("/static/none.0123abcd.js", "").await;
    assert_eq!((answer.status, answer.field("cache-control")), (404, Some("no-store")));
    let answer = client.get(GREEN, "").await;
    assert_eq!((answer.status, answer.text()), found("green", GREEN));
}

/// An application that answers every path that it does not know with its index page.
async fn single_page(name: &'static str, files: &'static [&'static str]) -> Application {
    Application::start(move |request| match files.contains(&&*request.path) {
        true => file(request, &format!("{name} {}", request.path)),
        false => {
            let kind = ("content-type", "Text/HTML; charset=utf-8".to_owned());
            let cache = ("cache-control", "max-age=31536000".to_owned());
            Reply::Full(200, vec![kind, cache], format!("{name} page"))
        }
    })
    .await
}

#[tokio::test]
async fn a_page_in_place_of_a_script_is_missing_and_all_other_pages_are_pages() {
    let (blue, green) = (single_page("blue", &[BLUE]).await, single_page("green", &[]).await);
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, BLUE).await, found("blue", BLUE));
    let none = proxy.public().await.get("/static/none.0123abcd.css", "").await;
    assert_eq!((none.status, &*none.text()), (200, "green page"), "neither has it");
    assert_eq!(none.field("cache-control"), Some("no-store"));
    for path in ["/", "/static/page", "/static/app.js", "/static/page.0123abcd.html"] {
        let page = proxy.public().await.get(path, "").await;
        assert_eq!((page.status, &*page.text()), (200, "green page"), "{path}");
        assert_eq!(page.field("cache-control"), Some("max-age=31536000"), "{path}");
    }
    let proxy = service(&blue, &green, ", html_is_missing = false").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, BLUE).await, (200, "green page".to_owned()));
}

#[tokio::test]
async fn the_declared_statuses_say_what_is_missing() {
    let blue = app("blue", &[BLUE]).await;
    for (status, settings, expected) in [
        (410, "", 410),
        (410, ", status = [\"404\", \"410\"]", 200),
        (404, ", status = [\"410\"]", 404),
        (403, "", 403),
        (500, "", 500),
    ] {
        let green = Application::start(move |_| missing(status, "green")).await;
        let proxy = service(&blue, &green, settings).start();
        proxy.promote(&[("web", "green")]).await;
        assert_eq!(get(&proxy, BLUE).await.0, expected, "{status} {settings}");
    }
}

#[tokio::test]
async fn without_the_setting_nothing_falls_back() {
    let (blue, green) = colors().await;
    let proxy =
        TestProxy::build().service_of("web", "*", "/", &[blue.address], &[green.address]).start();
    proxy.promote(&[("web", "green")]).await;
    let answer = proxy.public().await.get(BLUE, "").await;
    assert_eq!((answer.status, answer.field("cache-control")), (404, Some("public, max-age=60")));
}
