//! A request whose client has left. If its service says so, the answer of its endpoint is waited for all the same,
//! so that a drain does not end before the endpoint's work.
//!
//! The task of the connection or stream waits, and keeps all that the request has: its hold, its permits, its place
//! at the endpoint. So it counts as in flight for limits, status and drains, and a stop waits for it and cuts it like
//! any other.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use super::{
    admitted::AdmittedRequest,
    body_pipe::{BodyPipe, TrailerPolicy, intake},
    interim::SWITCHING,
    log_limiter::LimitedEvent,
    peer_cache::PeerCache,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    http1::{FieldName, HeadScanner, ResponseHead},
    model::AbandonedRequests,
    net::HttpStream,
};

/// Bytes of an answer's body that are read only to be thrown away.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether an answer goes on for as long as its client listens: its end says nothing of any work.
pub(super) fn is_endless(head: &ResponseHead, upstream: &HttpStream) -> bool {
    let lines = head.fields.lines(upstream.unread());
    let kind = lines.first(FieldName::ContentType).and_then(|it| it.split(|it| *it == b';').next());
    head.status == SWITCHING
        || kind.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

impl AdmittedRequest<'_> {
    /// Whether the service waits for the answers to requests whose clients have left.
    pub(super) fn awaits_abandoned(&self) -> bool {
        self.pool().policy().drain.abandoned == AbandonedRequests::Wait
    }

    /// Whether the request goes on without its client, which is counted then: only if the endpoint has all of it,
    /// since one that has a part cannot come to an end with it, and only if the client does not have very many of
    /// them.
    pub(super) fn outlives_client(&mut self) -> bool {
        self.awaits_abandoned() && self.upload.is_done() && self.hold.abandon()
    }

    /// Waits for the answer to a request whose client has left, and throws it away: the head for as long as it
    /// may take, and then the body as [`await_rest`](Self::await_rest) does. The request is not sent again.
    pub(super) async fn await_answer(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
    ) {
        self.take_leave(client);
        let (channel, connection) = client.split();
        if !channel.is_stream() {
            // One that has closed only its sending side is told. It may not be there to hear it.
            let _ = poll_fn(|context| Poll::Ready(channel.poll_finish(context))).await;
        }
        let mut scan = HeadScanner::new(ResponseHead::BYTES_MAX);
        let head =
            poll_fn(|context| self.poll_head(context, &mut scan, upstream, connection)).await;
        let Some(head) = head else { return self.warn_of_giving_up(connection) };
        if is_endless(&head, upstream) {
            return;
        }
        connection.disarm(Timeout::ResponseHead);
        let framing = head.framing(self.ask.is_for_head);
        upstream.consume(head.len);
        let came = intake(upstream, framing);
        let mut body = BodyPipe::new(Vec::new(), came, framing, TrailerPolicy::Drop);
        self.read_away(connection, upstream, &mut body).await;
    }

    /// Reads the rest of an answer whose client has left, and throws it away: up to [`BYTES_MAX`], and for no
    /// longer than the upstream may be without a byte.
    pub(super) async fn await_rest(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
        body: &mut BodyPipe,
    ) {
        self.take_leave(client);
        self.read_away(client.split().1, upstream, body).await;
    }

    /// Counts the request, and has nothing more to do with its client.
    fn take_leave(&mut self, client: &mut ClientStream<PeerCache>) {
        self.hold.count();
        let (channel, connection) = client.split();
        if channel.reset_reason().is_some() && !channel.has_sent_head() {
            connection.record_reset();
        }
        // One that has only stopped reading is not kept waiting.
        channel.reset(channel.reset_reason());
        for wait in [
            Timeout::RetryCheck,
            Timeout::Continue,
            Timeout::RequestRemainder,
            Timeout::HalfClosed,
            Timeout::Write,
        ] {
            connection.disarm(wait);
        }
    }

    /// The answer's head; nothing if none comes, or not in time.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        scan: &mut HeadScanner,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Poll<Option<ResponseHead>> {
        loop {
            if connection.take_expired().is_some() {
                return Poll::Ready(None);
            }
            let head = self.take_head(scan, upstream, connection);
            drop(self.interim.take_unwritten());
            match head {
                Ok(None) => {}
                Ok(Some(head)) => return Poll::Ready(Some(head)),
                Err(_) => return Poll::Ready(None),
            }
            match ready!(upstream.poll_read(context, ResponseHead::BYTES_MAX)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(None),
            }
        }
    }

    async fn read_away(
        &self,
        connection: &ClientConnection<PeerCache>,
        upstream: &mut HttpStream,
        body: &mut BodyPipe,
    ) {
        match self.timeouts().stall {
            Some(limit) => connection.arm_for(Timeout::ResponseBody, limit),
            None => connection.arm(Timeout::ResponseBody),
        }
        let mut left = BYTES_MAX;
        let is_whole = poll_fn(|context| match connection.take_expired() {
            Some(_) => Poll::Ready(false),
            None => body.poll_away(context, upstream, &mut left),
        })
        .await;
        if !is_whole {
            self.warn_of_giving_up(connection);
        }
    }

    /// The drain does not wait for the endpoint any longer, which an operator has to know who relies on it.
    fn warn_of_giving_up(&self, connection: &ClientConnection<PeerCache>) {
        self.warn(LimitedEvent::AbandonedIncomplete, "", connection.now());
    }
}
