//! The third phase of a request: its answer has begun, and the body comes down.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use super::{
    abandoned::is_endless,
    admitted::AdmittedRequest,
    body_pipe::{BlockedOn, BodyPipe, TrailerPolicy, TransferError, intake},
    error::ProxyError,
    log_limiter::LimitedEvent,
    peer_cache::PeerCache,
    response::ResponsePlan,
    retries::UpstreamResponse,
    upload::AHEAD_MAX,
    upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{AfterExchange, ClientConnection, ClientStream, Timeout},
    http1::{Framing, ResponseHead},
    net::HttpStream,
};

/// A request whose answer's head is known. The request may still be on its way up.
pub(super) struct AnsweredRequest<'e, 'a> {
    request: &'e mut AdmittedRequest<'a>,
    /// The answer's code.
    code: u16,
    plan: ResponsePlan,
    /// The answer on its way down.
    download: BodyPipe,
    /// Whether the last byte of the answer is written.
    is_written: bool,
    /// Whether the answer goes on for as long as its client listens.
    is_endless: bool,
}

// === impl AnsweredRequest ===

impl<'e, 'a> AnsweredRequest<'e, 'a> {
    /// The answer to `request` with this head, which stands at the beginning of what `found` has sent. It
    /// is taken away there.
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
        if request.ask.is_stream && request.ask.wants_websocket && matches!(head.status, 200..=299)
        {
            // To a client of HTTP/2 it would say that the WebSocket is open: RFC 8441, section 5.
            return Err(UpstreamFailure::Refused(ProxyError::Protocol));
        }
        let trailers = match request.ask.takes_trailers {
            true => {
                TrailerPolicy::of(head.fields.lines(upstream.unread()), &request.proxy.trailers)
            }
            false => TrailerPolicy::Drop,
        };
        let is_endless = request.awaits_abandoned() && is_endless(&head, upstream);
        request.hold.note_head();
        let out = request.put_head(&head, plan, client, upstream)?;
        let mut download = BodyPipe::new(out, intake(upstream, plan.framing), plan.told, trailers);
        download.demand(request.proxy.least_progress);
        Ok(Self { request, code: head.status, plan, download, is_written: false, is_endless })
    }

    /// Passes the answer on to the client, while the rest of the request may still be on its way. Returns
    /// when both are done. If nothing of the answer was written, the client can still be told why.
    ///
    /// Dropping the future loses what was read and not yet written: neither connection is of use then.
    pub(super) async fn relay(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        found: &mut UpstreamResponse,
    ) -> Result<(), UpstreamFailure> {
        let (socket, connection) = client.split();
        let upstream = &mut found.upstream.stream;
        // An answer up to the end of the connection must not look whole, however it comes to be cut.
        let is_to_close = self.plan.told == Framing::UntilClose;
        if is_to_close {
            socket.set_reset_on_close(true);
        }
        let relayed = poll_fn(|context| {
            match connection.take_expired() {
                // The request is given up then, but not its answer.
                Some(Timeout::RequestRemainder) => self.request.upload.give_up(),
                Some(Timeout::HalfClosed | Timeout::Write) => return Poll::Ready(Err(gone())),
                Some(_) => return Poll::Ready(Err(TransferError::TooSlow)),
                None => {}
            }
            let relayed = self.download.poll(context, upstream, socket);
            self.note_download(connection);
            if relayed.is_pending()
                && self.keep_sending(context, socket, upstream, connection).is_err()
            {
                return Poll::Ready(Err(gone()));
            }
            relayed
        })
        .await;
        if is_to_close && (relayed.is_ok() || self.download.sent() == 0) {
            socket.set_reset_on_close(false);
        }
        if let Err(broken) = relayed {
            // Of what was not begun, the client can still be told.
            if self.download.sent() > 0 {
                socket.reset(upstream.reset_reason());
            }
            let failure = self.give_up(&broken, found, connection);
            let has_left =
                matches!((&broken, &failure), (TransferError::Writing(_), UpstreamFailure::Left));
            if has_left && !self.is_endless && self.request.outlives_client() {
                let upstream = &mut found.upstream.stream;
                let rest = self.request.await_rest(client, upstream, &mut self.download);
                Box::pin(rest).await;
            }
            return Err(failure);
        }
        self.is_written = true;
        connection.disarm(Timeout::Exchange);
        self.request.note_success(self.code);
        if self.request.upload.is_going() && self.plan.keeps_alive {
            self.send_rest(socket, upstream, connection).await;
        }
        Ok(())
    }

    /// Keeps the upstream's connection for the next request if it can take one, and tells what becomes of
    /// the client's.
    pub(super) fn end<T>(
        self,
        client: &mut ClientStream<PeerCache>,
        found: UpstreamResponse,
    ) -> AfterExchange<T> {
        let Self { request, code: _, plan, download: _, is_written: _, is_endless: _ } = self;
        let is_sent = request.upload.is_done();
        let UpstreamResponse { upstream, member } = found;
        // The end of a stream says where its answer ends.
        if is_sent
            && (plan.keeps_alive || upstream.stream.is_stream())
            && !request.interim.is_expectation_open()
            && upstream.stream.unread().is_empty()
        {
            let now = client.split().1.now();
            request.proxy.connections.put_back(&member, upstream, now);
        }
        if plan.goes_on && is_sent { AfterExchange::KeepAlive } else { AfterExchange::Close }
    }

    /// Moves the rest of a request on while its answer is relayed. A request that breaks off does not
    /// break its answer.
    fn keep_sending(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        match self.send(context, socket, upstream, connection) {
            Ok(()) => {}
            Err(UpstreamFailure::Left) => return Err(UpstreamFailure::Left),
            Err(UpstreamFailure::Refused(_) | UpstreamFailure::Closed | UpstreamFailure::Late) => {
                self.request.upload.break_off();
                connection.disarm(Timeout::RequestRemainder);
            }
        }
        let AdmittedRequest { upload, interim, .. } = &mut *self.request;
        upload.watch(context, socket, connection, interim.is_client_waiting())
    }

    /// Moves the rest of the request on, as far as that goes without waiting, and writes down what it
    /// waits for.
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
        // A stream may stand still one way while it goes on the other.
        let is_bounded = !self.request.ask.is_stream || self.is_written;
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

    /// Sends the rest of a request that was answered before it was there as a whole. The upstream may
    /// still be taking it, so the claim stays.
    async fn send_rest(
        &mut self,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) {
        poll_fn(|context| {
            if connection.take_expired().is_some()
                || self.send(context, socket, upstream, connection).is_err()
            {
                self.request.upload.give_up();
            }
            if !self.request.upload.is_going() {
                return Poll::Ready(());
            }
            if !upstream.unread().is_empty() {
                self.request.upload.give_up();
                return Poll::Ready(());
            }
            // Whatever it says now, or that it says nothing any more: it is done with this request.
            upstream.poll_read(context, AHEAD_MAX).map(|_| self.request.upload.give_up())
        })
        .await;
    }

    /// An answer that does not come to its end: the client must not take it for whole. Returns what it is
    /// told instead, if nothing was written.
    fn give_up(
        &self,
        broken: &TransferError,
        found: &UpstreamResponse,
        connection: &ClientConnection<PeerCache>,
    ) -> UpstreamFailure {
        if let TransferError::Writing(error) = broken {
            // A head that HTTP/2 has no words for was not sent.
            let is_unsaid = error.kind() == io::ErrorKind::InvalidData && self.download.sent() == 0;
            return if is_unsaid {
                UpstreamFailure::Refused(ProxyError::Protocol)
            } else {
                UpstreamFailure::Left
            };
        }
        // One that is too slow may be so for its client.
        let is_theirs = !matches!(broken, TransferError::TooSlow)
            || self.download.stuck() == Some(BlockedOn::Reading);
        if is_theirs {
            self.request.note_failure(&found.member, "its answer broke off", connection);
        }
        if self.download.sent() > 0 {
            self.request.pool().metrics().proxy_error("http_response_incomplete");
        }
        self.request.warn(LimitedEvent::Incomplete, &broken.to_string(), connection.now());
        match (self.download.sent(), broken) {
            (0, TransferError::TooSlow) => UpstreamFailure::Refused(ProxyError::Timeout),
            (0, _) => UpstreamFailure::Refused(ProxyError::Protocol),
            _ => UpstreamFailure::Left,
        }
    }

    fn note_download(&mut self, connection: &ClientConnection<PeerCache>) {
        let (stuck, has_moved) = (self.download.stuck(), self.download.has_moved());
        connection.track(Timeout::Write, stuck == Some(BlockedOn::Writing), has_moved);
        let (stall, is_awaited) =
            (self.request.timeouts().stall, stuck == Some(BlockedOn::Reading));
        connection.track_for(Timeout::ResponseBody, stall, is_awaited, has_moved);
        if self.request.upload.is_half_closed() && has_moved {
            connection.arm(Timeout::HalfClosed);
        }
    }
}

/// What is said of a client that has left.
fn gone() -> TransferError {
    TransferError::Writing(io::ErrorKind::ConnectionReset.into())
}
