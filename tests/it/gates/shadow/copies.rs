//! Which requests are copied, and that the copies touch nothing else.

use super::{begin, copies, endless, gate, with_traffic};
use crate::{
    gates::{reasons_of, service},
    support::{AppRequest, Application, Client, Http2, Reply, TestProxy, client, eventually},
};

async fn pair() -> [Application; 2] {
    [Application::start(|_| Reply::ok("old")).await, Application::start(|_| Reply::ok("new")).await]
}

/// Sends requests to `/last` until copies of it have come: all copies before it were sent.
async fn until_last(proxy: &TestProxy, green: &Application) {
    eventually("a copy of /last", async || {
        proxy.get("/last").await;
        copies(green, "/last").len() >= 3
    })
    .await;
}

#[tokio::test]
async fn a_copy_has_the_mark_host_and_headers_of_the_request() {
    let [blue, green] = pair().await;
    // So that the gate does not end: the bodies differ.
    let proxy = service(&[blue.address], &[green.address], &endless("different = 100")).start();
    let _caller = begin(&proxy, &green).await;
    let mut client = proxy.public().await;
    client.send("GET /a?b=c HTTP/1.1\r\nHost: Shop.test:80\r\nX-One: 1\r\nFlipgate-Preview: green\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "old");
    eventually("three copies", async || {
        copies(&green, "/a?b=c").len() + copies(&blue, "/a?b=c").len() == 3
    })
    .await;
    let [copy] = &*copies(&green, "/a?b=c") else { panic!("one for the candidate") };
    let [request] = &*blue
        .requests_for("/a?b=c")
        .into_iter()
        .filter(|it| it.header("flipgate-shadow").is_empty())
        .collect::<Vec<_>>()
    else {
        panic!("one request")
    };
    assert_eq!((&*copy.method, copy.header("flipgate-shadow")), ("GET", "1"));
    for name in ["host", "x-one", "x-forwarded-for", "via", "x-request-id"] {
        assert!(!copy.header(name).is_empty(), "{name}");
        assert_eq!(copy.header(name), request.header(name), "{name}");
    }
    assert_eq!(copy.header("flipgate-preview"), "");
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer_to_head().await;
    eventually("a HEAD", async || copies(&green, "/head").iter().any(|it| it.method == "HEAD"))
        .await;
    let mut client = Http2::connect(client::PUBLIC, proxy.public).await;
    assert_eq!(client.get("/http2", "").await.text(), "old");
    eventually("a copy of a stream", async || copies(&green, "/http2").len() == 1).await;
}

#[tokio::test]
async fn two_endpoints_of_the_active_color_get_one_copy_each() {
    let [one, green] = pair().await;
    let two = Application::start(|_| Reply::ok("old")).await;
    let more = endless("different = 100");
    let proxy = service(&[one.address, two.address], &[green.address], &more).start();
    let _caller = begin(&proxy, &green).await;
    proxy.get("/once").await;
    eventually("each one", async || {
        [&one, &two, &green].iter().all(|it| copies(it, "/once").len() == 1)
    })
    .await;
}

#[tokio::test]
async fn only_requests_that_can_be_repeated_and_compared_are_copied() {
    let [blue, green] = pair().await;
    let more = endless("different = 100\nexclude = [\"/logout\"]");
    let proxy = service(&[blue.address], &[green.address], &more)
        .with("clients = { internal = [\"127.0.0.1/32\"], trusted_proxies = [\"127.0.0.3/32\"] }")
        .start();
    let _caller = begin(&proxy, &green).await;
    for (head, path) in [
        ("POST /post HTTP/1.1\r\nContent-Length: 1", "/post"),
        ("PUT /put HTTP/1.1\r\nContent-Length: 0", "/put"),
        ("OPTIONS /options HTTP/1.1", "/options"),
        ("GET /body HTTP/1.1\r\nContent-Length: 1", "/body"),
        ("GET /range HTTP/1.1\r\nRange: bytes=0-1", "/range"),
        ("GET /conditional HTTP/1.1\r\nIf-None-Match: \"a\"", "/conditional"),
        ("GET /basic HTTP/1.1\r\nAuthorization: Basic YTpi", "/basic"),
        ("GET /cookie HTTP/1.1\r\nCookie: a=b", "/cookie"),
        ("GET /logout/now HTTP/1.1", "/logout/now"),
    ] {
        let body = if head.ends_with("Content-Length: 1") { "x" } else { "" };
        let mut client = proxy.public().await;
        client.send(format!("{head}\r\nHost: a\r\n\r\n{body}")).await;
        assert_eq!(client.answer().await.text(), "old", "{head}");
        assert_eq!(blue.requests_for(path).len(), 1, "{head}");
    }
    // A preview is no request to the active color.
    let mut preview = Client::connect(client::INTERNAL, proxy.preview).await;
    assert_eq!(preview.get("/preview", "").await.text(), "new");
    until_last(&proxy, &green).await;
    let all = [
        "/post",
        "/put",
        "/options",
        "/body",
        "/range",
        "/conditional",
        "/basic",
        "/cookie",
        "/logout/now",
    ];
    for path in all {
        assert!(green.requests_for(path).is_empty(), "{path}");
        assert_eq!(blue.requests_for(path).len(), 1, "{path}");
    }
    assert_eq!((green.requests_for("/preview").len(), copies(&green, "/preview").len()), (1, 0));
}

#[tokio::test]
async fn requests_with_credentials_are_copied_by_option_and_their_secrets_are_not_shown() {
    let reply = |it: &AppRequest| Reply::ok(&format!("you are {}", it.header("authorization")));
    let blue = Application::start(reply).await;
    let green =
        Application::start(move |it| Reply::ok(&format!("hello, {}", it.header("authorization"))))
            .await;
    let proxy = service(&[blue.address], &[green.address], &gate("credentials = true")).start();
    let fields = "Authorization: Bearer opensesame\r\nCookie: a=b\r\n";
    let report = with_traffic(&proxy, &["/"], fields).await;
    let reasons = reasons_of(&report, "shadow");
    assert!(reasons[1].contains("\"you are ***\" at "), "{reasons:?}");
    assert!(!report.to_string().contains("opensesame"), "{report}");
    let copy = &copies(&green, "/")[0];
    assert_eq!((copy.header("authorization"), copy.header("cookie")), ("Bearer opensesame", "a=b"));
}

/// Neither directly nor through a trusted proxy, which passes on headers that it does not know.
#[tokio::test]
async fn the_mark_of_a_client_is_removed_and_does_not_hide_its_request() {
    let [blue, green] = pair().await;
    let proxy = service(&[blue.address], &[green.address], &endless("different = 100"))
        .with("clients = { internal = [\"127.0.0.1/32\"], trusted_proxies = [\"127.0.0.3/32\"] }")
        .start();
    let _caller = begin(&proxy, &green).await;
    for (from, path) in [("127.0.0.2", "/direct"), ("127.0.0.3", "/trusted")] {
        let mut client = Client::connect(from, proxy.public).await;
        client.get(path, "Flipgate-Shadow: 1\r\nX-Forwarded-For: 192.0.2.1\r\n").await;
        eventually("its copy", async || copies(&green, path).len() == 1).await;
        let marks = blue.requests_for(path);
        let own = marks.iter().filter(|it| it.header("flipgate-shadow").is_empty()).count();
        assert_eq!(own, 1, "{path}: the request itself has no mark");
    }
}

#[tokio::test]
async fn the_reasons_of_requests_that_are_not_copied_are_counted() {
    let [blue, green] = pair().await;
    let more = gate("for = \"1s\"\nexclude = [\"/logout\"]");
    let proxy = service(&[blue.address], &[green.address], &more).start();
    for (path, fields, what) in [
        ("/", "Cookie: a=b\r\n", " with credentials"),
        ("/", "Range: bytes=0-1\r\n", " with Range"),
        ("/", "If-None-Match: \"a\"\r\n", " conditional"),
        ("/logout", "", " excluded by path"),
    ] {
        let report = with_traffic(&proxy, &[path], fields).await;
        let reasons = reasons_of(&report, "shadow");
        assert!(reasons[0].starts_with("inconclusive: 0 of 0 compared"), "{reasons:?}");
        assert!(reasons[0].contains("; requests copied: 0; not copied: "), "{reasons:?}");
        assert!(reasons[0].ends_with(what), "{reasons:?}");
    }
    assert!(green.requests().is_empty());
}

#[tokio::test]
async fn copies_are_in_no_metric_and_no_count_in_flight() {
    let blue = Application::start(|_| Reply::ok("old")).await;
    let hangs_at_one = |it: &AppRequest| match &*it.path {
        "/one" => Reply::Hang,
        _ => Reply::ok("old"),
    };
    let green = Application::start(hangs_at_one).await;
    let more = endless("timeout = \"5m\"");
    let proxy = service(&[blue.address], &[green.address], &more).start();
    let _caller = begin(&proxy, &green).await;
    proxy.get("/one").await;
    eventually("a copy that hangs", async || !copies(&green, "/one").is_empty()).await;
    let status = proxy.status().await;
    for color in ["blue", "green"] {
        let pool = &status["services"]["web"]["pools"][color];
        assert_eq!(
            (&pool["in_flight"], &pool["endpoints"][0]["in_flight"]),
            (&0.into(), &0.into()),
            "{pool}"
        );
    }
    let requests = blue.requests().len()
        - blue.requests().iter().filter(|it| !it.header("flipgate-shadow").is_empty()).count();
    let metric = |color: &str| {
        format!("flipgate_requests_total{{code=\"200\",color=\"{color}\",service=\"web\"}}")
    };
    eventually("each request is counted, and no copy", async || {
        proxy.metric(&metric("blue")).await as usize == requests
    })
    .await;
    let text = proxy.call("GET", "/metrics", "", "").await.text();
    let of_green: Vec<_> = text
        .lines()
        .filter(|it| it.starts_with("flipgate_requests_total") && it.contains("green"))
        .collect();
    assert!(of_green.iter().all(|it| it.ends_with(" 0")), "{of_green:?}");
    assert_eq!(status["services"]["web"]["pools"]["green"]["endpoints"][0]["health"], "up");
}

/// A relay in between passes everything on, so that no configuration shows the loop.
#[tokio::test]
async fn a_copy_that_comes_back_is_not_copied_again() {
    let blue = Application::start(|_| Reply::ok("old")).await;
    let stand_in = Application::start(|_| Reply::ok("new")).await;
    let more = endless("different = 100");
    let proxy = service(&[blue.address], &[stand_in.address], &more).start();
    let relay = crate::loops::relay_to(proxy.public).await;
    let body = format!("{{\"endpoints\":[\"{relay}\"]}}");
    let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let _caller = begin(&proxy, &blue).await;
    proxy.get("/once").await;
    eventually("the request and two copies", async || blue.requests_for("/once").len() == 3).await;
    // Copies of later requests come after those of this one.
    eventually("later copies", async || {
        proxy.get("/last").await;
        copies(&blue, "/last").len() >= 6
    })
    .await;
    assert_eq!(blue.requests_for("/once").len(), 3);
    let loops = "flipgate_requests_total{code=\"508\",color=\"\",service=\"\"}";
    assert!(proxy.metric(loops).await >= 1.0, "the third copy came back");
}
