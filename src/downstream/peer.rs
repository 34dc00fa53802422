//! Who is at the other end of a client's connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    bind::{Listener, ListenerContext},
    per_client::ClientLoad,
};
use crate::tls::{ClientCertificate, SubjectNames};

/// Who is at the other end of a client's connection, and how it came to us. The same for all streams of
/// one connection.
pub struct Peer<M> {
    identity: PeerIdentity,
    listener_context: Arc<ListenerContext>,
    tls: Option<Box<TlsDetails>>,
    load: Arc<ClientLoad>,
    cache: M,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PeerIdentity {
    /// Of whoever is at this address.
    Known(SocketAddr),
    /// Of somebody behind this proxy, which has not said who.
    UnknownBehindProxy(SocketAddr),
}

/// What TLS has made sure of.
#[derive(Debug)]
pub struct TlsDetails {
    /// What the certificate that the client was shown is for.
    pub names: Arc<SubjectNames>,
    /// Who the client is, if it has shown a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Whether that makes it internal.
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

    /// One whose requests are counted.
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
    /// The address, with the port. An IPv4 address is never written as IPv6.
    pub fn socket_address(&self) -> SocketAddr {
        let (PeerIdentity::Known(address) | PeerIdentity::UnknownBehindProxy(address)) =
            self.identity;
        address
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.socket_address().ip()
    }

    /// Whether the address is only that of a proxy that should have said another one, so that nothing
    /// follows from it.
    pub fn is_identity_unknown(&self) -> bool {
        matches!(self.identity, PeerIdentity::UnknownBehindProxy(_))
    }

    /// The listener that it came in by.
    pub fn listener(&self) -> &Listener {
        &self.listener_context.listener
    }

    /// What TLS has made sure of, if the connection is secured.
    pub fn tls(&self) -> Option<&TlsDetails> {
        self.tls.as_deref()
    }

    /// What counts the requests of its address.
    pub fn load(&self) -> &Arc<ClientLoad> {
        &self.load
    }

    /// What the handler remembers of it.
    pub fn cache(&self) -> &M {
        &self.cache
    }

    pub(super) fn listener_context(&self) -> &Arc<ListenerContext> {
        &self.listener_context
    }
}
