//! The second phase of a request: it was admitted, and has no response yet.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{
    continued::NewCookies,
    error::ProxyError,
    error_page::{AcceptedFormats, ChosenPage},
    headers::FlipgateHeaders,
    interim::InterimResponses,
    local_reply::{LocalReply, ReplyContext},
    log_limiter::LimitedEvent,
    peer_cache::PeerCache,
    request_claim::RequestClaim,
    request_traits::RequestTraits,
    stream_schedule::StreamSchedule,
    upload::Upload,
    worker::Proxy,
};
use crate::{
    downstream::{AfterExchange, ClientConnection, ClientStream},
    metrics::LimitHit,
    model::ServiceTimeouts,
    upstream::{CLIENT_SHARE_FACTOR, ConcurrencyPermit, EndpointState, Pool, SERVICE_SHARE_FACTOR},
};

/// An admitted request. It owns its claim on a side, from the one load of the table to the last byte of the request and
/// of the response.
///
/// Dropping it ends the exchange: the request is counted, and its claim and permits are released.
pub(super) struct AdmittedRequest<'a> {
    // The first field is dropped first: the request is counted while everything else is still there.
    pub(super) claim: RequestClaim,
    /// `None` at a limit: such a request only gets an error response.
    pub(super) permits: Option<RequestPermits>,
    pub(super) proxy: &'a Proxy,
    pub(super) traits: RequestTraits,
    pub(super) terms: ServiceTerms,
    pub(super) headers: FlipgateHeaders,
    /// The cookies that keep its client on a version.
    pub(super) cookies: Option<Box<NewCookies>>,
    pub(super) upload: Upload,
    pub(super) interim: InterimResponses,
    /// When it ends after a flip, if it has to.
    pub(super) ending: StreamSchedule,
}

/// The settings of the service for this request.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceTerms {
    /// The timeout of the response head.
    pub(super) response_timeout: Duration,
    /// The idle timeout of a tunnel, if the service overrides it.
    pub(super) tunnel_timeout: Option<Duration>,
    /// The hash key for the choice of an endpoint, if the service balances by hash.
    pub(super) key: Option<u64>,
    /// Whether the client is internal.
    pub(super) is_internal: bool,
}

/// Permits of the limits of requests in flight.
pub(super) struct RequestPermits {
    /// `None` if the service has no limit.
    _of_service: Option<ConcurrencyPermit>,
    of_process: ConcurrencyPermit,
}

// === impl RequestPermits ===

impl RequestPermits {
    /// Takes the permits, unless the client is over its rate, a limit of requests in flight is reached, or the rest is
    /// reserved for other clients or services.
    pub(super) fn take(
        claim: &RequestClaim,
        proxy: &Proxy,
        client: Option<IpAddr>,
    ) -> Result<Self, ProxyError> {
        let pool = claim.pool();
        let admission = pool.admission();
        let refused = |limit, error| {
            pool.record_limit(limit);
            Err(error)
        };
        if let Err(wait) = admission.check_rate(client) {
            return refused(LimitHit::ClientRate, ProxyError::RateLimited(wait));
        }
        let of_service = admission.in_flight().map(|it| it.try_acquire().ok_or(()));
        let Ok(of_service) = of_service.transpose() else {
            return refused(LimitHit::ServiceInFlight, ProxyError::Overloaded);
        };
        let Some(of_process) = proxy.in_flight.try_acquire() else {
            return refused(LimitHit::InFlight, ProxyError::Overloaded);
        };
        let is_fair = proxy.in_flight.is_within_share(claim.client_requests(), CLIENT_SHARE_FACTOR)
            && (proxy.in_flight.is_within_share(claim.side_requests(), SERVICE_SHARE_FACTOR)
                || pool.is_only_service());
        if !is_fair {
            return refused(LimitHit::InFlight, ProxyError::Overloaded);
        }
        pool.deposit();
        Ok(Self { _of_service: of_service, of_process })
    }

    /// Releases the permit of the service, and keeps the one of the process.
    pub(super) fn into_process(self) -> ConcurrencyPermit {
        self.of_process
    }
}

// === impl AdmittedRequest ===

impl AdmittedRequest<'_> {
    /// The pool of the request.
    pub(super) fn pool(&self) -> &Arc<Pool> {
        self.claim.pool()
    }

    /// The timeouts that the service overrides.
    pub(super) fn timeouts(&self) -> &ServiceTimeouts {
        &self.pool().policy().timeouts
    }

    /// Service and color, for the log.
    pub(super) fn names(&self) -> (&str, &str) {
        let pool = self.pool();
        (pool.service().as_str(), pool.color().as_str())
    }

    /// The endpoint of the request, for the log.
    pub(super) fn endpoint(&self) -> Option<String> {
        self.claim.last_endpoint().map(|it| it.configured().to_string())
    }

    /// Notes that the endpoint responded with this code, unless the code counts as a failure.
    pub(super) fn note_success(&self, code: u16) {
        let pool = self.pool();
        if let Some(member) = self.claim.endpoint()
            && !pool.policy().ejection.statuses.contains(code)
        {
            pool.record_success(member);
        }
    }

    /// Notes that a request failed at an endpoint.
    pub(super) fn note_failure(
        &self,
        member: &Arc<EndpointState>,
        what: &str,
        connection: &ClientConnection<PeerCache>,
    ) {
        self.pool().record_failure(member, what, connection.now());
    }

    /// Sends an error response. The claim lasts until that is written.
    pub(super) async fn refuse<T>(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
    ) -> AfterExchange<T> {
        self.local_reply(client, error).send(client).await
    }

    fn local_reply(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        error: ProxyError,
    ) -> LocalReply {
        self.claim.set_outcome(error.status().0.as_u16(), error.outcome());
        if let Some(reason) = error.reason() {
            self.pool().metrics().proxy_error(reason);
        }
        if error.is_logged() {
            let now = client.split().1.now();
            let (status, kind) = error.status();
            let details = format!("{} {kind}: {error}", status.as_u16());
            self.warn(LimitedEvent::ErrorResponse, &details, now);
        }
        // If the client has left, the next write fails.
        let _ = self.interim.send(client.split().0);
        let interim = self.interim.take_unwritten();
        let page = self.error_page(error);
        let context = ReplyContext { interim, headers: self.headers, location: None, page };
        LocalReply::new(error, &self.traits, &mut self.upload, context, client)
    }

    /// The page of the service for this error, if it has one that the client accepts. gRPC clients get none.
    fn error_page(&self, error: ProxyError) -> Option<ChosenPage> {
        let pages = self.pool().policy().error_pages.as_deref()?;
        if self.traits.is_grpc {
            return None;
        }
        let page = pages.get(error.status().0.as_u16())?;
        let read = || AcceptedFormats::of_head(self.upload.head());
        self.traits.accepts.unwrap_or_else(read).choose(page)
    }
}
