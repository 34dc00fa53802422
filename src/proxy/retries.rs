//! The course of a request over the endpoints of its pool, until one has begun to answer.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use tracing::debug;

use super::{
    admitted::AdmittedRequest, error::ProxyError, log_limiter::LimitedEvent, peer_cache::PeerCache,
    upload::has_left, upstream_failure::UpstreamFailure,
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

/// A request on its way over the endpoints of its pool.
pub(super) struct RetryState<'e, 'a> {
    pub(super) request: &'e mut AdmittedRequest<'a>,
    pub(super) tried: Vec<Arc<EndpointState>>,
    /// What its client is told if nobody is left.
    pub(super) error: ProxyError,
    /// Members that have closed a connection that waited: a fresh one tells whether they live.
    stale: Vec<Arc<EndpointState>>,
    was_turned_down: bool,
    /// Whether it has left an endpoint that closed a fresh connection: one may have died meanwhile, and two
    /// are no accident.
    has_left_closed: bool,
    /// How often a place turned out to be none.
    missed_places: u32,
    /// What had become of it, until it is sent once more.
    again: Option<&'static str>,
    /// Where it goes next, if that is known already.
    next: Option<RequestPermit>,
}

/// Where an answer comes from.
pub(super) struct UpstreamResponse {
    pub(super) upstream: upstream::UpstreamConnection,
    pub(super) member: Arc<EndpointState>,
}

/// Places that may turn out to be taken by others before a request is refused.
const MISSED_PLACES_MAX: u32 = 3;

/// Sends the request to an endpoint of its pool and waits for the head of the answer.
///
/// A connection that cannot be opened costs nothing: the next endpoint is tried. A request
/// that was sent is sent again only if doing it twice is the same as doing it once, or if nobody has
/// read it: once when its connection had been used before and ended without an answer, and within
/// the pool's budget once elsewhere when a fresh one has, when its endpoint is gone, or for what the
/// service's `retry` lists.
///
/// Dropping the future gives up the request: its place in the line and its connection. Its hold, with
/// its seat, is the caller's.
pub(super) async fn forward(
    request: &mut AdmittedRequest<'_>,
    client: &mut ClientStream<PeerCache>,
) -> Result<(UpstreamResponse, ResponseHead), UpstreamFailure> {
    let mut course = RetryState::new(request);
    loop {
        if course.tried.len() >= course.request.pool().policy().retry.tries {
            return Err(UpstreamFailure::Refused(course.error));
        }
        let now = client.split().1.now();
        let picked = match course.next.take() {
            Some(permit) => PickResult::Picked(permit),
            None => course.pick(&course.tried, false, now),
        };
        let permit = match picked {
            PickResult::Picked(permit) => permit,
            PickResult::NoEndpoint => return Err(UpstreamFailure::Refused(course.error)),
            // In a box of its own, since it is seldom needed.
            PickResult::Full => Box::pin(course.wait_in_queue(client)).await?,
        };
        if let Some(reason) = course.again.take() {
            course.request.pool().metrics().retried(reason);
        }
        let member = Arc::clone(permit.endpoint());
        let upstream = match course.take_waiting(&member, now) {
            Some(upstream) => upstream,
            None => match course.open(client, &member).await? {
                Ok(upstream) => upstream,
                Err(error) => {
                    course.note_unopened(&member, &error)?;
                    continue;
                }
            },
        };
        let mut found = UpstreamResponse { upstream, member };
        course.request.hold.acquire(permit);
        let channel = &mut found.upstream.stream;
        let answered = course.request.attempt(client, channel, &course.tried).await;
        if matches!(answered, Err(UpstreamFailure::Left)) && course.request.outlives_client() {
            Box::pin(course.request.await_answer(client, channel)).await;
            return Err(UpstreamFailure::Left);
        }
        let (_, connection) = client.split();
        connection.disarm(Timeout::RetryCheck);
        match answered {
            Ok(head) if course.is_refused_answer(&head, &found.member, connection) => {
                course.go_on(&found.member, ProxyError::Closed, "status");
            }
            Ok(head) => return Ok((found, head)),
            Err(failure) => course.decide_on_failure(failure, &mut found, connection)?,
        }
        connection.disarm(Timeout::ResponseHead);
        connection.disarm(Timeout::Continue);
        drop(found);
        // Its place is free for whoever comes, itself included.
        course.request.hold.release();
        course.request.upload.rewind();
    }
}

/// How a connection has ended on which no byte of an answer came.
struct ConnectionEnd {
    /// Whether the request was the first one on it.
    is_fresh: bool,
    /// Whether the endpoint says that it has not begun with it.
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
            has_left_closed: false,
            was_turned_down: false,
            missed_places: 0,
            again: None,
            next: None,
        }
    }

    pub(super) fn pick(
        &self,
        tried: &[Arc<EndpointState>],
        is_called: bool,
        now: Instant,
    ) -> PickResult {
        let AdmittedRequest { proxy, ask, terms, .. } = &*self.request;
        let connections = &proxy.connections;
        let choice = PickRequest {
            tried,
            key: terms.key,
            // Also one that is not to be used again: it makes room for a fresh one.
            has_connection: &|member| connections.has_idle(member, ask.wants_websocket),
            has_waited: is_called,
            now,
        };
        self.request.pool().pick(&choice, &mut proxy.random.borrow_mut())
    }

    /// Opens a connection, unless the whole exchange takes too long.
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
            is_for_tunnel: request.ask.wants_websocket,
            client_requests: request.hold.of_client(),
            timeout: request.timeouts().connect,
        };
        let now = connection.now();
        let opening = request.proxy.connections.open(request.pool(), member, connect_context, now);
        // In a box of its own, since it is seldom needed and large.
        let mut opening = Box::pin(opening);
        poll_fn(|context| match connection.take_expired() {
            Some(Timeout::Exchange) => {
                Poll::Ready(Err(UpstreamFailure::Refused(ProxyError::Timeout)))
            }
            Some(Timeout::HalfClosed | Timeout::Write) => Poll::Ready(Err(UpstreamFailure::Left)),
            // A stream that was taken back holds no place any more in what its client may have.
            _ if has_left(channel, context) => Poll::Ready(Err(UpstreamFailure::Left)),
            _ => opening.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// A connection could not be opened: somebody else is asked, unless that would be no better.
    fn note_unopened(
        &mut self,
        member: &Arc<EndpointState>,
        error: &ConnectError,
    ) -> Result<(), UpstreamFailure> {
        let (service, color) = self.request.names();
        debug!(%service, %color, %error, "next one");
        match error.reason {
            // Somebody else was quicker; it is as if it had not been chosen.
            ConnectReason::Limit => {
                self.missed_places += 1;
                if self.missed_places > MISSED_PLACES_MAX {
                    self.request.pool().record_limit(LimitHit::Queue);
                    return Err(UpstreamFailure::Refused(ProxyError::Overloaded));
                }
            }
            ConnectReason::Descriptors => {
                self.request.pool().record_limit(LimitHit::Descriptors);
                return Err(UpstreamFailure::Refused(ProxyError::Overloaded));
            }
            reason => {
                self.go_on(member, ProxyError::Connect(reason), "connect");
            }
        }
        Ok(())
    }

    /// A connection has ended without a byte of an answer.
    fn decide_on_closed(
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
            self.request.note_failure(member, "closed without an answer", connection);
        }
        let may_repeat = self.request.upload.can_rewind()
            && (!self.request.upload.has_begun()
                || is_unprocessed
                || !is_fresh && self.request.ask.is_repeatable
                || is_fresh && self.may_leave_closed(member) && self.withdraw(now));
        if !may_repeat {
            self.request.warn(LimitedEvent::Closed, &endpoint.to_string(), now);
            return Err(UpstreamFailure::Refused(ProxyError::Closed));
        }
        debug!(%service, %color, %endpoint, "closed without an answer; once more");
        self.again = Some(if is_unprocessed { "unprocessed" } else { "closed" });
        if is_unprocessed && !self.was_turned_down {
            // Its connection is being ended, or has no room; the next one may do.
            self.was_turned_down = true;
        } else if is_fresh || !self.takes_waiting(member) {
            self.has_left_closed |= is_fresh;
            // It takes connections and closes them: as good as none.
            self.error = ProxyError::Closed;
            self.tried.push(Arc::clone(member));
        }
        self.stale.push(Arc::clone(member));
        Ok(())
    }

    /// Whether a request that was closed on a fresh connection goes to somebody else: once, or as often as the
    /// service has chosen.
    fn may_leave_closed(&self, member: &Arc<EndpointState>) -> bool {
        self.may_retry(|it| it.on_closed || !self.has_left_closed)
            && self.request.pool().has_alternative(&self.tried, member)
    }

    /// Whether an answer is not passed on, since somebody else may have a better one.
    fn is_refused_answer(
        &mut self,
        head: &ResponseHead,
        member: &Arc<EndpointState>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        if self.request.pool().policy().ejection.statuses.contains(head.status) {
            self.request.note_failure(member, &format!("answered {}", head.status), connection);
        }
        self.may_retry(|it| it.statuses.contains(head.status))
            && self.has_alternative(member, connection)
    }

    /// Whether an answer that cannot be understood is as good as none.
    fn may_leave_broken(
        &mut self,
        member: &Arc<EndpointState>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        self.may_retry(|it| it.on_closed) && self.has_alternative(member, connection)
    }

    /// Whether there is somebody else to ask, with a place for this request, and a retry left for it. Both
    /// are taken then: an answer is not given up for one that may not come.
    fn has_alternative(
        &mut self,
        member: &Arc<EndpointState>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        let pool = self.request.pool();
        let may = !self.request.interim.has_come()
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
        self.next = Some(permit).filter(|_| self.withdraw(connection.now()));
        self.next.is_some()
    }

    /// Whether the service has chosen to try something again, and this request can be.
    fn may_retry(&self, is_chosen: impl Fn(&crate::model::Retry) -> bool) -> bool {
        self.request.ask.is_repeatable && is_chosen(&self.request.pool().policy().retry)
    }

    fn withdraw(&self, now: Instant) -> bool {
        self.request.pool().withdraw(now)
    }

    /// Takes a connection to this member that waits for a request, if there is one that may be used.
    fn take_waiting(
        &self,
        member: &Arc<EndpointState>,
        now: Instant,
    ) -> Option<upstream::UpstreamConnection> {
        let AdmittedRequest { proxy, ask, .. } = &*self.request;
        // What was closed before may be so elsewhere too.
        let with_care = !ask.is_repeatable || !self.stale.is_empty();
        match self.takes_waiting(member) {
            true => proxy.connections.take_idle(member, ask.wants_websocket, with_care, now),
            false => None,
        }
    }

    /// A try has failed: prepares the next one, unless there is none.
    fn decide_on_failure(
        &mut self,
        failure: UpstreamFailure,
        found: &mut UpstreamResponse,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        let UpstreamResponse { upstream, member } = found;
        match failure {
            UpstreamFailure::Late => {
                upstream.retire();
                self.request.note_failure(member, "no answer in time", connection);
                let why = if member.is_unresponsive() { "silent" } else { "timeout" };
                self.go_on(member, ProxyError::Timeout, why);
            }
            UpstreamFailure::Closed => {
                let ended = ConnectionEnd {
                    is_fresh: !upstream.is_reused,
                    is_unprocessed: upstream
                        .stream
                        .reset_reason()
                        .is_some_and(StreamReset::is_unprocessed),
                };
                self.decide_on_closed(member, &ended, connection)?;
            }
            UpstreamFailure::Refused(ProxyError::Protocol)
                if self.may_leave_broken(member, connection) =>
            {
                self.request.note_failure(member, "an answer that is not HTTP", connection);
                self.go_on(member, ProxyError::Protocol, "protocol");
            }
            UpstreamFailure::Refused(error) => {
                if error == ProxyError::Timeout {
                    upstream.retire();
                }
                if error.is_upstreams() {
                    self.request.note_failure(member, &error.to_string(), connection);
                }
                return Err(failure);
            }
            UpstreamFailure::Left => return Err(failure),
        }
        Ok(())
    }

    /// Whether a connection to this member that waits for a request may be used.
    fn takes_waiting(&self, member: &Arc<EndpointState>) -> bool {
        !self.stale.iter().any(|it| Arc::ptr_eq(it, member))
    }

    /// To somebody else, and why.
    fn go_on(&mut self, member: &Arc<EndpointState>, error: ProxyError, why: &'static str) {
        self.tried.push(Arc::clone(member));
        (self.error, self.again) = (error, Some(why));
    }
}
