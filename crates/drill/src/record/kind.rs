//! The kinds of requests, and how a request can end.

use std::fmt;

/// A kind of request.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A small response.
    Short,
    /// Two short requests, one after the other, to two services.
    Pair,
    /// A response body that takes time.
    Download,
    /// A request body that takes time.
    Upload,
    /// A WebSocket with a message and its echo at each interval.
    Ws,
    /// Server-sent events.
    Sse,
    /// A short request in which a public client asks for a color. The proxy must ignore that.
    RefusedPreview,
    /// A short request in which a tester asks for a color. The proxy must obey.
    Preview,
    /// A call of a transaction: ten calls of one client, which one version must answer.
    Scan,
    /// A page, or one of its assets, which only the version of the page has.
    Page,
    /// A call of a client that keeps its cookies, and that belongs to no transaction.
    Visitor,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// A complete and correct response.
    Complete,
    /// The drill could not send it: too many requests were in flight, or it had no ports or files left.
    NotSent,
    /// The connection could not be opened.
    NotConnected,
    /// The connection ended before the response.
    NoResponse,
    /// A response with this status, which is an error.
    ErrorStatus(u16),
    /// A response that is not from a sample application, or not to this request.
    UnknownResponder,
    /// Not complete within the timeout.
    TimedOut,
    /// The response or the stream ended early.
    Truncated,
    /// The content is not what was sent.
    Corrupted,
    /// The trailers were lost.
    TrailersLost,
    /// The proxy closed a WebSocket in the middle of a message.
    MessageCut,
    /// The stream continued on another color.
    ColorChanged,
    /// The stream continued on another endpoint of its color.
    EndpointChanged,
    /// A color other than the one that the tester asked for.
    WrongColor,
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Short,
        Self::Pair,
        Self::Download,
        Self::Upload,
        Self::Ws,
        Self::Sse,
        Self::RefusedPreview,
        Self::Preview,
        Self::Scan,
        Self::Page,
        Self::Visitor,
    ];

    /// The name, as in `--mix`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Pair => "pair",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::RefusedPreview => "refused-preview",
            Self::Preview => "preview",
            Self::Scan => "scan",
            Self::Page => "page",
            Self::Visitor => "visitor",
        }
    }

    /// Whether it takes `--stream-time`, so that its duration says nothing about the proxy.
    #[must_use]
    pub fn is_long(self) -> bool {
        matches!(self, Self::Download | Self::Upload | Self::Ws | Self::Sse)
    }

    /// Whether it belongs to a transaction.
    #[must_use]
    pub fn is_transaction(self) -> bool {
        matches!(self, Self::Scan | Self::Page)
    }

    /// Whether its client keeps cookies.
    #[must_use]
    pub fn keeps_cookies(self) -> bool {
        self.is_transaction() || self == Self::Visitor
    }

    /// Whether a proxy may retry it on another endpoint.
    #[must_use]
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::Upload | Self::Ws)
    }
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => write!(f, "complete"),
            Self::NotSent => write!(f, "the drill could not send it"),
            Self::NotConnected => write!(f, "no connection"),
            Self::NoResponse => write!(f, "the connection ended without a response"),
            Self::ErrorStatus(code) => write!(f, "status {code}"),
            Self::UnknownResponder => {
                write!(f, "the response is not from a sample application")
            }
            Self::TimedOut => write!(f, "timeout"),
            Self::Truncated => write!(f, "cut off"),
            Self::Corrupted => write!(f, "its content was changed"),
            Self::TrailersLost => write!(f, "its trailers were lost"),
            Self::MessageCut => write!(f, "closed in the middle of a message"),
            Self::ColorChanged => write!(f, "continued on another color"),
            Self::EndpointChanged => write!(f, "continued on another endpoint"),
            Self::WrongColor => write!(f, "not the color that the tester asked for"),
        }
    }
}
