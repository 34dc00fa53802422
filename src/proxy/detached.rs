//! What goes on with a client's connection or stream after the exchange.

use futures_util::future::Either;

use super::{peer_cache::PeerCache, signal::EventStream, tunnel::Tunnel};
use crate::downstream::ClientStream;

/// What goes on with a client's connection or stream after the exchange.
pub enum Detached {
    /// A tunnel to an endpoint.
    Tunnel(Tunnel),
    /// An event stream of Flipgate, without an endpoint and without a claim.
    Events(EventStream),
}

// === impl Detached ===

impl Detached {
    /// Runs it to its end. Dropping the future ends it.
    // Boxed, each in its own size: an idle tunnel is not larger because of event streams.
    pub(super) fn carry(self, client: ClientStream<PeerCache>) -> impl Future<Output = ()> {
        match self {
            Self::Tunnel(tunnel) => Either::Left(Box::pin(tunnel.carry(client))),
            Self::Events(events) => Either::Right(Box::pin(events.carry(client))),
        }
    }
}
