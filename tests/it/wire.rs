//! HTTP/1 towards clients and upstreams.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Client, Http2, Scripted, TestProxy, Upstream, client::PUBLIC, eventually};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn interim_answers_are_passed_on_as_they_come() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
                 Flipgate-Color: red\r\n\r\n";
    let unasked = "HTTP/1.1 100 Continue\r\n\r\n";
    let upstream = Scripted::start(format!("{unasked}{early}{early}{OK}")).await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    for _ in 0..2 {
        client.ask("/", "").await;
        for _ in 0..2 {
            let head = client.head().await;
            assert_eq!((head.status, head.field("link")), (103, Some("</a.css>")));
            for gone in ["x-hop", "connection", "flipgate-color", "content-length", "date"] {
                assert_eq!(head.field(gone), None);
            }
        }
        assert_eq!(client.answer().await.text(), "ok");
    }
    // An old client would take the first of them for the answer.
    let mut old = proxy.public().await;
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = old.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && !answer.contains("103"), "{answer}");
}

#[tokio::test]
async fn an_interim_answer_comes_before_the_final_one_is_there() {
    let upstream = Scripted::start("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    client.ask("/", "").await;
    assert_eq!(client.head().await.status, 103);
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_a_502() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    for answer in [
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 42 Odd\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "hello\r\n",
        &long,
    ] {
        let upstream = Scripted::start(answer).await;
        let proxy = TestProxy::at(upstream.address);
        let mut client = proxy.public().await;
        let found = client.get("/", "").await;
        let shown = &answer[..answer.len().min(100)];
        assert_eq!(found.status, 502, "{shown:?}");
        assert_eq!(found.field("proxy-status"), Some("flipgate; error=http_protocol_error"));
        assert!(found.text().contains("invalid response"), "{shown:?}");
        upstream.left().await;
        assert_eq!(upstream.take().matches("HTTP/1.1\r\n").count(), 1, "asked once: {shown:?}");
    }
}

/// A length that no signed number holds, and chunk extensions that end in the middle, were passed on.
#[tokio::test]
async fn an_answer_of_an_impossible_length_or_with_a_bad_extension_is_a_502() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8000000000000000\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"\r\nok\r\n0\r\n\r\n",
    ] {
        let upstream = Scripted::start(answer).await;
        let proxy = TestProxy::at(upstream.address);
        let found = proxy.public().await.get("/", "").await;
        assert_eq!(found.status, 502, "{answer:?}");
    }
}

/// RFC 9110, section 11.7, and RFC 9209, section 2.
#[tokio::test]
async fn proxy_fields_of_an_upstream_are_removed() {
    let upstream = Scripted::start(
        "HTTP/1.1 103 Early Hints\r\nProxy-Status: flipgate; error=x\r\nProxy-Authenticate: Basic\r\n\r\n\
         HTTP/1.1 200 OK\r\nProxy-Authenticate: Basic realm=x\r\nProxy-Authentication-Info: a=b\r\n\
         Proxy-Status: flipgate; error=x\r\nProxy-Status: \"FLIPGATE\"; error=x\r\n\
         Proxy-Status: inner; error=dns_error, flipgate\r\nProxy-Status: cache; fwd=miss\r\n\
         WWW-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    client.ask("/", "Proxy-Authorization: Basic eDp5\r\nAuthorization: Basic eDp5\r\n").await;
    let early = client.head().await;
    assert_eq!((early.status, early.field("proxy-status")), (103, None));
    assert_eq!(early.field("proxy-authenticate"), None);
    let answer = client.answer().await;
    let said: Vec<_> = answer.fields("proxy-status").collect();
    assert_eq!(said, ["cache; fwd=miss"]);
    assert_eq!(answer.field("proxy-authenticate"), None);
    assert_eq!(answer.field("proxy-authentication-info"), None);
    assert_eq!(answer.field("www-authenticate"), Some("Basic"));
    let seen = upstream.take();
    assert!(seen.contains("\r\nAuthorization: ") && !seen.contains("Proxy-Auth"), "{seen}");
}

/// RFC 9110, section 7.6.2.
#[tokio::test]
async fn options_with_max_forwards_0_is_answered_by_flipgate() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    for target in ["/head", "*", "http://a.test/head"] {
        for none in ["0", "000"] {
            let ask = format!(
                "OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: {none}\r\n\r\n"
            );
            client.send(ask).await;
            let answer = client.answer().await;
            assert_eq!(answer.status, 200, "{target}: {}", answer.head);
            let allow = answer.field("allow").expect("what may be asked");
            assert!(allow.contains("OPTIONS") && !allow.contains("TRACE"), "{allow}");
            assert_eq!(answer.field("proxy-status"), Some("flipgate"));
        }
    }
    assert_eq!(blue.requests(), 0);
    for (left, next) in [("1", "0"), ("0010", "9"), ("99999999999999999999", "4294967295")] {
        let ask = format!("OPTIONS /head HTTP/1.1\r\nHost: a.test\r\nMax-Forwards: {left}\r\n\r\n");
        client.send(ask).await;
        let seen = client.answer().await.text();
        assert_eq!(seen.matches("Max-Forwards: ").count(), 1, "{seen}");
        assert!(seen.contains(&format!("\r\nMax-Forwards: {next}\r\n")), "{left}: {seen}");
    }
    // Other methods may say what they like.
    let seen = client.get("/head", "Max-Forwards: 0\r\n").await.text();
    assert!(seen.contains("\r\nMax-Forwards: 0\r\n"), "{seen}");
}

/// HAProxy asks `OPTIONS / HTTP/1.0` or `OPTIONS * HTTP/1.0` without a `Host`.
#[tokio::test]
async fn a_health_check_without_a_host_is_answered_by_an_option_and_never_routed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .service("web", &[&blue], &[&green])
        .listener("health_checks = true")
        .listener("health_checks = true\npreview = \"green\"")
        .start();
    let ask = async |to, request: &str| {
        let mut client = Client::connect("127.0.0.2", to).await;
        client.send(request).await;
        client.finish().await;
        client.read_to_end().await
    };
    let checks = [
        "OPTIONS * HTTP/1.0\r\n\r\n",
        "OPTIONS / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nUser-Agent: check\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nHost: a\r\n\r\n",
    ];
    for check in checks {
        for listener in &proxy.others {
            let answer = ask(*listener, check).await;
            assert!(answer.contains(" 200 OK\r\n"), "{check}: {answer}");
        }
    }
    assert_eq!((blue.requests(), green.requests()), (0, 0));
    // By default it is as malformed as any other request without a host.
    for check in &checks[..3] {
        let answer = ask(proxy.public, check).await;
        assert!(answer.contains(" 400 Bad Request\r\n"), "{check}: {answer}");
    }
    for malformed in [
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS /a HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "OPTIONS / HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let answer = ask(proxy.others[0], malformed).await;
        assert!(answer.contains(" 400 Bad Request\r\n"), "{malformed}: {answer}");
    }
    assert_eq!((blue.requests(), green.requests()), (0, 0));
    // What names a host and a path is a request.
    ask(proxy.others[0], "OPTIONS / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(blue.requests(), 1);
}

#[tokio::test]
async fn a_thousand_interim_answers_are_passed_on() {
    // An application that reported its progress got a 502 in its client's place with the 33rd.
    let one = "HTTP/1.1 102 Processing\r\nX-Step: 1\r\n\r\n";
    let upstream = Scripted::start(format!("{}{OK}", one.repeat(1000))).await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    for _ in 0..2 {
        client.ask("/", "").await;
        for _ in 0..1000 {
            assert_eq!(client.head().await.status, 102);
        }
        assert_eq!(client.answer().await.text(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn interim_answers_without_end_are_a_502() {
    let one = "HTTP/1.1 102 Processing\r\n\r\n";
    let upstream = Scripted::start(one.repeat(600 * 1024 / one.len())).await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    client.ask("/", "").await;
    let mut interim = 0;
    let last = loop {
        match client.head().await.status {
            102 => interim += 1,
            other => break other,
        }
    };
    assert_eq!((last, interim), (502, 512 * 1024 / one.len()));
    upstream.left().await;
}

#[tokio::test]
async fn bytes_behind_a_response_are_not_the_next_response() {
    for behind in ["HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "x", "\r\n"] {
        let upstream = Scripted::start(format!("{OK}{behind}")).await;
        let proxy = TestProxy::at(upstream.address);
        let mut client = proxy.public().await;
        for _ in 0..5 {
            let answer = client.get("/", "").await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{behind:?}");
        }
        upstream.left().await;
    }
}

#[tokio::test]
async fn a_response_shorter_than_its_length_is_visibly_cut() {
    for (answer, says) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", "Content-Length: 5\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "chunked\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", "chunked\r\n"),
    ] {
        let upstream = Scripted::closing(answer).await;
        let proxy = TestProxy::at(upstream.address);
        let mut client = proxy.public().await;
        client.ask("/", "").await;
        let all = client.read_to_end().await;
        assert!(all.contains(says) && all.contains("ok") && !all.contains("0\r\n\r\n"), "{all}");
        // A client that reads up to the end of the connection cannot tell by the end alone.
        let mut old = proxy.public().await;
        old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        assert!(old.ends_in_reset().await || says.contains("Length"), "{answer:?}");
    }
}

/// Every other way to be cut once ended such an answer as if it were whole.
#[tokio::test]
async fn an_old_client_can_tell_an_answer_that_was_cut_for_its_slowness() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[timeouts]\nupstream_stall = \"1s\"")
        .service("web", &[&blue], &[&green])
        .start();
    let mut old = proxy.public().await;
    old.send("GET /hold HTTP/1.0\r\nHost: a\r\n\r\n").await;
    old.until("begins").await;
    assert!(old.ends_in_reset().await);
    blue.release();
    let mut old = proxy.public().await;
    old.send("GET /hold HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(old.read_to_end().await.ends_with("blue ends\n"));
}

#[tokio::test]
async fn an_answer_up_to_the_end_of_its_connection_is_whole() {
    let upstream = Scripted::closing("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    for _ in 0..3 {
        let answer = client.get("/", "").await;
        assert_eq!(answer.field("transfer-encoding"), Some("chunked"));
        assert_eq!(answer.text(), "all of it");
    }
    let mut old = proxy.public().await;
    old.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
    let answer = old.read_to_end().await;
    assert!(answer.contains("Connection: close\r\n") && answer.ends_with("\r\n\r\nall of it"));
}

#[tokio::test]
async fn an_old_client_keeps_its_connection_if_it_asks_for_that() {
    let upstream = Scripted::start(OK).await;
    let proxy = TestProxy::at(upstream.address);
    let mut old = proxy.public().await;
    for _ in 0..3 {
        old.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = old.answer().await;
        assert_eq!(
            (answer.field("connection"), answer.text().as_str()),
            (Some("keep-alive"), "ok")
        );
    }
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(old.read_to_end().await.ends_with("ok"));
}

/// A client that was still sending when its connection was closed with bytes unread got a reset, and
/// lost the answer that said why.
#[tokio::test]
async fn a_client_that_is_refused_while_it_sends_can_read_why() {
    let refusal =
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch";
    let upstream = Scripted::closing(refusal).await;
    let proxy = TestProxy::build()
        .service_of("web", "a.test", "/", &[upstream.address], &[upstream.address])
        .start();
    for (host, status, text) in [("a.test", 413, "much"), ("other", 404, "no service")] {
        let mut client = proxy.public().await;
        let length = 24 * 1024 * 1024;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"))
            .await;
        // Sent to the end whatever is answered, as many clients do.
        let part = vec![b'x'; 65536];
        for _ in 0..length / 65536 {
            client.try_send(&part).await;
        }
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (status, Some("close")));
        assert!(answer.text().contains(text), "{}", answer.text());
        assert_eq!(client.read_to_end().await, "");
    }
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

/// The answer was complete, but its connection was cut with the body unread, and reset.
#[tokio::test]
async fn a_client_can_read_an_early_answer_of_an_upstream_that_takes_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound socket");
    let proxy = TestProxy::build()
        .with("[timeouts]\nstall = \"1s\"")
        .service_of("web", "*", "/", &[address], &[address])
        .start();
    let mut client = proxy.public().await;
    let length = 24 * 1024 * 1024;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")).await;
    let mut upstream = next_request(&listener).await;
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch";
    upstream.write_all(answer.as_bytes()).await.expect("an open connection");
    let part = vec![b'x'; 65536];
    for _ in 0..length / part.len() {
        client.try_send(&part).await;
    }
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (413, "much"));
    assert_eq!(client.read_to_end().await, "");
    proxy.wait_for_in_flight("web", "blue", 0).await;
    drop(upstream);
}

#[tokio::test]
async fn a_request_that_breaks_off_does_not_break_its_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = TestProxy::at(listener.local_addr().expect("a bound socket"));
    let mut client = proxy.public().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf").await;
    let mut upstream = next_request(&listener).await;
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 10\r\n\r\nfirst";
    upstream.write_all(answer.as_bytes()).await.expect("an open connection");
    client.until("first").await;
    client.finish().await;
    upstream.write_all(b"-last").await.expect("an open connection");
    assert_eq!(client.read_to_end().await, "-last");
    // What was cut upstream is not used again.
    let mut rest = Vec::new();
    upstream.read_to_end(&mut rest).await.expect("an end");
    assert!(rest.ends_with(b"half") || rest.is_empty(), "{rest:?}");
}

/// Takes the first connection that asks something, and reads the head. Probes ask nothing.
async fn next_request(listener: &TcpListener) -> TcpStream {
    loop {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut byte = [0];
        let mut head = Vec::new();
        while stream.read_exact(&mut byte).await.is_ok() {
            head.extend_from_slice(&byte);
            if head.ends_with(b"\r\n\r\n") {
                return stream;
            }
        }
    }
}

/// The timeout of the head that the empty line might have begun once ended the next request.
#[tokio::test]
async fn an_empty_line_behind_a_request_is_not_the_beginning_of_the_next() {
    let upstream = Scripted::start(OK).await;
    let proxy = TestProxy::build()
        .with("[timeouts]\nhead = \"1s\"\nkeep_alive = \"60s\"")
        .service_of("web", "*", "/", &[upstream.address], &[upstream.address])
        .start();
    let mut client = proxy.public().await;
    client.ask("/", "").await;
    client.send("\r\n").await;
    assert_eq!(client.answer().await.text(), "ok");
    for _ in 0..2 {
        let mut slow = proxy.public().await;
        slow.send("GET / HTTP/1.1\r\n").await;
        assert!(slow.read_to_end().await.starts_with("HTTP/1.1 408 "));
    }
    assert_eq!(client.get("/", "").await.text(), "ok");
}

#[tokio::test]
async fn a_small_unwanted_body_does_not_close_the_connection() {
    let upstream = Scripted::start(OK).await;
    let proxy = TestProxy::build()
        .service_of("web", "a.test", "/", &[upstream.address], &[upstream.address])
        .start();
    let mut client = proxy.public().await;
    let body = "Content-Length: 20\r\n\r\nGET / HTTP/1.1\r\nHost";
    client.send(format!("POST / HTTP/1.1\r\nHost: other\r\n{body}")).await;
    assert_eq!(client.answer().await.status, 404);
    assert_eq!(client.get("/", "").await.text(), "ok");
    assert_eq!(upstream.take().matches("HTTP/1.1\r\n").count(), 1);
}

#[tokio::test]
async fn the_rest_of_a_request_that_was_answered_early_still_goes_up() {
    let upstream = Scripted::start(OK).await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst").await;
    assert_eq!(client.answer().await.text(), "ok");
    proxy.wait_for_in_flight("web", "blue", 1).await;
    client.send("again").await;
    upstream.wait_for("firstagain").await;
    proxy.wait_for_in_flight("web", "blue", 0).await;
    // Both connections are where they should be.
    assert_eq!(client.get("/", "").await.text(), "ok");
    assert!(upstream.wait_for("firstagainGET / ").await.starts_with("POST / "));
}

#[tokio::test]
async fn a_client_that_only_stops_sending_gets_its_answers() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(request.repeat(3)).await;
    client.finish().await;
    let answers = client.read_to_end().await;
    assert_eq!(answers.matches("\r\n\r\nblue").count(), 3, "{answers}");
    assert_eq!(blue.requests(), 3);
}

#[tokio::test]
async fn a_held_body_is_requested_after_a_while() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    // This upstream says neither yes nor no, as many do.
    let fields = "Host: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    client.send(format!("POST /echo-silent HTTP/1.1\r\n{fields}")).await;
    let head = client.head().await;
    assert_eq!(head.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
    // A client that sends without waiting for 100 is not delayed, and gets no 100.
    client.send(format!("POST /echo-silent HTTP/1.1\r\n{fields}body")).await;
    let answer = client.head().await;
    assert_eq!(answer.status, 200);
    assert_eq!(client.rest(answer).await.text(), "body");
}

#[tokio::test]
async fn a_body_that_was_not_wanted_ends_the_connection_that_it_was_announced_on() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let fields = "Host: a\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n";
    client.send(format!("POST /refuse HTTP/1.1\r\n{fields}")).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.field("connection")), (417, Some("close")));
    client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_to_end().await, "");
    assert_eq!(blue.requests(), 1);
}

/// An upstream that refuses the body and goes on took the body for its next request, and its answer to
/// that belonged to another request.
#[tokio::test]
async fn an_expectation_is_passed_on_only_for_a_body_that_is_kept_back() {
    let refusal = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno";
    let upstream = Scripted::start(refusal).await;
    let proxy = TestProxy::at(upstream.address);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut impatient = proxy.public().await;
    impatient.send(format!("{head}body")).await;
    assert_eq!(impatient.answer().await.status, 417);
    upstream.wait_for("body").await;
    assert!(!upstream.take().contains("Expect"));
    let upstream = Scripted::start(refusal).await;
    let proxy = TestProxy::build()
        .with("[timeouts]\nupstream_idle = \"5m\"")
        .service_of("web", "*", "/", &[upstream.address], &[upstream.address])
        .start();
    let mut patient = proxy.public().await;
    patient.send(head).await;
    assert_eq!(patient.answer().await.status, 417);
    assert!(upstream.take().contains("\r\nExpect: 100-continue\r\n"));
    // And the connection that may still wait for a body is not kept for another request.
    upstream.left().await;
}

#[tokio::test]
async fn an_http_1_0_client_that_gets_502_can_use_its_connection_again() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
    let upstream = Scripted::start(broken).await;
    let proxy = TestProxy::at(upstream.address);
    let mut old = proxy.public().await;
    for _ in 0..2 {
        old.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(old.answer().await.status, 502);
    }
    old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert!(!old.ends_in_reset().await);
}

#[tokio::test]
async fn an_exchange_has_a_limit_if_one_is_set() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[timeouts]\nrequest = \"1s\"")
        .service("web", &[&blue], &[&green])
        .start();
    let mut waiting = proxy.public().await;
    let mut begun = proxy.public().await;
    begun.ask("/hold", "").await;
    begun.until("begins").await;
    let answer = waiting.get("/wait", "").await;
    assert_eq!(answer.status, 504);
    assert!(!begun.read_to_end().await.contains("0\r\n\r\n"));
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn an_unread_request_that_is_refused_is_counted_and_has_proxy_status() {
    let upstream = Scripted::start(OK).await;
    let proxy = TestProxy::at(upstream.address);
    let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    for (request, status) in [("GET / HTTP/1.1\r\n\r\n", 400), (&line, 414), (&field, 431)] {
        let mut client = proxy.public().await;
        client.send(request).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.field("connection")), (status, Some("close")));
        assert_eq!(answer.field("proxy-status"), Some("flipgate; error=http_request_error"));
        let counted = format!("flipgate_requests_total{{code=\"{status}\"");
        eventually(&counted, async || {
            proxy.call("GET", "/metrics", "", "").await.text().contains(&counted)
        })
        .await;
    }
}

#[tokio::test]
async fn the_limits_of_a_head_are_as_they_are_configured() {
    let upstream = Scripted::start(OK).await;
    let proxy = |limits: &str| {
        let address = upstream.address;
        TestProxy::build().with(limits).service_of("web", "*", "/", &[address], &[]).start()
    };
    let narrow = proxy("limits.max_line = \"1KiB\"\nlimits.max_head = \"2KiB\"");
    let wide = proxy("limits.max_line = \"20KiB\"\nlimits.max_head = \"63KiB\"");
    let path = |count: usize| format!("/{}", "x".repeat(count - 1));
    for (proxy, path, values, status) in [
        (&narrow, path(1024), [1, 1], 200),
        (&narrow, path(1025), [1, 1], 414),
        (&narrow, path(1), [1021, 1], 200),
        (&narrow, path(1), [1022, 1], 431),
        (&narrow, path(1), [1015, 1015], 431),
        (&wide, path(20_000), [20_000, 20_000], 200),
        (&wide, path(1), [20_480, 1], 431),
        (&wide, path(20_480), [20_400, 20_400], 200),
    ] {
        let [one, two] = values.map(|it| "x".repeat(it));
        let case = format!("{} {values:?}", path.len());
        let answer =
            proxy.public().await.get(&path, &format!("X-1: {one}\r\nX-2: {two}\r\n")).await;
        assert_eq!(answer.status, status, "{case}");
        let mut client = Http2::connect(PUBLIC, proxy.public).await;
        let answer = client.get(&path, &format!("x-1: {one}\nx-2: {two}")).await;
        assert_eq!(answer.status, status, "HTTP/2, {case}");
    }
}

#[tokio::test]
async fn a_client_that_sends_more_than_it_was_asked_is_answered_in_order() {
    let upstream = Scripted::start(OK).await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    // More than is read ahead while one of them is answered.
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(1000));
    client.send(request.repeat(200)).await;
    for _ in 0..200 {
        assert_eq!(client.answer().await.text(), "ok");
    }
    let mut slow = proxy.public().await;
    for byte in "GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes().chunks(1) {
        slow.send(byte).await;
    }
    assert_eq!(slow.answer().await.text(), "ok");
}

#[tokio::test]
async fn a_response_without_a_client_is_not_awaited() {
    let upstream = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegun").await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = Client::connect("127.0.0.2", proxy.public).await;
    client.ask("/", "").await;
    client.until("begun").await;
    drop(client);
    upstream.left().await;
    proxy.wait_for_in_flight("web", "blue", 0).await;
}
