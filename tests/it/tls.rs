//! The rules hold over TLS, and every peer is verified.

use std::{fs, sync::Arc};

use rustls::ClientConfig;

use crate::support::{
    Answer, Authority, Client, Http2, TestProxy, Upstream,
    client::{self, INTERNAL, PUBLIC},
    eventually,
};

/// A proxy with a listener for `localhost` over TLS, and clients that trust it.
struct Secured {
    proxy: TestProxy,
    authority: Authority,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    blue: Upstream,
    green: Upstream,
}

impl Secured {
    async fn start() -> Self {
        Self::with(|authority| {
            let pair = authority.issue("server", &["localhost", "*.app.test"]);
            let other = authority.issue("other", &["other.test"]);
            let more = authority.listener(&other).replace("certificates = [", "");
            let all = authority.listener(&pair).replace("]\n", &format!(", {more}"));
            format!("[listener.tls]\n{all}hsts = \"max-age=300\"\n")
        })
        .await
    }

    async fn with(listener: impl FnOnce(&Authority) -> String) -> Self {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let authority = Authority::new();
        let listener = listener(&authority);
        let proxy =
            TestProxy::build().service("web", &[&blue], &[&green]).listener(&listener).start();
        let http1 = authority.client(&["http/1.1"], None);
        let http2 = authority.client(&["h2"], None);
        Self { proxy, authority, http1, http2, blue, green }
    }

    async fn client(&self, from: &str) -> Client {
        Client::connect_tls(from, self.proxy.others[0], &self.http1).await
    }

    async fn http2(&self, from: &str) -> Http2 {
        Http2::connect_tls(from, self.proxy.others[0], &self.http2).await
    }
}

/// Asks a host for a path, on a fresh connection to the host `named`.
async fn ask(secured: &Secured, named: &str, host: &str) -> std::io::Result<Answer> {
    let to = secured.proxy.others[0];
    let stream = client::connect_tls(PUBLIC, to, named, &secured.http1).await?;
    let mut client = Client::over(stream);
    client.send(format!("GET /head HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    Ok(client.answer().await)
}

#[tokio::test]
async fn a_request_over_tls_is_forwarded_with_proto_https() {
    let secured = Secured::start().await;
    let mut client = secured.client(PUBLIC).await;
    client.send("GET /head HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: http\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=300"));
    let sent = answer.text();
    for line in ["X-Forwarded-Proto: https\r\n", ";proto=https\r\n", "X-Real-IP: 127.0.0.2\r\n"] {
        assert!(sent.contains(line), "{line} {sent}");
    }
    assert!(!sent.contains("X-Forwarded-Client-Cert"), "{sent}");
    let plain = secured.proxy.public().await.get("/head", "").await;
    assert_eq!(plain.field("strict-transport-security"), None, "RFC 6797, section 7.2");
}

#[tokio::test]
async fn over_tls_a_flip_takes_the_next_request_of_an_open_connection() {
    let secured = Secured::start().await;
    let mut early = secured.client(PUBLIC).await;
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    early.send(get).await;
    assert_eq!(early.answer().await.text(), "blue");
    let mut held = secured.client(PUBLIC).await;
    held.send("GET /hold HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let head = held.head().await;
    held.until("blue begins\n").await;
    secured.proxy.promote(&[("web", "green")]).await;
    early.send(get).await;
    assert_eq!(early.answer().await.text(), "green");
    assert_eq!(secured.proxy.drain("web").await["in_flight"], 1);
    secured.blue.release();
    held.until("blue ends\n").await;
    assert_eq!(head.status, 200);
    let drained = async || secured.proxy.drain("web").await["drained"] == true;
    eventually("drained", drained).await;
    drop(secured.green);
}

#[tokio::test]
async fn over_tls_only_insiders_see_green() {
    let secured = Secured::start().await;
    for (from, color) in [(INTERNAL, "green"), (PUBLIC, "blue")] {
        let mut client = secured.client(from).await;
        client
            .send("GET / HTTP/1.1\r\nHost: localhost\r\nFlipgate-Preview: green\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n")
            .await;
        assert_eq!(client.answer().await.text(), color, "{from}");
        let fields = "flipgate-preview: green\nx-forwarded-for: 127.0.0.1";
        assert_eq!(secured.http2(from).await.get("/", fields).await.text(), color, "{from}");
    }
}

#[tokio::test]
async fn the_strictness_of_the_wire_holds_over_tls() {
    let secured = Secured::start().await;
    for (bytes, status) in [
        ("GET / HTTP/1.1\nHost: localhost\n\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ] {
        let mut client = secured.client(PUBLIC).await;
        client.send(bytes).await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{bytes:?}: {answer}");
    }
    assert_eq!(secured.blue.requests(), 0);
}

#[tokio::test]
async fn the_certificate_follows_the_name_and_the_host_has_to_fit_it() {
    let secured = Secured::start().await;
    for (named, host, status) in [
        ("localhost", "localhost", 200),
        ("localhost", "LOCALHOST.:8443", 200),
        ("x.app.test", "y.app.test", 200),
        ("other.test", "other.test", 200),
        ("localhost", "other.test", 421),
        ("other.test", "localhost", 421),
        ("localhost", "a.b.app.test", 421),
        ("localhost", "127.0.0.1", 421),
    ] {
        let answer = ask(&secured, named, host).await.expect("a handshake");
        assert_eq!(answer.status, status, "{named} {host}: {}", answer.head);
        assert_eq!(answer.field("proxy-status").is_some(), status == 421, "{}", answer.head);
    }
    // A client with an unknown name gets the first certificate, and does not trust it for that name.
    assert!(ask(&secured, "unknown.test", "unknown.test").await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_a_broken_one_is_not() {
    let secured = Secured::start().await;
    let mut open = secured.client(PUBLIC).await;
    let get = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let pair = secured.authority.issue("server", &["localhost", "new.test"]);
    eventually("the new certificate", async || ask(&secured, "new.test", "new.test").await.is_ok())
        .await;
    open.send(get).await;
    assert_eq!(open.answer().await.text(), "blue", "an open connection stays");
    fs::write(&pair.cert, "broken").expect("written");
    let reload = secured.proxy.call("POST", "/v1/reload", "", "").await;
    assert_ne!(reload.status, 200, "{}", reload.text());
    let answer = ask(&secured, "new.test", "new.test").await.expect("the one from before");
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_session_is_resumed_and_means_no_more_than_it_did() {
    let secured = Secured::start().await;
    let mut client = secured.client(PUBLIC).await;
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "blue");
    let to = secured.proxy.others[0];
    let resumed = async || {
        let stream = client::connect_tls(PUBLIC, to, "localhost", &secured.http1).await;
        let mut stream = stream.expect("a handshake");
        let kind = stream.get_mut().1.handshake_kind();
        let mut client = Client::over(stream);
        client.send("GET / HTTP/1.1\r\nHost: other.test\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 421);
        kind == Some(rustls::HandshakeKind::Resumed)
    };
    eventually("a resumed session", resumed).await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_refused_with_the_reason() {
    let secured = Secured::start().await;
    let mut client = Client::connect(PUBLIC, secured.proxy.others[0]).await;
    client.ask("/", "").await;
    let answer = client.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
}

#[tokio::test]
async fn clients_with_a_certificate_are_identified_and_may_be_internal() {
    for required in [false, true] {
        let secured = Secured::with(|authority| {
            let pair = authority.issue("server", &["localhost"]);
            let (files, ca) = (authority.listener(&pair), authority.file.display());
            format!(
                "[listener.tls]\n{files}client = {{ ca = \"{ca}\", internal = true, required = {required} }}\n"
            )
        })
        .await;
        let to = secured.proxy.others[0];
        let shown = secured.authority.issue("tester", &["tester.test"]);
        let config = secured.authority.client(&["http/1.1"], Some(&shown));
        let mut client = Client::connect_tls(PUBLIC, to, &config).await;
        let preview = "Flipgate-Preview: green\r\nX-Forwarded-Client-Cert: Hash=forged\r\n";
        client.send(format!("GET /head HTTP/1.1\r\nHost: localhost\r\n{preview}\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.field("flipgate-color"), Some("green"), "it vouches for the client");
        let sent = answer.text();
        assert!(
            sent.contains("X-Forwarded-Client-Cert: Hash=") && !sent.contains("forged"),
            "{sent}"
        );
        assert!(sent.contains(";Subject=\"CN=tester\";DNS=\"tester.test\"\r\n"), "{sent}");

        // One of another authority is worth less than none.
        let foreign = Authority::new();
        let shown = foreign.issue("tester", &["tester.test"]);
        let config = secured.authority.client(&["http/1.1"], Some(&shown));
        let mut client = match client::connect_tls(PUBLIC, to, "localhost", &config).await {
            Ok(stream) => Client::over(stream),
            Err(_) => continue,
        };
        client.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.read_to_end().await, "", "it is not let in");

        let mut client = Client::connect_tls(PUBLIC, to, &secured.http1).await;
        client
            .try_send(format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\n{preview}Connection: close\r\n\r\n"
            ))
            .await;
        let answer = client.read_to_end().await;
        match required {
            true => assert_eq!(answer, "", "a certificate is required"),
            false => assert!(answer.ends_with("blue"), "{answer}"),
        }
    }
}

#[tokio::test]
async fn a_listener_can_redirect_to_https() {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build()
        .service("web", &[&blue], &[])
        .listener("redirect_to_https = 8443")
        .start();
    let mut client = Client::connect(PUBLIC, proxy.others[0]).await;
    for (ask, location) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: a.test:80\r\n\r\n", "https://a.test:8443/a?b=c"),
        ("GET http://a.test?x HTTP/1.1\r\nHost: a.test\r\n\r\n", "https://a.test:8443/?x"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "https://[::1]:8443/"),
    ] {
        client.send(ask).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("location")), (308, Some(location)), "{ask}");
    }
    assert_eq!(blue.requests(), 0);
}

#[tokio::test]
async fn an_upstream_by_tls_is_verified() {
    let secured = Secured::start().await;
    let (port, ca) = (secured.proxy.others[0].port(), secured.authority.file.display());
    let cert = secured.authority.issue("server", &["localhost"]).cert;
    let foreign = Authority::new();
    let services = [
        ("good", format!("ca = \"{ca}\""), 200),
        ("pinned", format!("ca = \"{}\"", cert.display()), 200),
        ("foreign", format!("ca = \"{}\"", foreign.file.display()), 502),
        ("named", format!("ca = \"{ca}\", server_name = \"other.test\""), 421),
        ("misnamed", format!("ca = \"{ca}\", server_name = \"third.test\""), 502),
        ("machine", String::new(), 502),
    ];
    eventually("the new certificate", async || {
        // A client that was here before resumes its session, and gets a 421 for its host.
        let answer = ask(&secured, "x.app.test", "x.app.test").await;
        answer.map_or(true, |it| it.status == 421)
    })
    .await;
    // There is no listener at [::1].
    let mut build = TestProxy::build().with("dns.families = \"ipv4\"");
    for (name, tls, _) in &services {
        build = build.services(&format!(
            "[service.{name}]\nhosts = [\"{name}.test\"]\n[service.{name}.blue]\n\
             endpoints = [\"https://localhost:{port}\"]\ntls = {{ {tls} }}\n"
        ));
    }
    let proxy = build.start();
    for (name, _, status) in services {
        let mut client = proxy.public().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {name}.test\r\n\r\n")).await;
        let answer = client.answer().await;
        // The certificate is not for its host: a 421 says that Flipgate was reached.
        let status = if status == 200 { 421 } else { status };
        assert_eq!(answer.status, status, "{name}: {}{}", answer.head, answer.text());
        if status == 502 {
            let said = answer.field("proxy-status");
            assert_eq!(said, Some("flipgate; error=tls_certificate_error"), "{name}");
        }
    }
}
