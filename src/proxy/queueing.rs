//! Waits in the queue when every endpoint is at its limit.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    error::ProxyError, peer_cache::PeerCache, retries::RetryState, upload::client_has_left,
    upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    metrics::LimitHit,
    net::HttpStream,
    upstream::{PickResult, QueueTicket, RequestPermit},
};

impl RetryState<'_, '_> {
    /// Waits for a permit at an endpoint, unless the queue is full. Dropping the future leaves the queue.
    pub(super) async fn wait_in_queue(
        &mut self,
        client: &mut ClientStream<PeerCache>,
    ) -> Result<RequestPermit, UpstreamFailure> {
        let pool = Arc::clone(self.request.pool());
        let (channel, connection) = client.split();
        let full = |limit| {
            pool.record_limit(limit);
            Err(UpstreamFailure::Error(ProxyError::Overloaded))
        };
        let owner = self.request.proxy.connections.worker_id();
        let Some(line) = pool.enqueue(owner) else {
            // The queued requests may wait for an endpoint of the other pool.
            return match pool.is_queue_of_other_pool() {
                true => match self.pick(&self.tried, true, connection.now()) {
                    PickResult::Picked(permit) => Ok(permit),
                    _ => full(LimitHit::Queue),
                },
                false => full(LimitHit::Queue),
            };
        };
        connection.arm_for(Timeout::Queue, pool.policy().limits.queue_timeout);
        loop {
            match self.wait_for_call(&line, channel, connection).await {
                Err(Timeout::Queue) => return full(LimitHit::QueueTime),
                Err(Timeout::Exchange) => {
                    return Err(UpstreamFailure::Error(ProxyError::RequestTimeout));
                }
                Err(_) => return Err(UpstreamFailure::ClientLeft),
                Ok(()) => {}
            }
            match self.pick(&self.tried, true, connection.now()) {
                PickResult::Picked(permit) => {
                    connection.disarm(Timeout::Queue);
                    return Ok(permit);
                }
                PickResult::NoEndpoint => return Err(UpstreamFailure::Error(self.error)),
                // The free permit may not be usable for this request: it was at that endpoint before, its pool was
                // replaced, or it needs a connection where only requests were limited.
                PickResult::Full => {
                    line.notify_next();
                    self.request.proxy.connections.request_idle_from_others(&pool);
                }
            }
        }
    }

    /// Waits for its turn. Otherwise returns what happened first: a timeout, or the client has left.
    async fn wait_for_call(
        &mut self,
        line: &QueueTicket,
        channel: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), Timeout> {
        poll_fn(|context| {
            if let Some(over) = connection.take_expired() {
                return Poll::Ready(Err(over));
            }
            if self.has_left_queue(channel, context, connection) {
                return Poll::Ready(Err(Timeout::HalfClosed));
            }
            line.poll_notified(context).map(Ok)
        })
        .await
    }

    /// Whether the client has left while nothing of its request was sent.
    fn has_left_queue(
        &mut self,
        channel: &mut HttpStream,
        context: &mut Context<'_>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        if channel.is_stream() {
            return client_has_left(channel, context);
        }
        self.request.upload.read_ahead(context, channel, connection).is_err()
    }
}
