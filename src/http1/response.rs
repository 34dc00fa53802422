//! The head of a response.

use std::mem::MaybeUninit;

use super::{
    HttpVersion,
    field_name::FieldName,
    fields::{FIELDS_MAX, Fields, Framing, FramingFields, Scratch, Span, TransferCoding},
};

/// The unambiguous head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Its length in bytes, including the empty line.
    pub len: usize,
    /// The version.
    pub version: HttpVersion,
    /// The status code, 100 to 999.
    pub status: u16,
    /// The field lines.
    pub fields: Fields,
    /// Whether the connection can be reused, as far as the head says.
    pub keeps_alive: bool,
    /// `Connection` contains `upgrade`, and `Upgrade` contains `websocket`.
    pub is_websocket: bool,
    /// Whether it has a `Date`.
    pub has_date: bool,
    length: Option<u64>,
    is_chunked: bool,
    reason: Span,
}

/// Why the bytes of an upstream are not a valid response. Nothing it sent may be used then.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidResponse(pub(super) &'static str);

/// Bytes of a response head. More than of a request head, since applications set many cookies.
pub(super) const HEAD_MAX: usize = 64 * 1024 - 1;

// === impl ResponseHead ===

impl ResponseHead {
    /// The maximum length of a head in bytes.
    pub const BYTES_MAX: usize = HEAD_MAX;

    /// Parses the head at the beginning of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// [`InvalidResponse`] as soon as the bytes cannot become a valid head.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, InvalidResponse> {
        if let [b'\n', ..] | [b'\r', ..] = bytes {
            return Err(InvalidResponse("an empty line before the head"));
        }
        let mut scratch: Scratch<'_> = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut response, bytes, &mut scratch) {
            Ok(httparse::Status::Complete(len)) if len <= HEAD_MAX => {
                Self::new(&bytes[..len], &response).map(Some)
            }
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                Err(InvalidResponse("the head is too large"))
            }
            Err(_) => Err(InvalidResponse("the head is not HTTP")),
        }
    }

    fn new(head: &[u8], response: &httparse::Response<'_, '_>) -> Result<Self, InvalidResponse> {
        let (Some(version), Some(status @ 100..)) =
            (HttpVersion::of(response.version), response.code)
        else {
            return Err(InvalidResponse("the status line is not HTTP"));
        };
        let fields = Fields::new(head, response.headers)
            .ok_or(InvalidResponse("a field line does not end in CRLF"))?;
        let FramingFields { length, coding, closes, keeps_alive, upgrades } = fields
            .framing_fields(head)
            .map_err(|_| InvalidResponse("the Content-Length is not one number"))?;
        let is_chunked = match (coding, version) {
            (None, _) => false,
            (Some(TransferCoding::Chunked), HttpVersion::Http11) => true,
            (Some(_), _) => {
                return Err(InvalidResponse("the Transfer-Encoding is not just chunked"));
            }
        };
        let is_named = |it: &[u8]| it.eq_ignore_ascii_case(b"websocket");
        let has_date = fields.has_any(&[FieldName::Date]);
        let keeps_alive = match version {
            HttpVersion::Http10 => keeps_alive && !closes,
            HttpVersion::Http11 => !closes,
        };
        Ok(Self {
            len: head.len(),
            version,
            status,
            // After conflicting framing, or framing of a response without a body, the next bytes may be anything.
            keeps_alive: keeps_alive
                && !(is_chunked && length.is_some())
                && !(status == 204 && (is_chunked || length.is_some_and(|it| it > 0))),
            is_websocket: upgrades && fields.lines(head).all(FieldName::Upgrade).any(is_named),
            has_date,
            length,
            is_chunked,
            reason: reason(head),
            fields,
        })
    }

    /// How the end of the body is found, for a response to HEAD or to another method (section 6.3). A coding overrides
    /// a length.
    #[must_use]
    pub fn framing(&self, is_for_head: bool) -> Framing {
        match (self.status, self.length) {
            (100..=199 | 204 | 304, _) => Framing::None,
            _ if is_for_head => Framing::None,
            _ if self.is_chunked => Framing::Chunked,
            (_, Some(length)) => Framing::Exact(length),
            (_, None) => Framing::UntilClose,
        }
    }

    /// Whether the head declares content. After HEAD and with a 304 none follows.
    #[must_use]
    pub fn declares_content(&self) -> bool {
        self.is_chunked || self.length.is_some_and(|it| it > 0)
    }

    /// The declared length, also if no body follows. `None` if there is a coding.
    #[must_use]
    pub fn declared_length(&self) -> Option<u64> {
        self.length.filter(|_| !self.is_chunked)
    }

    /// The code and reason of the status line.
    #[must_use]
    pub fn code_and_reason<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.reason.of_head(head)
    }
}

/// From the code to the end of the status line.
fn reason(head: &[u8]) -> Span {
    const CODE_AT: usize = "HTTP/1.1 ".len();
    let end = memchr::memchr(b'\r', head).unwrap_or(head.len());
    Span::new(CODE_AT.min(end), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<ResponseHead>, InvalidResponse> {
        ResponseHead::parse(text.as_bytes())
    }

    fn valid(text: &str) -> ResponseHead {
        parse(text).expect("a valid head").expect("a complete head")
    }

    #[test]
    fn a_head_is_complete_at_its_end_however_it_is_split() {
        let text = "HTTP/1.1 404 Not  Found\u{e9}\r\nContent-Length: 5\r\n\r\nhello";
        let len = text.len() - 5;
        for end in 0..=text.len() {
            let head = ResponseHead::parse(&text.as_bytes()[..end]).expect("valid so far");
            assert_eq!(head.map(|it| it.len), (end >= len).then_some(len), "{end}");
        }
        let head = valid(text);
        assert_eq!((head.status, head.framing(false)), (404, Framing::Exact(5)));
        let reason = head.code_and_reason(text.as_bytes());
        assert_eq!(String::from_utf8_lossy(reason), "404 Not  Found\u{e9}");
        for short in ["HTTP/1.1 200\r\n\r\n", "HTTP/1.0 200 \r\n\r\n"] {
            let reason = valid(short).code_and_reason(short.as_bytes());
            assert_eq!(reason.trim_ascii(), b"200");
        }
    }

    #[test]
    fn the_framing_follows_from_the_status_and_the_fields() {
        for (status, lines, framing) in [
            ("200", "X: 1", Framing::UntilClose),
            ("200", "Content-Length: 0", Framing::Exact(0)),
            ("200", "Transfer-Encoding: chunked", Framing::Chunked),
            ("200", "Content-Length: 5\r\nTransfer-Encoding: chunked", Framing::Chunked),
            ("204", "Content-Length: 5", Framing::None),
            ("304", "Content-Length: 5", Framing::None),
            ("103", "Link: x", Framing::None),
        ] {
            let declares = lines.contains("chunked") || lines.ends_with('5');
            let head = valid(&format!("HTTP/1.1 {status} \r\n{lines}\r\n\r\n"));
            assert_eq!(head.framing(false), framing, "{status} {lines}");
            assert_eq!(head.framing(true), Framing::None);
            assert_eq!(head.declares_content(), declares, "{status} {lines}");
        }
    }

    #[test]
    fn a_response_that_is_framed_twice_is_the_last_on_its_connection() {
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!valid(twice).keeps_alive && valid(twice).declared_length().is_none());
        assert!(valid("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").keeps_alive);
        assert!(!valid("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n").keeps_alive);
        assert!(!valid("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n").keeps_alive);
        assert!(
            !valid("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n").keeps_alive
        );
        assert!(valid("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").keeps_alive);
    }

    #[test]
    fn an_ambiguous_response_is_invalid() {
        for text in [
            "HTTP/1.1 200 OK\nX: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: 1\n\r\n",
            "HTTP/1.1 200 OK\r\nX: 1\r\n\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\n X: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let many: String = (0..=FIELDS_MAX).map(|it| format!("X-{it}: 1\r\n")).collect();
        assert!(parse(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MAX));
        assert!(parse(&long).is_err());
    }
}
