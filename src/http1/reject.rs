//! Rejection of heads, and their limits.

/// Why a head is rejected. The connection must be closed, since it is unknown where the next request begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadRejection {
    /// The head is not HTTP, or ambiguous.
    #[error("{0}")]
    Malformed(&'static str),
    /// An unknown transfer coding (section 6.1).
    #[error("unsupported transfer coding; use chunked")]
    Coding,
    /// CONNECT or TRACE.
    #[error("unsupported method")]
    Method,
    /// The target is longer than the limit of a line.
    #[error("the request target is too long")]
    TargetTooLong,
    /// Too many lines, a line that is too long, or a head that is too long.
    #[error("the head is too large")]
    TooLarge,
}

/// The limits of a request head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HeadLimits {
    /// Bytes of a name with its value, and of the target.
    pub line: usize,
    /// Bytes of the whole head, at most [`RequestHead::BYTES_MAX`](super::RequestHead::BYTES_MAX).
    pub head: usize,
}

// === impl HeadLimits ===

impl Default for HeadLimits {
    fn default() -> Self {
        Self { line: 8 * 1024, head: 32 * 1024 }
    }
}

/// Whether an incomplete head already exceeds a limit.
pub(super) fn check_size(bytes: &[u8], limits: HeadLimits) -> Option<HeadRejection> {
    let line_max = limits.line;
    if bytes.len() > line_max && memchr::memchr(b'\n', &bytes[..line_max]).is_none() {
        return Some(HeadRejection::TargetTooLong);
    }
    (bytes.len() >= limits.head).then_some(HeadRejection::TooLarge)
}

/// The rejection for a parser error.
pub(super) fn from_parse_error(error: httparse::Error) -> HeadRejection {
    use httparse::Error;
    HeadRejection::Malformed(match error {
        Error::TooManyHeaders => return HeadRejection::TooLarge,
        Error::HeaderName => "a field line is not a name, a colon and a value",
        Error::HeaderValue => "a field value has control characters or a bare CR",
        Error::NewLine => "a line does not end in CRLF",
        Error::Token => "the request line is not a method, a target and a version",
        Error::Version => "the version must be HTTP/1.0 or HTTP/1.1",
        Error::Status => "not a request",
    })
}
