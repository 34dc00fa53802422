//! May bytes that we took for a body ever be taken for a request by an upstream, or the reverse?
//! A table of shapes that have done so elsewhere: bytes in, status out, and bytes upstream.

use crate::support::{Scripted, TestProxy, eventually};

/// What becomes of a shape.
enum Outcome {
    /// This status, the end of the connection, and nothing of it upstream.
    Refused(u16),
    /// Answered; this is what the upstream gets, without the fields that we add.
    Passed(&'static str),
    /// Begun, since the head was good, and cut off upstream before it could look whole.
    CutShort,
}

use Outcome::{CutShort, Passed, Refused};

const SHAPES: &[(&str, &str, Outcome)] = &[
    // Valid requests.
    ("plain", "GET /a HTTP/1.1\r\nHost: a\r\n\r\n", Passed("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")),
    (
        "sized",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        Passed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    ),
    (
        "a chunk size with leading zeros is written anew",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabc",
        Passed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    ),
    (
        "an empty line before a request",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        Passed("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    (
        "absolute form",
        "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
        Passed("GET /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    // Two framings: CL.TE, TE.CL, TE.TE, CL.CL (RFC 9112, sections 6.1 and 6.3).
    (
        "CL.TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
        Refused(400),
    ),
    (
        "TE.CL",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\nGET",
        Refused(400),
    ),
    (
        "TE.TE, a coding behind",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE.TE, a coding before",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    (
        "TE twice",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    (
        "TE with a coding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(501),
    ),
    (
        "TE that is not last",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE with a prefix",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE in quotes",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE with a parameter",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE that is empty",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE with a vertical tab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE with a space before the colon",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE on HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "CL.CL that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        Refused(400),
    ),
    (
        "CL.CL that agree",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        Refused(400),
    ),
    ("CL as a list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", Refused(400)),
    ("CL with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", Refused(400)),
    ("CL below zero", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", Refused(400)),
    (
        "CL in hexadecimal",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        Refused(400),
    ),
    ("CL that is empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\nabc", Refused(400)),
    (
        "CL in two parts",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3 3\r\n\r\nabc",
        Refused(400),
    ),
    (
        "CL that is no integer",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc",
        Refused(400),
    ),
    (
        "CL that does not fit",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\na",
        Refused(400),
    ),
    // CL.0: what comes behind a request without a body is the next request, and nothing else.
    (
        "CL.0",
        "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        Passed(
            "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ),
    (
        "a length is not for one hop, whatever Connection says",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length, host\r\nContent-Length: 3\r\n\r\nabc",
        Passed("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    ),
    (
        "a length with an underscore is none",
        "GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n",
        Passed("GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ),
    // Line ends, and lines (sections 2.2 and 5).
    ("a bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", Refused(400)),
    ("a bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", Refused(400)),
    ("a bare LF at the head's end", "GET / HTTP/1.1\r\nHost: a\r\n\n", Refused(400)),
    ("a bare LF in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n", Refused(400)),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", Refused(400)),
    ("a bare CR in the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", Refused(400)),
    ("two empty lines before a request", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a bare LF before a request", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("obs-fold", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", Refused(400)),
    ("a fold before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", Refused(400)),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", Refused(400)),
    ("no name", "GET / HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", Refused(400)),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n", Refused(400)),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", Refused(400)),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", Refused(400)),
    // Request lines and targets (section 3).
    ("a tab for a space", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a request in the target", "GET / HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a control in the target", "GET /\u{1} HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("no version", "GET /\r\nHost: a\r\n\r\n", Refused(400)),
    ("HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n", Refused(400)),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", Refused(400)),
    ("almost HTTP/2", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", Refused(400)),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n", Refused(400)),
    ("http in small letters", "GET / http/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", Refused(405)),
    ("TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", Refused(405)),
    // Hosts (section 3.2).
    ("no host", "GET / HTTP/1.1\r\nX: 1\r\n\r\n", Refused(400)),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Refused(400)),
    ("one host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Refused(400)),
    ("hosts in a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Refused(400)),
    ("a host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Refused(400)),
    ("a target for another host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a target for another port", "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    ("a target with a user", "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Refused(400)),
    // Chunks (section 7.1).
    (
        "chunk sizes are written anew",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0003;x=y\r\nabc\r\n0;z\r\n\r\n",
        Passed(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
    ),
    (
        "trailers that would be framing are left out",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 50\r\nX: 1\r\n\r\n",
        Passed(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: 1\r\n\r\n",
        ),
    ),
    (
        "a chunk size in C",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a chunk size with a sign",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a chunk size with a space",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a chunk size that does not fit",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a bare LF behind a chunk size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a bare LF behind a chunk",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a bare LF in an extension",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a bare CR in an extension",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a chunk that is longer than it says",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
        CutShort,
    ),
    (
        "a chunk without an end",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcXX0\r\n\r\n",
        CutShort,
    ),
    (
        "a bare LF at the end of trailers",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
        CutShort,
    ),
    (
        "a trailer that is none",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
        CutShort,
    ),
    (
        "a bare LF behind the last chunk",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\n\r\n",
        CutShort,
    ),
];

/// A request behind a shape that is refused must never be answered.
const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn whole() {
    each_shape(usize::MAX).await;
}

#[tokio::test]
async fn byte_by_byte() {
    each_shape(1).await;
}

async fn each_shape(size: usize) {
    let upstream = Scripted::start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let proxy = TestProxy::at(upstream.address);
    // For bodies that are never whole: an answer before their end would be relayed.
    let silent = Scripted::start("").await;
    let house_of_silence = TestProxy::at(silent.address);
    for (name, bytes, outcome) in SHAPES {
        let behind = if matches!(outcome, Passed(_)) { "" } else { BEHIND };
        let proxy = if matches!(outcome, CutShort) { &house_of_silence } else { &proxy };
        let mut client = proxy.public().await;
        let mut bytes = *bytes;
        if matches!(outcome, CutShort) {
            // The head is upstream before the rest is sent, so that there is something to cut.
            let end = bytes.find("\r\n\r\n").expect("a head") + 4;
            client.send(&bytes[..end]).await;
            silent.wait_for("\r\n\r\n").await;
            bytes = &bytes[end..];
        }
        for part in format!("{bytes}{behind}").as_bytes().chunks(size.min(bytes.len() + 100)) {
            // A refusal may come before the last byte is sent.
            client.try_send(part).await;
        }
        if let Passed(_) = outcome {
            client.finish().await;
        }
        let answer = client.read_to_end().await;
        match outcome {
            Refused(status) => {
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
                assert_eq!(upstream.take(), "", "{name}");
            }
            Passed(expected) => {
                let requests = expected.matches(" HTTP/1.1\r\n").count();
                assert_eq!(answer.matches("HTTP/1.1 200 ").count(), requests, "{name}: {answer}");
                let what = format!("{name}: {expected:?}");
                eventually(&what, async || joined(&upstream.seen()) == *expected).await;
                upstream.take();
            }
            CutShort => {
                assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
                assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
                silent.left().await;
                let seen = silent.take();
                assert!(seen.starts_with("POST / HTTP/1.1\r\n"), "{name}: {seen}");
                assert!(!seen.contains("0\r\n\r\n"), "{name} looks whole upstream: {seen}");
                assert!(!seen.contains("smuggled"), "{name}: {seen}");
            }
        }
    }
}

/// What an upstream got, without what we add to heads, and with its chunks put together.
fn joined(seen: &str) -> String {
    let added =
        ["Via:", "X-Forwarded-", "X-Real-IP:", "Forwarded:", "X-Request-Id:", "Traceparent:"];
    let lines = seen.split_inclusive("\r\n");
    let kept: String = lines.filter(|it| !added.iter().any(|name| it.starts_with(name))).collect();
    match kept.split_once("chunked\r\n\r\n") {
        Some((head, chunks)) => format!("{head}chunked\r\n\r\n{}", in_one_chunk(chunks)),
        None => kept,
    }
}

/// The same body with all of its content in one chunk. As it is, if it is not there as a whole yet.
fn in_one_chunk(chunks: &str) -> String {
    let mut content = String::new();
    let mut rest = chunks;
    while let Some((size, behind)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size in hexadecimal digits");
        if size == 0 {
            return format!("{:x}\r\n{content}\r\n{rest}", content.len());
        }
        let Some((data, behind)) = behind.split_at_checked(size) else { break };
        let Some(behind) = behind.strip_prefix("\r\n") else { break };
        content.push_str(data);
        rest = behind;
    }
    chunks.to_owned()
}
