//! What a connection may be waiting for, and how long that may take.

use std::time::Duration;

/// What a connection may be waiting for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Timeout {
    /// For what comes before the first request.
    Handshake,
    /// For the first byte of a connection's first request.
    FirstByte,
    /// For a request.
    Idle,
    /// For a stream to begin on a connection of HTTP/2.
    Http2Idle,
    /// For any byte on a connection of HTTP/2 that has streams.
    Http2KeepAlive,
    /// For the answer to a ping.
    Pong,
    /// For a request that follows the last one at once.
    NextRequest,
    /// For the rest of a head.
    Head,
    /// For more of a request's body.
    RequestBody,
    /// For the client to take an answer.
    Write,
    /// For the upstream to say whether it wants a body.
    Continue,
    /// For a place at an endpoint.
    Queue,
    /// For an answer's head.
    ResponseHead,
    /// For more of an answer's body.
    ResponseBody,
    /// For an upstream to take what goes up a tunnel.
    TunnelUpload,
    /// For the rest of a request whose answer has begun to move on.
    RequestRemainder,
    /// For the end of the whole exchange.
    Exchange,
    /// For a look at whether an answer is better waited for elsewhere.
    RetryCheck,
    /// For a sign of life of a client that has said that it will send nothing more.
    HalfClosed,
    /// For a client to notice that its connection ends.
    Linger,
    /// For a byte in either direction of a tunnel.
    Tunnel,
}

/// How long a client and an upstream may take. Kept to within a second.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// For what comes before the first request: the PROXY protocol and TLS.
    pub handshake: Duration,
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Without a request.
    pub keep_alive: Duration,
    /// Without a byte of a body that we wait to read, or to be taken of one that we write.
    pub stall: Duration,
    /// Without a byte of an answer's body from the upstream, once it has begun.
    pub upstream: Duration,
    /// From a request's head to the last byte of its answer; `None` for as long as it takes.
    pub request: Option<Duration>,
    /// Without a byte in either direction of a tunnel.
    pub tunnel: Duration,
}

/// The time between two looks at who waits for too long.
pub(super) const STEP: Duration = Duration::from_millis(500);

/// How long a connection keeps the memory that a request needs, in case that the next one comes at
/// once: taking it anew for each would be a tenth of what a request costs. In steps it is up to a second.
const NEXT_REQUEST: Duration = STEP;

/// How long a client that expects `100 Continue` waits for an upstream that does not say it: many
/// never do, and clients themselves wait about as long.
const CONTINUE: Duration = Duration::from_secs(1);

/// The time between two looks at whether an answer is better waited for elsewhere.
const RETRY_CHECK: Duration = Duration::from_secs(1);

/// How long a client that has closed its sending side may take to show that it still reads. One that
/// is gone shows nothing, and TCP has no other way to tell the two apart.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How long a connection of HTTP/2 may be silent before it is asked whether it is still there, and
/// how long it may take to say so.
const KEEP_ALIVE_PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);

/// How long a client may go on sending what nobody reads, so that it finds the answer that says so.
const LINGER: Duration = Duration::from_secs(5);

// === impl Timeout ===

impl Timeout {
    pub(super) const COUNT: usize = 21;

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
    ];

    /// What a connection waits for while no request of it is under way, so that it can be closed for another
    /// one at little cost.
    pub(super) const WHILE_IDLE: [Self; 7] = [
        Self::Handshake,
        Self::FirstByte,
        Self::Idle,
        Self::Http2Idle,
        Self::NextRequest,
        Self::Head,
        Self::Linger,
    ];

    /// Whether whoever waits is told when the time is over, since there is something left to do. All
    /// others are cut.
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
        )
    }

    /// Whether it is waited for in vain if the client has gone without a word.
    pub(super) fn detects_gone_client(self) -> bool {
        matches!(self, Self::HalfClosed | Self::Write)
    }

    /// How long that may take, if there is a limit that does not change with the routes.
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
            // Whoever asks brings the limit along: it may change with the routes.
            Self::ResponseHead | Self::Queue => None,
            Self::ResponseBody => Some(timeouts.upstream),
            Self::Exchange => timeouts.request,
            Self::RetryCheck => Some(RETRY_CHECK),
            Self::HalfClosed => Some(HALF_CLOSED),
            Self::Linger => Some(LINGER),
            Self::Tunnel => Some(timeouts.tunnel),
        }
    }
}
