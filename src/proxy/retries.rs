//! A request at the endpoints of its pool, one after the other, until one responds.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use tracing::debug;

use super::{
    admitted::AdmittedRequest, assets::MissingResponse, error::ProxyError,
    log_limiter::LimitedEvent, peer_cache::PeerCache, upload::client_has_left,
    upstream_failure::UpstreamFailure, upstream_response::UpstreamResponse,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    http1::ResponseHead,
    http2::StreamReset,
    metrics::LimitHit,
    upstream::{
        self, ConnectContext, ConnectError, ConnectReason, EndpointState, PickRequest, PickResult,
        RequestPermit,
    },
};

/// A request, and what was tried so far.
pub(super) struct RetryState<'e, 'a> {
    pub(super) request: &'e mut AdmittedRequest<'a>,
    pub(super) tried: Vec<Arc<EndpointState>>,
    /// The error response if no endpoint is left.
    pub(super) error: ProxyError,
    /// Endpoints that have closed an idle connection. A fresh connection shows whether they are alive.
    stale: Vec<Arc<EndpointState>>,
    was_unprocessed: bool,
    /// Whether it was retried after an endpoint closed a fresh connection. One endpoint may have died meanwhile; two
    /// are no coincidence.
    has_retried_closed: bool,
    /// How often a permit turned out to be unusable.
    missed_permits: u32,
    /// Why it is sent again, for the metrics.
    retry_reason: Option<&'static str>,
    /// The permit for the next try, if it was taken already.
    next: Option<RequestPermit>,
}

/// Permits that may turn out to be unusable before the request gets an error.
const MISSED_PERMITS_MAX: u32 = 3;

/// Sends the request to an endpoint of its pool and waits for the response head.
///
/// A connection that cannot be opened costs nothing: the next endpoint is tried. A request that was sent is sent again
/// only if it is idempotent, or if the endpoint did not process it: once if a reused connection ended without a
/// response, and within the retry budget once elsewhere if a fresh one did, if the endpoint is gone, or for what
/// `retry` of the service lists.
///
/// Dropping the future gives up the request: its place in the queue and its connection. The caller owns the claim and
/// its permit.
pub(super) async fn forward(
    request: &mut AdmittedRequest<'_>,
    client: &mut ClientStream<PeerCache>,
) -> Result<(UpstreamResponse, ResponseHead), Unrelayed> {
    let mut state = RetryState::new(request);
    loop {
        if state.tried.len() >= state.request.pool().policy().retry.tries {
            return Err(UpstreamFailure::Error(state.error).into());
        }
        let now = client.split().1.now();
        let picked = match state.next.take() {
            Some(permit) => PickResult::Picked(permit),
            None => state.pick(&state.tried, false, now),
        };
        let permit = match picked {
            PickResult::Picked(permit) => permit,
            PickResult::NoEndpoint => return Err(UpstreamFailure::Error(state.error).into()),
            // Boxed: it is rarely needed.
            PickResult::Full => Box::pin(state.wait_in_queue(client)).await?,
        };
        if let Some(reason) = state.retry_reason.take() {
            state.request.pool().metrics().retried(reason);
        }
        let member = Arc::clone(permit.endpoint());
        let upstream = match state.take_idle_connection(&member, now) {
            Some(upstream) => upstream,
            None => match state.open(client, &member).await? {
                Ok(upstream) => upstream,
                Err(error) => {
                    state.handle_connect_error(&member, &error)?;
                    continue;
                }
            },
        };
        let mut found = UpstreamResponse { upstream, endpoint: member };
        state.request.claim.acquire(permit);
        let channel = &mut found.upstream.stream;
        let answered = state.request.attempt(client, channel, &state.tried).await;
        if matches!(answered, Err(UpstreamFailure::ClientLeft)) && state.request.outlives_client() {
            Box::pin(state.request.await_answer(client, channel)).await;
            return Err(UpstreamFailure::ClientLeft.into());
        }
        let (_, connection) = client.split();
        connection.disarm(Timeout::RetryCheck);
        if state.request.ending.is_set() {
            // It is scheduled again when its body goes on.
            connection.disarm(Timeout::StreamEnd);
            state.request.ending.reset();
        }
        match answered {
            Ok(head) if state.is_retried_response(&head, &found.endpoint, connection) => {
                state.retry_elsewhere(&found.endpoint, ProxyError::Closed, "status");
            }
            Ok(head) => {
                // The test is here, so that a response is moved once.
                if let Some(missing) = state.request.missing_asset(&found, &head) {
                    return Err(Unrelayed::Missing(MissingResponse::new(found, head, missing)));
                }
                return Ok((found, head));
            }
            Err(failure) => state.handle_failure(failure, &mut found, connection)?,
        }
        connection.disarm(Timeout::ResponseHead);
        connection.disarm(Timeout::Continue);
        drop(found);
        // The permit is free for other requests, and for this one.
        state.request.claim.release();
        state.request.upload.rewind();
    }
}

/// Why there is no response to relay yet.
pub(super) enum Unrelayed {
    /// There is none.
    Failure(UpstreamFailure),
    /// It says that an asset is missing.
    Missing(Box<MissingResponse>),
}

impl From<UpstreamFailure> for Unrelayed {
    fn from(failure: UpstreamFailure) -> Self {
        Self::Failure(failure)
    }
}

/// How a connection ended without a byte of a response.
struct ConnectionEnd {
    /// Whether the request was the first one on the connection.
    is_fresh: bool,
    /// Whether the endpoint says that it did not process the request.
    is_unprocessed: bool,
}

// === impl RetryState ===

impl<'e, 'a> RetryState<'e, 'a> {
    fn new(request: &'e mut AdmittedRequest<'a>) -> Self {
        Self {
            request,
            tried: Vec::new(),
            error: ProxyError::NoEndpoint,
            stale: Vec::new(),
            has_retried_closed: false,
            was_unprocessed: false,
            missed_permits: 0,
            retry_reason: None,
            next: None,
        }
    }

    pub(super) fn pick(
        &self,
        tried: &[Arc<EndpointState>],
        is_called: bool,
        now: Instant,
    ) -> PickResult {
        let AdmittedRequest { proxy, traits, terms, .. } = &*self.request;
        let connections = &proxy.connections;
        let choice = PickRequest {
            tried,
            key: terms.key,
            // Also one that is not reusable: it makes room for a fresh one.
            has_connection: &|member| connections.has_idle(member, traits.wants_websocket),
            has_waited: is_called,
            now,
        };
        self.request.pool().pick(&choice, &mut proxy.random.borrow_mut())
    }

    /// Opens a connection, unless the exchange times out.
    async fn open(
        &self,
        client: &mut ClientStream<PeerCache>,
        member: &Arc<EndpointState>,
    ) -> Result<Result<upstream::UpstreamConnection, ConnectError>, UpstreamFailure> {
        let (channel, connection) = client.split();
        let request = &*self.request;
        let connect_context = ConnectContext {
            client: connection.peer().socket_address(),
            local: connection.peer().listener().address,
            is_for_tunnel: request.traits.wants_websocket,
            client_requests: request.claim.client_requests(),
            timeout: request.timeouts().connect,
        };
        let now = connection.now();
        let opening = request.proxy.connections.open(request.pool(), member, connect_context, now);
        // Boxed: it is large and rarely needed.
        let mut opening = Box::pin(opening);
        poll_fn(|context| match connection.take_expired() {
            Some(Timeout::Exchange) => {
                Poll::Ready(Err(UpstreamFailure::Error(ProxyError::ResponseTimeout)))
            }
            Some(Timeout::HalfClosed | Timeout::Write) => {
                Poll::Ready(Err(UpstreamFailure::ClientLeft))
            }
            // A canceled stream does not count against the limit of its client any more.
            _ if client_has_left(channel, context) => Poll::Ready(Err(UpstreamFailure::ClientLeft)),
            _ => opening.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// Handles a failed connect: tries another endpoint, unless that would not help.
    fn handle_connect_error(
        &mut self,
        member: &Arc<EndpointState>,
        error: &ConnectError,
    ) -> Result<(), UpstreamFailure> {
        let (service, color) = self.request.names();
        debug!(%service, %color, %error, "cannot connect; trying another endpoint");
        match error.reason {
            // Another request took the connection permit; this endpoint does not count as tried.
            ConnectReason::Limit => {
                self.missed_permits += 1;
                if self.missed_permits > MISSED_PERMITS_MAX {
                    self.request.pool().record_limit(LimitHit::Queue);
                    return Err(UpstreamFailure::Error(ProxyError::Overloaded));
                }
            }
            ConnectReason::Descriptors => {
                self.request.pool().record_limit(LimitHit::Descriptors);
                return Err(UpstreamFailure::Error(ProxyError::Overloaded));
            }
            reason => {
                self.retry_elsewhere(member, ProxyError::Connect(reason), "connect");
            }
        }
        Ok(())
    }

    /// Handles a connection that ended without a byte of a response.
    fn handle_closed(
        &mut self,
        member: &Arc<EndpointState>,
        ended: &ConnectionEnd,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        let ConnectionEnd { is_fresh, is_unprocessed } = *ended;
        let (service, color) = self.request.names();
        let endpoint = member.configured();
        let now = connection.now();
        if is_fresh && !is_unprocessed {
            self.request.note_failure(member, "connection closed without a response", connection);
        }
        let may_repeat = self.request.upload.can_rewind()
            && (!self.request.upload.has_begun()
                || is_unprocessed
                || !is_fresh && self.request.traits.is_repeatable
                || is_fresh && self.may_retry_closed_elsewhere(member) && self.take_retry(now));
        if !may_repeat {
            self.request.warn(LimitedEvent::Closed, &endpoint.to_string(), now);
            return Err(UpstreamFailure::Error(ProxyError::Closed));
        }
        debug!(%service, %color, %endpoint, "connection closed without a response; retrying");
        self.retry_reason = Some(if is_unprocessed { "unprocessed" } else { "closed" });
        if is_unprocessed && !self.was_unprocessed {
            // That connection is closing or has no free stream; the next one may be usable.
            self.was_unprocessed = true;
        } else if is_fresh || !self.may_use_idle(member) {
            self.has_retried_closed |= is_fresh;
            if is_fresh {
                self.request.upload.note_processed();
            }
            // It accepts connections and closes them: as bad as refusing them.
            self.error = ProxyError::Closed;
            self.request.claim.note_failed_endpoint(member);
            self.tried.push(Arc::clone(member));
        }
        self.stale.push(Arc::clone(member));
        Ok(())
    }

    /// Whether a request may be retried elsewhere after a fresh connection closed: once, or as often as the service
    /// allows.
    fn may_retry_closed_elsewhere(&self, member: &Arc<EndpointState>) -> bool {
        self.may_retry(|it| it.on_closed || !self.has_retried_closed)
            && self.request.pool().has_alternative(&self.tried, member)
    }

    /// Whether a response is discarded because the request is retried elsewhere.
    fn is_retried_response(
        &mut self,
        head: &ResponseHead,
        member: &Arc<EndpointState>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        if self.request.pool().policy().ejection.statuses.contains(head.status) {
            self.request.note_failure(member, &format!("status {}", head.status), connection);
        }
        self.may_retry(|it| it.statuses.contains(head.status))
            && self.has_alternative(member, connection)
    }

    /// Whether a request may be retried after an invalid response.
    fn may_retry_invalid(
        &mut self,
        member: &Arc<EndpointState>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        self.may_retry(|it| it.on_closed) && self.has_alternative(member, connection)
    }

    /// Whether there is another endpoint with a permit for this request, and a retry left. Both are taken then: a
    /// response is not given up for one that may not come.
    fn has_alternative(
        &mut self,
        member: &Arc<EndpointState>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        let pool = self.request.pool();
        let may = !self.request.interim.has_any()
            && self.request.upload.can_rewind()
            && self.tried.len() + 1 < pool.policy().retry.tries
            && pool.has_alternative(&self.tried, member);
        if !may {
            return false;
        }
        let tried = [&self.tried[..], &[Arc::clone(member)]].concat();
        let PickResult::Picked(permit) = self.pick(&tried, false, connection.now()) else {
            return false;
        };
        self.next = Some(permit).filter(|_| self.take_retry(connection.now()));
        self.next.is_some()
    }

    /// Whether the service allows this retry, and the request is repeatable.
    fn may_retry(&self, is_chosen: impl Fn(&crate::model::Retry) -> bool) -> bool {
        self.request.traits.is_repeatable && is_chosen(&self.request.pool().policy().retry)
    }

    fn take_retry(&self, now: Instant) -> bool {
        self.request.pool().withdraw(now)
    }

    /// Takes an idle connection to this endpoint, if there is one that may be used.
    fn take_idle_connection(
        &self,
        member: &Arc<EndpointState>,
        now: Instant,
    ) -> Option<upstream::UpstreamConnection> {
        let AdmittedRequest { proxy, traits, .. } = &*self.request;
        // What closed one idle connection may have closed others.
        let with_care = !traits.is_repeatable || !self.stale.is_empty();
        match self.may_use_idle(member) {
            true => proxy.connections.take_idle(member, traits.wants_websocket, with_care, now),
            false => None,
        }
    }

    /// Handles a failed try: prepares the next one, unless there is none.
    fn handle_failure(
        &mut self,
        failure: UpstreamFailure,
        found: &mut UpstreamResponse,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        let UpstreamResponse { upstream, endpoint: member } = found;
        match failure {
            UpstreamFailure::RetryElsewhere => {
                upstream.retire();
                self.request.note_failure(member, "no response in time", connection);
                let why = if member.is_unresponsive() { "silent" } else { "timeout" };
                self.retry_elsewhere(member, ProxyError::ResponseTimeout, why);
            }
            UpstreamFailure::Closed => {
                let ended = ConnectionEnd {
                    is_fresh: !upstream.is_reused,
                    is_unprocessed: upstream
                        .stream
                        .reset_reason()
                        .is_some_and(StreamReset::is_unprocessed),
                };
                self.handle_closed(member, &ended, connection)?;
            }
            UpstreamFailure::Error(ProxyError::Protocol)
                if self.may_retry_invalid(member, connection) =>
            {
                self.request.note_failure(member, "invalid response", connection);
                self.retry_elsewhere(member, ProxyError::Protocol, "protocol");
            }
            UpstreamFailure::Error(error) => {
                if error == ProxyError::ResponseTimeout {
                    upstream.retire();
                }
                if error.is_upstream_failure() {
                    self.request.note_failure(member, &error.to_string(), connection);
                }
                return Err(failure);
            }
            UpstreamFailure::ClientLeft => return Err(failure),
        }
        Ok(())
    }

    /// Whether an idle connection to this endpoint may be used.
    fn may_use_idle(&self, member: &Arc<EndpointState>) -> bool {
        !self.stale.iter().any(|it| Arc::ptr_eq(it, member))
    }

    /// Prepares a try at another endpoint.
    fn retry_elsewhere(
        &mut self,
        member: &Arc<EndpointState>,
        error: ProxyError,
        why: &'static str,
    ) {
        if !matches!(error, ProxyError::Connect(_)) {
            self.request.upload.note_processed();
        }
        self.request.claim.note_failed_endpoint(member);
        self.tried.push(Arc::clone(member));
        (self.error, self.retry_reason) = (error, Some(why));
    }
}
