//! Pins in cookies: which response sets one, and where it leads.

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use serde_json::json;
use tokio::sync::Semaphore;

use super::{Browser, application, get, pinned};
use crate::support::{Client, TestProxy, client, eventually};

#[tokio::test]
async fn a_page_goes_on_with_its_version_and_a_new_page_gets_the_new_one() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let mut browser = Browser::of(&proxy).await;
    let page = browser.navigate("/").await;
    assert_eq!(page.text(), "blue");
    let cookie = page.field("set-cookie").expect("a pin").to_owned();
    assert!(cookie.starts_with("flipgate_pin_web="), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(browser.fetch("/api").await, "blue");
    assert_eq!(get(&proxy, "/api", "").await.text(), "green", "others go to green");
    let page = browser.navigate("/").await;
    assert_eq!(page.text(), "green", "or a page that reloads would loop");
    assert_eq!(browser.fetch("/api").await, "green");
    assert_eq!(
        proxy.metric("flipgate_pinned_requests_total{color=\"blue\",service=\"web\"}").await,
        1.0
    );
    // The application sees no cookie of Flipgate.
    browser.cookies.insert("sid".to_owned(), "7".to_owned());
    browser.fetch("/seen").await;
    let seen = green.requests();
    assert_eq!(seen.last().expect("a request").header("cookie"), "sid=7");
}

#[tokio::test]
async fn insiders_see_that_a_request_is_pinned_and_the_public_does_not() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    for (address, expected) in [(client::INTERNAL, Some("blue")), (client::PUBLIC, None)] {
        let mut browser = Browser::from(address, &proxy).await;
        browser.navigate("/").await;
        let before = browser.get("/api", "").await;
        assert_eq!(before.field("flipgate-pinned"), None, "it is active");
        let color = if before.text() == "blue" { "green" } else { "blue" };
        proxy.promote(&[("web", color)]).await;
        let after = browser.get("/api", "").await;
        assert_eq!(after.text(), before.text());
        let expected = expected.map(|_| before.text());
        assert_eq!(after.field("flipgate-pinned"), expected.as_deref());
    }
}

#[tokio::test]
async fn only_a_response_that_no_shared_cache_may_keep_sets_a_pin() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    for path in ["/cacheable", "/public", "/stored-by-cdn"] {
        let page = Browser::of(&proxy).await.navigate(path).await;
        assert_eq!(page.field("set-cookie"), None, "{path}");
    }
    let page = Browser::of(&proxy).await.navigate("/public").await;
    assert_eq!(page.field("cache-control"), Some("public, max-age=60"));
    // A page of green with the pin of the page before would talk to blue.
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    let page = browser.navigate("/public").await;
    assert_eq!(page.text(), "green");
    assert_eq!(page.field("cache-control"), Some("private, max-age=60"));
    assert!(page.field("set-cookie").is_some());
    assert_eq!(browser.fetch("/api").await, "green");

    let proxy = pinned(&blue, &green, "cacheable = \"private\"").start();
    for (path, caching) in [
        ("/cacheable", "private"),
        ("/public", "private, max-age=60"),
        ("/stored-by-cdn", "private"),
    ] {
        let page = Browser::of(&proxy).await.navigate(path).await;
        assert!(page.field("set-cookie").is_some(), "{path}");
        assert_eq!(page.field("cache-control"), Some(caching), "{path}");
        assert_eq!(page.field("cdn-cache-control"), None);
        let other = get(&proxy, path, "").await;
        assert_ne!(other.field("cache-control"), Some("private, max-age=60"), "no navigation");
    }
}

#[tokio::test]
async fn a_navigation_begins_a_transaction_and_nothing_else_does() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    for (fields, begins) in [
        ("Sec-Fetch-Dest: document\r\n", true),
        ("Sec-Fetch-Dest: iframe\r\n", true),
        ("Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: navigate\r\n", true),
        ("Sec-Fetch-Dest: empty\r\nAccept: text/html\r\n", false),
        ("Sec-Fetch-Dest: script\r\n", false),
        ("Sec-Fetch-Dest: document\r\nSec-Purpose: prefetch\r\n", false),
        ("Sec-Fetch-Dest: document\r\nSec-Purpose: prefetch;prerender\r\n", false),
        ("Sec-Fetch-Dest: document\r\nPurpose: prefetch\r\n", false),
        ("Accept: text/html,application/xhtml+xml\r\n", true),
        ("Accept: */*\r\n", false),
        ("Accept: text/html\r\nSec-Purpose: prefetch\r\n", false),
        ("", false),
    ] {
        let answer = get(&proxy, "/", fields).await;
        assert_eq!(answer.field("set-cookie").is_some(), begins, "{fields:?}");
    }
    let mut client = proxy.public().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(
        client.answer().await.field("set-cookie"),
        None,
        "only a GET without Fetch Metadata"
    );
    // A prefetch does not move a pin either.
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    let ahead = browser.get("/", "Sec-Fetch-Dest: document\r\nSec-Purpose: prefetch\r\n").await;
    assert_eq!((ahead.text(), ahead.field("set-cookie")), ("blue".to_owned(), None));
    assert_eq!(browser.fetch("/api").await, "blue");
}

#[tokio::test]
async fn a_forged_pin_leads_nowhere() {
    let (blue, green) = (application("blue").await, application("green").await);
    let services = "[service.api]\nhosts = [\"api.test\"]\npin = {}\n";
    let api = format!("blue.endpoints = [{:?}]\n", blue.address.to_string());
    let proxy = pinned(&blue, &green, "").services(&format!("{services}{api}")).start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    let pin = browser.pin().to_owned();
    let mut other = Client::connect(client::PUBLIC, proxy.public).await;
    other.send("GET / HTTP/1.1\r\nHost: api.test\r\nSec-Fetch-Dest: document\r\n\r\n").await;
    let of_api = other.answer().await;
    let of_api = of_api.field("set-cookie").expect("a pin").to_owned();
    let of_api = of_api.split([';', '=']).nth(1).expect("a value").to_owned();
    proxy.promote(&[("web", "green")]).await;
    let changed: String = pin.chars().rev().collect();
    let swapped = match pin.strip_suffix('A') {
        Some(start) => format!("{start}Q"),
        None => format!("{}A", &pin[..pin.len() - 1]),
    };
    for (forged, what) in [
        (&*of_api, "of another service"),
        (&*changed, "backwards"),
        (&*swapped, "another tag"),
        (&pin[1..], "cut"),
        ("blue", "a color"),
        ("", "empty"),
    ] {
        let fields = format!("Cookie: flipgate_pin_web={forged}\r\n");
        assert_eq!(get(&proxy, "/api", &fields).await.text(), "green", "{what}");
    }
    let fields = format!("Cookie: a=b; flipgate_pin_web=x; flipgate_pin_web={pin}\r\n");
    assert_eq!(get(&proxy, "/api", &fields).await.text(), "blue", "the true one among others");
}

#[tokio::test]
async fn no_client_can_be_pinned_to_a_color_that_was_not_active() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    // A preview of an insider begins no transaction.
    let mut insider = Browser::from(client::INTERNAL, &proxy).await;
    let preview = "Flipgate-Preview: green\r\nSec-Fetch-Dest: document\r\n";
    let page = insider.get("/", preview).await;
    assert_eq!((page.text(), page.field("set-cookie")), ("green".to_owned(), None));
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    assert_eq!(browser.fetch("/api").await, "blue");
    // Blue is set anew while green is active: its old pins are void.
    proxy.promote(&[("web", "green")]).await;
    let next = application("next").await;
    let body = json!({"endpoints": [next.address.to_string()], "force": true}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(browser.fetch("/api").await, "green");
}

#[tokio::test]
async fn a_pin_to_a_color_without_an_endpoint_that_is_up_is_void() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "")
        .services("[service.web.health]\ninterval = \"100ms\"\nfall = 1\n")
        .start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(browser.fetch("/api").await, "blue");
    drop(blue);
    proxy.wait_for_health("blue", 0, "down").await;
    assert_eq!(browser.fetch("/api").await, "green");
}

#[tokio::test]
async fn a_pinned_page_learns_at_once_that_another_version_is_active() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").services("[service.web.version_signal]").start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    let before = browser.fetch("/.flipgate/version").await;
    proxy.promote(&[("web", "green")]).await;
    let after = browser.fetch("/.flipgate/version").await;
    assert_ne!(after, before);
    assert_eq!(after, get(&proxy, "/.flipgate/version", "").await.text());
    assert_eq!(browser.fetch("/api").await, "blue", "it is pinned nevertheless");
    browser.navigate("/").await;
    assert_eq!(browser.fetch("/.flipgate/version").await, after);
}

#[tokio::test]
async fn services_of_a_group_share_a_pin() {
    let (blue, green) = (application("blue").await, application("green").await);
    let api = |color: &str, it: &crate::support::Application| {
        format!("{color}.endpoints = [{:?}]\n", it.address.to_string())
    };
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[green.address])
        .services("[service.web.pin]\ngroup = \"shop\"\n[service.api]\npath = \"/api\"\n")
        .services(&api("blue", &blue))
        .services(&api("green", &green))
        .services("[service.api.pin]\ngroup = \"shop\"\nstart = [\"path:/api/begin\"]\n")
        .start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    assert!(browser.cookies.contains_key("flipgate_pin_shop"), "{:?}", browser.cookies);
    proxy.promote(&[("web", "green"), ("api", "green")]).await;
    assert_eq!(browser.fetch("/script").await, "blue");
    assert_eq!(browser.fetch("/api/list").await, "blue");
    assert_eq!(get(&proxy, "/api/list", "").await.text(), "green");
}

#[tokio::test]
async fn a_service_of_a_group_is_held_by_pins_that_another_one_has_set() {
    let (blue, green) = (application("blue").await, application("green").await);
    let api = |color: &str, it: &crate::support::Application| {
        format!("{color}.endpoints = [{:?}]\n", it.address.to_string())
    };
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[green.address])
        .services("[service.web.pin]\ngroup = \"shop\"\n[service.api]\npath = \"/api\"\n")
        .services(&api("blue", &blue))
        .services(&api("green", &green))
        .services("[service.api.pin]\ngroup = \"shop\"\nstart = [\"path:/api/begin\"]\n")
        .services("[service.alone]\npath = \"/alone\"\n")
        .services(&api("blue", &blue))
        .services(&api("green", &green))
        .services("[service.alone.pin]\n")
        .start();
    // The pins of an earlier process to these colors are void, and the services have set none since.
    let body = json!({"endpoints": [green.address.to_string()], "force": true}).to_string();
    for service in ["api", "alone"] {
        let path = format!("/v1/services/{service}/pools/green");
        assert_eq!(proxy.call("PUT", &path, "", &body).await.status, 200);
    }
    let all = |color| [("web", color), ("api", color), ("alone", color)];
    proxy.promote(&all("green")).await;
    let mut browser = Browser::of(&proxy).await;
    assert_eq!(browser.navigate("/").await.text(), "green");
    proxy.promote(&all("blue")).await;
    // A service without a group is not held: by now the same check has been made for all.
    let is_drained = async |service| proxy.drain(service).await["drained"] == true;
    eventually("the window of one service is closed", async || is_drained("alone").await).await;
    assert!(!is_drained("api").await);
    assert_eq!(browser.fetch("/script").await, "green");
    assert_eq!(browser.fetch("/api/list").await, "green");
}

#[tokio::test]
async fn an_old_key_stays_valid_and_a_new_one_signs() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let (mut early, mut late) = (Browser::of(&proxy).await, Browser::of(&proxy).await);
    early.navigate("/").await;
    let generation = proxy.generation().await;
    let rotated = proxy.call("POST", "/v1/pins/rotate", "", "{}").await;
    assert_eq!(rotated.status, 200, "{}", rotated.text());
    assert_eq!(proxy.generation().await, generation, "routing has not changed");
    late.navigate("/").await;
    assert_ne!(early.pin()[..8], late.pin()[..8], "another key");
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(
        (early.fetch("/api").await, late.fetch("/api").await),
        ("blue".into(), "blue".into())
    );

    let plain =
        TestProxy::build().service_of("web", "*", "/", &[blue.address], &[green.address]).start();
    let refused = plain.call("POST", "/v1/pins/rotate", "", "{}").await;
    assert_eq!((refused.status, &refused.json()["reasons"][0]["code"]), (409, &json!("no_pins")));
}

#[tokio::test]
async fn only_the_user_of_flipgate_can_read_the_keys() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let mut with_keys = 0;
    for file in fs::read_dir(proxy.state_folder()).expect("it is readable") {
        let file = file.expect("it is readable");
        let content = fs::read(file.path()).expect("it is readable");
        if memchr::memmem::find(&content, b"\"secret\"").is_some() {
            with_keys += 1;
            let mode = file.metadata().expect("it is there").permissions().mode();
            assert_eq!(mode & 0o077, 0, "{:?}", file.path());
        }
    }
    assert!(with_keys > 0, "the keys are stored");
}

#[tokio::test]
async fn a_pin_survives_a_restart() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let mut browser = Browser::of(&proxy).await;
    browser.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    let state = proxy.shut_down();
    let proxy = pinned(&blue, &green, "").state(state).start();
    browser.client = proxy.public().await;
    assert_eq!(browser.fetch("/api").await, "blue");
    let drain = proxy.drain("web").await;
    assert_eq!((&drain["drained"], &drain["held_by"]), (&json!(false), &json!(["pins"])));
    // And with less time than has passed, it ends.
    let state = proxy.shut_down();
    let proxy = pinned(&blue, &green, "max_age = \"1ms\"").state(state).start();
    browser.client = proxy.public().await;
    assert_eq!(browser.fetch("/api").await, "green");
    assert_eq!(proxy.drain("web").await["drained"], true);
}

#[tokio::test]
async fn a_rollback_ends_the_pins_to_what_it_takes_back() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").start();
    let (mut of_blue, mut of_green) = (Browser::of(&proxy).await, Browser::of(&proxy).await);
    of_blue.navigate("/").await;
    proxy.promote(&[("web", "green")]).await;
    of_green.navigate("/").await;
    let rollback = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!(rollback.status, 200, "{}", rollback.text());
    assert_eq!(of_green.fetch("/api").await, "blue");
    assert_eq!(of_blue.fetch("/api").await, "blue");
    assert_eq!(proxy.drain("web").await["drained"], true, "nothing is pinned to green");
    // A flip back that is no rollback keeps them, on both sides.
    proxy.promote(&[("web", "green")]).await;
    of_green.navigate("/").await;
    proxy.promote(&[("web", "blue")]).await;
    assert_eq!(of_green.fetch("/api").await, "green");
    assert_eq!(of_blue.fetch("/api").await, "blue");
}

#[tokio::test]
async fn a_flip_under_load_never_mixes_the_versions_of_a_page() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = pinned(&blue, &green, "").workers(3).start();
    let mut pages = tokio::task::JoinSet::new();
    // A flip for every two pages: more than a few dozen flips within one page are not remembered.
    let done = Arc::new(Semaphore::new(0));
    for _ in 0..6 {
        let (mut browser, done) = (Browser::of(&proxy).await, Arc::clone(&done));
        pages.spawn(async move {
            let mut seen = [0, 0];
            for _ in 0..60 {
                let version = browser.navigate("/").await.text();
                for _ in 0..5 {
                    assert_eq!(browser.fetch("/api").await, version);
                }
                seen[usize::from(version == "green")] += 1;
                done.add_permits(1);
            }
            seen
        });
    }
    let mut flips = 0;
    let mut seen = [0, 0];
    for _ in 0..150 {
        flips += 1;
        proxy.promote(&[("web", if flips % 2 == 1 { "green" } else { "blue" })]).await;
        done.acquire_many(2).await.expect("it is not closed").forget();
    }
    while let Some(page) = pages.join_next().await {
        let counted = page.expect("no version was mixed");
        seen = [seen[0] + counted[0], seen[1] + counted[1]];
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}
