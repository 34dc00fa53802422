//! The head of a request.

use std::mem::MaybeUninit;

use super::{
    HttpVersion,
    field_name::FieldName,
    fields::{FIELDS_MAX, Fields, Framing, FramingFields, Scratch, Span, TransferCoding, members},
    reject::{HeadLimits, HeadRejection, check_size, from_parse_error},
    target::{TargetForm, may_lack_host, parse_target, single_host},
};

/// The unambiguous head of a request, with its framing.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Its length in bytes, including the empty line.
    pub len: usize,
    /// The version.
    pub version: HttpVersion,
    /// The field lines.
    pub fields: Fields,
    /// How the end of the body is found.
    pub framing: Framing,
    /// Whether the client may send another request on this connection.
    pub keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// Whether the client accepts trailers.
    pub accepts_trailers: bool,
    /// Whether the client requests a WebSocket, perhaps among other protocols, without content (RFC 6455, section 4.1).
    pub requests_websocket: bool,
    /// The form of the target.
    pub form: TargetForm,
    /// Whether the host is that of the target, in which case the port of `Host` may be written differently.
    pub is_absolute: bool,
    method: Span,
    target: Span,
    host: Span,
}

const COOKIE: &str = "cookie";

// === impl RequestHead ===

impl RequestHead {
    /// The maximum length of a head in bytes, whatever the limits are.
    pub const BYTES_MAX: usize = 64 * 1024 - 1;

    /// The maximum number of field lines.
    pub const FIELDS_MAX: usize = FIELDS_MAX;

    /// Parses the head at the beginning of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    ///
    /// [`HeadRejection`] as soon as the bytes cannot become a valid head.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, HeadRejection> {
        Self::parse_within(bytes, HeadLimits::default())
    }

    /// Like [`Self::parse`], with these limits.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_within(bytes: &[u8], limits: HeadLimits) -> Result<Option<Self>, HeadRejection> {
        Self::read(bytes, limits, None)
    }

    /// Like [`Self::parse_within`], for a head with a `Cookie` joined from fields of at most `cookie_max` bytes: the
    /// line limit applies to each of these.
    ///
    /// # Errors
    ///
    /// As [`Self::parse`].
    pub fn parse_joined(
        bytes: &[u8],
        limits: HeadLimits,
        cookie_max: usize,
    ) -> Result<Option<Self>, HeadRejection> {
        Self::read(bytes, limits, Some(cookie_max))
    }

    fn read(
        bytes: &[u8],
        limits: HeadLimits,
        cookie_max: Option<usize>,
    ) -> Result<Option<Self>, HeadRejection> {
        if let [b'\n', ..] | [b'\r', _, ..] = bytes {
            return Err(HeadRejection::Malformed("an empty line before the request"));
        }
        let mut scratch: Scratch<'_> = [MaybeUninit::uninit(); FIELDS_MAX];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, &mut scratch) {
            Ok(httparse::Status::Complete(len)) if len <= limits.head => {
                Ok(Self::new(&bytes[..len], &request, limits.line, cookie_max)?
                    .with_body_start(&bytes[len..], limits.head))
            }
            Ok(httparse::Status::Complete(_)) => Err(HeadRejection::TooLarge),
            Ok(httparse::Status::Partial) => check_size(bytes, limits).map_or(Ok(None), Err),
            Err(_) if bytes.starts_with(b"PROXY ") => Err(HeadRejection::Malformed(
                "a PROXY protocol header from a peer that is not in proxy_protocol.from",
            )),
            Err(error) => Err(check_size(bytes, limits).unwrap_or_else(|| from_parse_error(error))),
        }
    }

    fn new(
        head: &[u8],
        request: &httparse::Request<'_, '_>,
        line_max: usize,
        cookie_max: Option<usize>,
    ) -> Result<Self, HeadRejection> {
        let incomplete = HeadRejection::Malformed("the request line is incomplete");
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(incomplete);
        };
        let version = HttpVersion::of(request.version).ok_or(incomplete)?;
        if target.len() > line_max {
            return Err(HeadRejection::TargetTooLong);
        }
        let is_too_long = |it: &&httparse::Header<'_>| it.name.len() + it.value.len() > line_max;
        if let Some(line) = request.headers.iter().find(is_too_long) {
            let is_joined = cookie_max.is_some_and(|it| COOKIE.len() + it <= line_max)
                && line.name.eq_ignore_ascii_case(COOKIE);
            // A second long line is not the joined `Cookie`.
            if !is_joined || request.headers.iter().filter(is_too_long).count() > 1 {
                return Err(HeadRejection::TooLarge);
            }
        }
        let fields = Fields::new(head, request.headers)
            .ok_or(HeadRejection::Malformed("a line does not end in CRLF"))?;
        if matches!(method, "CONNECT" | "TRACE") {
            return Err(HeadRejection::Method);
        }
        let framing_fields = fields
            .framing_fields(head)
            .map_err(|_| HeadRejection::Malformed("the Content-Length is not one number"))?;
        let framing = framing(&framing_fields, version)?;
        let host = match may_lack_host(method, target, version) {
            true if !fields.has_any(&[FieldName::Host]) => Span::default(),
            _ => single_host(&fields)?,
        };
        let (form, target, authority) = parse_target(target, method, host.of_head(head))?;
        // The target's authority overrides `Host` (section 3.2.2).
        let (is_absolute, host) = match authority {
            Some(it) => (true, Span::of(head, it.as_bytes())),
            None => (false, host),
        };
        let flags = RequestFlags::of(&fields, head);
        Ok(Self {
            len: head.len(),
            version,
            framing,
            keeps_alive: match version {
                HttpVersion::Http10 => framing_fields.keeps_alive && !framing_fields.closes,
                HttpVersion::Http11 => !framing_fields.closes,
            },
            expects_continue: flags.expects_continue
                && version == HttpVersion::Http11
                && !matches!(framing, Framing::None | Framing::Exact(0)),
            accepts_trailers: flags.accepts_trailers && version == HttpVersion::Http11,
            requests_websocket: flags.upgrades
                && framing_fields.upgrades
                && version == HttpVersion::Http11
                && method == "GET"
                && match framing {
                    Framing::None | Framing::Exact(0) => true,
                    // The body may consist of the last chunk only.
                    Framing::Chunked => !flags.expects_continue,
                    Framing::Exact(_) | Framing::UntilClose => false,
                },
            form,
            is_absolute,
            method: Span::of(head, method.as_bytes()),
            target: Span::of(head, target.as_bytes()),
            host,
            fields,
        })
    }

    /// The head, after a check of the bytes that follow. A WebSocket handshake must have no content: an empty chunked
    /// body is treated as part of the head. `None` while too few bytes have arrived to decide.
    fn with_body_start(mut self, bytes: &[u8], head_max: usize) -> Option<Self> {
        const NO_CHUNKS: &[u8] = b"0\r\n\r\n";
        if !self.requests_websocket {
            return Some(self);
        }
        if self.framing == Framing::Chunked {
            let is_whole = bytes.starts_with(NO_CHUNKS);
            if self.len + NO_CHUNKS.len() > head_max || !is_whole && !NO_CHUNKS.starts_with(bytes) {
                self.requests_websocket = false;
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

    /// The target without its authority; [`Self::form`] says how to complete it.
    #[must_use]
    pub fn target<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.target.of_head(head)
    }

    /// The authority of the target, or else the value of `Host`, not validated. Empty for `OPTIONS * HTTP/1.0` and
    /// `OPTIONS / HTTP/1.0`, which need none.
    #[must_use]
    pub fn host<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        self.host.of_head(head)
    }

    /// The path without the query; `*` for the asterisk form.
    #[must_use]
    #[inline]
    pub fn path<'a>(&self, head: &'a [u8]) -> &'a [u8] {
        let target = self.target(head);
        match self.form {
            TargetForm::Root => b"/",
            TargetForm::Asterisk => b"*",
            TargetForm::Path => &target[..memchr::memchr(b'?', target).unwrap_or(target.len())],
        }
    }
}

/// Other properties of the request in its fields.
#[derive(Default)]
struct RequestFlags {
    expects_continue: bool,
    accepts_trailers: bool,
    /// `Upgrade` contains `websocket`.
    upgrades: bool,
}

impl RequestFlags {
    fn of(fields: &Fields, head: &[u8]) -> Self {
        let mut flags = Self::default();
        if !fields.has_any(&[FieldName::Expect, FieldName::Te, FieldName::Upgrade]) {
            return flags;
        }
        for field in fields.iter() {
            let value = field.value_in(head);
            match field.name {
                FieldName::Expect => {
                    flags.expects_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                FieldName::Te => {
                    let is_trailers = |it: &[u8]| it.eq_ignore_ascii_case(b"trailers");
                    flags.accepts_trailers |= members(value).any(is_trailers);
                }
                FieldName::Upgrade => {
                    let is_websocket = |it: &[u8]| it.eq_ignore_ascii_case(b"websocket");
                    flags.upgrades |= members(value).any(is_websocket);
                }
                _ => {}
            }
        }
        flags
    }
}

/// The framing by section 6.3. Where the RFC leaves a choice, the request is rejected: the upstream may have chosen
/// differently.
fn framing(framing_fields: &FramingFields, version: HttpVersion) -> Result<Framing, HeadRejection> {
    match (framing_fields.coding, framing_fields.length) {
        (None, None) => Ok(Framing::None),
        (None, Some(length)) => Ok(Framing::Exact(length)),
        (Some(_), _) if version == HttpVersion::Http10 => {
            Err(HeadRejection::Malformed("Transfer-Encoding is not allowed in HTTP/1.0"))
        }
        (Some(_), Some(_)) => {
            Err(HeadRejection::Malformed("both Content-Length and Transfer-Encoding"))
        }
        (Some(TransferCoding::Chunked), None) => Ok(Framing::Chunked),
        (Some(TransferCoding::ChunkedLast), None) => Err(HeadRejection::Coding),
        (Some(TransferCoding::Unterminated), None) => {
            Err(HeadRejection::Malformed("the Transfer-Encoding does not end in chunked"))
        }
    }
}

#[cfg(test)]
mod tests;
