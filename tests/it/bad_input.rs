//! Malformed input is refused with its reason, and nothing else is affected.

use crate::support::{Client, TestProxy, Upstream};

/// Requests that must not reach an upstream, with the status that they get.
const MALFORMED: &[(&str, u16)] = &[
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", 400),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET http://user@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /% HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775808\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n", 400),
    ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: -1\r\n\r\n", 400),
    ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards:\r\n\r\n", 400),
    ("OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\nMax-Forwards: 0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n", 400),
    ("GET / HTTP/3.7\r\nHost: a\r\n\r\n", 400),
    ("NONSENSE\r\n\r\n", 400),
    ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\r\n\r\n", 400),
    ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
    ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
];

#[tokio::test]
async fn malformed_requests_are_refused_and_reach_no_upstream() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut bystander = proxy.public().await;
    for (request, status) in MALFORMED {
        let mut client = proxy.public().await;
        client.send(request).await;
        let answer = client.read_to_end().await;
        let found: u16 =
            answer.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_default();
        assert_eq!(found, *status, "{request:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{request:?}: {answer}");
        assert_eq!(blue.requests(), 0, "{request:?}");
    }
    assert_eq!(bystander.get("/", "").await.text(), "blue");
}

#[tokio::test]
async fn a_refused_request_ends_its_connection_so_that_nothing_behind_it_is_taken_for_one() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    for first in [
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    ] {
        let mut client = proxy.public().await;
        client.send(format!("{first}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let all = client.read_to_end().await;
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
    }
    assert_eq!(blue.requests(), 0);
}

#[tokio::test]
async fn content_length_beside_transfer_encoding_does_not_shift_the_next_message() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    client
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
               0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    client.read_to_end().await;
    assert!(!blue.paths().contains(&"/smuggled".to_owned()), "{:?}", blue.paths());
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let many: String = (0..200).map(|it| format!("X-{it}: 1\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "x".repeat(40_000));
    let path = format!("/{}", "x".repeat(40_000));
    for request in [
        format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{long}\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut client = proxy.public().await;
        client.send(&request).await;
        let answer = client.read_to_end().await;
        assert!(
            answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 414"),
            "{answer}"
        );
    }
    assert_eq!(blue.requests(), 0);
}

#[tokio::test]
async fn a_chunk_that_cannot_be_right_is_not_passed_on_as_whole() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    for chunks in [
        "0x2\r\nab\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "zz\r\n\r\n",
        "2\r\nabXX",
        "fffffffffffffffff\r\n",
        "8000000000000000\r\n",
        "5;a=\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\"c\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\\\r\nhello\r\n0\r\n\r\n",
        "5;a=\r\nhello\r\n0\r\n\r\n",
        "5;=b\r\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;;a\r\nhello\r\n0\r\n\r\n",
        "5;a b\r\nhello\r\n0\r\n\r\n",
        "5;a(\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0;a=\"\r\n\r\n",
    ] {
        let mut client = proxy.public().await;
        client
            .send(format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ))
            .await;
        client.finish().await;
        let answer = client.read_to_end().await;
        assert!(!answer.contains(" 200 "), "{chunks:?}: {answer}");
    }
    assert_eq!(proxy.get("/").await, "blue");
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn a_chunk_extension_is_read_as_the_rfc_says_and_left_out() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    for extension in
        [";a", ";a=b", ";a=\"\"", ";a=\"b;\\\"c\"", "; a = b", ";a\t;b=c", ";a=b ; c=\"d\"", ";a;b"]
    {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}5{extension}\r\nhello\r\n0{extension}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"), "{extension}");
    }
}

#[tokio::test]
async fn without_a_route_the_response_names_flipgate() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build().service_at("web", "a.test", "/app", &[&blue], &[&green]).start();
    let mut client = proxy.public().await;
    let answer = client.get("/other", "").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=destination_not_found"));
    // The connection goes on; and what an application says is not marked.
    let answer = client.get("/app", "").await;
    assert_eq!((answer.text().as_str(), answer.field("proxy-status")), ("blue", None));
}

/// Cut and changed requests by a seeded hand: nothing may panic, hang, or cost a bystander.
#[tokio::test]
async fn broken_requests_do_not_affect_others() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let whole = "POST /echo?a=%20 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
                 Trailer: x\r\nCookie: flipgate_preview=green; a=b\r\nFlipgate-Preview: green\r\n\
                 Forwarded: for=\"[::1]\"\r\n\r\n5\r\nhello\r\n0\r\nx: 1\r\n\r\n";
    let seed = 0x00f1_196a;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bystander = proxy.public().await;
    for round in 0..400 {
        let mut bytes = whole.as_bytes().to_vec();
        for _ in 0..random.usize(1..4) {
            let place = random.usize(0..bytes.len());
            match random.u8(0..4) {
                0 => bytes[place] = random.u8(..),
                1 => drop(bytes.remove(place)),
                2 => bytes.insert(place, random.choice(*b"\0\r\n :%;,\"").expect("some")),
                _ => bytes.truncate(place.max(1)),
            }
        }
        let mut client = Client::connect("127.0.0.2", proxy.public).await;
        client.send(&bytes).await;
        client.finish().await;
        let answer = client.read_to_end().await;
        assert!(!answer.contains("green"), "seed {seed:#x}, round {round}: {answer}");
        if round % 20 == 0 {
            assert_eq!(
                bystander.get("/", "").await.text(),
                "blue",
                "seed {seed:#x}, round {round}"
            );
        }
    }
    assert_eq!(green.requests(), 0, "seed {seed:#x}");
    proxy.wait_for_in_flight("web", "blue", 0).await;
}
