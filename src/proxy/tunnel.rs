//! A connection that is no longer one for requests: bytes both ways, until both ends are done.

use std::{
    future::poll_fn,
    io,
    mem::take,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{body_pipe::TransferError, peer_cache::PeerCache, request_claim::RequestClaim};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    net::HttpStream,
    upstream,
};

/// What a connection carries on as behind a `101`. Holds its claim, so it keeps its color and is
/// waited for by a drain.
pub struct Tunnel {
    upstream: upstream::UpstreamConnection,
    hold: RequestClaim,
    /// What the client gets first: the head of the answer.
    first: Vec<u8>,
    /// How long it may be without a byte, if not as long as all others.
    patience: Option<Duration>,
}

/// One direction.
struct TunnelDirection {
    /// What goes before everything that is read.
    first: Vec<u8>,
    state: TunnelState,
    /// Whether bytes wait to be taken.
    is_stuck: bool,
    /// Whether something was written since this was asked the last time.
    has_moved: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum TunnelState {
    Flowing,
    /// Everything is written, but not yet that it was everything.
    Finishing,
    Finished,
}

/// Bytes that are read at once.
const AT_ONCE: usize = 128 * 1024;

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(
        upstream: upstream::UpstreamConnection,
        mut hold: RequestClaim,
        first: Vec<u8>,
        patience: Option<Duration>,
    ) -> Self {
        hold.become_tunnel();
        Self { upstream, hold, first, patience }
    }

    /// Carries bytes both ways until both ends have closed or one has broken. An end that closes only
    /// its sending side still gets what the other one sends, as long as that goes on. Nothing is kept in memory while nobody
    /// sends. Dropping the future ends both connections and the claim.
    // Not an `async fn`: that would have two places for everything, and idle tunnels both.
    pub(super) fn carry(self, mut client: ClientStream<PeerCache>) -> impl Future<Output = ()> {
        let Self { mut upstream, hold, first, patience } = self;
        let (mut up, mut down) = (TunnelDirection::new(Vec::new()), TunnelDirection::new(first));
        async move {
            let (socket, connection) = client.split();
            let other = &mut upstream.stream;
            socket.enable_keep_alive();
            other.enable_keep_alive();
            begin(connection, patience);
            // Why a tunnel ends is between its two ends.
            let _ = poll_fn(|context| {
                let ends = [up.poll(context, socket, other)?, down.poll(context, other, socket)?];
                let (sent, came) = (take(&mut up.has_moved), take(&mut down.has_moved));
                connection.track(Timeout::TunnelUpload, up.is_stuck, sent);
                connection.track(Timeout::Write, down.is_stuck, came);
                if sent || came {
                    begin(connection, patience);
                }
                // A WebSocket has no use for one direction alone: who has heard the end says so soon.
                let is_ending = ends.iter().any(Poll::is_ready);
                connection.track(Timeout::Linger, is_ending, sent || came);
                match ends.iter().all(Poll::is_ready) {
                    true => Poll::Ready(Ok::<_, io::Error>(())),
                    false => Poll::Pending,
                }
            })
            .await;
            drop(hold);
        }
    }
}

/// Waits for a byte from now on.
fn begin(connection: &ClientConnection<PeerCache>, patience: Option<Duration>) {
    match patience {
        Some(patience) => connection.arm_for(Timeout::Tunnel, patience),
        None => connection.arm(Timeout::Tunnel),
    }
}

// === impl TunnelDirection ===

impl TunnelDirection {
    fn new(first: Vec<u8>) -> Self {
        Self { first, state: TunnelState::Flowing, is_stuck: false, has_moved: false }
    }

    /// `Ready` when everything is written and said to be, or when nothing can be written any more: what
    /// goes the other way may still arrive then. An error if it cannot, since nobody is there.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> io::Result<Poll<()>> {
        if self.state == TunnelState::Flowing {
            match self.flow(context, from, to) {
                Poll::Ready(Ok(())) => self.state = TunnelState::Finishing,
                // By TLS and without a farewell, as many end who have said all that they had to say.
                Poll::Ready(Err(TransferError::Reading(error)))
                    if error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    self.state = TunnelState::Finishing;
                }
                Poll::Ready(Err(TransferError::Reading(error))) => return Err(error),
                Poll::Ready(Err(_)) => self.state = TunnelState::Finished,
                Poll::Pending => return Ok(Poll::Pending),
            }
            self.is_stuck = false;
        }
        if self.state == TunnelState::Finishing {
            if to.poll_finish(context).is_pending() {
                return Ok(Poll::Pending);
            }
            self.state = TunnelState::Finished;
        }
        Ok(Poll::Ready(()))
    }

    /// Moves what can be moved, up to the end of where it comes from.
    fn flow(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            while !self.first.is_empty() || !from.unread().is_empty() {
                let written = to.poll_write(context, [&self.first, from.unread(), &[]]);
                self.is_stuck = written.is_pending();
                let count = ready!(written).map_err(TransferError::Writing)?;
                self.has_moved = true;
                let own = count.min(self.first.len());
                match own == self.first.len() {
                    true => self.first = Vec::new(),
                    false => drop(self.first.drain(..own)),
                }
                from.consume(count - own);
            }
            // What TLS has kept back is still to be taken.
            self.is_stuck = to.poll_flush(context).map_err(TransferError::Writing)?.is_pending();
            if ready!(from.poll_read(context, AT_ONCE)).map_err(TransferError::Reading)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
