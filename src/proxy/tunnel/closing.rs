//! How Flipgate closes a WebSocket after a flip.
//!
//! ```text
//! open ─▶ seeking ─▶ closing ─▶ leaving ─▶ over     seeking   the border of a message towards the client, within a
//!   ▲        │          │                                     bound; then the border of a frame
//!   └────────┤          │                           closing   the Close frame is sent, and nothing behind it; frames of
//!  the color │          │                                     the client go on to the upstream until its Close
//!  is active ▼          ▼                           leaving   both directions are closed; Flipgate waits for the peers
//!  again    cut        cut                                    to close theirs
//! ```
//!
//! Each phase lasts at most [`END_WITHIN`].

use std::task::{Context, Poll, ready};

use super::{
    TunnelState,
    direction::{AT_ONCE, Course},
};
use crate::{
    downstream::{ClientConnection, Timeout},
    model::{StreamEnd, StreamKind},
    net::HttpStream,
    proxy::{
        peer_cache::PeerCache,
        request_claim::RequestClaim,
        stream_schedule::{END_WITHIN, StreamSchedule},
    },
    websocket::{Border, CloseCode, close_frame},
};

/// When a WebSocket has to be closed, and how far that is.
#[derive(Default)]
pub(super) struct Closing {
    schedule: StreamSchedule,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Phase {
    #[default]
    Open,
    /// Its end is due, and it relays up to this border.
    Seeking(Border),
    /// The Close frame was queued behind a border.
    Closing,
    /// Both directions are closed.
    Leaving,
}

/// What a tunnel that has to be closed does next.
pub(super) enum ClosingStep {
    /// It relays.
    Relay,
    /// It waits for one of its peers, or for a timeout.
    Wait,
    /// It is over.
    Over,
}

// === impl Closing ===

impl Closing {
    /// Whether an ending was started or stopped on its side. A WebSocket that is being closed does not come back.
    #[inline]
    pub(super) fn has_news(&self, claim: &RequestClaim) -> bool {
        self.schedule.has_news(claim) && matches!(self.phase, Phase::Open | Phase::Seeking(_))
    }

    /// Whether it has a time at which it is closed, or is being closed.
    pub(super) fn is_active(&self) -> bool {
        self.schedule.is_set() || self.phase != Phase::Open
    }
}

// === impl TunnelState ===

impl TunnelState {
    /// Takes up that the WebSocket has to be closed, or not any more.
    #[cold]
    pub(super) fn take_news(
        &mut self,
        claim: &RequestClaim,
        connection: &ClientConnection<PeerCache>,
    ) {
        self.closing.phase = Phase::Open;
        self.down.set_course(Course::Free);
        self.closing.schedule.update(claim, connection, |_| StreamKind::WebSocket);
    }

    /// Whether the border that is sought was reached.
    pub(super) fn has_reached_border(&self) -> bool {
        matches!(self.closing.phase, Phase::Seeking(_)) && self.down.is_at_border()
    }

    /// Does what is due.
    #[cold]
    pub(super) fn close(
        &mut self,
        context: &mut Context<'_>,
        client: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
        claim: &RequestClaim,
    ) -> ClosingStep {
        if connection.take_expired() == Some(Timeout::StreamEnd) && self.is_cut(connection, claim) {
            return ClosingStep::Over;
        }
        if self.has_reached_border() {
            self.send_close(connection);
        }
        if self.closing.phase == Phase::Closing {
            let step = self.poll_closing(context, client, upstream, connection, claim);
            if self.closing.phase == Phase::Closing {
                return step;
            }
        }
        match self.closing.phase {
            Phase::Open | Phase::Seeking(_) => ClosingStep::Relay,
            Phase::Closing => ClosingStep::Wait,
            Phase::Leaving => {
                let left = [poll_leave(context, client), poll_leave(context, upstream)];
                match left.iter().all(Poll::is_ready) {
                    true => ClosingStep::Over,
                    false => ClosingStep::Wait,
                }
            }
        }
    }

    /// Handles the expired timeout: goes on to the next phase, or returns true.
    fn is_cut(&mut self, connection: &ClientConnection<PeerCache>, claim: &RequestClaim) -> bool {
        let frames = self.down.frames();
        match self.closing.phase {
            // Its application has ended it already, and it is cut soon.
            Phase::Open if !self.down.is_flowing() => return false,
            Phase::Open if !frames.is_lost() => self.seek(Border::Message),
            Phase::Seeking(Border::Message) if !frames.is_lost() => self.seek(Border::Frame),
            Phase::Closing if self.down.is_written() => self.closing.phase = Phase::Leaving,
            // The end of the connection without a Close frame says to the client that it was cut.
            Phase::Open | Phase::Seeking(_) | Phase::Closing => {
                self.closing.schedule.count(claim, StreamEnd::Cut);
                return true;
            }
            Phase::Leaving => return true,
        }
        connection.arm_for(Timeout::StreamEnd, END_WITHIN);
        false
    }

    fn seek(&mut self, border: Border) {
        self.closing.phase = Phase::Seeking(border);
        self.down.set_course(Course::Until(border));
    }

    /// Sends the Close frame. Frames of the client go on to the upstream up to its own Close, which may have gone
    /// before.
    fn send_close(&mut self, connection: &ClientConnection<PeerCache>) {
        let code = self.closing.schedule.policy().map(|it| CloseCode::new(it.close.into()));
        let code = code.and_then(Result::ok).unwrap_or(CloseCode::SERVICE_RESTART);
        self.down.send_last(&close_frame(code));
        self.up.set_course(Course::Until(Border::Close));
        self.closing.phase = Phase::Closing;
        connection.arm_for(Timeout::StreamEnd, END_WITHIN);
    }

    /// Writes the Close frame, and relays what the client still sends. Goes on to the next phase when both are done. An
    /// upstream that has gone needs nothing more; a client that has gone ends the tunnel.
    fn poll_closing(
        &mut self,
        context: &mut Context<'_>,
        client: &mut HttpStream,
        upstream: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
        claim: &RequestClaim,
    ) -> ClosingStep {
        // Only its state counts: it ends when its receiver, the client, has gone.
        if !matches!(self.down.poll(context, upstream, client), Ok(Poll::Pending)) {
            return ClosingStep::Over;
        }
        if self.down.is_written() {
            self.closing.schedule.count(claim, StreamEnd::Closed);
        }
        let up = self.up.poll(context, client, upstream);
        let is_client_done =
            up.map_or(true, |it| it.is_ready()) || self.up.is_at_border() && self.up.is_written();
        if is_client_done && self.down.is_written() {
            self.closing.phase = Phase::Leaving;
            connection.arm_for(Timeout::StreamEnd, END_WITHIN);
        }
        ClosingStep::Wait
    }
}

/// Closes the sending side of a peer, and discards what it still sends until it closes its own. For a client this is the
/// order of section 7.1.1 of RFC 6455: the server closes first.
fn poll_leave(context: &mut Context<'_>, peer: &mut HttpStream) -> Poll<()> {
    if ready!(peer.poll_finish(context)).is_err() {
        return Poll::Ready(());
    }
    loop {
        peer.consume(peer.unread().len());
        if !matches!(ready!(peer.poll_read(context, AT_ONCE)), Ok(1..)) {
            return Poll::Ready(());
        }
    }
}
