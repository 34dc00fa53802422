//! Which client address upstreams see, and which peers may give it.

use tokio::io::AsyncReadExt;

use crate::support::{
    Authority, Client, Scripted, TestProxy, Upstream,
    client::{self, INTERNAL, PUBLIC},
};

/// A Flipgate for which 127.0.0.1 is internal, and which reads the PROXY protocol of a trusted proxy.
async fn behind_a_proxy(upstream: &Upstream) -> TestProxy {
    TestProxy::build()
        .service("web", &[upstream], &[upstream])
        .listener("proxy_protocol = { from = [\"127.0.0.3/32\"] }")
        .start()
}

const PROXY: &str = "127.0.0.3";

fn v2(source: [u8; 4]) -> Vec<u8> {
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [head, &source[..], &[127, 0, 0, 1], &[0x30, 0x39], &[0x01, 0xbb]].concat()
}

#[tokio::test]
async fn a_listed_proxy_gives_the_client_address_by_proxy_protocol() {
    let blue = Upstream::start("blue").await;
    let proxy = behind_a_proxy(&blue).await;
    let ask = "GET /head HTTP/1.1\r\nHost: a\r\nFlipgate-Preview: green\r\n\r\n";
    for (header, address, color) in [
        (b"PROXY TCP4 203.0.113.5 127.0.0.1 4000 80\r\n".to_vec(), "203.0.113.5", None),
        (b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 80\r\n".to_vec(), "127.0.0.1", Some("green")),
        (v2([203, 0, 113, 5]), "203.0.113.5", None),
        (v2([127, 0, 0, 1]), "127.0.0.1", Some("green")),
        (b"PROXY UNKNOWN\r\n".to_vec(), "unknown", None),
    ] {
        for size in [1, usize::MAX] {
            let mut client = Client::connect(PROXY, proxy.others[0]).await;
            for part in [&header[..], ask.as_bytes()].concat().chunks(size.min(4096)) {
                client.send(part).await;
            }
            let answer = client.answer().await;
            assert_eq!(answer.field("flipgate-color"), color, "{address}");
            let sent = answer.text();
            for line in ["X-Forwarded-For: ", "X-Real-IP: ", "Forwarded: for="] {
                if line.contains("Real") && address == "unknown" {
                    assert!(!sent.contains(line), "the client is unknown: {sent}");
                    continue;
                }
                assert!(sent.contains(&format!("{line}{address}")), "{line}{address} in {sent}");
            }
        }
    }
}

#[tokio::test]
async fn a_proxy_protocol_header_is_read_from_listed_peers_only_and_required_from_them() {
    let blue = Upstream::start("blue").await;
    let proxy = behind_a_proxy(&blue).await;
    let header = "PROXY TCP4 127.0.0.1 127.0.0.1 4000 80\r\n";
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nFlipgate-Preview: green\r\n\r\n";
    let mut client = Client::connect(PUBLIC, proxy.others[0]).await;
    client.send(format!("{header}{ask}")).await;
    let answer = client.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let mut client = Client::connect(PUBLIC, proxy.others[0]).await;
    client.send(ask).await;
    assert_eq!(client.answer().await.field("flipgate-color"), None, "asked without one");
    let requests = blue.requests();
    for bytes in
        [ask, "PROXY TCP4 unknown 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "PROXY"]
    {
        let mut client = Client::connect(PROXY, proxy.others[0]).await;
        client.send(bytes).await;
        client.finish().await;
        assert_eq!(client.read_to_end().await, "", "{bytes}");
    }
    assert_eq!(blue.requests(), requests);
}

#[tokio::test]
async fn a_client_without_an_address_is_public_wherever_the_proxy_is() {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build()
        .with("clients.internal = [\"127.0.0.0/8\"]\nclients.trusted_proxies = [\"127.0.0.3/32\"]")
        .service("web", &[&blue], &[&blue])
        .listener("proxy_protocol = { from = [\"127.0.0.3/32\"] }")
        .start();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = Client::connect(PROXY, proxy.others[0]).await;
        client.send(header).await;
        let preview = "Flipgate-Preview: green\r\nX-Forwarded-For: 127.0.0.1\r\n";
        assert_eq!(client.get("/", preview).await.field("flipgate-color"), None);
    }
}

#[tokio::test]
async fn a_proxy_header_goes_before_the_handshake() {
    let blue = Upstream::start("blue").await;
    let authority = Authority::new();
    let files = authority.listener(&authority.issue("server", &["localhost"]));
    let listener =
        format!("proxy_protocol = {{ from = [\"127.0.0.3/32\"] }}\n[listener.tls]\n{files}");
    let proxy = TestProxy::build().service("web", &[&blue], &[]).listener(&listener).start();
    let tls = authority.client(&["http/1.1"], None);
    let mut stream = client::connect(PROXY, proxy.others[0]).await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, &v2([203, 0, 113, 5])).await.expect("open");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await;
    let mut client = Client::over(stream.expect("a handshake"));
    client.send("GET /head HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let sent = client.answer().await.text();
    assert!(sent.contains("X-Real-IP: 203.0.113.5\r\n") && sent.contains("proto=https"), "{sent}");
}

#[tokio::test]
async fn an_upstream_gets_a_proxy_protocol_header() {
    for (version, expected) in [
        ("v1", &b"PROXY TCP4 127.0.0.2 127.0.0.1 "[..]),
        ("v2", &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x02\x7f\0\0\x01"[..]),
    ] {
        let upstream = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let address = upstream.address;
        let pool = format!("{{ endpoints = [\"{address}\"], proxy_protocol = \"{version}\" }}");
        let proxy = TestProxy::build()
            .services(&format!("[service.web]\nblue = {pool}\nhealth.interval = \"24h\"\n"))
            .start();
        // A health check has no client.
        let own = match version {
            "v1" => "PROXY UNKNOWN\r\n",
            _ => "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        };
        upstream.wait_for(own).await;
        assert_eq!(upstream.take(), own);
        for _ in 0..2 {
            let mut client = proxy.public().await;
            client.ask("/", "").await;
            assert_eq!(client.answer().await.text(), "ok");
            let seen = upstream.take();
            assert!(seen.as_bytes().starts_with(&expected[..13]), "{version}: {seen:?}");
            assert!(version == "v2" || seen.as_bytes().starts_with(expected), "{seen:?}");
            assert_eq!(seen.matches("GET / HTTP/1.1\r\n").count(), 1, "{seen:?}");
        }
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_address_is_the_forwarded_one() {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build()
        .with("clients.internal = [\"127.0.0.1/32\"]\nclients.trusted_proxies = [\"127.0.0.2/32\"]")
        .service("web", &[&blue], &[])
        .start();
    for (from, fields, real) in [
        (PUBLIC, "X-Forwarded-For: 10.0.0.1, 203.0.113.5\r\n", Some("203.0.113.5")),
        (PUBLIC, "X-Forwarded-For: 203.0.113.5\r\nX-Real-IP: 203.0.113.9\r\n", Some("203.0.113.9")),
        (PUBLIC, "", None),
        (
            INTERNAL,
            "X-Forwarded-For: 203.0.113.5\r\nX-Real-IP: 203.0.113.9\r\nTrue-Client-IP: 203.0.113.9\r\n",
            Some("127.0.0.1"),
        ),
    ] {
        let mut client = Client::connect(from, proxy.public).await;
        let sent = client.get("/head", fields).await.text();
        let line = real.map(|it| format!("X-Real-IP: {it}\r\n"));
        assert!(line.as_ref().is_none_or(|it| sent.contains(it.as_str())), "{fields:?}: {sent}");
        assert_eq!(sent.matches("X-Real-IP").count(), usize::from(real.is_some()), "{sent}");
        assert!(from == PUBLIC || !sent.contains("203.0.113"), "{sent}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_an_endpoint_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let app = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut seen).await.unwrap_or_default() == 0 {
                        return;
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.expect("open");
            });
        }
    });
    let path = path.display();
    let service = format!("[service.web.blue]\nendpoints = [\"unix:{path}\"]\n");
    let proxy = TestProxy::build().services(&service).start();
    assert_eq!(proxy.get("/").await, "ok");
    let status = proxy.status().await;
    let endpoint = &status["services"]["web"]["pools"]["blue"]["endpoints"][0];
    assert_eq!(endpoint["address"], format!("unix:{path}"));
    app.abort();
    assert!(app.await.is_err());
    // No endpoint is left: an error response, and no hang.
    std::fs::remove_file(format!("{path}")).expect("it was there");
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!((answer.status, answer.field("proxy-status").is_some()), (502, true));
}
