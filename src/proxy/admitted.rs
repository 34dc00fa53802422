//! The second phase of a request: it was admitted, and has no answer yet.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    error::ProxyError,
    headers::FlipgateHeaders,
    interim::InterimResponses,
    local_reply::{LocalReply, ReplyContext},
    log_limiter::LimitedEvent,
    peer_cache::PeerCache,
    request_claim::RequestClaim,
    request_traits::RequestTraits,
    upload::Upload,
    worker::Proxy,
};
use crate::{
    downstream::{AfterExchange, ClientConnection, ClientStream},
    metrics::LimitHit,
    model::ServiceTimeouts,
    upstream::{CLIENT_SHARE_FACTOR, ConcurrencyPermit, EndpointState, Pool, SERVICE_SHARE_FACTOR},
};

/// A request that was admitted. It owns its hold on the side that answers it, from the one load of the
/// table to the last byte of the answer and of the request itself.
///
/// Dropping it ends the exchange: the request is counted, the hold ends, its permits and its place at an
/// endpoint are given back.
pub(super) struct AdmittedRequest<'a> {
    // The first field is dropped first: the request is counted while all else of it is still there.
    pub(super) hold: RequestClaim,
    /// `None` if there are as many requests as there may be: such a request only gets a refusal.
    pub(super) permits: Option<RequestPermits>,
    pub(super) proxy: &'a Proxy,
    pub(super) ask: RequestTraits,
    pub(super) terms: ServiceTerms,
    pub(super) marks: FlipgateHeaders,
    pub(super) upload: Upload,
    pub(super) interim: InterimResponses,
}

/// What the service has decided about a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceTerms {
    /// How long the answer may take to begin.
    pub(super) patience: Duration,
    /// How long a tunnel may be without a byte, if not as long as all others.
    pub(super) tunnel_patience: Option<Duration>,
    /// What the endpoint is chosen by, if it is by something of the request.
    pub(super) key: Option<u64>,
}

/// A request's places among those in flight.
pub(super) struct RequestPermits {
    /// Unless the service has no limit.
    _of_service: Option<ConcurrencyPermit>,
    _of_process: ConcurrencyPermit,
}

// === impl RequestPermits ===

impl RequestPermits {
    /// Counts a request in, unless its client asks too often, there are as many requests as there may be, or so
    /// many that what is left is for other clients or services.
    pub(super) fn take(
        hold: &RequestClaim,
        proxy: &Proxy,
        client: Option<IpAddr>,
    ) -> Result<Self, ProxyError> {
        let pool = hold.pool();
        let admission = pool.admission();
        let refused = |limit, error| {
            pool.record_limit(limit);
            Err(error)
        };
        if let Err(wait) = admission.check_rate(client) {
            return refused(LimitHit::ClientRate, ProxyError::TooMany(wait));
        }
        let of_service = admission.in_flight().map(|it| it.try_acquire().ok_or(()));
        let Ok(of_service) = of_service.transpose() else {
            return refused(LimitHit::ServiceInFlight, ProxyError::Overloaded);
        };
        let Some(of_process) = proxy.in_flight.try_acquire() else {
            return refused(LimitHit::InFlight, ProxyError::Overloaded);
        };
        let is_fair = proxy.in_flight.is_within_share(hold.of_client(), CLIENT_SHARE_FACTOR)
            && (proxy.in_flight.is_within_share(hold.of_side(), SERVICE_SHARE_FACTOR)
                || pool.is_only_service());
        if !is_fair {
            return refused(LimitHit::InFlight, ProxyError::Overloaded);
        }
        pool.deposit();
        Ok(Self { _of_service: of_service, _of_process: of_process })
    }
}

// === impl AdmittedRequest ===

impl AdmittedRequest<'_> {
    /// The pool that answers the request.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.hold.pool()
    }

    /// How long the exchange may take, where the service says so.
    pub(super) fn timeouts(&self) -> &ServiceTimeouts {
        &self.pool().policy().timeouts
    }

    /// Service and color, for the log.
    pub(super) fn names(&self) -> (&str, &str) {
        let pool = self.pool();
        (pool.service().as_str(), pool.color().as_str())
    }

    /// The endpoint that the request is with, for the log.
    pub(super) fn endpoint(&self) -> Option<String> {
        self.hold.member().map(|it| it.configured().to_string())
    }

    /// Notes that an endpoint has answered with this code, unless the code counts as a failure.
    pub(super) fn note_success(&self, code: u16) {
        let pool = self.pool();
        if let Some(member) = self.hold.member()
            && !pool.policy().ejection.statuses.contains(code)
        {
            pool.record_success(member);
        }
    }

    /// Notes that a request came to nothing at an endpoint, for which that is to blame.
    pub(super) fn note_failure(
        &self,
        member: &Arc<EndpointState>,
        what: &str,
        connection: &ClientConnection<PeerCache>,
    ) {
        self.pool().record_failure(member, what, connection.now());
    }

    /// Answers the request with an error. The hold lasts until that is written.
    pub(super) async fn refuse<T>(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
    ) -> AfterExchange<T> {
        self.own_answer(client, error).send(client).await
    }

    fn own_answer(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
    ) -> LocalReply {
        self.hold.answer(error.status().0.as_u16());
        if let Some(reason) = error.reason() {
            self.pool().metrics().proxy_error(reason);
        }
        if error.is_logged() {
            let now = client.split().1.now();
            let (status, kind) = error.status();
            let details = format!("{} {kind}: {error}", status.as_u16());
            self.warn(LimitedEvent::ErrorResponse, &details, now);
        }
        // One that has left is found out by what is written next.
        let _ = self.interim.send(client.split().0);
        let interim = self.interim.take_unwritten();
        let circumstances = ReplyContext { interim, marks: self.marks, location: None };
        LocalReply::new(error, &self.ask, &mut self.upload, circumstances, client)
    }
}
