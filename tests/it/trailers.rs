//! Which fields are forwarded as trailers.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::support::{Http2, Http2Upstream, Scripted, TestProxy, Upstream, client::PUBLIC};

/// Fields that no trailer section may have: RFC 9110, section 6.5.1.
const FORBIDDEN: &[&str] = &[
    "content-type",
    "content-encoding",
    "content-range",
    "content-length",
    "content-location",
    "trailer",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-range",
    "expect",
    "max-forwards",
    "set-cookie",
    "cookie",
    "location",
    "authorization",
    "www-authenticate",
    "proxy-authenticate",
    "proxy-authorization",
    "cache-control",
    "vary",
    "age",
    "expires",
    "retry-after",
    "date",
    "host",
    "origin",
    "referer",
    "accept-encoding",
    "access-control-allow-origin",
    "strict-transport-security",
    "content-security-policy",
    "refresh",
    "x-forwarded-for",
    "x-http-method-override",
    "x-original-url",
    "flipgate-color",
    "a-name-that-is-not-known",
];

/// Fields with definitions that allow trailers, and those of applications.
const ALLOWED: &[&str] = &[
    "etag",
    "server-timing",
    "content-digest",
    "repr-digest",
    "digest",
    "content-md5",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "x-sum",
    "x-amz-checksum-crc32c",
    "x-amz-trailer-signature",
    "x-sample-ended",
];

fn section(names: &[&str]) -> String {
    names.iter().map(|it| format!("{it}: 1\r\n")).collect()
}

fn map(names: &[&str]) -> HeaderMap {
    let field = |it: &&str| {
        let name = HeaderName::from_bytes(it.as_bytes()).expect("a name");
        (name, HeaderValue::from_static("1"))
    };
    names.iter().map(field).collect()
}

/// `Content-Type`, `Range`, `If-Match`, `Set-Cookie` and `Location` were passed on behind a body.
#[tokio::test]
async fn only_what_may_be_a_trailer_passes_over_http1() {
    let all = [FORBIDDEN, ALLOWED].concat();
    let trailers = section(&all);
    let upstream = Scripted::start(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n{trailers}\r\n"
    ))
    .await;
    let proxy = TestProxy::at(upstream.address);
    let mut client = proxy.public().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}2\r\nhi\r\n0\r\n{trailers}\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("ok", &*section(ALLOWED)));
    let end = format!("0\r\n{}\r\n", section(ALLOWED));
    let seen = upstream.wait_for("x-sample-ended").await;
    assert!(seen.ends_with(&end), "{seen}");
}

/// A Flipgate in front of an application that speaks HTTP/2.
fn before(upstream: &Http2Upstream) -> TestProxy {
    let address = upstream.address;
    TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"{address}\"], protocol = \"h2\" }}"
        ))
        .start()
}

#[tokio::test]
async fn only_what_may_be_a_trailer_passes_over_http2() {
    let upstream = Http2Upstream::start(|mut request, mut response| async move {
        let (_, came) = crate::support::http2::read(request.body_mut()).await;
        let mut names: Vec<_> = came.keys().map(ToString::to_string).collect();
        names.sort_unstable();
        let head = http::Response::new(());
        let mut sending = response.send_response(head, false).expect("open");
        sending.send_data(names.join(" ").into(), false).expect("open");
        let all: Vec<_> = [FORBIDDEN, ALLOWED].concat();
        sending.send_trailers(map(&all)).expect("open");
    })
    .await;
    let proxy = before(&upstream);
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let mut call = client.ask("POST", "/", "", false).await;
    call.push(b"hi", false).await;
    call.sending.send_trailers(map(&[FORBIDDEN, ALLOWED].concat())).expect("an open stream");
    let answer = call.answer().await.expect("an answer");
    let mut allowed = ALLOWED.to_vec();
    allowed.sort_unstable();
    assert_eq!(answer.text(), allowed.join(" "));
    let mut passed: Vec<_> =
        answer.trailers.lines().filter_map(|it| it.split_once(':')).map(|it| it.0).collect();
    passed.sort_unstable();
    assert_eq!(passed, allowed);
}

/// gRPC calls its trailers metadata, and every application has names of its own there.
#[tokio::test]
async fn a_grpc_call_ends_with_metadata_of_any_name_but_those_that_mean_something_else() {
    let upstream = Http2Upstream::start(|_request, mut response| async move {
        let mut head = http::Response::new(());
        head.headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        let mut sending = response.send_response(head, false).expect("open");
        let names = ["grpc-status", "my-own-bin", "set-cookie", "location", "x-forwarded-for"];
        sending.send_trailers(map(&names)).expect("open");
    })
    .await;
    let proxy = before(&upstream);
    let mut client = Http2::connect(PUBLIC, proxy.public).await;
    let answer = client.get("/", "content-type: application/grpc\nte: trailers").await;
    assert_eq!(answer.trailers, "grpc-status: 1\r\nmy-own-bin: 1\r\n");
}

#[tokio::test]
async fn the_allow_list_can_be_changed() {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build()
        .with("[forwarding]\ntrailers = [\"My-Sum\", \"x-ours-*\"]")
        .service("web", &[&blue], &[])
        .start();
    let mut client = proxy.public().await;
    let trailers = section(&["my-sum", "my-summary", "x-ours-1", "x-sum", "etag", "location"]);
    let head =
        "POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}0\r\n{trailers}\r\n")).await;
    assert_eq!(client.answer().await.trailers, section(&["my-sum", "x-ours-1", "etag"]));
}
