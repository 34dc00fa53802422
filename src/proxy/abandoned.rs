//! Abandoned requests: the client has left before the end of the response. If the service says so, Flipgate waits for
//! the response all the same, so that a drain does not end before the work of the endpoint.
//!
//! The task of the connection or stream waits, and keeps its claim and permits. So the request counts as in flight for
//! limits, status and drains, and a shutdown waits for it and cuts it like any other.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use super::{
    admitted::AdmittedRequest,
    body_pipe::{BodyPipe, TrailerPolicy, source_framing},
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

/// The largest response body that is read only to be discarded.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether a response goes on until its client leaves. The end of such a response says nothing about work of the
/// endpoint.
pub(super) fn is_endless(head: &ResponseHead, upstream: &HttpStream) -> bool {
    let lines = head.fields.lines(upstream.unread());
    let kind = lines.first(FieldName::ContentType).and_then(|it| it.split(|it| *it == b';').next());
    head.status == SWITCHING
        || kind.is_some_and(|it| it.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

impl AdmittedRequest<'_> {
    /// Whether the service waits for responses to abandoned requests.
    pub(super) fn awaits_abandoned(&self) -> bool {
        self.pool().policy().drain.abandoned == AbandonedRequests::Wait
    }

    /// Whether the request goes on without its client, and counts it as abandoned then: only if the endpoint has all of
    /// it, since a partial request cannot complete, and only if the client does not have too many abandoned requests.
    pub(super) fn outlives_client(&mut self) -> bool {
        self.awaits_abandoned() && self.upload.is_done() && self.claim.abandon()
    }

    /// Waits for the response to an abandoned request and discards it: the head within its timeout, and then the body
    /// as [`await_rest`](Self::await_rest) does. The request is not retried.
    pub(super) async fn await_answer(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
    ) {
        self.release_client(client);
        let (channel, connection) = client.split();
        if !channel.is_stream() {
            // A client that has closed only its sending side gets the end of the connection.
            let _ = poll_fn(|context| Poll::Ready(channel.poll_finish(context))).await;
        }
        let mut scan = HeadScanner::new(ResponseHead::BYTES_MAX);
        let head =
            poll_fn(|context| self.poll_head(context, &mut scan, upstream, connection)).await;
        let Some(head) = head else { return self.warn_of_timeout(connection) };
        if is_endless(&head, upstream) {
            return;
        }
        connection.disarm(Timeout::ResponseHead);
        let framing = head.framing(self.traits.is_for_head);
        upstream.consume(head.len);
        let came = source_framing(upstream, framing);
        let mut body = BodyPipe::new(Vec::new(), came, framing, TrailerPolicy::Drop);
        self.discard(connection, upstream, &mut body).await;
    }

    /// Reads and discards the rest of the response: up to [`BYTES_MAX`], and within the stall timeout of the upstream
    /// in all.
    pub(super) async fn await_rest(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
        body: &mut BodyPipe,
    ) {
        self.release_client(client);
        self.discard(client.split().1, upstream, body).await;
    }

    /// Counts the request and releases the client connection.
    fn release_client(&mut self, client: &mut ClientStream<PeerCache>) {
        self.claim.count();
        let (channel, connection) = client.split();
        if channel.reset_reason().is_some() && !channel.has_sent_head() {
            connection.record_reset();
        }
        // A client that has only stopped reading is not kept waiting.
        channel.reset(channel.reset_reason());
        for wait in [
            Timeout::RetryCheck,
            Timeout::Continue,
            Timeout::RequestRemainder,
            Timeout::HalfClosed,
            Timeout::Write,
            Timeout::StreamEnd,
        ] {
            connection.disarm(wait);
        }
    }

    /// The response head; `None` if there is none in time.
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

    async fn discard(
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
            None => body.poll_discard(context, upstream, &mut left),
        })
        .await;
        if !is_whole {
            self.warn_of_timeout(connection);
        }
    }

    /// Warns that the drain does not wait for the endpoint any longer: an operator may rely on it.
    fn warn_of_timeout(&self, connection: &ClientConnection<PeerCache>) {
        self.warn(LimitedEvent::AbandonedIncomplete, "", connection.now());
    }
}
