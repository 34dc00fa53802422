//! Waiting for a place at an endpoint, when all have as much as they may.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    failure::Failure, memory::Memory, refusal::Refusal, retries::Course, upload::has_left,
};
use crate::{
    downstream::{Client, Connection, Wait},
    metrics::LimitHit,
    net::Channel,
    upstream::{InLine, Picked, Seat},
};

impl Course<'_, '_> {
    /// Waits for a place at an endpoint, unless too many do. Dropping the future leaves the line.
    pub(super) async fn wait_in_line(
        &mut self,
        client: &mut Client<Memory>,
    ) -> Result<Seat, Failure> {
        let pool = Arc::clone(self.request.pool());
        let (channel, connection) = client.split();
        let full = |limit| {
            pool.limited(limit);
            Err(Failure::Refused(Refusal::Overloaded))
        };
        let owner = self.request.proxy.connections.owner();
        let Some(line) = pool.queue(owner) else {
            // Those who wait may wait for what is no concern of this one.
            return match pool.is_line_of_others() {
                true => match self.pick(&self.tried, true, connection.now()) {
                    Picked::Seat(seat) => Ok(seat),
                    _ => full(LimitHit::Queue),
                },
                false => full(LimitHit::Queue),
            };
        };
        connection.begin_for(Wait::Seat, pool.policy().limits.queue_patience);
        loop {
            match self.wait_for_call(&line, channel, connection).await {
                Err(Wait::Seat) => return full(LimitHit::QueueTime),
                Err(Wait::Exchange) => return Err(Failure::Refused(Refusal::TooLong)),
                Err(_) => return Err(Failure::Left),
                Ok(()) => {}
            }
            match self.pick(&self.tried, true, connection.now()) {
                Picked::Seat(seat) => {
                    connection.end(Wait::Seat);
                    return Ok(seat);
                }
                Picked::Nobody => return Err(Failure::Refused(self.refusal)),
                // What is free may be nothing for a request that was elsewhere, whose pool was replaced, or
                // that has no connection where others have one.
                Picked::Full => {
                    line.pass_on();
                    self.request.proxy.connections.ask_others(&pool);
                }
            }
        }
    }

    /// Waits to be called; otherwise tells what came before that, which is a client that has left unless
    /// it is a time that was over.
    async fn wait_for_call(
        &mut self,
        line: &InLine,
        channel: &mut Channel,
        connection: &Connection<Memory>,
    ) -> Result<(), Wait> {
        poll_fn(|context| {
            if let Some(over) = connection.take_alarm() {
                return Poll::Ready(Err(over));
            }
            if self.has_left_line(channel, context, connection) {
                return Poll::Ready(Err(Wait::HalfClosed));
            }
            line.poll_called(context).map(Ok)
        })
        .await
    }

    /// Whether the client has gone while nothing of its request was sent yet.
    fn has_left_line(
        &mut self,
        channel: &mut Channel,
        context: &mut Context<'_>,
        connection: &Connection<Memory>,
    ) -> bool {
        if channel.is_stream() {
            return has_left(channel, context);
        }
        self.request.upload.read_ahead(context, channel, connection).is_err()
    }
}
