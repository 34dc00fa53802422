//! The timeouts of a connection.

use std::time::Duration;

/// A timeout of a connection: what it waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeout {
    /// The PROXY protocol header and the TLS handshake.
    Handshake,
    /// The first byte of the first request.
    FirstByte,
    /// The next request on a keep-alive connection.
    Idle,
    /// The next stream on an idle HTTP/2 connection.
    Http2Idle,
    /// Any byte on an HTTP/2 connection with streams. On expiry Flipgate sends a ping.
    Http2KeepAlive,
    /// The acknowledgement of a ping.
    Pong,
    /// A request that follows the last one at once, while the connection keeps its buffers.
    NextRequest,
    /// The rest of a head.
    Head,
    /// More of a request body.
    RequestBody,
    /// The client to read more of a response.
    Write,
    /// `100 Continue` from the upstream.
    Continue,
    /// A request permit of an endpoint.
    Queue,
    /// The response head.
    ResponseHead,
    /// More of a response body.
    ResponseBody,
    /// The upstream to read more of what goes up a tunnel.
    TunnelUpload,
    /// The rest of a request after its response has begun.
    RequestRemainder,
    /// The end of the whole exchange.
    Exchange,
    /// The next check whether a retry at another endpoint is better.
    RetryCheck,
    /// A sign that a client with a closed sending side still reads.
    HalfClosed,
    /// The client to close a connection that is closing.
    Linger,
    /// A byte in either direction of a tunnel.
    Tunnel,
    /// The end of a stream after a flip.
    StreamEnd,
}

/// The configured limits of timeouts, accurate to one second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// For the PROXY protocol header and the TLS handshake.
    pub handshake: Duration,
    /// From the first to the last byte of a request head.
    pub head: Duration,
    /// Without a request.
    pub keep_alive: Duration,
    /// Without progress on a body that Flipgate reads from the client or writes.
    pub stall: Duration,
    /// Without a byte of a response body from the upstream, after its first one.
    pub upstream: Duration,
    /// From a request head to the last byte of its response; `None`: no limit.
    pub request: Option<Duration>,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
}

/// The time between two checks for expired timeouts.
pub(super) const STEP: Duration = Duration::from_millis(500);

/// How long a connection keeps the buffers of a request, in case that the next one follows at once: allocating them for
/// each would be a tenth of the cost of a request. Rounded to steps it is up to a second.
const NEXT_REQUEST: Duration = STEP;

/// How long a client that expects `100 Continue` waits for an upstream that does not send it: many never do, and
/// clients themselves wait about as long.
const CONTINUE: Duration = Duration::from_secs(1);

/// The time between two checks whether a retry at another endpoint is better.
const RETRY_CHECK: Duration = Duration::from_secs(1);

/// How long a client that has closed its sending side has to show that it still reads. TCP has no other way to tell it
/// from one that has gone.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How long an HTTP/2 connection may be silent before Flipgate sends a ping, and how long its acknowledgement may take.
const KEEP_ALIVE_PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// How long Flipgate discards what a client still sends, so that the client reads the error response.
const LINGER: Duration = Duration::from_secs(5);

// === impl Timeout ===

impl Timeout {
    pub(super) const COUNT: usize = 22;

    pub(super) const ALL: [Self; Self::COUNT] = [
        Self::Handshake,
        Self::FirstByte,
        Self::Idle,
        Self::Http2Idle,
        Self::Http2KeepAlive,
        Self::Pong,
        Self::NextRequest,
        Self::Head,
        Self::RequestBody,
        Self::Write,
        Self::Continue,
        Self::Queue,
        Self::ResponseHead,
        Self::ResponseBody,
        Self::TunnelUpload,
        Self::RequestRemainder,
        Self::Exchange,
        Self::RetryCheck,
        Self::HalfClosed,
        Self::Linger,
        Self::Tunnel,
        Self::StreamEnd,
    ];

    /// The timeouts of a connection without a request in progress, so that it can be closed for another one at little
    /// cost.
    pub(super) const WHILE_IDLE: [Self; 7] = [
        Self::Handshake,
        Self::FirstByte,
        Self::Idle,
        Self::Http2Idle,
        Self::NextRequest,
        Self::Head,
        Self::Linger,
    ];

    /// Whether the table reports the expired timeout to the task, which has something left to do. Otherwise it cuts the
    /// connection.
    pub(super) fn is_reported(self) -> bool {
        matches!(
            self,
            Self::NextRequest
                | Self::FirstByte
                | Self::Http2Idle
                | Self::Http2KeepAlive
                | Self::Head
                | Self::Continue
                | Self::Queue
                | Self::ResponseHead
                | Self::ResponseBody
                | Self::RequestRemainder
                | Self::Exchange
                | Self::RetryCheck
                | Self::StreamEnd
        )
    }

    /// Whether the timeout expires when the client has gone without closing the connection.
    pub(super) fn detects_gone_client(self) -> bool {
        matches!(self, Self::HalfClosed | Self::Write)
    }

    /// The limit, if it is the same for all routes.
    pub(super) fn limit(self, timeouts: &Timeouts) -> Option<Duration> {
        match self {
            Self::Handshake => Some(timeouts.handshake),
            Self::Idle | Self::Http2Idle => Some(timeouts.keep_alive),
            Self::Http2KeepAlive => Some(KEEP_ALIVE_PING),
            Self::Pong => Some(PONG),
            Self::NextRequest => Some(NEXT_REQUEST),
            Self::FirstByte | Self::Head => Some(timeouts.head),
            Self::RequestBody | Self::Write | Self::TunnelUpload | Self::RequestRemainder => {
                Some(timeouts.stall)
            }
            Self::Continue => Some(CONTINUE),
            // The caller has the limit of the route.
            Self::ResponseHead | Self::Queue | Self::StreamEnd => None,
            Self::ResponseBody => Some(timeouts.upstream),
            Self::Exchange => timeouts.request,
            Self::RetryCheck => Some(RETRY_CHECK),
            Self::HalfClosed => Some(HALF_CLOSED),
            Self::Linger => Some(LINGER),
            Self::Tunnel => Some(timeouts.tunnel),
        }
    }
}
