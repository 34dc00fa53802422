//! Which heads are refused, and how much of one is read.

/// Why a head is refused. What follows it is not read: nobody knows where it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadRejection {
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
    /// Bytes of the whole head, at most [`RequestHead::BYTES_MAX`](super::RequestHead::BYTES_MAX).
    pub head: usize,
}

// === impl HeadLimits ===

impl Default for HeadLimits {
    fn default() -> Self {
        Self { line: 8 * 1024, head: 32 * 1024 }
    }
}

/// Whether what is there is too much already, whatever may follow.
pub(super) fn check_size(bytes: &[u8], limits: HeadLimits) -> Option<HeadRejection> {
    let line_max = limits.line;
    if bytes.len() > line_max && memchr::memchr(b'\n', &bytes[..line_max]).is_none() {
        return Some(HeadRejection::TargetTooLong);
    }
    (bytes.len() >= limits.head).then_some(HeadRejection::TooLarge)
}

/// Why the parser refuses it.
pub(super) fn from_parse_error(error: httparse::Error) -> HeadRejection {
    use httparse::Error;
    HeadRejection::Malformed(match error {
        Error::TooManyHeaders => return HeadRejection::TooLarge,
        Error::HeaderName => "a line is not a name, a colon and a value",
        Error::HeaderValue => "a value has control characters or a bare CR",
        Error::NewLine => "a line does not end in CRLF",
        Error::Token => "the request line is not a method, a target and a version",
        Error::Version => "the version is neither HTTP/1.0 nor HTTP/1.1",
        Error::Status => "this is not a request",
    })
}
