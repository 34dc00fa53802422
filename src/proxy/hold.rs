//! A request's hold on one side of a service.

use std::{sync::Arc, time::Instant};

use super::tally::Tally;
use crate::{
    downstream::Underway,
    switch::{Claim, Kind, Shard, Ticket},
    upstream::{Member, Pool, Seat},
};

/// What keeps a side from being drained, from the request's admission to the last byte of its answer
/// and of the request itself; after an upgrade, to the end of the tunnel.
///
/// Dropping it counts the request, unless it was counted, and then ends the hold.
// In the order in which they are dropped: the ticket is struck out before the claim ends.
pub(super) struct Hold {
    tally: Tally,
    ticket: Ticket<Instant>,
    /// Its place at an endpoint, while it is with one.
    seat: Option<Seat>,
    underway: Underway,
    claim: Claim<Pool>,
}

// === impl Hold ===

impl Hold {
    /// Notes in `shard` that a request with this claim is inside its side.
    pub(super) fn new(
        claim: Claim<Pool>,
        tally: Tally,
        shard: &Arc<Shard<Instant>>,
        underway: Underway,
    ) -> Self {
        let ticket = shard.enter(claim.side(), Kind::Request, tally.started());
        Self { tally, ticket, seat: None, underway, claim }
    }

    /// The requests of its client that are under way; 0 if the client is not known.
    pub(super) fn of_client(&self) -> usize {
        self.underway.of_client()
    }

    /// Counts the request among those whose client has left, unless that has as many of them as it may.
    pub(super) fn abandon(&mut self) -> bool {
        self.underway.abandon()
    }

    /// The requests that are inside its side.
    pub(super) fn of_side(&self) -> usize {
        self.claim.in_flight()
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.claim.pool()
    }

    /// Keeps a place at an endpoint, in place of the one before.
    pub(super) fn sit(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }

    /// Gives its place at an endpoint back.
    pub(super) fn stand_up(&mut self) {
        self.seat = None;
    }

    /// The endpoint that it is with.
    pub(super) fn member(&self) -> Option<&Arc<Member>> {
        self.seat.as_ref().map(Seat::member)
    }

    /// Notes the code that the client is answered with.
    pub(super) fn answer(&mut self, code: u16) {
        self.tally.answer(code);
    }

    /// Counts the request, which is over, and goes on as the hold of a tunnel.
    pub(super) fn become_tunnel(&mut self) {
        self.count();
        self.ticket.becomes(Kind::Tunnel);
    }

    /// Counts the request, whose client has left. The hold goes on.
    pub(super) fn count(&mut self) {
        self.tally.count(self.claim.pool().metrics());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.count();
    }
}
