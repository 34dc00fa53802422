//! A request that comes back to the Flipgate that sent it.

use flipgate::config::Config;

use crate::support::{Http2, Scripted, TestProxy, Upstream, client::PUBLIC};

/// A listener as its own endpoint once took 900 descriptors and a minute for one request.
#[tokio::test]
async fn a_request_that_comes_back_is_a_508_after_one_round() {
    let upstream = Upstream::start("blue").await;
    let proxy = TestProxy::build().service("web", &[&upstream], &[]).start();
    // A relay in between passes everything on, so that no configuration shows the loop.
    let relay = relay_to(proxy.public).await;
    let body = format!("{{\"endpoints\":[\"{relay}\"],\"force\":true}}");
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let mut client = proxy.public().await;
    let answer = client.get("/", "").await;
    assert_eq!(answer.status, 508, "{}", answer.text());
    let loops = proxy.metric("flipgate_requests_total{code=\"508\",color=\"\",service=\"\"}").await;
    assert!(loops <= 1.0, "one round: {loops}");
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    assert_eq!(client.get("/", "").await.status, 508);
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn a_loop_ends_without_via_too() {
    let upstream = Upstream::start("blue").await;
    let proxy = TestProxy::build()
        .with("[forwarding]\nvia = \"none\"")
        .service("web", &[&upstream], &[])
        .start();
    let relay = relay_to(proxy.public).await;
    let body = format!("{{\"endpoints\":[\"{relay}\"],\"force\":true}}");
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!((answer.status, answer.field("via")), (508, None), "{}", answer.text());
}

/// A proxy that passes bytes on as they are.
pub(crate) async fn relay_to(address: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let relay = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut to) = tokio::net::TcpStream::connect(address).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    relay
}

#[tokio::test]
async fn via_names_each_hop_both_ways_and_no_client_can_fake_a_loop_for_others() {
    let upstream = Scripted::start(
        "HTTP/1.0 200 OK\r\nVia: 1.1 inner\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    let answer = client.get("/", "Via: 1.0 fred\r\n").await;
    assert_eq!(answer.fields("via").collect::<Vec<_>>(), ["1.1 inner", "1.0 flipgate"]);
    let seen = upstream.take();
    let vias: Vec<_> = seen.lines().filter_map(|it| it.strip_prefix("Via: ")).collect();
    let [before, own] = vias[..] else { panic!("two: {seen}") };
    assert_eq!(before, "1.0 fred");
    let mark = own.strip_prefix("1.1 ").expect("the client's version");
    assert!(mark.starts_with("fg-") && mark.len() == 19, "{mark}");
    // Another Flipgate before this one is no loop, nor is anything else that says so.
    for via in ["1.1 flipgate", "1.1 fg-0000000000000000", "2.0 x, 1.1 y (flipgate)"] {
        assert_eq!(client.get("/", &format!("Via: {via}\r\n")).await.status, 200, "{via}");
    }
    // A client that copies the mark ends only its own request.
    assert_eq!(client.get("/", &format!("Via: 1.1 {mark}\r\n")).await.status, 508);
    assert_eq!(client.get("/", "").await.status, 200);
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    upstream.take();
    let answer = client.get("/", "").await;
    assert_eq!(answer.fields("via").collect::<Vec<_>>(), ["1.1 inner", "1.0 flipgate"]);
    assert!(upstream.take().contains("Via: 2.0 fg-"));
}

#[test]
fn an_endpoint_that_is_an_own_listener_is_a_mistake() {
    let check = |listen: &str, endpoint: &str| {
        let text = format!(
            "[[listener]]\nlisten = \"{listen}\"\n[service.web.blue]\nendpoints = [\"{endpoint}\"]\n"
        );
        Config::parse("test.toml".as_ref(), &text).err().unwrap_or_default()
    };
    for (listen, endpoint) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("127.0.0.1:8080", "localhost:8080"),
        ("127.0.0.1:8080", "https://127.0.0.1:8080"),
        ("127.0.0.1:8080", "0.0.0.0:8080"),
        ("0.0.0.0:8080", "127.0.0.7:8080"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("[::]:8080", "127.0.0.1:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("[::1]:8080", "localhost:8080"),
        ("[::1]:8080", "[::]:8080"),
    ] {
        let found = check(listen, endpoint);
        let [mistake] = &found[..] else { panic!("{listen} {endpoint}: {found:?}") };
        assert_eq!(mistake.key, "service.web.blue.endpoints", "{listen} {endpoint}");
        assert!(mistake.message.contains("listener"), "{}", mistake.message);
    }
    for (listen, endpoint) in [
        ("127.0.0.1:8080", "127.0.0.1:8081"),
        ("127.0.0.1:8080", "127.0.0.2:8080"),
        ("127.0.0.1:8080", "192.0.2.1:8080"),
        ("0.0.0.0:8080", "192.0.2.1:8080"),
        ("127.0.0.1:8080", "app:8080"),
        ("127.0.0.1:8080", "unix:/run/app.sock"),
    ] {
        assert_eq!(check(listen, endpoint), [], "{listen} {endpoint}");
    }
}

#[tokio::test]
async fn an_own_listener_is_refused_as_an_endpoint_at_run_time() {
    let upstream = Upstream::start("blue").await;
    let proxy = TestProxy::build().service("web", &[&upstream], &[]).start();
    for own in [proxy.public, proxy.preview] {
        let body = format!("{{\"endpoints\":[\"{own}\"]}}");
        let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
        assert_eq!(set.status, 422, "{}", set.text());
        assert!(set.text().contains("listener"), "{}", set.text());
    }
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["pools"]["green"]["endpoints"], serde_json::json!([]));
}
