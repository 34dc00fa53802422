//! Which clients get the candidate, and that they keep it.

use serde_json::json;

use super::{application, clients, get, moved, of, promote};
use crate::{
    pins::Browser,
    support::{client, eventually},
};

#[tokio::test]
async fn a_raised_share_keeps_every_client_that_has_moved() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[50, 80, 100], json!({})).await;
    let mut all = clients(&proxy, 100).await;
    let first = moved(&mut all).await;
    assert!((20..=80).contains(&first), "{first} of 100 at 50 %");
    assert_eq!(moved(&mut all).await, first, "a client stays where it is");
    promote(&proxy, &[80, 100], json!({})).await;
    let second = moved(&mut all).await;
    assert!(second > first && second < 100, "{second} of 100 at 80 %");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(moved(&mut all).await, 100);
}

#[tokio::test]
async fn the_cookie_is_no_secret_and_its_holder_cannot_choose_the_color_by_it() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[1, 100], json!({})).await;
    let mut browser = Browser::of(&proxy).await;
    let page = browser.navigate("/").await;
    let cookie = page.field("set-cookie").expect("a share").to_owned();
    assert!(cookie.starts_with("flipgate_share="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    // What Flipgate has not written is no cookie: the client gets another one.
    for forged in ["green", "", "0", "ABCDEF0123456789", "0123456789abcdef0"] {
        let fields = format!("Sec-Fetch-Dest: document\r\nCookie: flipgate_share={forged}\r\n");
        assert!(get(&proxy, "/", &fields).await.field("set-cookie").is_some(), "{forged}");
    }
    browser.cookies.insert("sid".to_owned(), "7".to_owned());
    let color = browser.fetch("/seen").await;
    let seen = if color == "blue" { blue.requests() } else { green.requests() };
    assert_eq!(seen.last().expect("a request").header("cookie"), "sid=7");
}

#[tokio::test]
async fn a_client_without_a_cookie_moves_only_with_a_response_that_sets_one() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[99, 100], json!({})).await;
    for fields in [
        "Sec-Fetch-Dest: image\r\n",
        "Sec-Fetch-Dest: script\r\n",
        "Sec-Fetch-Dest: document\r\nSec-Purpose: prefetch\r\n",
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        let answer = get(&proxy, "/", fields).await;
        assert_eq!(
            (answer.text(), answer.field("set-cookie")),
            ("blue".to_owned(), None),
            "{fields}"
        );
    }
    let mut seen = (0, 0);
    for _ in 0..60 {
        let answer = get(&proxy, "/", "").await;
        assert!(answer.field("set-cookie").is_some());
        seen.0 += usize::from(answer.text() == "green");
        // How long a shared cache may keep it is said: it stays so, unless the client moves.
        let answer = get(&proxy, "/public", "").await;
        match answer.text() == "green" {
            true => {
                assert_eq!(answer.field("cache-control"), Some("private, max-age=60"));
                assert!(answer.field("set-cookie").is_some());
                seen.1 += 1;
            }
            false => {
                assert_eq!(answer.field("cache-control"), Some("public, max-age=60"));
                assert_eq!(answer.field("set-cookie"), None);
            }
        }
        let answer = get(&proxy, "/unstated", "").await;
        assert_eq!(answer.field("cache-control"), Some("private"));
        assert!(answer.field("set-cookie").is_some());
    }
    assert!(seen.0 > 40 && seen.1 > 40, "{seen:?} of 60 at 99 %");
}

/// A browser sends no `SameSite=Lax` cookie with these, so that the client seems to be new.
#[tokio::test]
async fn a_request_of_another_site_draws_no_new_share_unless_it_is_a_navigation_by_get() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[99, 100], json!({})).await;
    let ask = async |method: &str, dest: &str, site: &str| {
        let mut client = proxy.public().await;
        client
            .send(format!(
                "{method} / HTTP/1.1\r\nHost: web.test\r\nSec-Fetch-Dest: {dest}\r\nSec-Fetch-Site: {site}\r\n\
                 Content-Length: 0\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await;
        (answer.text(), answer.field("set-cookie").is_some())
    };
    for (method, dest) in
        [("POST", "document"), ("GET", "iframe"), ("GET", "empty"), ("POST", "empty")]
    {
        let found = ask(method, dest, "cross-site").await;
        assert_eq!(found, ("blue".to_owned(), false), "{method} {dest}");
        assert!(ask(method, dest, "same-site").await.1, "{method} {dest}");
    }
    assert!(ask("GET", "document", "cross-site").await.1);
}

#[tokio::test]
async fn a_shared_cache_keeps_no_response_of_the_candidate_but_files_with_a_hash() {
    let (blue, green) = (application("blue").await, application("green").await);
    for settings in ["", "[service.web.pin]\n"] {
        let proxy = of(&blue, &green, settings).start();
        promote(&proxy, &[50, 100], json!({})).await;
        for (browser, color) in &mut clients(&proxy, 20).await {
            let expected = match color.as_str() {
                "green" => "private, max-age=60",
                _ => "public, max-age=60",
            };
            let page = browser.get("/public", "Sec-Fetch-Dest: empty\r\n").await;
            assert_eq!((&page.text(), page.field("cache-control")), (&*color, Some(expected)));
            let hashed = "/public/app.3f2c9a7b.js";
            let asset = browser.get(hashed, "Sec-Fetch-Dest: script\r\n").await;
            let kept = Some("public, max-age=60");
            assert_eq!((&asset.text(), asset.field("cache-control")), (&*color, kept));
        }
    }
}

#[tokio::test]
async fn a_header_of_the_client_can_tell_clients_apart() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "share = { by = \"header:X-User\" }").start();
    promote(&proxy, &[50, 100], json!({})).await;
    let mut green_users = 0;
    for user in 0..60 {
        let fields = format!("X-User: {user}\r\n");
        let color = get(&proxy, "/", &fields).await;
        assert_eq!(color.field("set-cookie"), None);
        green_users += usize::from(color.text() == "green");
        assert_eq!(get(&proxy, "/", &fields).await.text(), color.text(), "{user}");
    }
    assert!((10..=50).contains(&green_users), "{green_users} of 60");
    for _ in 0..20 {
        assert_eq!(get(&proxy, "/", "").await.text(), "blue", "it cannot be told apart");
    }
    let twice = "X-User: 1\r\nX-User: 2\r\n";
    assert_eq!(get(&proxy, "/", twice).await.text(), "blue");
}

#[tokio::test]
async fn a_page_keeps_its_version_over_a_raise_the_promotion_and_a_return() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "[service.web.pin]\n").start();
    promote(&proxy, &[50, 99, 100], json!({})).await;
    let mut all = clients(&proxy, 40).await;
    assert!(all.iter().any(|it| it.1 == "blue") && all.iter().any(|it| it.1 == "green"));
    // At 99 % most clients of blue would move, but the page stays what it is.
    promote(&proxy, &[99, 100], json!({})).await;
    for (browser, color) in &mut all {
        assert_eq!(browser.fetch("/api").await, *color);
    }
    proxy.promote(&[("web", "green")]).await;
    for (browser, color) in &mut all {
        assert_eq!(browser.fetch("/api").await, *color, "the transaction began there");
        assert_eq!(browser.navigate("/").await.text(), "green");
        assert_eq!(browser.fetch("/api").await, "green");
    }
}

#[tokio::test]
async fn pages_of_a_candidate_that_is_taken_back_go_on_with_the_active_color() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "[service.web.pin]\n").start();
    promote(&proxy, &[99, 100], json!({})).await;
    let mut all = clients(&proxy, 20).await;
    assert!(all.iter().any(|it| it.1 == "green"));
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    for (browser, _) in &mut all {
        assert_eq!(browser.fetch("/api").await, "blue");
    }
    // The pins of then are void for good.
    promote(&proxy, &[1, 100], json!({})).await;
    for (browser, _) in &mut all {
        browser.cookies.remove("flipgate_share");
        assert_eq!(browser.get("/api", "Sec-Fetch-Dest: image\r\n").await.text(), "blue");
    }
}

#[tokio::test]
async fn a_candidate_that_is_down_gets_no_client() {
    let (blue, green) = (application("blue").await, application("green").await);
    let health = "health = { interval = \"100ms\", timeout = \"1s\", fall = 1, rise = 1 }";
    let proxy = of(&blue, &green, health).start();
    promote(&proxy, &[99, 100], json!({})).await;
    let mut all = clients(&proxy, 10).await;
    assert!(all.iter().any(|it| it.1 == "green"));
    drop(green);
    proxy.wait_for_health("green", 0, "down").await;
    for (browser, _) in &mut all {
        assert_eq!(browser.fetch("/api").await, "blue", "rather the active version than an error");
    }
    assert_eq!(get(&proxy, "/", "").await.text(), "blue");
}

#[tokio::test]
async fn the_public_cannot_ask_for_the_candidate() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[1, 100], json!({"first": true})).await;
    for fields in [
        "Flipgate-Preview: green\r\n",
        "Flipgate-First: green\r\n",
        "Flipgate-First: 00000000000000000000000000000000\r\n",
        "Cookie: flipgate_first=1; flipgate_preview=green\r\n",
        "Flipgate-Share: green\r\n",
    ] {
        assert_eq!(get(&proxy, "/", fields).await.text(), "blue", "{fields}");
    }
    eventually("seen by none", async || green.requests().is_empty()).await;
    assert_eq!(client::PUBLIC, "127.0.0.2");
}
