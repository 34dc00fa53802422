//! The peer of a client connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    bind::{Listener, ListenerContext},
    per_client::ClientLoad,
};
use crate::tls::{ClientCertificate, SubjectNames};

/// The peer of a client connection: its address, its listener and its TLS session. Shared by all streams of the
/// connection.
pub struct Peer<M> {
    identity: PeerIdentity,
    listener_context: Arc<ListenerContext>,
    tls: Option<Box<TlsDetails>>,
    load: Arc<ClientLoad>,
    cache: M,
}

/// The client's address, as far as it is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PeerIdentity {
    /// The client has this address.
    Known(SocketAddr),
    /// The client is behind the proxy with this address; the proxy did not say who it is.
    UnknownBehindProxy(SocketAddr),
}

/// What the TLS handshake established.
#[derive(Debug)]
pub struct TlsDetails {
    /// The names of the certificate that the server presented.
    pub names: Arc<SubjectNames>,
    /// The client's certificate, if it presented one.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether that certificate makes the client internal.
    pub makes_internal: bool,
}

// === impl Peer ===

impl<M: Default> Peer<M> {
    pub(crate) fn new(
        identity: PeerIdentity,
        listener_context: Arc<ListenerContext>,
        tls: Option<Box<TlsDetails>>,
    ) -> Self {
        Self::with_load(identity, listener_context, tls, ClientLoad::unknown())
    }

    /// A peer with a counter for its requests.
    pub(super) fn with_load(
        identity: PeerIdentity,
        listener_context: Arc<ListenerContext>,
        tls: Option<Box<TlsDetails>>,
        load: Arc<ClientLoad>,
    ) -> Self {
        let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        let identity = match identity {
            PeerIdentity::Known(it) => PeerIdentity::Known(canonical(it)),
            PeerIdentity::UnknownBehindProxy(it) => PeerIdentity::UnknownBehindProxy(canonical(it)),
        };
        Self { identity, listener_context, tls, load, cache: M::default() }
    }
}

impl<M> Peer<M> {
    /// The client's address and port. An IPv4-mapped address is an IPv4 address here.
    pub fn socket_address(&self) -> SocketAddr {
        let (PeerIdentity::Known(address) | PeerIdentity::UnknownBehindProxy(address)) =
            self.identity;
        address
    }

    /// The client's address. An IPv4-mapped address is an IPv4 address here.
    pub fn address(&self) -> IpAddr {
        self.socket_address().ip()
    }

    /// Whether the address is that of a proxy which did not name the client, so that nothing follows from it.
    pub fn is_identity_unknown(&self) -> bool {
        matches!(self.identity, PeerIdentity::UnknownBehindProxy(_))
    }

    /// The listener that accepted the connection.
    pub fn listener(&self) -> &Listener {
        &self.listener_context.listener
    }

    /// What the TLS handshake established, if the connection uses TLS.
    pub fn tls(&self) -> Option<&TlsDetails> {
        self.tls.as_deref()
    }

    /// Counts the requests of the client's address.
    pub fn load(&self) -> &Arc<ClientLoad> {
        &self.load
    }

    /// What the handler caches for the connection.
    pub fn cache(&self) -> &M {
        &self.cache
    }

    pub(super) fn listener_context(&self) -> &Arc<ListenerContext> {
        &self.listener_context
    }
}
