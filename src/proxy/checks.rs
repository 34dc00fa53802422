//! Properties that hold for every input. Tests run them on the corpus with seeded changes, and the targets of `fuzz/`
//! use them.

use std::net::IpAddr;

use super::{
    cookies::{self, OwnCookies},
    direct_client::DirectClient,
    forwarded_chain::ForwardedInfo,
    headers::{FlipgateHeaders, ResponseRewrite, put_answer},
};
use crate::{
    http1::{FieldName, Framing, HttpVersion, RequestHead, ResponseHead},
    http2,
    model::{Host, Networks},
};

/// The request head for the upstream is unambiguous, and says what was received; over HTTP/2 too.
pub fn request(bytes: &[u8]) {
    let Ok(Some(head)) = RequestHead::parse(bytes) else { return };
    let out = DirectClient::new(([192, 0, 2, 7], 4000).into(), 7).ask(&head, bytes);
    let again = RequestHead::parse(&out);
    let Ok(Some(again)) = again else { panic!("{again:?}: {}", out.escape_ascii()) };
    assert_eq!((again.len, again.framing), (out.len(), head.framing), "{}", out.escape_ascii());
    assert_eq!(again.method(&out), head.method(bytes));
    assert_eq!((again.path(&out), again.host(&out)), (head.path(bytes), head.host(bytes)));
    let lines = again.fields.lines(&out);
    for gone in [
        FieldName::Flipgate,
        FieldName::FlipgatePreview,
        FieldName::FlipgateShadow,
        FieldName::Underscored,
        FieldName::Proxy,
        FieldName::Hop,
    ] {
        assert!(!lines.has(gone), "{gone:?}: {}", out.escape_ascii());
    }
    for ours in [
        FieldName::XForwardedFor,
        FieldName::Forwarded,
        FieldName::XForwardedHost,
        FieldName::XRealIp,
    ] {
        assert_eq!(lines.all(ours).count(), 1, "{ours:?}: {}", out.escape_ascii());
    }
    assert_eq!(lines.first(FieldName::XForwardedFor), Some(&b"192.0.2.7"[..]));
    over_http2(&again, &out);
}

/// A head survives the way through HTTP/2 and back.
fn over_http2(head: &RequestHead, bytes: &[u8]) {
    let ends = head.framing == Framing::None;
    let Ok(round) = http2::round_trip(bytes, ends) else { return };
    let again = RequestHead::parse(&round);
    let Ok(Some(again)) = again else { panic!("{again:?}: {}", round.escape_ascii()) };
    assert_eq!(again.len, round.len(), "{}", round.escape_ascii());
    assert_eq!(again.path(&round), head.path(bytes), "{}", round.escape_ascii());
    assert_eq!(again.requests_websocket, head.requests_websocket, "{}", round.escape_ascii());
    assert!(again.host(&round).eq_ignore_ascii_case(head.host(bytes)), "{}", round.escape_ascii());
}

/// The response head for the client is unambiguous, and only Flipgate claims to be Flipgate.
pub fn answer(bytes: &[u8]) {
    let Ok(Some(head)) = ResponseHead::parse(bytes) else { return };
    let framing = head.framing(false);
    if head.status < 200 {
        return;
    }
    let forwarded = if framing == Framing::UntilClose { Framing::Chunked } else { framing };
    let answer = ResponseRewrite {
        version: HttpVersion::Http11,
        framing: forwarded,
        goes_on: true,
        is_websocket: false,
        headers: FlipgateHeaders { is_private: true, ..FlipgateHeaders::default() },
        cookies: None,
        hsts: Some("max-age=1"),
        via: Some(b"Via: 1.1 flipgate\r\n"),
        date: *b"Sun, 06 Nov 1994 08:49:37 GMT",
    };
    let mut out = Vec::new();
    put_answer(&mut out, &head, bytes, &answer);
    let again = ResponseHead::parse(&out);
    // Lines are added, so that there may be more than are allowed.
    let Ok(Some(again)) = again else {
        assert!(head.fields.lines(bytes).each().count() > 90, "{}", out.escape_ascii());
        return;
    };
    assert_eq!((again.len, again.status), (out.len(), head.status), "{}", out.escape_ascii());
    assert_eq!(again.framing(false), forwarded, "{}", out.escape_ascii());
    let lines = again.fields.lines(&out);
    let private: Vec<_> = lines.all(FieldName::CacheControl).collect();
    assert_eq!(private, [b"private, no-store"]);
    for log_limiter in lines.all(FieldName::ProxyStatus) {
        let log_limiter = log_limiter.to_ascii_lowercase();
        assert!(
            memchr::memmem::find(&log_limiter, b"flipgate").is_none(),
            "{}",
            out.escape_ascii()
        );
    }
}

/// Whatever a client sends, its address is the one that the trusted proxy has seen.
pub fn chain(forwarded: &[u8]) {
    // A value has no line ends: what follows one is another field.
    if forwarded.iter().any(|it| matches!(it, b'\r' | b'\n')) {
        return;
    }
    let networks = ["10.0.0.0/8"].iter().filter_map(|it| Networks::parse(it).ok());
    let trusted: Networks = networks.collect();
    let seen = IpAddr::from([203, 0, 113, 5]);
    for (name, hops) in [
        ("X-Forwarded-For", ["203.0.113.5", "10.0.0.1"]),
        ("Forwarded", ["for=203.0.113.5;host=\"a:80\"", "for=10.0.0.1"]),
    ] {
        // In one line, or in several.
        for between in [", ", &format!("\r\n{name}: ")] {
            let mut head = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: ").into_bytes();
            head.extend_from_slice(forwarded);
            head.extend_from_slice(
                [between, hops[0], between, hops[1], "\r\n\r\n"].concat().as_bytes(),
            );
            let Ok(Some(parsed)) = RequestHead::parse(&head) else { continue };
            let lines = parsed.fields.lines(&head);
            let (found, forwarded) = ForwardedInfo::of(lines, &trusted);
            assert!(found.is_none_or(|it| it == seen), "{found:?}: {}", head.escape_ascii());
            let host = forwarded.facts(lines).host;
            assert!(host.is_none_or(|it| Host::parse(&it).is_ok()), "{}", head.escape_ascii());
        }
    }
}

/// The cookies of Flipgate are removed, and every other cookie stays.
pub fn cookie(line: &[u8]) {
    let names = |line: &[u8]| -> Vec<Vec<u8>> {
        line.split(|it| *it == b';')
            .map(|it| it.trim_ascii().to_vec())
            .filter(|it| !it.is_empty())
            .collect()
    };
    let is_ours = |it: &Vec<u8>| {
        let end = memchr::memchr(b'=', it).unwrap_or(it.len());
        let name = it[..end].trim_ascii();
        matches!(name, b"flipgate_preview" | b"flipgate_share" | b"flipgate_first")
            || name.starts_with(b"flipgate_pin_")
    };
    let others: Vec<_> = names(line).into_iter().filter(|it| !is_ours(it)).collect();
    let mut left = Vec::new();
    cookies::put_others(&mut left, line);
    let left = left.strip_prefix(b"Cookie: ").and_then(|it| it.strip_suffix(b"\r\n"));
    assert_eq!(names(left.unwrap_or_default()), others, "{}", line.escape_ascii());
    assert!(
        OwnCookies::default().with(line).exist() || !names(line).iter().any(is_ours),
        "{}",
        line.escape_ascii()
    );
}

/// Normalizing a host twice changes nothing more.
pub fn host(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(host) = Host::parse(text) else { return };
    let form = host.as_str();
    assert!(!form.is_empty() && form == form.to_ascii_lowercase(), "{form:?}");
    assert!(!form.contains(['/', '?', '#', '@', '\\', '"', ' ', '\r', '\n', '\0']), "{form:?}");
    assert_eq!(Host::parse(form).map(|it| it.as_str().to_owned()).as_deref(), Ok(form));
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Rounds for each property. A fuzzer runs more; a test has to end.
    const ROUNDS: usize = 20_000;

    const WORDS: &[&[u8]] = &[
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"=",
        b"\"",
        b"\\",
        b"\xff",
        b"/",
        b"..",
        b"%2e",
        b"?",
        b"#",
        b"@",
        b"[::1]",
        b":80",
        b"flipgate_preview=green",
        b"Flipgate-Preview: green\r\n",
        b"Connection: x-forwarded-for, host\r\n",
        b"Proxy: x\r\n",
        b"X_Real_IP: 1\r\n",
        b"X-Forwarded-For: 10.0.0.1\r\n",
        b"Cookie: flipgate_preview=x; a=b\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"TE: trailers\r\n",
        b"for=10.0.0.1",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Proxy-Status: flipgate\r\n",
    ];

    /// Runs a property on the files of a folder, unchanged and then with random changes.
    fn drive(folder: &str, seed: u64, property: fn(&[u8])) {
        let folder = Path::new("tests/corpus").join(folder);
        let files = fs::read_dir(&folder).expect("a folder of the corpus");
        let mut corpus: Vec<_> =
            files.map(|it| fs::read(it.expect("an entry").path()).expect("a file")).collect();
        corpus.sort();
        assert!(corpus.len() >= 5, "{}", folder.display());
        corpus.iter().for_each(|it| property(it));
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..ROUNDS {
            let mut bytes = corpus[random.usize(..corpus.len())].clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..=bytes.len());
                match random.u8(0..4) {
                    0 => drop(
                        bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied()),
                    ),
                    1 if at < bytes.len() => bytes[at] = random.u8(..),
                    2 => drop(bytes.drain(at..bytes.len().min(at + random.usize(1..8)))),
                    _ => {
                        let part = bytes[at..bytes.len().min(at + random.usize(1..40))].to_vec();
                        bytes.splice(at..at, part);
                    }
                }
            }
            let caught = std::panic::catch_unwind(|| property(&bytes));
            assert!(caught.is_ok(), "seed {seed}, round {round}: {}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_request_is_read_in_one_way() {
        drive("requests", 1, request);
    }

    #[test]
    fn every_response_is_read_in_one_way() {
        drive("responses", 2, answer);
    }

    #[test]
    fn only_the_trusted_proxy_is_believed_about_the_client() {
        drive("chains", 3, chain);
    }

    #[test]
    fn only_cookies_of_flipgate_are_removed() {
        drive("cookies", 4, cookie);
    }

    #[test]
    fn every_host_has_one_canonical_form() {
        drive("hosts", 5, host);
    }
}
