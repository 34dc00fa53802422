//! Who is at the other end of a client's connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::bind::{Entrance, Listener};
use crate::tls::{Identity, Names};

/// Who is at the other end of a client's connection, and how it came to us. The same for all streams of
/// one connection.
pub struct Peer<M> {
    address: SocketAddr,
    entrance: Arc<Entrance>,
    security: Option<Box<Security>>,
    memory: M,
}

/// What TLS has made sure of.
#[derive(Debug)]
pub struct Security {
    /// What the certificate that the client was shown is for.
    pub names: Arc<Names>,
    /// Who the client is, if it has shown a certificate.
    pub identity: Option<Identity>,
    /// Whether that makes it internal.
    pub makes_internal: bool,
}

// === impl Peer ===

impl<M: Default> Peer<M> {
    pub(crate) fn new(
        address: SocketAddr,
        entrance: Arc<Entrance>,
        security: Option<Box<Security>>,
    ) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { address, entrance, security, memory: M::default() }
    }
}

impl<M> Peer<M> {
    /// The address, with the port. An IPv4 address is never written as IPv6.
    pub fn socket_address(&self) -> SocketAddr {
        self.address
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.address.ip()
    }

    /// The listener that it came in by.
    pub fn listener(&self) -> &Listener {
        &self.entrance.listener
    }

    /// What TLS has made sure of, if the connection is secured.
    pub fn security(&self) -> Option<&Security> {
        self.security.as_deref()
    }

    /// What the handler remembers of it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    pub(super) fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }
}
