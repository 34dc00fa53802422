//! A request's claim on a side, with its permit at an endpoint and its record.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::request_record::RequestRecord;
use crate::{
    downstream::RequestCount,
    metrics::Outcome,
    switch::{Claim, ClaimKind, ClaimOrigin, ClaimRecord, LedgerShard, StreamEnding},
    upstream::{EndpointState, Pool, RequestPermit},
};

/// Keeps a side from being drained, from the admission of a request to the last byte of request and response; after an
/// upgrade, to the end of the tunnel.
///
/// Dropping it counts the request, unless it was counted, and then releases the claim.
// Fields are dropped in this order: the record in the ledger is removed before the claim ends.
pub(super) struct RequestClaim {
    record: RequestRecord,
    claim_record: ClaimRecord<Instant>,
    /// The permit at an endpoint, while the request has one.
    permit: Option<RequestPermit>,
    /// The last endpoint that could not be used, for the log.
    failed_endpoint: Option<Arc<EndpointState>>,
    request_count: RequestCount,
    claim: Claim<Pool>,
}

/// A claim that a request had before, with its permit. It holds its side as before.
// Fields are dropped in this order: the record in the ledger is removed before the claim ends.
pub(super) struct ClaimAside {
    claim_record: ClaimRecord<Instant>,
    permit: Option<RequestPermit>,
    failed_endpoint: Option<Arc<EndpointState>>,
    claim: Claim<Pool>,
}

// === impl RequestClaim ===

impl RequestClaim {
    /// Enters the request in `shard` as in flight on its side.
    pub(super) fn new(
        claim: Claim<Pool>,
        record: RequestRecord,
        shard: &Arc<LedgerShard<Instant>>,
        request_count: RequestCount,
        client: Option<IpAddr>,
    ) -> Self {
        let claim_record = shard.record(claim.side(), record.started(), client);
        Self { record, claim_record, permit: None, failed_endpoint: None, request_count, claim }
    }

    /// Notes why it gets its color, if not because of the role of that.
    pub(super) fn set_origin(&self, origin: ClaimOrigin) {
        self.claim_record.set_origin(origin);
    }

    /// Requests in flight of its client; 0 if the client is not known.
    pub(super) fn client_requests(&self) -> usize {
        self.request_count.client_requests()
    }

    /// Counts the request as abandoned, unless its client has as many abandoned requests as allowed.
    pub(super) fn abandon(&mut self) -> bool {
        self.request_count.mark_abandoned()
    }

    /// Requests in flight on its side.
    pub(super) fn side_requests(&self) -> usize {
        self.claim.in_flight()
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.claim.pool()
    }

    /// Keeps a permit at an endpoint, in place of the one before.
    pub(super) fn acquire(&mut self, permit: RequestPermit) {
        self.permit = Some(permit);
    }

    /// Releases the permit at an endpoint.
    pub(super) fn release(&mut self) {
        self.permit = None;
    }

    /// The endpoint that it has a permit for.
    pub(super) fn endpoint(&self) -> Option<&Arc<EndpointState>> {
        self.permit.as_ref().map(RequestPermit::endpoint)
    }

    /// Notes an endpoint that could not be used.
    pub(super) fn note_failed_endpoint(&mut self, endpoint: &Arc<EndpointState>) {
        self.failed_endpoint = Some(Arc::clone(endpoint));
    }

    /// The endpoint that it has a permit for, or else the last one that could not be used.
    pub(super) fn last_endpoint(&self) -> Option<&Arc<EndpointState>> {
        self.endpoint().or(self.failed_endpoint.as_ref())
    }

    /// Whether it was admitted to the active color.
    pub(super) fn is_on_active(&self) -> bool {
        self.claim.is_active()
    }

    /// Whether it may be rescued: it was admitted to the active color, is no preview, and was not rescued yet.
    pub(super) fn may_be_rescued(&self) -> bool {
        self.claim.is_active() && self.record.may_be_rescued()
    }

    /// Gives the request another claim, because no endpoint of its pool could be connected. It counts as a failure of
    /// that pool, and from now on as a request of the other one.
    #[cold]
    pub(super) fn move_to(&mut self, claim: Claim<Pool>, shard: &Arc<LedgerShard<Instant>>) {
        let (client, is_overdue) = self.claim_record.client();
        self.claim.pool().metrics().count_rescued(client.filter(|_| !is_overdue));
        self.permit = None;
        self.failed_endpoint = None;
        // The record is removed before the claim ends.
        self.claim_record = shard.record(claim.side(), self.record.started(), client);
        self.claim_record.set_origin(ClaimOrigin::Rescue);
        self.record.note_rescued();
        self.claim = claim;
    }

    /// Changes when the streams of its side have to end, and when they do not any more. 0 until then.
    pub(super) fn ending_version(&self) -> u32 {
        self.claim.ending_version()
    }

    /// The ending in progress, with its version. None for previews and rescued requests.
    pub(super) fn ending(&self) -> (u32, Option<Arc<StreamEnding>>) {
        let (version, ending) = self.claim.ending();
        let is_public =
            || matches!(self.claim_record.origin(), ClaimOrigin::Pin | ClaimOrigin::Share);
        let may_end = |_: &_| self.claim.is_active() || is_public();
        (version, ending.filter(may_end))
    }

    /// Gives the request another claim, and returns what it had, to be taken back or dropped. Both sides are held until
    /// then.
    pub(super) fn set_aside(
        &mut self,
        claim: Claim<Pool>,
        shard: &Arc<LedgerShard<Instant>>,
    ) -> ClaimAside {
        let (client, _) = self.claim_record.client();
        let claim_record = shard.record(claim.side(), self.record.started(), client);
        claim_record.set_origin(ClaimOrigin::Asset);
        ClaimAside {
            claim_record: std::mem::replace(&mut self.claim_record, claim_record),
            permit: self.permit.take(),
            failed_endpoint: self.failed_endpoint.take(),
            claim: std::mem::replace(&mut self.claim, claim),
        }
    }

    /// Gives the request back the claim that it had before, and ends the other one.
    pub(super) fn take_back(&mut self, aside: ClaimAside) {
        let ClaimAside { claim_record, permit, failed_endpoint, claim } = aside;
        // The record is removed before the claim ends.
        self.claim_record = claim_record;
        self.permit = permit;
        self.failed_endpoint = failed_endpoint;
        self.claim = claim;
    }

    /// Notes that the response head has arrived.
    pub(super) fn note_head(&self) {
        let metrics = self.claim.pool().metrics();
        let took = self.record.note_head(metrics);
        let outcomes = metrics.outcomes();
        if outcomes.is_watched() {
            let client = self.claim_record.note_response();
            if let Some(took) = took {
                outcomes.note_head(took, client);
            }
        }
    }

    /// Notes the status code of the response of the application.
    pub(super) fn set_status(&mut self, code: u16) {
        self.record.set_status(code);
    }

    /// Notes the status code of a response of Flipgate, and what it says of the application.
    pub(super) fn set_outcome(&mut self, code: u16, outcome: Outcome) {
        self.record.set_outcome(code, outcome);
    }

    /// Notes that the response did not come to its end.
    pub(super) fn note_incomplete(&mut self) {
        self.record.note_incomplete();
    }

    /// Counts the request, which is complete, and becomes the claim of a tunnel.
    pub(super) fn become_tunnel(&mut self) {
        self.count();
        self.claim_record.set_kind(ClaimKind::Tunnel);
    }

    /// Counts an abandoned request. The claim goes on.
    pub(super) fn count(&mut self) {
        self.record.count(self.claim.pool().metrics(), || self.claim_record.client());
    }
}

impl Drop for RequestClaim {
    fn drop(&mut self) {
        self.count();
    }
}
