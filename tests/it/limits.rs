//! Everything that a client can have more of has a limit.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Http2, TestProxy, Upstream,
    client::{self, INTERNAL, PUBLIC},
    eventually,
};

async fn proxy(top: &str) -> (Upstream, TestProxy) {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build().with(top).service("web", &[&blue], &[]).start();
    (blue, proxy)
}

#[tokio::test]
async fn a_body_over_its_services_limit_is_refused_before_or_while_it_comes() {
    let blue = Upstream::start("blue").await;
    let address = blue.address;
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nmax_body = \"10B\"\nblue = {{ endpoints = [\"{address}\"] }}\n\
             [service.free]\nhosts = [\"free.test\"]\nblue = {{ endpoints = [\"{address}\"] }}\n"
        ))
        .start();
    for (host, framing, body, status) in [
        ("a", "Content-Length: 10", "0123456789", 200),
        ("a", "Content-Length: 11", "0123456789x", 413),
        ("a", "Content-Length: 99999999999", "", 413),
        ("a", "Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n\r\n", 200),
        ("a", "Transfer-Encoding: chunked", "b\r\n0123456789x\r\n0\r\n\r\n", 413),
        ("a", "Transfer-Encoding: chunked", "a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n", 413),
        ("free.test", "Content-Length: 11", "0123456789x", 200),
    ] {
        let mut client = proxy.public().await;
        client
            .send(format!("POST /echo HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n{body}"))
            .await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{framing} {body:?}: {}", answer.text());
        if status == 413 {
            assert_eq!(answer.field("connection"), Some("close"));
            assert!(answer.field("proxy-status").is_some());
        }
    }
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    for (fields, body, status) in [("", 10, 200), ("", 11, 413), ("content-length: 11", 11, 413)] {
        let mut call = client.ask("POST", "/echo", fields, false).await;
        call.push(&vec![b'x'; body], true).await;
        assert_eq!(call.answer().await.expect("an answer").status, status, "{body}");
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_have_their_own() {
    let (_blue, proxy) = proxy("limits.connections_per_client = 3").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.public().await;
        assert_eq!(client.get("/", "").await.text(), "blue");
        open.push(client);
    }
    let mut late = proxy.public().await;
    // Without asking: what is sent to a connection that is closed already may cost its answer.
    let answer = late.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let metrics = proxy.call("GET", "/metrics", "", "").await.text();
    assert!(
        metrics.contains("flipgate_requests_total{code=\"429\",color=\"\",service=\"\"} 1"),
        "{metrics}"
    );
    assert_eq!(proxy.internal().await.get("/", "").await.text(), "blue");
    open.pop();
    eventually("a place is free again", async || {
        let mut client = proxy.public().await;
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until_quiet().await.ends_with("blue")
    })
    .await;
}

#[tokio::test]
async fn a_handshake_has_a_timeout() {
    let blue = Upstream::start("blue").await;
    let authority = crate::support::Authority::new();
    let files = authority.listener(&authority.issue("server", &["localhost"]));
    let proxy = TestProxy::build()
        .with("timeouts.handshake = \"1s\"\ntimeouts.head = \"1s\"")
        .service("web", &[&blue], &[])
        .listener(&format!("[listener.tls]\n{files}"))
        .listener("proxy_protocol = { from = [\"127.0.0.1/32\"] }")
        .start();
    for (place, said) in
        [(0, &b""[..]), (0, b"\x16\x03\x01\x02\x00\x01"), (1, b""), (1, b"PROXY TCP4 ")]
    {
        let mut client = Client::connect(INTERNAL, proxy.others[place]).await;
        client.send(said).await;
        assert_eq!(client.read_to_end().await, "", "{place} {said:?}");
    }
    // The preface of HTTP/2 is a head like any other.
    let mut client = proxy.public().await;
    client.send("PRI * HTTP/2.0\r\n").await;
    assert!(client.read_to_end().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn records_of_tls_that_hold_nothing_are_no_request() {
    let blue = Upstream::start("blue").await;
    let authority = crate::support::Authority::new();
    let files = authority.listener(&authority.issue("server", &["localhost"]));
    let proxy = TestProxy::build()
        .with("timeouts.head = \"1s\"")
        .service("web", &[&blue], &[])
        .listener(&format!("[listener.tls]\n{files}"))
        .start();
    let tls = authority.client(&["http/1.1"], None);
    let stream = client::connect_tls(PUBLIC, proxy.others[0], "localhost", &tls).await;
    // Behind the back of TLS: the beginning of a record, a byte at a time.
    let (mut stream, _) = stream.expect("a handshake").into_inner();
    let mut beat = tokio::time::interval(Duration::from_millis(100));
    let mut sent = 0;
    while tokio::io::AsyncWriteExt::write_all(
        &mut stream,
        if sent == 0 { b"\x17" } else { b"\x03" },
    )
    .await
    .is_ok()
    {
        sent += 1;
        assert!(sent < 100, "it is let go on for ever");
        beat.tick().await;
    }
}

#[tokio::test]
async fn a_body_below_the_minimum_rate_is_cut_and_one_above_is_not() {
    let (blue, proxy) = proxy("limits.min_rate = \"100B\"\ntimeouts.stall = \"1s\"").await;
    let begin = Instant::now();
    let drip = async |bytes: usize| {
        let mut client = proxy.public().await;
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n";
        client.send(head).await;
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        let mut left = 2000;
        while left > 0 && begin.elapsed() < Duration::from_secs(15) {
            beat.tick().await;
            let count = bytes.min(left);
            if !client.can_send(&vec![b'x'; count]).await {
                return None;
            }
            left -= count;
        }
        (left == 0).then_some(client.answer().await.status)
    };
    let (slow, fast) = tokio::join!(drip(1), drip(50));
    assert_eq!((slow, fast), (None, Some(200)));
    // A reader that takes almost nothing.
    let mut client = Client::connect_narrow(PUBLIC, proxy.public).await;
    client.ask("/endless", "").await;
    assert_eq!(client.head().await.status, 200);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    drop(blue);
}

#[tokio::test]
async fn streams_that_stand_still_have_their_time() {
    let (_blue, proxy) = proxy("timeouts.stall = \"1s\"").await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    // A body that does not come.
    let mut call = client.ask("POST", "/echo", "", false).await;
    call.push(b"x", false).await;
    assert!(call.answer().await.is_err());
    // An answer that is not taken: the window is never opened.
    let mut call = client.ask("GET", "/endless", "", true).await;
    assert_eq!(call.head().await.expect("an answer").status, 200);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(client.get("/", "").await.text(), "blue", "the others go on");
}

#[tokio::test]
async fn uploads_within_their_windows_are_no_noise() {
    let (_blue, proxy) = proxy("").await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    // Their answers are waited for, so that what comes meanwhile stands in the windows.
    for round in 0..30 {
        let mut call = client.ask("POST", "/wait", "", false).await;
        call.push(&vec![b'x'; 200_000], false).await;
        call.sending.send_reset(h2::Reason::CANCEL);
        if round % 2 == 0 {
            assert_eq!(client.get("/", "").await.text(), "blue", "{round}");
        }
    }
    assert_eq!(client.get("/", "").await.text(), "blue");
}

#[tokio::test]
async fn a_connection_of_http2_without_a_stream_has_its_time() {
    let (_blue, proxy) = proxy("timeouts.keep_alive = \"1s\"").await;
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    assert_eq!(client.get("/", "").await.text(), "blue");
    client.ends().await;
}

/// Story: several thousand clients that send a byte now and then.
#[tokio::test]
async fn slow_clients_block_no_other_and_time_out() {
    let (_blue, proxy) = proxy("timeouts.head = \"3s\"\nlimits.connections = 9000").await;
    let mut slow = Vec::new();
    for turn in 0..2000 {
        let mut client = client::connect("127.0.0.4", proxy.public).await;
        let said =
            if turn % 2 == 0 { &b"GET / HTTP/1.1\r\nHost: a\r\nX: "[..] } else { b"PRI * HTTP/2" };
        tokio::io::AsyncWriteExt::write_all(&mut client, said).await.expect("open");
        slow.push(client);
    }
    let begin = Instant::now();
    let mut normal = proxy.public().await;
    for round in 0..20 {
        assert_eq!(normal.get("/", "").await.text(), "blue", "{round}");
        for client in &slow {
            // One that was cut already is beside the point.
            let _ = client.try_write(b"x");
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    eventually("all connections are closed", async || {
        let metrics = proxy.call("GET", "/metrics", "", "").await.text();
        let open =
            metrics.lines().find_map(|it| it.strip_prefix("flipgate_downstream_connections "));
        open.expect("a line").parse::<usize>().expect("a number") <= 2
    })
    .await;
    assert_eq!(normal.get("/", "").await.text(), "blue");
}
