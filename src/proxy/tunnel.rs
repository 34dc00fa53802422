//! A connection that is no longer one for requests: bytes both ways, until both ends are done.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use super::{
    exchange::Hold,
    flow::{Flow, Stuck},
    worker::Memory,
};
use crate::{
    downstream::{Client, Wait},
    net::Socket,
    upstream,
};

/// What a connection carries on as behind a `101`. Holds its claim, so it keeps its color and is
/// waited for by a drain.
pub struct Tunnel {
    upstream: upstream::Connection,
    hold: Hold,
    /// What the client gets first: the head of the answer.
    first: Vec<u8>,
}

/// One direction.
struct Way {
    flow: Flow,
    state: State,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Flowing,
    /// Everything is written, but not yet that it was everything.
    Finishing,
    Finished,
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(upstream: upstream::Connection, hold: Hold, first: Vec<u8>) -> Self {
        hold.becomes_tunnel();
        Self { upstream, hold, first }
    }

    /// Carries bytes both ways until both ends have closed or one has broken. An end that closes only
    /// its sending side still gets what the other one sends. Nothing is kept in memory while nobody
    /// sends. Dropping the future ends both connections and the claim.
    pub(super) async fn carry(self, mut client: Client<Memory>) {
        let Self { mut upstream, hold, first } = self;
        client.socket.keep_alive();
        upstream.socket.keep_alive();
        let mut up = Way::new(Vec::new());
        let mut down = Way::new(first);
        let (socket, connection) = client.split();
        connection.begin(Wait::Tunnel);
        // Why a tunnel ends is between its two ends.
        let _ = poll_fn(|context| {
            let ends = [
                up.poll(context, socket, &mut upstream.socket)?,
                down.poll(context, &mut upstream.socket, socket)?,
            ];
            let (sent, came) = (up.flow.has_moved(), down.flow.has_moved());
            connection.note(Wait::Upload, up.is_stuck(), sent);
            connection.note(Wait::Taken, down.is_stuck(), came);
            if sent || came {
                connection.begin(Wait::Tunnel);
            }
            match ends.iter().all(Poll::is_ready) {
                true => Poll::Ready(Ok::<_, io::Error>(())),
                false => Poll::Pending,
            }
        })
        .await;
        drop(hold);
    }
}

// === impl Way ===

impl Way {
    fn new(first: Vec<u8>) -> Self {
        Self { flow: Flow::of_bytes(first), state: State::Flowing }
    }

    /// `Ready` when everything is written and said to be.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Socket,
        to: &mut Socket,
    ) -> io::Result<Poll<()>> {
        if self.state == State::Flowing {
            match self.flow.poll(context, from, to) {
                Poll::Ready(Ok(())) => self.state = State::Finishing,
                Poll::Ready(Err(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Poll::Pending => {}
            }
        }
        if self.state == State::Finishing {
            match to.poll_finish(context) {
                Poll::Ready(Ok(())) => self.state = State::Finished,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        Ok(match self.state {
            State::Finished => Poll::Ready(()),
            State::Flowing | State::Finishing => Poll::Pending,
        })
    }

    fn is_stuck(&self) -> bool {
        self.state == State::Flowing && self.flow.stuck() == Some(Stuck::Writing)
    }
}
