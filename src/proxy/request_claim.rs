//! A request's hold on one side of a service.

use std::{sync::Arc, time::Instant};

use super::request_record::RequestRecord;
use crate::{
    downstream::RequestCount,
    switch::{Claim, ClaimKind, ClaimRecord, LedgerShard},
    upstream::{EndpointState, Pool, RequestPermit},
};

/// What keeps a side from being drained, from the request's admission to the last byte of its answer
/// and of the request itself; after an upgrade, to the end of the tunnel.
///
/// Dropping it counts the request, unless it was counted, and then ends the hold.
// In the order in which they are dropped: the ticket is struck out before the claim ends.
pub(super) struct RequestClaim {
    record: RequestRecord,
    ticket: ClaimRecord<Instant>,
    /// Its place at an endpoint, while it is with one.
    permit: Option<RequestPermit>,
    underway: RequestCount,
    claim: Claim<Pool>,
}

// === impl RequestClaim ===

impl RequestClaim {
    /// Notes in `shard` that a request with this claim is inside its side.
    pub(super) fn new(
        claim: Claim<Pool>,
        record: RequestRecord,
        shard: &Arc<LedgerShard<Instant>>,
        underway: RequestCount,
    ) -> Self {
        let ticket = shard.record(claim.side(), ClaimKind::Request, record.started());
        Self { record, ticket, permit: None, underway, claim }
    }

    /// The requests of its client that are under way; 0 if the client is not known.
    pub(super) fn of_client(&self) -> usize {
        self.underway.client_requests()
    }

    /// Counts the request among those whose client has left, unless that has as many of them as it may.
    pub(super) fn abandon(&mut self) -> bool {
        self.underway.mark_abandoned()
    }

    /// The requests that are inside its side.
    pub(super) fn of_side(&self) -> usize {
        self.claim.in_flight()
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.claim.pool()
    }

    /// Keeps a place at an endpoint, in place of the one before.
    pub(super) fn acquire(&mut self, permit: RequestPermit) {
        self.permit = Some(permit);
    }

    /// Gives its place at an endpoint back.
    pub(super) fn release(&mut self) {
        self.permit = None;
    }

    /// The endpoint that it is with.
    pub(super) fn member(&self) -> Option<&Arc<EndpointState>> {
        self.permit.as_ref().map(RequestPermit::endpoint)
    }

    /// Notes that the head of the endpoint's response is there.
    pub(super) fn note_head(&self) {
        self.record.note_head(self.claim.pool().metrics());
    }

    /// Notes the code that the client is answered with.
    pub(super) fn answer(&mut self, code: u16) {
        self.record.answer(code);
    }

    /// Counts the request, which is over, and goes on as the hold of a tunnel.
    pub(super) fn become_tunnel(&mut self) {
        self.count();
        self.ticket.set_kind(ClaimKind::Tunnel);
    }

    /// Counts the request, whose client has left. The hold goes on.
    pub(super) fn count(&mut self) {
        self.record.count(self.claim.pool().metrics());
    }
}

impl Drop for RequestClaim {
    fn drop(&mut self) {
        self.count();
    }
}
