//! A request's hold on one side of a service, and its place at an endpoint.

use std::time::Instant;

use crate::{
    switch::{Claim, Kind, Ticket},
    upstream::{Pool, Seat},
};

/// What keeps a side from being drained. Struck out of the books before the claim itself ends.
pub(super) struct Hold {
    pub(super) ticket: Ticket<Instant>,
    pub(super) seat: Option<Seat>,
    pub(super) claim: Claim<Pool>,
}

// === impl Hold ===

impl Hold {
    /// Notes that the request has become a tunnel.
    pub(super) fn becomes_tunnel(&self) {
        self.ticket.becomes(Kind::Tunnel);
    }
}
