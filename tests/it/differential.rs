//! The same bytes, cut at random, to our engine and to hyper's: do both see the same messages end at the
//! same places? Where they do not, ours has to be the stricter one, for a reason that stands in a table
//! with its paragraph.
//!
//! The corpora of `tests/corpus/` are run as they are, and then changed by a seeded hand. The targets of
//! `fuzz/` drive the same machines with a fuzzer, where there is one.

use std::{convert::Infallible, fs, path::Path, sync::Arc, sync::Mutex};

use bytes::Bytes;
use flipgate::http1::{Decoder, Framing, HeadScanner, RequestHead, ResponseHead};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One message, as a parser understood it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Message {
    /// Method and target, or status.
    line: String,
    body: Vec<u8>,
}

/// All messages that a parser understood, and why it stopped.
#[derive(Debug, Default)]
struct Reading {
    /// Only those that were whole.
    messages: Vec<Message>,
    /// Why the rest was refused, if it was.
    refused: Option<String>,
}

/// Where ours is stricter, and who says that it may be.
const STRICTER: &[(&str, &str)] = &[
    ("a line does not end in CRLF", "RFC 9112, section 2.2: a bare LF MAY be recognised"),
    ("a field line does not end in CRLF", "RFC 9112, section 2.2: a bare LF MAY be recognised"),
    ("an empty line before the request", "RFC 9112, section 2.2: at least one is to be ignored"),
    ("a request needs exactly one Host", "RFC 9112, section 3.2: MUST respond with 400"),
    ("the request target and the Host field name", "RFC 9112, section 3.2.2: Host is ignored"),
    ("the request target is neither", "RFC 9112, section 3.2"),
    ("a request target must not have", "RFC 9112, section 3.2; RFC 3986, section 3.5"),
    (
        "both Content-Length and Transfer-Encoding",
        "RFC 9112, section 6.1: ought to be handled as an error",
    ),
    (
        "unsupported transfer coding",
        "RFC 9112, section 6.1: 501 for a coding that is not understood",
    ),
    ("the Transfer-Encoding does not end", "RFC 9112, section 6.3, rule 4"),
    ("Transfer-Encoding is not allowed in HTTP/1.0", "RFC 9112, section 6.1: framing is faulty"),
    ("the Content-Length is not one number", "RFC 9112, section 6.3, rule 5: a list MAY be merged"),
    ("the Transfer-Encoding is not just", "RFC 9112, section 6.1 and 6.3, rule 4"),
    ("the head is not HTTP", "RFC 9112, section 4: space around names, bare CR"),
    ("an empty line before the head", "RFC 9112, section 2.2 allows it to servers alone"),
    ("the status line is not HTTP", "RFC 9112, section 4; RFC 9110, section 15: 100 to 599"),
    ("unsupported method", "RFC 9110, sections 9.3.6 and 9.3.8"),
    ("the version must be", "RFC 9112, section 2.3"),
    ("the request line is", "RFC 9112, section 3"),
    ("a chunk size is not", "RFC 9112, section 7.1: no space behind a size"),
    ("a chunk size is too large", "RFC 9112, section 7.1: overflow has to be prevented"),
    ("invalid chunk extension", "RFC 9112, section 7.1.1; RFC 9110, section 5.6.4"),
    ("invalid trailer section", "RFC 9112, section 7.1.2; RFC 9110, section 5.1"),
    ("a trailer field has control", "RFC 9110, section 5.5"),
    ("a line does not end", "RFC 9112, section 7.1"),
    ("the content of a chunk does not", "RFC 9112, section 7.1"),
    ("an upgrade", "RFC 9110, section 15.2.2: nothing was asked that could be switched to"),
];

/// Rounds for each corpus; a fuzzer does more, and a test has to come to its end.
const ROUNDS: usize = 10_000;

#[tokio::test]
async fn requests_end_where_hyper_says_or_are_refused_for_a_reason() {
    let corpus = corpus("requests");
    let words: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"Host: a\r\n",
        b"Host: b\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 5\r\n",
        b"content-length: +1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"0\r\n\r\n",
        b"5\r\n",
        b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"chunked",
        b", ",
        b";",
        b"\xff",
        b"#",
        b"http://b/",
        b" folded\r\n",
        b"ffffffffffffffff",
    ];
    let mut random = fastrand::Rng::with_seed(0x00f1_196a);
    let mut tally = Tally::default();
    for round in 0..corpus.len() + ROUNDS {
        let seed = random.get_seed();
        let (name, bytes) = match corpus.get(round) {
            Some(it) => it.clone(),
            None => changed(&corpus, words, &mut random),
        };
        let pieces = cut(&bytes, &mut random);
        let ours = our_requests(&pieces);
        let theirs = their_requests(&pieces).await;
        let context = || {
            let text = bytes.escape_ascii();
            format!("{name}, seed {seed:#x}:\n{text}\nours {ours:?}\nhyper {theirs:?}")
        };
        tally.compare(&ours, &theirs, &context);
    }
    tally.is_worth_something();
}

#[tokio::test]
async fn responses_end_where_hyper_says_or_are_refused_for_a_reason() {
    let corpus = corpus("responses");
    let words: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"Content-Length: 3\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0",
        b"HTTP/1.1",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"204",
        b"304",
        b"101",
        b"099",
        b";",
        b"\xff",
        b" folded\r\n",
        b"ffffffffffffffff",
    ];
    let mut random = fastrand::Rng::with_seed(0x00f1_196b);
    let mut tally = Tally::default();
    for round in 0..corpus.len() + ROUNDS {
        let seed = random.get_seed();
        let (name, bytes) = match corpus.get(round) {
            Some(it) => it.clone(),
            None => changed(&corpus, words, &mut random),
        };
        let is_for_head = random.u8(0..8) == 0;
        let pieces = cut(&bytes, &mut random);
        let ours = our_response(&pieces, is_for_head);
        let theirs = their_response(&pieces, is_for_head).await;
        let context = || {
            let text = bytes.escape_ascii();
            format!(
                "{name}, HEAD {is_for_head}, seed {seed:#x}:\n{text}\nours {ours:?}\nhyper {theirs:?}"
            )
        };
        tally.compare(&ours, &theirs, &context);
    }
    tally.is_worth_something();
}

/// How often what was seen.
#[derive(Debug, Default)]
struct Tally {
    agreed: usize,
    stricter: usize,
    refused_by_both: usize,
}

impl Tally {
    fn compare(&mut self, ours: &Reading, theirs: &Reading, context: &dyn Fn() -> String) {
        for (place, message) in ours.messages.iter().enumerate() {
            match theirs.messages.get(place) {
                Some(their) => assert_eq!(message, their, "message {place}: {}", context()),
                // Where hyper stops, for a reason that does not concern the framing.
                None if is_more_than_hyper_takes(message) => return,
                None => panic!("hyper saw no message {place}: {}", context()),
            }
            self.agreed += 1;
        }
        if theirs.messages.len() > ours.messages.len() {
            let reason = ours.refused.as_deref().unwrap_or("nothing was refused");
            let is_known = STRICTER.iter().any(|(known, _)| reason.starts_with(known));
            assert!(is_known, "stricter without a reason: {}", context());
            self.stricter += 1;
        } else if ours.refused.is_some() {
            self.refused_by_both += 1;
        }
    }

    /// A hand that changes too much, or nothing, would find nothing.
    fn is_worth_something(&self) {
        let Self { agreed, stricter, refused_by_both } = self;
        let least = agreed.min(stricter).min(refused_by_both);
        assert!(*least > ROUNDS / 20, "{self:?}");
    }
}

/// hyper keeps a target in a type that refuses characters which RFC 3986 does not have. That is no concern
/// of framing.
fn is_more_than_hyper_takes(message: &Message) -> bool {
    let target = message.line.split(' ').nth(1);
    target.is_some_and(|it| it.parse::<hyper::Uri>().is_err())
}

fn our_requests(pieces: &[Vec<u8>]) -> Reading {
    let mut reading = Reading::default();
    let mut bytes = Vec::new();
    let mut pieces = pieces.iter();
    let mut skipped = false;
    'messages: loop {
        let mut scan = HeadScanner::new(RequestHead::BYTES_MAX);
        let head = loop {
            if !skipped && bytes.starts_with(b"\r\n") {
                bytes.drain(..2);
                skipped = true;
            }
            if !bytes.is_empty() && scan.is_worth_parsing(&bytes) {
                match RequestHead::parse(&bytes) {
                    Ok(Some(head)) => break head,
                    Ok(None) => {}
                    Err(reject) => {
                        reading.refused = Some(reject.to_string());
                        return reading;
                    }
                }
            }
            match pieces.next() {
                Some(piece) => bytes.extend_from_slice(piece),
                None => return reading,
            }
        };
        skipped = false;
        let (method, target) = (head.method(&bytes), head.target(&bytes));
        let form = match head.form {
            flipgate::http1::TargetForm::Path => "",
            flipgate::http1::TargetForm::Root => "/",
            flipgate::http1::TargetForm::Asterisk => "*",
        };
        let target = if form == "*" { b"" } else { target };
        let text = String::from_utf8_lossy;
        let line = format!("{} {form}{}", text(method), text(target));
        bytes.drain(..head.len);
        let mut body = Vec::new();
        let mut decoder = Decoder::new(head.framing);
        loop {
            match decoder.decode(&mut bytes) {
                Ok(piece) => {
                    body.extend_from_slice(&bytes[piece.skip..][..piece.data]);
                    bytes.drain(..piece.consumed);
                }
                Err(error) => {
                    reading.refused = Some(error.to_string());
                    return reading;
                }
            }
            if decoder.is_done() {
                reading.messages.push(Message { line, body });
                if head.keeps_alive {
                    continue 'messages;
                }
                return reading;
            }
            match pieces.next() {
                Some(piece) => bytes.extend_from_slice(piece),
                None => return reading,
            }
        }
    }
}

async fn their_requests(pieces: &[Vec<u8>]) -> Reading {
    let (near, far) = tokio::io::duplex(1 << 20);
    let seen: Arc<Mutex<Reading>> = Arc::default();
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let target = match request.uri().authority() {
                Some(_) if request.uri().path() == "/" && request.method() == "OPTIONS" => "*",
                Some(_) => request.uri().path_and_query().map_or("/", |it| it.as_str()),
                None => &request.uri().to_string(),
            };
            let line = format!("{} {target}", request.method());
            let collected = request.into_body().collect().await;
            let mut seen = seen.lock().expect("no panic inside");
            match collected {
                Ok(body) => {
                    let body = body.to_bytes().to_vec();
                    seen.messages.push(Message { line, body });
                }
                Err(error) => seen.refused = Some(error.to_string()),
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(far), service);
    let sending = send(near, pieces);
    let (served, near) = tokio::join!(serving, sending);
    drop(near);
    let mut seen = std::mem::take(&mut *seen.lock().expect("no panic inside"));
    if let Err(error) = served {
        seen.refused.get_or_insert(error.to_string());
    }
    seen
}

fn our_response(pieces: &[Vec<u8>], is_for_head: bool) -> Reading {
    let mut reading = Reading::default();
    let mut bytes = Vec::new();
    let mut pieces = pieces.iter();
    let head = loop {
        let mut scan = HeadScanner::new(ResponseHead::BYTES_MAX);
        if !bytes.is_empty() && scan.is_worth_parsing(&bytes) {
            match ResponseHead::parse(&bytes) {
                Ok(Some(head)) if head.status == 101 => {
                    reading.refused = Some("an upgrade".to_owned());
                    return reading;
                }
                Ok(Some(head)) if head.status < 200 => {
                    bytes.drain(..head.len);
                    continue;
                }
                Ok(Some(head)) => break head,
                Ok(None) => {}
                Err(defect) => {
                    reading.refused = Some(defect.to_string());
                    return reading;
                }
            }
        }
        match pieces.next() {
            Some(piece) => bytes.extend_from_slice(piece),
            None => return reading,
        }
    };
    bytes.drain(..head.len);
    let mut body = Vec::new();
    let framing = head.framing(is_for_head);
    let mut decoder = Decoder::new(framing);
    loop {
        match decoder.decode(&mut bytes) {
            Ok(piece) => {
                body.extend_from_slice(&bytes[piece.skip..][..piece.data]);
                bytes.drain(..piece.consumed);
            }
            Err(error) => {
                reading.refused = Some(error.to_string());
                return reading;
            }
        }
        let piece = if decoder.is_done() { None } else { pieces.next() };
        match piece {
            Some(piece) => bytes.extend_from_slice(piece),
            None if decoder.is_done() || framing == Framing::UntilClose => {
                reading.messages.push(Message { line: head.status.to_string(), body });
                return reading;
            }
            None => return reading,
        }
    }
}

async fn their_response(pieces: &[Vec<u8>], is_for_head: bool) -> Reading {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut reading = Reading::default();
    let client = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(near));
    let (mut sender, driver) = client.await.expect("nothing is sent before the first request");
    let driving = tokio::spawn(driver);
    let method = if is_for_head { "HEAD" } else { "GET" };
    let request = Request::builder().method(method).uri("/").body(Empty::new()).expect("a request");
    let asking = async {
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) => return Err(error.to_string()),
        };
        let line = answer.status().as_u16().to_string();
        let is_whole = answer.body().is_end_stream();
        match answer.into_body().collect().await {
            Ok(body) => Ok(Message { line, body: body.to_bytes().to_vec() }),
            Err(error) if !is_whole => Err(error.to_string()),
            Err(_) => Ok(Message { line, body: Vec::new() }),
        }
    };
    let answering = async {
        // An answer that comes before it was asked for is none to hyper.
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            far.read_buf(&mut asked).await.expect("a request");
        }
        send(far, pieces).await
    };
    let (asked, far) = tokio::join!(asking, answering);
    drop(far);
    driving.abort();
    match asked {
        Ok(message) => reading.messages.push(message),
        Err(error) => reading.refused = Some(error),
    }
    reading
}

/// Sends the pieces one by one, each when the other end has had a turn, and then nothing more.
async fn send(mut to: tokio::io::DuplexStream, pieces: &[Vec<u8>]) -> tokio::io::DuplexStream {
    for piece in pieces {
        // The other end may have closed.
        if to.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = to.shutdown().await;
    to
}

fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(kind);
    let mut all: Vec<_> = fs::read_dir(folder)
        .expect("the corpus")
        .map(|it| it.expect("an entry").path())
        .map(|it| (it.display().to_string(), fs::read(&it).expect("a file")))
        .collect();
    all.sort();
    assert!(all.len() > 10, "the corpus is there");
    all
}

/// One of the corpus, or two of them one behind the other, with a few changes.
fn changed(
    corpus: &[(String, Vec<u8>)],
    words: &[&[u8]],
    random: &mut fastrand::Rng,
) -> (String, Vec<u8>) {
    let (name, mut bytes) = random.choice(corpus).expect("some").clone();
    if random.u8(0..4) == 0 {
        bytes.extend_from_slice(&random.choice(corpus).expect("some").1);
    }
    for _ in 0..random.usize(1..5) {
        let place = random.usize(0..=bytes.len());
        let word = *random.choice(words).expect("some");
        match random.u8(0..6) {
            0 if place < bytes.len() => bytes[place] = random.u8(..),
            1 if place < bytes.len() => drop(bytes.remove(place)),
            2 => bytes.truncate(place),
            3 => {
                // In the place of a line.
                let end =
                    memchr::memchr(b'\n', &bytes[place..]).map_or(bytes.len(), |it| place + it + 1);
                bytes.splice(place..end, word.iter().copied());
            }
            4 => {
                // Before a line.
                let start = memchr::memrchr(b'\n', &bytes[..place]).map_or(0, |it| it + 1);
                bytes.splice(start..start, word.iter().copied());
            }
            _ => drop(bytes.splice(place..place, word.iter().copied())),
        }
    }
    (name, bytes)
}

/// In one piece, byte by byte, or at random places.
fn cut(bytes: &[u8], random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let size = match random.u8(0..3) {
        0 => bytes.len().max(1),
        1 => 1,
        _ => 0,
    };
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = if size == 0 { random.usize(1..=rest.len().min(40)) } else { size };
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = behind;
    }
    pieces
}
