//! What do the heads of a request that is forwarded cost: reading both, and writing them anew?
//!
//! The body, sockets, and the choice of service and endpoint are left out. A small client's head, as `wrk`
//! sends it, stands beside a browser's. Times are those of one head.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use flipgate::{
    http1::{Framing, RequestHead, ResponseHead},
    model::{Host, normalize_path},
    proxy::DirectClient,
};

/// The program's: each head that is written is an allocation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PLAIN: &str = "GET / HTTP/1.1\r\nHost: localhost:9103\r\n\r\n";

const BROWSER: &str = "GET /shop/articles/81632?color=blue&size=m HTTP/1.1\r\n\
    Host: www.example.com\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: max-age=0\r\n\
    sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\n\
    sec-ch-ua-platform: \"Linux\"\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-User: ?1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Referer: https://www.example.com/shop/articles\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n\
    Cookie: session=6f1f0b1c2a8c4d0e9b7a5c3d; theme=dark; consent=1\r\n\
    \r\n";

const PLAIN_ANSWER: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n";

const APPLICATION_ANSWER: &str = "HTTP/1.1 200 OK\r\n\
    Date: Sun, 22 Nov 2026 10:00:00 GMT\r\n\
    Server: application\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Length: 18231\r\n\
    Connection: keep-alive\r\n\
    Cache-Control: private, max-age=0, must-revalidate\r\n\
    ETag: W/\"4737-Ff0eBzZ1oyv8o0nQx1b4wQ\"\r\n\
    Vary: Accept-Encoding, Cookie\r\n\
    Set-Cookie: session=6f1f0b1c2a8c4d0e9b7a5c3d; Path=/; Secure; HttpOnly; SameSite=Lax\r\n\
    X-Frame-Options: DENY\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Referrer-Policy: strict-origin-when-cross-origin\r\n\
    \r\n";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    requests(&mut criterion, "plain", PLAIN.as_bytes());
    requests(&mut criterion, "browser", BROWSER.as_bytes());
    answers(&mut criterion, "plain", PLAIN_ANSWER.as_bytes());
    answers(&mut criterion, "application", APPLICATION_ANSWER.as_bytes());
    criterion.final_summary();
}

fn requests(criterion: &mut Criterion, name: &str, bytes: &[u8]) {
    let read = || RequestHead::parse(black_box(bytes)).expect("a good head").expect("a whole one");
    let head = read();
    let mut foreign = DirectClient::new(([192, 0, 2, 7], 4000).into(), 7);
    let mut group = criterion.benchmark_group(format!("headers: {name} request"));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(read));
    group.bench_function("host and path", |bencher| {
        bencher.iter(|| {
            let host = std::str::from_utf8(head.host(black_box(bytes))).expect("text");
            let path = std::str::from_utf8(head.path(black_box(bytes))).expect("text");
            black_box((Host::parse(host).is_ok(), normalize_path(path).is_ok()))
        });
    });
    group.bench_function("write", |bencher| {
        bencher.iter(|| foreign.ask(black_box(&head), black_box(bytes)));
    });
    group.finish();
}

fn answers(criterion: &mut Criterion, name: &str, bytes: &[u8]) {
    let read = || ResponseHead::parse(black_box(bytes)).expect("a good head").expect("a whole one");
    let head = read();
    let framing = head.framing(false);
    assert!(matches!(framing, Framing::Exact(_)), "a body as long as it says");
    let mut group = criterion.benchmark_group(format!("headers: {name} answer"));
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(read));
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            // As an exchange does: a new one for each, which the socket's writer takes over.
            let mut out = Vec::new();
            DirectClient::answer(&mut out, black_box(&head), black_box(bytes), framing);
            out
        });
    });
    group.finish();
}
