//! The head of a request.

use std::mem::MaybeUninit;

use super::{
    Version,
    fields::{Coding, FIELDS_MAX, Fields, Framed, Framing, Scratch, Span, members},
    name::Name,
};
use crate::model::{default_port, is_same_authority};

/// The head of a request that can be read in one way only, and what it means for what follows it.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// How many bytes it is long, with the empty line at its end.
    pub len: usize,
    /// The version.
    pub version: Version,
    /// The lines.
    pub fields: Fields,
    /// How the body's end is found.
    pub framing: Framing,
    /// Whether the client may send another request on this connection.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the client takes trailers.
    pub takes_trailers: bool,
    /// Whether the client asks for a WebSocket, perhaps among other protocols, in a request without content:
    /// RFC 6455, section 4.1.
    pub wants_websocket: bool,
    /// The form of the target.
    pub form: Form,
    /// Whether the host is that of the target, so that `Host` may have another port in its place.
    pub is_absolute: bool,
    method: Span,
    target: Span,
    host: Span,
}

/// The form of a target, without the authority that it may have had: section 3.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// A path, with a query or without.
    Path,
    /// Nothing, or a query; the path is `/`.
    Root,
    /// `*`: what is asked concerns the server.
    Asterisk,
}

/// Why a head is refused. What follows it is not read: nobody knows where it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reject {
    /// It is not HTTP, or can be read in more than one way.
    #[error("{0}")]
    Malformed(&'static str),
    /// A transfer coding that we do not know: section 6.1.
    #[error("the only transfer coding that is understood is chunked")]
    Coding,
    /// CONNECT or TRACE.
    #[error("this method is not served here")]
    Method,
    /// The target is longer than a line may be.
    #[error("the target is too long")]
    TargetTooLong,
    /// More than 100 lines, or more bytes in one or in all than may be.
    #[error("the head is too large")]
    TooLarge,
}

/// How much of a request's head is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadLimits {
    /// Bytes of a name and its value, and of the target.
    pub line: usize,
    /// Bytes of the whole head, at most [`RequestHead::BYTES_MAX`].
    pub head: usize,
}

// === impl HeadLimits ===

impl Default for HeadLimits {
    fn default() -> Self {
        Self { line: 8 * 1024, head: 32 * 1024 }
    }
}

const COOKIE: &str = "cookie";

// === impl RequestHead ===

impl RequestHead {
    /// Bytes of a head, whatever the limits are.
    pub const BYTES_MAX: usize = 64 * 1024 - 1;

    /// Lines of a head, at most.
    pub const FIELDS_MAX: usize = FIELDS_MAX;

    /// Reads the head at the beginning of `bytes`; `None` while it is not there as a whole.
    ///
    /// # Errors
    ///
    /// [`Reject`] as soon as the bytes that are there cannot become a good head any more.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Reject> {
        Self::parse_within(bytes, HeadLimits::default())
    }

    /// The same, with these limits.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_within(bytes: &[u8], limits: HeadLimits) -> Result<Option<Self>, Reject> {
        Self::read(bytes, limits, None)
    }

    /// The same for a head whose `Cookie` was put together of fields, of which the longest value had so many
    /// bytes: the limit is for what was sent.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_joined(
        bytes: &[u8],
        limits: HeadLimits,
        cookie_max: usize,
    ) -> Result<Option<Self>, Reject> {
        Self::read(bytes, limits, Some(cookie_max))
    }

    fn read(
        bytes: &[u8],
        limits: HeadLimits,
        cookie_max: Option<usize>,
    ) -> Result<Option<Self>, Reject> {
        if let [b'\n', ..] | [b'\r', _, ..] = bytes {
            return Err(Reject::Malformed("an empty line is no request"));
        }
        let mut scratch: Scratch<'_> = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut scratch) {
            Ok(httparse::Status::Complete(len)) if len <= limits.head => {
                Ok(Self::new(&bytes[..len], &request, limits.line, cookie_max)?
                    .followed_by(&bytes[len..], limits.head))
            }
            Ok(httparse::Status::Complete(_)) => Err(Reject::TooLarge),
            Ok(httparse::Status::Partial) => too_long(bytes, limits).map_or(Ok(None), Err),
            Err(_) if bytes.starts_with(b"PROXY ") => Err(Reject::Malformed(
                "the PROXY protocol is taken only from peers that are listed for it",
            )),
            Err(error) => Err(too_long(bytes, limits).unwrap_or_else(|| reject(error))),
        }
    }

    fn new(
        head: &[u8],
        request: &httparse::Request<'_, '_>,
        line_max: usize,
        cookie_max: Option<usize>,
    ) -> Result<Self, Reject> {
        let incomplete = Reject::Malformed("the request line is not complete");
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(incomplete);
        };
        let version = Version::of(request.version).ok_or(incomplete)?;
        if target.len() > line_max {
            return Err(Reject::TargetTooLong);
        }
        let is_too_long = |it: &&httparse::Header<'_>| it.name.len() + it.value.len() > line_max;
        if let Some(line) = request.headers.iter().find(is_too_long) {
            let is_joined = cookie_max.is_some_and(|it| COOKIE.len() + it <= line_max)
                && line.name.eq_ignore_ascii_case(COOKIE);
            // A second one is none that was joined.
            if !is_joined || request.headers.iter().filter(is_too_long).count() > 1 {
                return Err(Reject::TooLarge);
            }
        }
        let fields = Fields::new(head, request.headers)
            .ok_or(Reject::Malformed("a line does not end in CRLF"))?;
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(Reject::Method);
        }
        let framed = fields
            .framed(head)
            .map_err(|_| Reject::Malformed("the Content-Length is not one number"))?;
        let framing = framing(&framed, version)?;
        let host = match may_lack_host(method, target, version) {
            true if !fields.has_any(&[Name::Host]) => Span::default(),
            _ => one_host(&fields)?,
        };
        let (form, target, authority) = target_of(target, method, host.of_head(head))?;
        // RFC 9112, section 3.2.2: the target's counts.
        let (is_absolute, host) = match authority {
            Some(it) => (true, Span::of(head, it.as_bytes())),
            None => (false, host),
        };
        let notes = Notes::of(&fields, head);
        Ok(Self {
            len: head.len(),
            version,
            framing,
            keeps_alive: match version {
                Version::Http10 => framed.keeps_alive && !framed.closes,
                Version::Http11 => !framed.closes,
            },
            expects_continue: notes.expects_continue
                && version == Version::Http11
                && !matches!(framing, Framing::None | Framing::Exact(0)),
            takes_trailers: notes.takes_trailers && version == Version::Http11,
            wants_websocket: notes.upgrades
                && framed.upgrades
                && version == Version::Http11
                && method == "GET"
                && match framing {
                    Framing::None | Framing::Exact(0) => true,
                    // Its only chunk may be the last one.
                    Framing::Chunked => !notes.expects_continue,
                    Framing::Exact(_) | Framing::ToClose => false,
                },
            form,
            is_absolute,
            method: Span::of(head, method.as_bytes()),
            target: Span::of(head, target.as_bytes()),
            host,
            fields,
        })
    }

    /// The head, now that it is known what follows it. A handshake without content has none however that is
    /// said: an empty chunked body becomes a part of the head. `None` while it is not known whether it is one.
    fn followed_by(mut self, bytes: &[u8], head_max: usize) -> Option<Self> {
        const NO_CHUNKS: &[u8] = b"0\r\n\r\n";
        if !self.wants_websocket {
            return Some(self);
        }
        if self.framing == Framing::Chunked {
            let is_whole = bytes.starts_with(NO_CHUNKS);
            if self.len + NO_CHUNKS.len() > head_max || !is_whole && !NO_CHUNKS.starts_with(bytes) {
                self.wants_websocket = false;
                return Some(self);
            }
            if !is_whole {
                return None;
            }
            self.len += NO_CHUNKS.len();
        }
        self.framing = Framing::None;
        Some(self)
    }

    /// The method.
    #[must_use]
    pub fn method<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.method.of_head(head)
    }

    /// The target without an authority; to be completed as the form says.
    #[must_use]
    pub fn target<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.target.of_head(head)
    }

    /// The authority of the target, or else the value of the one `Host`. It has not been looked at further. Empty for
    /// `OPTIONS * HTTP/1.0` and `OPTIONS / HTTP/1.0`, which need none.
    #[must_use]
    pub fn host<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.host.of_head(head)
    }

    /// The path without the query; `*` where that is asked for.
    #[must_use]
    pub fn path<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let target = self.target(head);
        match self.form {
            Form::Root => b"/",
            Form::Asterisk => b"*",
            Form::Path => &target[..memchr::memchr(b'?', target).unwrap_or(target.len())],
        }
    }
}

/// What else the lines say of the exchange.
#[derive(Default)]
struct Notes {
    expects_continue: bool,
    takes_trailers: bool,
    /// `websocket` is among the members of `Upgrade`.
    upgrades: bool,
}

impl Notes {
    fn of(fields: &Fields, head: &[u8]) -> Self {
        let mut notes = Self::default();
        if !fields.has_any(&[Name::Expect, Name::Te, Name::Upgrade]) {
            return notes;
        }
        for field in fields.iter() {
            let value = field.value_in(head);
            match field.name {
                Name::Expect => {
                    notes.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                Name::Te => {
                    let is_trailers = |it: &[u8]| it.eq_ignore_ascii_case(b"trailers");
                    notes.takes_trailers |= members(value).any(is_trailers);
                }
                Name::Upgrade => {
                    let is_websocket = |it: &[u8]| it.eq_ignore_ascii_case(b"websocket");
                    notes.upgrades |= members(value).any(is_websocket);
                }
                _ => {}
            }
        }
        notes
    }
}

/// Section 6.3, and stricter where it leaves a choice: whoever stands behind us may have taken the
/// other one.
fn framing(framed: &Framed, version: Version) -> Result<Framing, Reject> {
    match (framed.coding, framed.length) {
        (None, None) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Exact(length)),
        (Some(_), _) if version == Version::Http10 => {
            Err(Reject::Malformed("HTTP/1.0 has no Transfer-Encoding"))
        }
        (Some(_), Some(_)) => {
            Err(Reject::Malformed("there is a Content-Length beside a Transfer-Encoding"))
        }
        (Some(Coding::Chunked), None) => Ok(Framing::Chunked),
        (Some(Coding::Others), None) => Err(Reject::Coding),
        (Some(Coding::Endless), None) => {
            Err(Reject::Malformed("the Transfer-Encoding does not end in chunked"))
        }
    }
}

/// Whether a request is a plain health check, like those of HAProxy, which know no host. It can be read, and has an
/// empty host.
fn may_lack_host(method: &str, target: &str, version: Version) -> bool {
    version == Version::Http10 && method == "OPTIONS" && matches!(target, "*" | "/")
}

/// Section 3.2.
fn one_host(fields: &Fields) -> Result<Span, Reject> {
    let mut hosts = fields.iter().filter(|it| it.name == Name::Host);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.value_at()),
        _ => Err(Reject::Malformed("exactly one Host is needed")),
    }
}

/// The form of a target, the target without its authority, and the authority: sections 3.2.1 to 3.2.4.
fn target_of<'a>(
    target: &'a str,
    method: &str,
    host: &[u8],
) -> Result<(Form, &'a str, Option<&'a str>), Reject> {
    if memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(Reject::Malformed("a target has no fragment"));
    }
    if target.starts_with('/') {
        return Ok((Form::Path, target, None));
    }
    if target == "*" && method == "OPTIONS" {
        return Ok((Form::Asterisk, target, None));
    }
    let begins =
        |scheme: &str| target.get(..scheme.len()).is_some_and(|it| it.eq_ignore_ascii_case(scheme));
    let scheme = ["http://", "https://"].into_iter().find(|it| begins(it));
    let scheme = scheme.ok_or(Reject::Malformed("the target is neither a path nor a URL"))?;
    let rest = &target[scheme.len()..];
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let port = default_port(scheme.trim_end_matches("://").as_bytes());
    if !is_same_authority(authority.as_bytes(), host, port) {
        return Err(Reject::Malformed("the target and the Host name different hosts"));
    }
    let form = match rest {
        "" if method == "OPTIONS" => Form::Asterisk,
        path if path.starts_with('/') => Form::Path,
        _ => Form::Root,
    };
    Ok((form, rest, Some(authority)))
}

/// Whether what is there is too much already, whatever may follow.
fn too_long(bytes: &[u8], limits: HeadLimits) -> Option<Reject> {
    let line_max = limits.line;
    if bytes.len() > line_max && memchr::memchr(b'\n', &bytes[..line_max]).is_none() {
        return Some(Reject::TargetTooLong);
    }
    (bytes.len() >= limits.head).then_some(Reject::TooLarge)
}

fn reject(error: httparse::Error) -> Reject {
    use httparse::Error;
    Reject::Malformed(match error {
        Error::TooManyHeaders => return Reject::TooLarge,
        Error::HeaderName => "a line is not a name, a colon and a value",
        Error::HeaderValue => "a value has control characters or a bare CR",
        Error::NewLine => "a line does not end in CRLF",
        Error::Token => "the request line is not a method, a target and a version",
        Error::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
        Error::Status => "this is not a request",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::scan::has_end;

    fn parse(text: &str) -> Result<Option<RequestHead>, Reject> {
        RequestHead::parse(text.as_bytes())
    }

    fn good(text: &str) -> RequestHead {
        parse(text).expect("good").expect("whole")
    }

    fn with(line: &str) -> String {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")
    }

    #[test]
    fn a_head_is_found_wherever_it_is_split_and_never_before_its_end() {
        let text = "GET /a?b HTTP/1.1\r\nHost: a.test:80\r\nX: \r\nAccept:  */* \r\n\r\nGET";
        let len = text.len() - 3;
        for end in 0..=text.len() {
            let head = parse(&text[..end]).expect("good so far");
            assert_eq!(head.map(|it| it.len), (end >= len).then_some(len), "{end}");
            assert_eq!(has_end(&text.as_bytes()[..end], 0), end >= len, "{end}");
            assert!(end != len || (1..=len).all(|new| has_end(&text.as_bytes()[..end], end - new)));
        }
        let (head, bytes) = (good(text), text.as_bytes());
        assert_eq!((head.method(bytes), head.target(bytes)), (&b"GET"[..], &b"/a?b"[..]));
        assert_eq!((head.path(bytes), head.host(bytes)), (&b"/a"[..], &b"a.test:80"[..]));
        let lines: Vec<_> =
            head.fields.lines(bytes).each().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(lines[1..], [(&b"X"[..], &b""[..]), (b"Accept", b"*/*")]);
    }

    #[test]
    fn what_follows_a_head_is_known_from_its_lines() {
        for (lines, framing) in [
            ("X: 1", Framing::None),
            ("Content-Length: 0", Framing::Exact(0)),
            ("content-length: 00012", Framing::Exact(12)),
            ("Content-Length: 9223372036854775807", Framing::Exact(9_223_372_036_854_775_807)),
            ("Transfer-Encoding: Chunked", Framing::Chunked),
        ] {
            assert_eq!(good(&with(lines)).framing, framing, "{lines}");
        }
    }

    #[test]
    fn a_length_that_no_signed_number_holds_is_refused() {
        for length in ["9223372036854775808", "9999999999999999999", "18446744073709551615"] {
            let found = parse(&with(&format!("Content-Length: {length}")));
            assert!(matches!(found, Err(Reject::Malformed(_))), "{length}");
        }
    }

    #[test]
    fn a_connection_goes_on_unless_somebody_says_otherwise() {
        for (version, line, goes_on) in [
            ("1.1", "X: 1", true),
            ("1.1", "Connection: x, CLOSE", false),
            ("1.1", "Connection: x\r\nConnection: close", false),
            ("1.0", "X: 1", false),
            ("1.0", "Connection: Keep-Alive", true),
            ("1.0", "Connection: keep-alive, close", false),
        ] {
            let head = good(&format!("GET / HTTP/{version}\r\nHost: a\r\n{line}\r\n\r\n"));
            assert_eq!(head.keeps_alive, goes_on, "{version} {line}");
        }
    }

    #[test]
    fn only_a_websocket_is_a_tunnel_that_may_be_asked_for() {
        for (lines, wants) in [
            ("Connection: Upgrade\r\nUpgrade: WebSocket", true),
            ("Connection: keep-alive, upgrade\r\nUpgrade: websocket", true),
            ("Upgrade: websocket", false),
            ("Connection: upgrade\r\nUpgrade: h2c", false),
            ("Connection: upgrade\r\nUpgrade: websocket, h2c", true),
            ("Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: WebSocket", true),
            ("Connection: upgrade\r\nUpgrade: h2c, websockets", false),
            ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0", true),
            ("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", false),
        ] {
            let head = good(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
            assert_eq!(head.wants_websocket, wants, "{lines}");
            let head = good(&format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"));
            assert!(!head.wants_websocket);
        }
    }

    #[test]
    fn a_handshake_with_an_empty_chunked_body_is_one_without_content() {
        let text = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        for (behind, wants) in [
            ("", None),
            ("0\r\n\r", None),
            ("0\r\n\r\n", Some(true)),
            ("0\r\n\r\nframes", Some(true)),
            ("5", Some(false)),
            ("0\r\nx", Some(false)),
        ] {
            let head = parse(&format!("{text}{behind}")).expect("good so far");
            assert_eq!(head.as_ref().map(|it| it.wants_websocket), wants, "{behind:?}");
            let Some(head) = head else { continue };
            let (content, framing) =
                if wants == Some(true) { (5, Framing::None) } else { (0, Framing::Chunked) };
            assert_eq!((head.len, head.framing), (text.len() + content, framing), "{behind:?}");
        }
        // A client that expects `100 Continue` sends nothing yet.
        let waits = text.replace("Host: a", "Host: a\r\nExpect: 100-continue");
        assert!(!good(&waits).wants_websocket);
    }

    #[test]
    fn only_a_plain_health_check_has_no_host() {
        for target in ["*", "/"] {
            let text = format!("OPTIONS {target} HTTP/1.0\r\n\r\n");
            assert_eq!(good(&text).host(text.as_bytes()), b"");
        }
        for line in
            ["OPTIONS * HTTP/1.1", "OPTIONS /a HTTP/1.0", "GET / HTTP/1.0", "HEAD / HTTP/1.0"]
        {
            assert!(parse(&format!("{line}\r\n\r\n")).is_err(), "{line}");
        }
        assert!(parse("OPTIONS * HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").is_err());
    }

    #[test]
    fn targets_become_paths() {
        for (method, target, form, rest) in [
            ("GET", "/x?y", Form::Path, "/x?y"),
            ("GET", "//x", Form::Path, "//x"),
            ("GET", "http://A/x", Form::Path, "/x"),
            ("GET", "HTTPS://a/x", Form::Path, "/x"),
            ("GET", "http://a", Form::Root, ""),
            ("GET", "http://a?b", Form::Root, "?b"),
            ("OPTIONS", "*", Form::Asterisk, "*"),
            ("OPTIONS", "http://a", Form::Asterisk, ""),
        ] {
            let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = good(&text);
            assert_eq!((head.form, head.target(text.as_bytes())), (form, rest.as_bytes()));
        }
        for (target, host, told) in [
            ("http://a.test:80/", "a.test", "a.test:80"),
            ("http://a.test/", "a.test:80", "a.test"),
            ("http://a.test:/", "a.test", "a.test:"),
            ("http://a.test/", "A.test:", "a.test"),
            ("https://a.test:443/", "a.test", "a.test:443"),
            ("HTTPS://a.test/", "a.test:443", "a.test"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert_eq!(good(&text).host(text.as_bytes()), told.as_bytes(), "{target} {host}");
        }
        for (target, host) in [
            ("http://a.test:443/", "a.test"),
            ("https://a.test:80/", "a.test"),
            ("https://a.test/", "a.test:80"),
            ("http://a.test/", "a.test:8080"),
            ("http://a.test:80/", "b.test"),
        ] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            assert!(matches!(parse(&text), Err(Reject::Malformed(_))), "{target} {host}");
        }
        for target in ["*", "x", "a:80", "ftp://a/", "http://b/", "http://a@a/", "http:///", "/x#y"]
        {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(matches!(parse(&text), Err(Reject::Malformed(_))), "{target}");
        }
    }

    #[test]
    fn line_ends_are_crlf_everywhere() {
        let good = "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n";
        for at in good.match_indices("\r\n").map(|(at, _)| at) {
            let bare = format!("{}{}", &good[..at], &good[at + 1..]);
            assert!(matches!(parse(&bare), Err(Reject::Malformed(_))), "{bare:?}");
            let cr = format!("{}{}", &good[..=at], &good[at + 2..]);
            assert!(!matches!(parse(&cr), Ok(Some(_))), "{cr:?}");
        }
        for empty_line in ["\n", "\r\n", "\r\r\n"] {
            assert!(parse(&format!("{empty_line}{good}")).is_err(), "{empty_line:?}");
        }
    }

    const HEAD_MAX: usize = 32 * 1024;
    const LINE_MAX: usize = 8 * 1024;

    #[test]
    fn limits_are_as_they_are_set() {
        let line = |count: usize| with(&format!("X: {}", "x".repeat(count)));
        let limits = HeadLimits { line: 1000, head: 2000 };
        let read = |text: &str| RequestHead::parse_within(text.as_bytes(), limits).map(drop);
        assert_eq!(read(&line(999)), Ok(()));
        assert_eq!(read(&line(1000)), Err(Reject::TooLarge));
        assert_eq!(
            read(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(1000))),
            Err(Reject::TargetTooLong)
        );
        let two = with(&format!("X: {0}\r\nY: {0}\r\nZ: {0}", "x".repeat(700)));
        assert_eq!(read(&two), Err(Reject::TooLarge));
        let wide = HeadLimits { line: 20_000, head: RequestHead::BYTES_MAX };
        let head = line(20_000 - 1);
        assert!(RequestHead::parse_within(head.as_bytes(), wide).is_ok_and(|it| it.is_some()));
    }

    #[test]
    fn a_cookie_that_was_put_together_may_be_longer_than_its_parts() {
        let limits = HeadLimits::default();
        let joined = |head: &str, longest| {
            RequestHead::parse_joined(head.as_bytes(), limits, longest).map(|it| it.is_some())
        };
        let cookie = format!("cookie: {}", "x".repeat(9000));
        assert_eq!(joined(&with(&cookie), 4500), Ok(true));
        assert_eq!(joined(&with(&cookie), LINE_MAX - 5), Err(Reject::TooLarge));
        assert_eq!(joined(&with(&format!("{cookie}\r\n{cookie}")), 4500), Err(Reject::TooLarge));
        assert_eq!(
            joined(&with(&format!("{cookie}\r\nX: {}", "x".repeat(9000))), 1),
            Err(Reject::TooLarge)
        );
        assert_eq!(parse(&with(&cookie)).err(), Some(Reject::TooLarge), "as it was sent");
    }

    #[test]
    fn limits_are_told_apart() {
        let long = |count: usize| "x".repeat(count);
        let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(LINE_MAX));
        assert_eq!(parse(&target).err(), Some(Reject::TargetTooLong));
        assert_eq!(parse(&target[..=LINE_MAX]).err(), Some(Reject::TargetTooLong));
        assert_eq!(parse(&with(&format!("X: {}", long(LINE_MAX)))).err(), Some(Reject::TooLarge));
        let many: Vec<_> = (0..FIELDS_MAX - 1).map(|it| format!("X-{it}: 1")).collect();
        assert!(parse(&with(&many.join("\r\n"))).is_ok());
        assert_eq!(
            parse(&with(&format!("{}\r\nY: 1", many.join("\r\n")))).err(),
            Some(Reject::TooLarge)
        );
        let large: Vec<_> = (0..5).map(|it| format!("X-{it}: {}", long(8000))).collect();
        let large = with(&large.join("\r\n"));
        assert_eq!(parse(&large).err(), Some(Reject::TooLarge));
        assert_eq!(parse(&large[..HEAD_MAX]).err(), Some(Reject::TooLarge));
        assert!(parse(&large[..HEAD_MAX - 1]).is_ok());
    }
}
