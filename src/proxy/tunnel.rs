//! A connection after an upgrade: bytes in both directions, until both ends are done.

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

/// The connection after a `101`. It holds its claim, so it keeps its color, and a drain waits for it.
pub struct Tunnel {
    upstream: upstream::UpstreamConnection,
    claim: RequestClaim,
    /// The response head, which the client gets first.
    first: Vec<u8>,
    /// The idle timeout, if the service overrides it.
    timeout: Option<Duration>,
}

/// One direction.
struct TunnelDirection {
    /// Bytes that are sent before those that are read.
    first: Vec<u8>,
    state: TunnelState,
    /// Whether bytes wait for the receiver.
    is_blocked: bool,
    /// Whether bytes were written since the last check.
    has_moved: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum TunnelState {
    Flowing,
    /// Everything is written, but the end was not sent yet.
    Finishing,
    Finished,
}

/// The size of one read.
const AT_ONCE: usize = 128 * 1024;

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(
        upstream: upstream::UpstreamConnection,
        mut claim: RequestClaim,
        first: Vec<u8>,
        timeout: Option<Duration>,
    ) -> Self {
        claim.become_tunnel();
        Self { upstream, claim, first, timeout }
    }

    /// Relays bytes in both directions until both ends have closed or one has failed. An end that closes only its
    /// sending side still gets the bytes of the other one, while they come. An idle tunnel holds no buffers. Dropping
    /// the future ends both connections and the claim.
    // Not an `async fn`: that would store everything twice, also in idle tunnels.
    pub(super) fn carry(self, mut client: ClientStream<PeerCache>) -> impl Future<Output = ()> {
        let Self { mut upstream, claim, first, timeout } = self;
        let (mut up, mut down) = (TunnelDirection::new(Vec::new()), TunnelDirection::new(first));
        async move {
            let (socket, connection) = client.split();
            let other = &mut upstream.stream;
            socket.enable_keep_alive();
            other.enable_keep_alive();
            begin(connection, timeout);
            // The reason for the end of a tunnel concerns only its two ends.
            let _ = poll_fn(|context| {
                let ends = [up.poll(context, socket, other)?, down.poll(context, other, socket)?];
                let (sent, came) = (take(&mut up.has_moved), take(&mut down.has_moved));
                connection.track(Timeout::TunnelUpload, up.is_blocked, sent);
                connection.track(Timeout::Write, down.is_blocked, came);
                if sent || came {
                    begin(connection, timeout);
                }
                // A WebSocket needs both directions: an end that sees the other one close closes soon, too.
                let is_ending = ends.iter().any(Poll::is_ready);
                connection.track(Timeout::Linger, is_ending, sent || came);
                match ends.iter().all(Poll::is_ready) {
                    true => Poll::Ready(Ok::<_, io::Error>(())),
                    false => Poll::Pending,
                }
            })
            .await;
            drop(claim);
        }
    }
}

/// Restarts the idle timeout.
fn begin(connection: &ClientConnection<PeerCache>, timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => connection.arm_for(Timeout::Tunnel, timeout),
        None => connection.arm(Timeout::Tunnel),
    }
}

// === impl TunnelDirection ===

impl TunnelDirection {
    fn new(first: Vec<u8>) -> Self {
        Self { first, state: TunnelState::Flowing, is_blocked: false, has_moved: false }
    }

    /// `Ready` when everything and the end are written, or when nothing can be written any more: the other direction
    /// may go on. An error if that cannot go on either.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> io::Result<Poll<()>> {
        if self.state == TunnelState::Flowing {
            match self.flow(context, from, to) {
                Poll::Ready(Ok(())) => self.state = TunnelState::Finishing,
                // Many TLS peers end without `close_notify` when they have sent everything.
                Poll::Ready(Err(TransferError::Reading(error)))
                    if error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    self.state = TunnelState::Finishing;
                }
                Poll::Ready(Err(TransferError::Reading(error))) => return Err(error),
                Poll::Ready(Err(_)) => self.state = TunnelState::Finished,
                Poll::Pending => return Ok(Poll::Pending),
            }
            self.is_blocked = false;
        }
        if self.state == TunnelState::Finishing {
            if to.poll_finish(context).is_pending() {
                return Ok(Poll::Pending);
            }
            self.state = TunnelState::Finished;
        }
        Ok(Poll::Ready(()))
    }

    /// Moves as much as possible, up to the end of the source.
    fn flow(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            while !self.first.is_empty() || !from.unread().is_empty() {
                let written = to.poll_write(context, [&self.first, from.unread(), &[]]);
                self.is_blocked = written.is_pending();
                let count = ready!(written).map_err(TransferError::Writing)?;
                self.has_moved = true;
                let own = count.min(self.first.len());
                match own == self.first.len() {
                    true => self.first = Vec::new(),
                    false => drop(self.first.drain(..own)),
                }
                from.consume(count - own);
            }
            // Flushes bytes that TLS still buffers.
            self.is_blocked = to.poll_flush(context).map_err(TransferError::Writing)?.is_pending();
            if ready!(from.poll_read(context, AT_ONCE)).map_err(TransferError::Reading)? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
