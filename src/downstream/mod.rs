//! The client side: listening sockets, worker threads, and each connection from its first byte to its close.
//!
//! This room does not know what a request is for: it reads a head and calls a [`Handler`]. It enforces timeouts, and
//! closes connections gracefully when the process stops.

mod acceptor;
mod bind;
mod capacity;
mod client_stream;
mod clock;
mod connection;
mod connection_table;
mod context;
mod handshake;
mod http1;
mod http2;
mod peer;
mod per_client;
mod serve;
mod timeout;
mod worker;

use std::net::IpAddr;

use crate::http1::{HeadRejection, RequestHead};

pub(crate) use self::peer::PeerIdentity;
pub use self::{
    bind::{BindError, BoundListener, HttpVersions, Listener, ListenerContext, bind},
    capacity::ConnectionCapacity,
    client_stream::ClientStream,
    clock::DATE_LENGTH,
    connection::ClientConnection,
    context::ConnectionLimits,
    peer::{Peer, TlsDetails},
    per_client::{ClientLoad, PerClientLimit, RequestCount},
    timeout::{Timeout, Timeouts},
    worker::{StopSignal, Worker, WorkerSettings},
};

/// Handles the requests of one worker's connections.
pub trait Handler: Sized + 'static {
    /// What the handler caches for a connection between requests.
    type ConnectionCache: Default + 'static;
    /// The state of a connection that has become a tunnel.
    type Tunnel: 'static;

    /// Handles one request. Its head is at the start of the unread bytes. Or sends an error response if the head is
    /// invalid. The future is dropped when the client must be cut.
    fn exchange<'a>(
        &'a self,
        client: &'a mut ClientStream<Self::ConnectionCache>,
        head: Result<RequestHead, HeadError>,
    ) -> impl Future<Output = AfterExchange<Self::Tunnel>> + 'a;

    /// Runs a tunnel to its end. The future is dropped when the client must be cut.
    fn tunnel(
        &self,
        client: ClientStream<Self::ConnectionCache>,
        tunnel: Self::Tunnel,
    ) -> impl Future<Output = ()>;

    /// Counts a connection or stream that was rejected before it was a request.
    fn count_rejected(&self, why: RejectReason);

    /// Called about twice a second. True if every request in progress has to be polled once: something has changed that
    /// it does not wait for.
    fn tick(&self) -> bool;

    /// Serves the requests of other workers' handlers, forever. The worker polls the future, drops it, and calls this
    /// again at any time; no request may be lost by that.
    fn serve_other_workers(&self) -> impl Future<Output = ()>;
}

/// What happens to a connection after an exchange.
#[derive(Debug)]
pub enum AfterExchange<T> {
    /// The next request may follow; the unread bytes are its beginning.
    KeepAlive,
    /// Close the connection gracefully: the client has time to read the response.
    Close,
    /// Close the connection at once: the client must not take a partial response for a complete one.
    Cut,
    /// The connection becomes a tunnel.
    Tunnel(T),
}

impl<T> AfterExchange<T> {
    /// With another state of the tunnel.
    pub fn map<U>(self, tunnel: impl FnOnce(T) -> U) -> AfterExchange<U> {
        match self {
            Self::KeepAlive => AfterExchange::KeepAlive,
            Self::Close => AfterExchange::Close,
            Self::Cut => AfterExchange::Cut,
            Self::Tunnel(it) => AfterExchange::Tunnel(tunnel(it)),
        }
    }
}

/// Why a connection or stream was rejected, or a connection ended for abuse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RejectReason {
    /// A stream with a malformed head (RFC 9113, section 8.1.1).
    Malformed,
    /// The client address has as many connections as allowed.
    TooManyConnections,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake with this address failed for the certificate of the client, for this reason.
    ClientCertificate(IpAddr, &'static str),
    /// An HTTP/2 connection of this address was ended for abuse: more resets than responses, or excess frames.
    Http2Abuse(IpAddr),
    /// The proxy at this address sent no valid PROXY protocol header.
    ProxyHeader(IpAddr),
}

/// Why the bytes of a client are not a valid head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// The head is malformed, ambiguous or too large.
    #[error(transparent)]
    Rejected(#[from] HeadRejection),
    /// The head was incomplete when its timeout expired.
    #[error("the request head did not arrive in time")]
    TooSlow,
}
