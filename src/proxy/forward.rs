//! One try: sends the request and reads the response head.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{
    admitted::AdmittedRequest, error::ProxyError, interim::SWITCHING, log_limiter::LimitedEvent,
    peer_cache::PeerCache, upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    http1::{HeadScanner, ResponseHead},
    model::{AbandonedRequests, StreamEnd, StreamKind},
    net::HttpStream,
    upstream::EndpointState,
};

impl AdmittedRequest<'_> {
    /// Sends the request and reads the response head, which stays unread in the stream. Interim responses are forwarded
    /// as they come. A repeatable request moves to another endpoint, if there is one, when its endpoint stops accepting
    /// connections or exceeds `try_timeout`.
    pub(super) async fn attempt(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        upstream: &mut HttpStream,
        tried: &[Arc<EndpointState>],
    ) -> Result<ResponseHead, UpstreamFailure> {
        let (socket, connection) = client.split();
        self.upload.set_target(socket, upstream);
        connection.arm_for(Timeout::ResponseHead, self.terms.response_timeout);
        let began = connection.now();
        match self.pool().policy().retry.try_timeout {
            _ if !self.traits.is_repeatable => {}
            Some(response_timeout) => connection.arm_for(Timeout::RetryCheck, response_timeout),
            None => connection.arm(Timeout::RetryCheck),
        }
        if self.upload.is_held() {
            connection.arm(Timeout::Continue);
        }
        if self.pool().policy().drain.abandoned == AbandonedRequests::Wait {
            connection.report_client_gone();
        }
        let mut scan = HeadScanner::new(ResponseHead::BYTES_MAX);
        poll_fn(|context| {
            match connection.take_expired() {
                Some(Timeout::Continue) => self.interim.ask_for_body(&mut self.upload, connection),
                Some(Timeout::RetryCheck) => {
                    if self.should_retry_elsewhere(tried, began, connection) {
                        return Poll::Ready(Err(UpstreamFailure::RetryElsewhere));
                    }
                    connection.arm(Timeout::RetryCheck);
                }
                Some(Timeout::StreamEnd) if self.upload.is_going() => {
                    self.ending.count(&self.claim, StreamEnd::Cut);
                    return Poll::Ready(Err(UpstreamFailure::ClientLeft));
                }
                // The whole request was sent, and it has no response yet.
                Some(Timeout::StreamEnd) => {}
                // The error depends on which side the exchange was waiting for.
                Some(Timeout::Exchange) if self.upload.is_reading() => {
                    return Poll::Ready(Err(UpstreamFailure::Error(ProxyError::RequestTimeout)));
                }
                Some(Timeout::HalfClosed | Timeout::Write) => {
                    return Poll::Ready(Err(UpstreamFailure::ClientLeft));
                }
                Some(_) => {
                    return Poll::Ready(Err(UpstreamFailure::Error(ProxyError::ResponseTimeout)));
                }
                None => {}
            }
            self.send(context, socket, upstream, connection)?;
            loop {
                ready!(self.interim.write(context, socket, connection))?;
                if let Some(head) = self.take_head(&mut scan, upstream, connection)? {
                    return Poll::Ready(Ok(head));
                }
                // An interim response may have released the body, or has to be written.
                self.send(context, socket, upstream, connection)?;
                if !self.interim.is_written() {
                    continue;
                }
                let Poll::Ready(read) = upstream.poll_read(context, ResponseHead::BYTES_MAX) else {
                    let is_client_waiting = self.interim.is_client_waiting();
                    self.upload.watch(context, socket, connection, is_client_waiting)?;
                    if self.upload.is_held() && !socket.unread().is_empty() {
                        // The client sends without waiting for `100 Continue`, as it may.
                        self.interim.release_body(&mut self.upload, connection);
                        self.send(context, socket, upstream, connection)?;
                    }
                    return Poll::Pending;
                };
                match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) if upstream.unread().is_empty() && !self.interim.has_any() => {
                        return Poll::Ready(Err(UpstreamFailure::Closed));
                    }
                    Ok(0) | Err(_) => {
                        return Poll::Ready(Err(UpstreamFailure::Error(ProxyError::Closed)));
                    }
                }
            }
        })
        .await
    }

    /// Whether to retry the request at another endpoint. If so, a retry of the budget is taken.
    fn should_retry_elsewhere(
        &self,
        tried: &[Arc<EndpointState>],
        began: Instant,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        let (pool, Some(member)) = (self.pool(), self.claim.endpoint()) else { return false };
        let now = connection.now();
        let took = now.saturating_duration_since(began);
        let retry = &pool.policy().retry;
        let is_late = retry.try_timeout.is_some_and(|it| took >= it);
        (is_late || member.is_unresponsive())
            && !self.interim.has_any()
            && self.upload.can_rewind()
            && tried.len() + 1 < retry.tries
            && pool.has_alternative(tried, member)
            && pool.withdraw(now)
    }

    /// The response head, if it is complete. Interim responses before it are consumed.
    // Inlined: each request calls it once, and as a function of its own it costs 150 instructions more.
    #[inline(always)]
    pub(super) fn take_head(
        &mut self,
        scan: &mut HeadScanner,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<Option<ResponseHead>, UpstreamFailure> {
        loop {
            let unread = upstream.unread();
            if unread.is_empty() || !scan.is_worth_parsing(unread) {
                return Ok(None);
            }
            match ResponseHead::parse(unread) {
                Ok(Some(head)) if self.is_final(&head) => return Ok(Some(head)),
                Ok(Some(head)) => {
                    self.take_interim(&head, unread, connection)?;
                    upstream.consume(head.len);
                    *scan = HeadScanner::new(ResponseHead::BYTES_MAX);
                }
                Ok(None) => return Ok(None),
                Err(defect) => {
                    let speaks_http2 = unread.starts_with(b"\0\0") && unread.get(3) == Some(&4);
                    let hint =
                        if speaks_http2 { "; it speaks HTTP/2: set protocol = \"h2\"" } else { "" };
                    let details = format!("{defect}{hint}");
                    self.warn(LimitedEvent::Protocol, &details, connection.now());
                    return Err(UpstreamFailure::Error(ProxyError::Protocol));
                }
            }
        }
    }

    fn take_interim(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        if self.interim.take(head, bytes, self.traits.version, &mut self.upload, connection) {
            return Ok(());
        }
        let details = format!("status {}", head.status);
        self.warn(LimitedEvent::Interim, &details, connection.now());
        Err(UpstreamFailure::Error(ProxyError::Protocol))
    }

    /// Whether a head is the final response, and not an interim one.
    fn is_final(&self, head: &ResponseHead) -> bool {
        let is_tunnel =
            head.status == SWITCHING && head.is_websocket && self.traits.wants_websocket;
        head.status >= 200 || is_tunnel
    }

    /// Sends more of the request, if there is more.
    // Inlined: most calls find that there is no more.
    #[inline]
    fn send(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        match self.upload.is_going() {
            true => self.send_more(context, socket, upstream, connection),
            false => Ok(()),
        }
    }

    /// Sends as much as possible without waiting, and arms the timeouts of what is waited for. The response timeout
    /// counts from the last part of the body that the endpoint took, so that a long upload is not a slow response.
    fn send_more(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        let progress = self.upload.send(context, socket, upstream)?;
        if self.ending.has_news(&self.claim) {
            self.ending.update(&self.claim, connection, |_| StreamKind::Upload);
        }
        connection.track(Timeout::RequestBody, progress.is_reading, progress.has_moved);
        if progress.is_reading {
            connection.disarm(Timeout::ResponseHead);
        } else if progress.has_moved || !connection.is_armed(Timeout::ResponseHead) {
            connection.arm_for(Timeout::ResponseHead, self.terms.response_timeout);
        }
        Ok(())
    }
}
