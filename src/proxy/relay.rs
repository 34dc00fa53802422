//! The third phase of a request: the response has begun, and its body is relayed.

mod ending;

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use super::{
    abandoned::is_endless,
    admitted::AdmittedRequest,
    body_pipe::{BlockedOn, BodyPipe, TrailerPolicy, TransferError, source_framing},
    error::ProxyError,
    log_limiter::LimitedEvent,
    peer_cache::PeerCache,
    response::ResponsePlan,
    upload::AHEAD_MAX,
    upstream_failure::UpstreamFailure,
    upstream_response::UpstreamResponse,
};
use crate::{
    downstream::{AfterExchange, ClientConnection, ClientStream, Timeout},
    http1::{Framing, ResponseHead},
    model::StreamKind,
    net::HttpStream,
};

/// A request with a known response head. The request itself may not be sent completely yet.
pub(super) struct AnsweredRequest<'e, 'a> {
    request: &'e mut AdmittedRequest<'a>,
    /// The status code of the response.
    code: u16,
    plan: ResponsePlan,
    /// The response on its way to the client.
    download: BodyPipe,
    /// Whether the last byte of the response is written.
    is_written: bool,
    /// Whether the response goes on until the client leaves, as an event stream does.
    is_endless: bool,
    /// As what the response ends after a flip.
    kind: StreamKind,
}

// === impl AnsweredRequest ===

impl<'e, 'a> AnsweredRequest<'e, 'a> {
    /// Begins the response with this head, which stands at the beginning of the bytes of `found`, and consumes it
    /// there.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the caller's future would keep the head for as long as its answer is relayed"
    )]
    #[inline(always)]
    pub(super) fn begin(
        request: &'e mut AdmittedRequest<'a>,
        client: &mut ClientStream<PeerCache>,
        found: &mut UpstreamResponse,
        head: ResponseHead,
    ) -> Result<Self, UpstreamFailure> {
        let upstream = &mut found.upstream.stream;
        let plan = request.plan(&head, client.split().1);
        if request.traits.is_stream
            && request.traits.wants_websocket
            && matches!(head.status, 200..=299)
        {
            // To an HTTP/2 client, a 2xx would say that the WebSocket is open: RFC 8441, section 5.
            return Err(UpstreamFailure::Error(ProxyError::Protocol));
        }
        let trailers = match request.traits.takes_trailers {
            true => {
                TrailerPolicy::of(head.fields.lines(upstream.unread()), &request.proxy.trailers)
            }
            false => TrailerPolicy::Drop,
        };
        let is_endless = request.awaits_abandoned() && is_endless(&head, upstream);
        let (kind, borders) = ending::kind_of(request, &head, plan.framing, upstream);
        if request.ending.is_set() {
            // Until now it was an upload.
            request.ending.reset();
        }
        request.claim.note_head();
        let out = request.put_head(&head, plan, client, upstream)?;
        let mut download = BodyPipe::new(
            out,
            source_framing(upstream, plan.framing),
            plan.client_framing,
            trailers,
        );
        download.set_min_progress(request.proxy.least_progress);
        if let Some(borders) = borders {
            download.follow(borders);
        }
        let code = head.status;
        Ok(Self { request, code, plan, download, is_written: false, is_endless, kind })
    }

    /// Relays the response to the client, while the rest of the request may still be sent. Returns when both are
    /// complete. If nothing of the response was written, an error response is still possible.
    ///
    /// Dropping the future loses bytes that were read and not written: neither connection is usable then.
    pub(super) async fn relay(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        found: &mut UpstreamResponse,
    ) -> Result<(), UpstreamFailure> {
        let (socket, connection) = client.split();
        let upstream = &mut found.upstream.stream;
        // If the end of the connection ends the response, a cut response must not look complete.
        let is_to_close = self.plan.client_framing == Framing::UntilClose;
        if is_to_close {
            socket.set_reset_on_close(true);
        }
        let relayed = poll_fn(|context| {
            if self.request.ending.has_news(&self.request.claim) {
                self.schedule(connection);
            }
            match connection.take_expired() {
                Some(Timeout::StreamEnd) if self.end_now(connection) => {
                    return Poll::Ready(Err(TransferError::Cut));
                }
                Some(Timeout::StreamEnd) => {}
                // The rest of the request is given up, not the response.
                Some(Timeout::RequestRemainder) => self.request.upload.give_up(),
                Some(Timeout::HalfClosed | Timeout::Write) => {
                    return Poll::Ready(Err(client_gone()));
                }
                Some(_) => return Poll::Ready(Err(TransferError::TooSlow)),
                None => {}
            }
            let relayed = self.download.poll(context, upstream, socket);
            self.update_timeouts(connection);
            if relayed.is_pending()
                && self.keep_sending(context, socket, upstream, connection).is_err()
            {
                return Poll::Ready(Err(client_gone()));
            }
            relayed
        })
        .await;
        if is_to_close && (relayed.is_ok() || self.download.sent() == 0) {
            socket.set_reset_on_close(false);
        }
        if let Err(broken) = relayed {
            // If nothing was sent, an error response is still possible.
            if self.download.sent() > 0 {
                socket.reset(upstream.reset_reason());
            }
            if matches!(broken, TransferError::Cut) {
                return Err(UpstreamFailure::ClientLeft);
            }
            let failure = self.give_up(&broken, found, connection);
            let has_left = matches!(
                (&broken, &failure),
                (TransferError::Writing(_), UpstreamFailure::ClientLeft)
            );
            if has_left && !self.is_endless && self.request.outlives_client() {
                let upstream = &mut found.upstream.stream;
                let rest = self.request.await_rest(client, upstream, &mut self.download);
                Box::pin(rest).await;
            }
            return Err(failure);
        }
        self.is_written = true;
        self.note_early_end();
        connection.disarm(Timeout::Exchange);
        self.request.note_success(self.code);
        if self.request.upload.is_going() && self.plan.keeps_alive {
            connection.disarm(Timeout::StreamEnd);
            self.request.ending.reset();
            self.send_rest(socket, upstream, connection).await;
        }
        Ok(())
    }

    /// Returns the upstream connection to the pool if it is reusable, and says what happens to the client connection.
    // Not by value: the body would be copied once more.
    pub(super) fn end<T>(
        &self,
        client: &mut ClientStream<PeerCache>,
        found: UpstreamResponse,
    ) -> AfterExchange<T> {
        let Self { request, plan, download, .. } = self;
        let is_sent = request.upload.is_done();
        let UpstreamResponse { upstream, endpoint: member } = found;
        // The end of a stream is the end of its response.
        if is_sent
            && !download.has_ended_early()
            && (plan.keeps_alive || upstream.stream.is_stream())
            && !request.interim.is_expectation_open()
            && upstream.stream.unread().is_empty()
        {
            let now = client.split().1.now();
            request.proxy.connections.put_back(&member, upstream, now);
        }
        if plan.goes_on && is_sent { AfterExchange::KeepAlive } else { AfterExchange::Close }
    }

    /// Sends more of the request while the response is relayed. A request that fails does not fail its response.
    fn keep_sending(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        match self.send(context, socket, upstream, connection) {
            Ok(()) => {}
            Err(UpstreamFailure::ClientLeft) => return Err(UpstreamFailure::ClientLeft),
            Err(
                UpstreamFailure::Error(_)
                | UpstreamFailure::Closed
                | UpstreamFailure::RetryElsewhere,
            ) => {
                self.request.upload.mark_refused();
                connection.disarm(Timeout::RequestRemainder);
            }
        }
        let AdmittedRequest { upload, interim, .. } = &mut *self.request;
        upload.watch(context, socket, connection, interim.is_client_waiting())
    }

    /// Sends as much as possible without waiting, and arms the timeouts of what is waited for.
    fn send(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        if !self.request.upload.is_going() {
            return Ok(());
        }
        let progress = self.request.upload.send(context, socket, upstream)?;
        connection.track(Timeout::RequestBody, false, progress.has_moved);
        // A stream may pause in one direction while it goes on in the other.
        let is_bounded = !self.request.traits.is_stream || self.is_written;
        connection.track(
            Timeout::RequestRemainder,
            progress.is_going && is_bounded,
            progress.has_moved,
        );
        let is_waiting = connection.is_armed(Timeout::ResponseBody);
        let stall = self.request.timeouts().stall;
        connection.track_for(Timeout::ResponseBody, stall, is_waiting, progress.has_moved);
        Ok(())
    }

    /// Sends the rest of a request after its response. The upstream may still be reading it, so the claim stays.
    async fn send_rest(
        &mut self,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) {
        poll_fn(|context| {
            if self.request.ending.has_news(&self.request.claim) {
                self.schedule(connection);
            }
            let expired = connection.take_expired();
            if expired == Some(Timeout::StreamEnd) {
                self.end_rest();
            }
            if expired.is_some() || self.send(context, socket, upstream, connection).is_err() {
                self.request.upload.give_up();
            }
            if !self.request.upload.is_going() {
                return Poll::Ready(());
            }
            if !upstream.unread().is_empty() {
                self.request.upload.give_up();
                return Poll::Ready(());
            }
            // Any byte, or the end, says that the upstream is done with this request.
            upstream.poll_read(context, AHEAD_MAX).map(|_| self.request.upload.give_up())
        })
        .await;
    }

    /// Handles an incomplete response, which the client must not take for a complete one. Returns the error response,
    /// if nothing was written.
    fn give_up(
        &mut self,
        broken: &TransferError,
        found: &UpstreamResponse,
        connection: &ClientConnection<PeerCache>,
    ) -> UpstreamFailure {
        if let TransferError::Writing(error) = broken {
            // A head that HTTP/2 cannot carry was not sent.
            let is_unsaid = error.kind() == io::ErrorKind::InvalidData && self.download.sent() == 0;
            return if is_unsaid {
                UpstreamFailure::Error(ProxyError::Protocol)
            } else {
                UpstreamFailure::ClientLeft
            };
        }
        // A slow response may be slow because of its client.
        let is_theirs = !matches!(broken, TransferError::TooSlow)
            || self.download.blocked_on() == Some(BlockedOn::Reading);
        if is_theirs {
            self.request.note_failure(&found.endpoint, "incomplete response", connection);
            self.request.claim.note_incomplete();
        }
        if self.download.sent() > 0 {
            self.request.pool().metrics().proxy_error("http_response_incomplete");
        }
        self.request.warn(LimitedEvent::Incomplete, &broken.to_string(), connection.now());
        match (self.download.sent(), broken) {
            (0, TransferError::TooSlow) => UpstreamFailure::Error(ProxyError::ResponseTimeout),
            (0, _) => UpstreamFailure::Error(ProxyError::Protocol),
            _ => UpstreamFailure::ClientLeft,
        }
    }

    fn update_timeouts(&mut self, connection: &ClientConnection<PeerCache>) {
        let (stuck, has_moved) = (self.download.blocked_on(), self.download.has_moved());
        connection.track(Timeout::Write, stuck == Some(BlockedOn::Writing), has_moved);
        let (stall, is_awaited) =
            (self.request.timeouts().stall, stuck == Some(BlockedOn::Reading));
        connection.track_for(Timeout::ResponseBody, stall, is_awaited, has_moved);
        if self.request.upload.is_half_closed() && has_moved {
            connection.arm(Timeout::HalfClosed);
        }
    }
}

/// The error of a client that has left.
fn client_gone() -> TransferError {
    TransferError::Writing(io::ErrorKind::ConnectionReset.into())
}
