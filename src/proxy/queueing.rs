//! Waiting for a place at an endpoint, when all have as much as they may.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    error::ProxyError, peer_cache::PeerCache, retries::RetryState, upload::has_left,
    upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    metrics::LimitHit,
    net::HttpStream,
    upstream::{PickResult, QueueTicket, RequestPermit},
};

impl RetryState<'_, '_> {
    /// Waits for a place at an endpoint, unless too many do. Dropping the future leaves the line.
    pub(super) async fn wait_in_queue(
        &mut self,
        client: &mut ClientStream<PeerCache>,
    ) -> Result<RequestPermit, UpstreamFailure> {
        let pool = Arc::clone(self.request.pool());
        let (channel, connection) = client.split();
        let full = |limit| {
            pool.record_limit(limit);
            Err(UpstreamFailure::Refused(ProxyError::Overloaded))
        };
        let owner = self.request.proxy.connections.worker_id();
        let Some(line) = pool.enqueue(owner) else {
            // Those who wait may wait for what is no concern of this one.
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
                    return Err(UpstreamFailure::Refused(ProxyError::TooLong));
                }
                Err(_) => return Err(UpstreamFailure::Left),
                Ok(()) => {}
            }
            match self.pick(&self.tried, true, connection.now()) {
                PickResult::Picked(permit) => {
                    connection.disarm(Timeout::Queue);
                    return Ok(permit);
                }
                PickResult::NoEndpoint => return Err(UpstreamFailure::Refused(self.error)),
                // What is free may be nothing for a request that was elsewhere, whose pool was replaced, or
                // that has no connection where others have one.
                PickResult::Full => {
                    line.notify_next();
                    self.request.proxy.connections.request_idle_from_others(&pool);
                }
            }
        }
    }

    /// Waits to be called; otherwise tells what came before that, which is a client that has left unless
    /// it is a time that was over.
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

    /// Whether the client has gone while nothing of its request was sent yet.
    fn has_left_queue(
        &mut self,
        channel: &mut HttpStream,
        context: &mut Context<'_>,
        connection: &ClientConnection<PeerCache>,
    ) -> bool {
        if channel.is_stream() {
            return has_left(channel, context);
        }
        self.request.upload.read_ahead(context, channel, connection).is_err()
    }
}
