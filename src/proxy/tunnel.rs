//! A connection after an upgrade: bytes in both directions, until both ends are done, or until Flipgate closes the
//! WebSocket after a flip.

mod closing;
mod direction;

use std::{
    future::poll_fn,
    io,
    mem::take,
    task::{Context, Poll},
    time::Duration,
};

use self::{
    closing::{Closing, ClosingStep},
    direction::TunnelDirection,
};
use super::{peer_cache::PeerCache, request_claim::RequestClaim};
use crate::{
    downstream::{ClientConnection, ClientStream, Timeout},
    http1::ResponseHead,
    net::HttpStream,
    upstream,
    websocket::{Extensions, Sender},
};

/// The connection after a `101`. It holds its claim, so it keeps its color, and a drain waits for it.
pub struct Tunnel {
    upstream: upstream::UpstreamConnection,
    claim: RequestClaim,
    /// The response head, which the client gets first.
    first: Vec<u8>,
    /// The idle timeout, if the service overrides it.
    timeout: Option<Duration>,
    extensions: Extensions,
}

/// Both directions, and how far Flipgate has closed the WebSocket.
struct TunnelState {
    up: TunnelDirection,
    down: TunnelDirection,
    closing: Closing,
}

/// The extensions of the WebSocket that a `101` with this head opens. The head stands at the beginning of the bytes of
/// `upstream`.
pub(super) fn extensions(head: &ResponseHead, upstream: &HttpStream) -> Extensions {
    let lines = head.fields.lines(upstream.unread()).each();
    let values =
        lines.filter(|(_, name, _)| name.eq_ignore_ascii_case(b"sec-websocket-extensions"));
    Extensions::of(values.map(|(.., value)| value))
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn new(
        upstream: upstream::UpstreamConnection,
        mut claim: RequestClaim,
        first: Vec<u8>,
        timeout: Option<Duration>,
        extensions: Extensions,
    ) -> Self {
        claim.become_tunnel();
        Self { upstream, claim, first, timeout, extensions }
    }

    /// Relays bytes in both directions until both ends have closed or one has failed. An end that closes only its
    /// sending side still gets the bytes of the other one, while they come. An idle tunnel holds no buffers. Dropping
    /// the future ends both connections and the claim.
    // Not an `async fn`: that would store everything twice, also in idle tunnels.
    pub(super) fn carry(self, mut client: ClientStream<PeerCache>) -> impl Future<Output = ()> {
        let Self { mut upstream, claim, first, timeout, extensions } = self;
        let mut state = TunnelState {
            up: TunnelDirection::new(Vec::new(), Sender::Client, extensions),
            down: TunnelDirection::new(first, Sender::Server, extensions),
            closing: Closing::default(),
        };
        async move {
            let (socket, connection) = client.split();
            let other = &mut upstream.stream;
            socket.enable_keep_alive();
            other.enable_keep_alive();
            // The exchange is over, and so is its time.
            connection.disarm_all();
            begin(connection, timeout);
            // The reason for the end of a tunnel concerns only its two ends.
            let _ =
                poll_fn(|context| state.poll(context, socket, other, connection, &claim, timeout))
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

// === impl TunnelState ===

impl TunnelState {
    /// Moves as much as possible. Ready when the tunnel is over.
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        client: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
        claim: &RequestClaim,
        timeout: Option<Duration>,
    ) -> Poll<io::Result<()>> {
        if self.closing.has_news(claim) {
            self.take_news(claim, connection);
        }
        if self.closing.is_active() {
            match self.close(context, client, upstream, connection, claim) {
                ClosingStep::Relay => {}
                ClosingStep::Wait => return Poll::Pending,
                ClosingStep::Over => return Poll::Ready(Ok(())),
            }
        }
        let Self { up, down, closing: _ } = self;
        let ends = [up.poll(context, client, upstream)?, down.poll(context, upstream, client)?];
        let (sent, came) = (take(&mut up.has_moved), take(&mut down.has_moved));
        connection.track(Timeout::TunnelUpload, up.is_blocked, sent);
        connection.track(Timeout::Write, down.is_blocked, came);
        if sent || came {
            begin(connection, timeout);
        }
        // A WebSocket needs both directions: an end that sees the other one close closes soon, too.
        let is_ending = ends.iter().any(Poll::is_ready);
        connection.track(Timeout::Linger, is_ending, sent || came);
        if self.closing.is_active() && self.has_reached_border() {
            // The Close frame can be sent now.
            return self.poll(context, client, upstream, connection, claim, timeout);
        }
        match ends.iter().all(Poll::is_ready) {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }
}
