//! One endpoint of a pool: how it is doing and how many requests it has.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed},
};

use crate::{
    model::{Endpoint, Health, Link, Protocol, ProxyProtocol},
    tls::Connector,
};

/// An endpoint that requests are sent to. Survives a change of its pool's other endpoints.
#[derive(Debug)]
pub struct Member {
    endpoint: Endpoint,
    link: Arc<Connecting>,
    /// What was agreed on with it by TLS, when it was last asked.
    agreed: OnceLock<Protocol>,
    in_flight: AtomicUsize,
    health: AtomicU8,
    /// Whether it was said why it is down.
    is_told: AtomicBool,
}

/// How the members of a pool are connected to.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) protocol: Option<Protocol>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    /// If one of them speaks TLS.
    pub(super) tls: Option<Connector>,
}

/// A request's place at a member; counted for as long as it lives.
// Not `Clone`: the same request would be counted twice.
#[derive(Debug)]
pub struct Seat(Arc<Member>);

// === impl Member ===

impl Member {
    pub(super) fn new(endpoint: Endpoint, link: Arc<Connecting>) -> Self {
        let health = AtomicU8::new(encode(Health::Unknown));
        let (agreed, in_flight) = (OnceLock::new(), AtomicUsize::new(0));
        Self { endpoint, link, agreed, in_flight, health, is_told: AtomicBool::new(false) }
    }

    pub(super) fn link(&self) -> &Connecting {
        &self.link
    }

    /// Whether connections to it carry many requests at once; `None` if that is not known yet.
    pub(super) fn is_multiplexed(&self) -> Option<bool> {
        let protocol = match (self.link.protocol, self.endpoint.is_tls) {
            (Some(protocol), _) => Some(protocol),
            (None, false) => Some(Protocol::Http1),
            (None, true) => self.agreed.get().copied(),
        };
        protocol.map(|it| it == Protocol::H2)
    }

    pub(super) fn agree(&self, protocol: Protocol) {
        // The first answer stays; each connection goes by its own.
        let _ = self.agreed.set(protocol);
    }

    /// Where it is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Requests that are with it now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// How the last attempt to connect went.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Unknown,
        }
    }

    /// Whether nobody has been told yet that it is down, and why.
    #[must_use]
    pub fn has_news(&self) -> bool {
        !self.is_told.swap(true, Relaxed)
    }

    /// Notes how an attempt to connect went, and returns what was known before.
    pub fn set_health(&self, health: Health) -> Health {
        let before = self.health();
        if before != health {
            self.health.store(encode(health), Relaxed);
        }
        if health == Health::Up && self.is_told.load(Relaxed) {
            self.is_told.store(false, Relaxed);
        }
        before
    }

    /// Counts a request in.
    #[must_use]
    pub fn sit(self: &Arc<Self>) -> Seat {
        self.in_flight.fetch_add(1, Relaxed);
        Seat(Arc::clone(self))
    }
}

// === impl Connecting ===

impl Connecting {
    pub(super) fn new(link: &Link, endpoints: &[Endpoint]) -> Self {
        let tls = endpoints.iter().any(|it| it.is_tls).then(|| Connector::new(&link.tls));
        Self { protocol: link.protocol, proxy_protocol: link.proxy_protocol, tls }
    }
}

fn encode(health: Health) -> u8 {
    match health {
        Health::Unknown => 0,
        Health::Up => 1,
        Health::Down => 2,
    }
}

// === impl Seat ===

impl Seat {
    /// Where this seat is.
    #[must_use]
    pub fn member(&self) -> &Arc<Member> {
        &self.0
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
