//! `preconnect`: the first public requests after a flip find open connections.

use super::{promote, service};
use crate::support::{Authority, Http2Upstream, LONG, TestProxy, Upstream, Walled, http2};

/// Requests on fresh client connections, so that every worker gets some.
async fn request_often(proxy: &TestProxy, host: &str) -> String {
    let mut last = String::new();
    for _ in 0..20 {
        let mut client = proxy.public().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        last = client.answer().await.text();
    }
    last
}

/// Open connections to the endpoint of green.
async fn connections(proxy: &TestProxy) -> u64 {
    proxy.endpoint("web", "green", 0).await["connections"].as_u64().expect("a number")
}

#[tokio::test]
async fn after_a_flip_no_request_opens_an_http1_connection() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    for (gate, opened) in
        [("", 2), ("gate.preconnect.per_worker = 0", 0), ("gate.preconnect.per_worker = 3", 6)]
    {
        let proxy = service(&[blue.address], &[green.address], gate).start();
        proxy.wait_for_health("green", 0, "up").await;
        assert_eq!(connections(&proxy).await, 0);
        assert_eq!(promote(&proxy).await.status, 200);
        assert_eq!(connections(&proxy).await, opened, "two workers: {gate}");
        assert_eq!(request_often(&proxy, "web.test").await, "green");
        let after = connections(&proxy).await;
        assert_eq!(after, opened.max(after.min(2)), "{gate}");
        // The next flips find them.
        assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
        assert_eq!(promote(&proxy).await.status, 200);
        assert!(connections(&proxy).await <= opened.max(2), "{gate}");
    }
}

#[tokio::test]
async fn after_a_flip_no_request_opens_an_http2_connection() {
    let blue = Upstream::start("blue").await;
    let green = Http2Upstream::start(async |_, response| http2::say(response, "green")).await;
    let services = format!(
        "[service.web]\nblue.endpoints = [\"{}\"]\ngreen = {{ endpoints = [\"{}\"], protocol = \"h2\" }}\n",
        blue.address, green.address
    );
    let proxy = TestProxy::build().services(&services).start();
    proxy.wait_for_health("green", 0, "up").await;
    assert_eq!(promote(&proxy).await.status, 200);
    assert_eq!(connections(&proxy).await, 2, "a session of each worker");
    assert_eq!(request_often(&proxy, "web.test").await, "green");
    assert_eq!(connections(&proxy).await, 2);
}

#[tokio::test]
async fn after_a_flip_no_request_does_a_tls_handshake() {
    let (blue, secure) = (Upstream::start("blue").await, Upstream::start("secure").await);
    let authority = Authority::new();
    let pair = authority.issue("app", &["app.test"]);
    let app = TestProxy::build()
        .listener(&format!("[listener.tls]\n{}", authority.listener(&pair)))
        .service("web", &[&secure], &[])
        .start();
    let services = format!(
        "[service.web]\nblue.endpoints = [\"{}\"]\n[service.web.green]\nendpoints = [\"https://{}\"]\n\
         protocol = \"http1\"\ntls = {{ ca = {:?}, server_name = \"app.test\" }}\n",
        blue.address, app.others[0], authority.file
    );
    let proxy = TestProxy::build().services(&services).start();
    proxy.wait_for_health("green", 0, "up").await;
    assert_eq!(promote(&proxy).await.status, 200);
    assert_eq!(connections(&proxy).await, 2);
    assert_eq!(request_often(&proxy, "app.test").await, "secure");
    assert_eq!(connections(&proxy).await, 2);
}

#[tokio::test]
async fn an_endpoint_that_accepts_no_connection_delays_no_flip_for_long() {
    let (blue, good) = (Upstream::start("blue").await, Upstream::start("good").await);
    let mut walled = Walled::open();
    let gate = "health.interval = \"24h\"\ngate.healthy.endpoints = 2";
    let proxy = service(&[blue.address], &[walled.address, good.address], gate).start();
    proxy.wait_for_health("green", 0, "up").await;
    proxy.wait_for_health("green", 1, "up").await;
    walled.shut().await;
    let promoted = tokio::time::timeout(LONG / 3, promote(&proxy)).await.expect("soon");
    assert_eq!(promoted.status, 200);
}
