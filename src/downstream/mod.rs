//! Towards the client: listening sockets, worker threads, and one connection from its first byte to
//! its close.
//!
//! Does not know what a request is for. Whoever answers requests is a [`Handler`]; this room reads
//! a head and calls it, watches that nobody waits for ever, and ends connections gently when the
//! process stops.

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

/// Answers the requests of one worker's connections.
pub trait Handler: Sized + 'static {
    /// What is worth remembering from one request of a connection to the next.
    type ConnectionCache: Default + 'static;
    /// What a connection carries on as when it is no longer one for requests.
    type Tunnel: 'static;

    /// Answers one request, whose head stands at the beginning of what is unread; or tells the client
    /// why its head is none. Dropped when the client has to be cut.
    fn exchange<'a>(
        &'a self,
        client: &'a mut ClientStream<Self::ConnectionCache>,
        head: Result<RequestHead, HeadError>,
    ) -> impl Future<Output = AfterExchange<Self::Tunnel>> + 'a;

    /// Carries a tunnel to its end. Dropped when the client has to be cut.
    fn tunnel(
        &self,
        client: ClientStream<Self::ConnectionCache>,
        tunnel: Self::Tunnel,
    ) -> impl Future<Output = ()>;

    /// Counts what was turned away before it was a request.
    fn count_rejected(&self, why: RejectReason);

    /// Called about twice a second.
    fn tick(&self);

    /// Does what the handlers of other workers ask for, without end. Polled by the worker, and dropped and called
    /// again at any time: no request of theirs may be lost by that.
    fn serve_other_workers(&self) -> impl Future<Output = ()>;
}

/// What becomes of a connection after an exchange.
#[derive(Debug)]
pub enum AfterExchange<T> {
    /// The next request may come; what is unread is its beginning.
    KeepAlive,
    /// It ends, and the client has time to read what was written.
    Close,
    /// It ends at once: the client must not take what it has for the whole.
    Cut,
    /// It becomes a tunnel.
    Tunnel(T),
}

/// Why something was turned away that was no request, or many that were none in earnest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RejectReason {
    /// A stream whose head HTTP/2 does not allow.
    Malformed,
    /// One connection more than an address may have.
    TooManyConnections,
    /// A handshake of TLS that came to nothing.
    Handshake,
    /// A connection of HTTP/2 of this address that was ended for what it did: more resets than answers, or
    /// frames that are of no use.
    Http2Abuse(IpAddr),
    /// A proxy, at this address, that has not said whom its connection is for.
    ProxyHeader(IpAddr),
}

/// Why what a client sent is no head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HeadError {
    /// It cannot be read, or in more than one way.
    #[error(transparent)]
    Rejected(#[from] HeadRejection),
    /// It did not come to its end in time.
    #[error("the head took too long")]
    TooSlow,
}
