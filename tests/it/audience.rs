//! Green is visible to internal clients only, until it is active.

use serde_json::json;

use crate::support::{Client, TestProxy, Upstream, client};

/// Everything that a public client might send to get green.
const TRICKS: [&str; 14] = [
    "Flipgate-Preview: green\r\n",
    "flipgate-preview: green\r\nFLIPGATE-PREVIEW: green\r\n",
    "Cookie: flipgate_preview=green\r\n",
    "Cookie: a=b; flipgate_preview=green; c=d\r\n",
    "Flipgate-Preview: green\r\nX-Forwarded-For: 127.0.0.1\r\n",
    "Flipgate-Preview: green\r\nX-Forwarded-For: 127.0.0.1, 127.0.0.1\r\n",
    "Flipgate-Preview: green\r\nForwarded: for=127.0.0.1\r\n",
    "Flipgate-Preview: green\r\nForwarded: for=\"[::1]\"\r\n",
    "Flipgate-Preview: green\r\nX-Real-IP: 127.0.0.1\r\n",
    "Flipgate-Preview: green\r\nTrue-Client-IP: 127.0.0.1\r\nX-Client-IP: 127.0.0.1\r\n",
    "Flipgate-Preview: green\r\nFlipgate-Audience: internal\r\nFlipgate-Color: green\r\n",
    "Flipgate-Preview: green\r\nConnection: Flipgate-Preview\r\n",
    "Flipgate_Preview: green\r\nX_Forwarded_For: 127.0.0.1\r\n",
    "Flipgate-Preview: green\r\nX-HTTP-Method-Override: GET\r\nX-Original-URL: /\r\n",
];

#[tokio::test]
async fn the_public_never_sees_green_before_it_is_active() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut kept = proxy.public().await;
    for trick in TRICKS {
        for path in ["/", "/?flipgate_preview=green", "/green", "/x/%2e%2e/green", "//green"] {
            let answer = kept.get(path, trick).await;
            assert_eq!(answer.text(), "blue", "{path} {trick}");
            assert_eq!(answer.field("flipgate-color"), None, "{path} {trick}");
        }
    }
    for host in ["green", "green.a.test", "web.green", "127.0.0.1", "[::1]"] {
        let ask = format!("GET / HTTP/1.1\r\nHost: {host}\r\nFlipgate-Preview: green\r\n\r\n");
        kept.send(ask).await;
        assert_eq!(kept.answer().await.text(), "blue", "{host}");
    }
    let absolute =
        "GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\nFlipgate-Preview: green\r\n\r\n";
    kept.send(absolute).await;
    assert_eq!(kept.answer().await.text(), "blue");
    assert_eq!(green.requests(), 0);
    // And the header is not forwarded.
    let head = kept.get("/head", TRICKS[3]).await.text().to_ascii_lowercase();
    assert!(!head.contains("flipgate") && head.contains("cookie: a=b; c=d"), "{head}");
    // After the promotion all clients see it, with the same requests.
    proxy.promote(&[("web", "green")]).await;
    for trick in TRICKS {
        assert_eq!(kept.get("/", trick).await.text(), "green", "{trick}");
    }
    let refused = proxy.call("GET", "/metrics", "", "").await.text();
    assert!(refused.contains("flipgate_preview_refused_total{color=\"green\",service=\"web\"}"));
}

#[tokio::test]
async fn an_internal_client_sees_green_by_header_cookie_or_listener() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut tester = proxy.internal().await;
    for preview in ["Flipgate-Preview: green\r\n", "Cookie: a=b; flipgate_preview=green\r\n"] {
        let answer = tester.get("/", preview).await;
        assert_eq!(answer.text(), "green", "{preview}");
        assert_eq!(answer.field("cache-control"), Some("private, no-store"));
        assert_eq!(answer.field("flipgate-color"), Some("green"));
        assert_eq!(answer.field("flipgate-generation"), Some("0"));
    }
    // Each request decides for itself, on the same connection.
    let plain = tester.get("/", "").await;
    assert_eq!((plain.text().as_str(), plain.field("cache-control")), ("blue", None));
    assert_eq!(plain.field("flipgate-color"), Some("blue"));
    let both = "Flipgate-Preview: blue\r\nCookie: flipgate_preview=green\r\n";
    assert_eq!(tester.get("/", both).await.text(), "blue", "the header is nearer than the cookie");
    let listener = Client::connect(client::INTERNAL, proxy.preview).await.get("/", "").await;
    assert_eq!(listener.text(), "green");
    assert_eq!(listener.field("cache-control"), Some("private, no-store"));
}

#[tokio::test]
async fn a_cacheable_response_to_a_preview_is_not_cacheable() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let preview = proxy.internal().await.get("/hop", "Flipgate-Preview: green\r\n").await;
    assert_eq!(preview.field("cache-control"), Some("private, no-store"));
    let public = proxy.public().await.get("/hop", "").await;
    assert_eq!(public.field("cache-control"), Some("public, max-age=3600"));
}

#[tokio::test]
async fn the_public_is_refused_on_a_preview_listener() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut public = Client::connect(client::PUBLIC, proxy.preview).await;
    for trick in TRICKS.into_iter().chain([""]) {
        let answer = public.get("/", trick).await;
        assert_eq!(answer.status, 403, "{trick}");
        assert_eq!(answer.field("proxy-status"), Some("flipgate; error=http_request_denied"));
    }
    // Also when green is active: the listener is for internal clients.
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(public.get("/", "").await.status, 403);
    assert_eq!(green.requests(), 0);
}

#[tokio::test]
async fn a_preview_that_is_not_possible_never_gets_the_other_color() {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build().service("web", &[&blue], &[]).start();
    let mut tester = proxy.internal().await;
    for preview in [
        "Flipgate-Preview: green\r\n",
        "Flipgate-Preview: red\r\n",
        "Flipgate-Preview: Green\r\n",
        "Flipgate-Preview:\r\n",
        "Flipgate-Preview: blue\r\nFlipgate-Preview: green\r\n",
        "Flipgate-Preview: blue, green\r\n",
        "Cookie: flipgate_preview=red\r\n",
        "Cookie: flipgate_preview=blue; flipgate_preview=green\r\n",
    ] {
        let answer = tester.get("/", preview).await;
        assert_eq!(answer.status, 503, "{preview}");
        let error = answer.field("proxy-status");
        assert_eq!(error, Some("flipgate; error=destination_unavailable"), "{preview}");
        assert!(answer.field("retry-after").is_some());
    }
    let listener = Client::connect(client::INTERNAL, proxy.preview).await.get("/", "").await;
    assert_eq!(listener.status, 503);
    assert_eq!(blue.requests(), 0);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_request_is_judged_by_its_own_client() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[clients]\ninternal = [\"10.0.0.0/8\"]\ntrusted_proxies = [\"127.0.0.3/32\"]")
        .service("web", &[&blue], &[&green])
        .start();
    // One connection of the proxy, shared by a tester and the public.
    let mut forwarder = Client::connect("127.0.0.3", proxy.public).await;
    let tester = "Flipgate-Preview: green\r\nX-Forwarded-For: 10.1.2.3\r\n";
    let public = "Flipgate-Preview: green\r\nX-Forwarded-For: 203.0.113.9\r\n";
    for _ in 0..3 {
        assert_eq!(forwarder.get("/", tester).await.text(), "green");
        assert_eq!(forwarder.get("/", public).await.text(), "blue");
    }
    for (fields, color) in [
        // The proxy appends the address that it saw; what stands before it is the client's word.
        ("X-Forwarded-For: 10.1.2.3, 203.0.113.9\r\n", "blue"),
        ("X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-For: 203.0.113.9\r\n", "blue"),
        ("X-Forwarded-For: 203.0.113.9, 10.1.2.3, 127.0.0.3\r\n", "green"),
        ("X-Forwarded-For: ::ffff:10.1.2.3\r\n", "green"),
        ("Forwarded: for=10.1.2.3\r\n", "green"),
        ("Forwarded: for=10.1.2.3, for=203.0.113.9\r\n", "blue"),
        ("Forwarded: for=10.1.2.3\r\nX-Forwarded-For: 203.0.113.9\r\n", "blue"),
        ("Forwarded: for=203.0.113.9\r\nX-Forwarded-For: 10.1.2.3\r\n", "blue"),
        ("X-Forwarded-For: unknown\r\n", "blue"),
        ("X-Forwarded-For: \r\n", "blue"),
        ("X-Forwarded-For: 10.1.2.3, \r\n", "blue"),
        ("", "blue"),
    ] {
        let answer = forwarder.get("/", &format!("Flipgate-Preview: green\r\n{fields}")).await;
        assert_eq!(answer.text(), color, "{fields}");
    }
    // Forwarding fields of a peer that is no trusted proxy are ignored.
    let mut other = Client::connect("127.0.0.4", proxy.public).await;
    assert_eq!(other.get("/", tester).await.text(), "blue");
}

#[tokio::test]
async fn marks_are_for_internal_clients_unless_the_public_is_to_have_them() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    // An application cannot make them up.
    let answer = proxy.public().await.get("/hop", "").await;
    assert_eq!(answer.field("flipgate-color"), None);
    drop(proxy);
    let proxy = TestProxy::build()
        .with("[clients]\ninternal = []\npublic_marks = true")
        .service("web", &[&blue], &[&green])
        .start();
    let answer = proxy.public().await.get("/hop", "").await;
    assert_eq!(answer.field("flipgate-color"), Some("blue"));
    proxy.promote(&[("web", "green")]).await;
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!(answer.field("flipgate-color"), Some("green"));
    assert_eq!(answer.field("flipgate-generation"), Some("1"));
}

#[tokio::test]
async fn a_changed_network_holds_for_connections_that_are_open() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut tester = proxy.internal().await;
    assert_eq!(tester.get("/", "Flipgate-Preview: green\r\n").await.text(), "green");
    let control = proxy.app().control();
    let mut catalog = (*control.catalog()).clone();
    catalog.internal.clear();
    let change = flipgate::control::Change::Reconfigure(std::sync::Arc::new(catalog));
    let call = flipgate::control::ChangeRequest::unconditional(change);
    control.propose(call).await.expect("applied");
    assert_eq!(tester.get("/", "Flipgate-Preview: green\r\n").await.text(), "blue");
    assert_eq!(proxy.status().await["generation"], json!(1));
}
