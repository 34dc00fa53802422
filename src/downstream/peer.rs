//! Who is at the other end of a client's connection.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    bind::{Entrance, Listener},
    crowd::Load,
};
use crate::tls::{Identity, Names};

/// Who is at the other end of a client's connection, and how it came to us. The same for all streams of
/// one connection.
pub struct Peer<M> {
    whose: Whose,
    entrance: Arc<Entrance>,
    security: Option<Box<Security>>,
    load: Arc<Load>,
    memory: M,
}

/// Whose connection it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Whose {
    /// Of whoever is at this address.
    Known(SocketAddr),
    /// Of somebody behind this proxy, which has not said who.
    Untold(SocketAddr),
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
        whose: Whose,
        entrance: Arc<Entrance>,
        security: Option<Box<Security>>,
    ) -> Self {
        Self::counted(whose, entrance, security, Load::unknown())
    }

    /// One whose requests are counted.
    pub(super) fn counted(
        whose: Whose,
        entrance: Arc<Entrance>,
        security: Option<Box<Security>>,
        load: Arc<Load>,
    ) -> Self {
        let canonical = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
        let whose = match whose {
            Whose::Known(it) => Whose::Known(canonical(it)),
            Whose::Untold(it) => Whose::Untold(canonical(it)),
        };
        Self { whose, entrance, security, load, memory: M::default() }
    }
}

impl<M> Peer<M> {
    /// The address, with the port. An IPv4 address is never written as IPv6.
    pub fn socket_address(&self) -> SocketAddr {
        let (Whose::Known(address) | Whose::Untold(address)) = self.whose;
        address
    }

    /// The address.
    pub fn address(&self) -> IpAddr {
        self.socket_address().ip()
    }

    /// Whether the address is only that of a proxy that should have said another one, so that nothing
    /// follows from it.
    pub fn is_untold(&self) -> bool {
        matches!(self.whose, Whose::Untold(_))
    }

    /// The listener that it came in by.
    pub fn listener(&self) -> &Listener {
        &self.entrance.listener
    }

    /// What TLS has made sure of, if the connection is secured.
    pub fn security(&self) -> Option<&Security> {
        self.security.as_deref()
    }

    /// What counts the requests of its address.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }

    /// What the handler remembers of it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    pub(super) fn entrance(&self) -> &Arc<Entrance> {
        &self.entrance
    }
}
