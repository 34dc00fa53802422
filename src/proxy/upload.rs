//! A request on its way up, and what its client sends behind it.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    body_pipe::{BlockedOn, BodyPipe, TrailerPolicy, TransferError, intake},
    error::ProxyError,
    peer_cache::PeerCache,
    upstream_failure::UpstreamFailure,
};
use crate::{
    downstream::{ClientConnection, Timeout},
    http1::{Framing, RequestHead},
    model::NamePattern,
    net::HttpStream,
};

/// A request on its way up.
pub(super) struct Upload {
    flow: BodyPipe,
    sending: UploadState,
    /// Whether the client has said that it will send nothing more.
    is_half_closed: bool,
}

/// How far the request has come on its way up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum UploadState {
    /// There is more of it.
    Going,
    /// All of it is written.
    Done,
    /// The upstream takes no more of it.
    Refused,
    /// It cannot be read any further, so nobody knows where the next request would begin.
    Broken,
}

/// What has become of a request that was moved on.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadProgress {
    /// Whether there is more of it.
    pub(super) is_going: bool,
    /// Whether that is waited for.
    pub(super) is_reading: bool,
    /// Whether something was written since the last time.
    pub(super) has_moved: bool,
}

/// Bytes behind a request that are read while it is being answered: to notice that its client
/// leaves, not to get ahead.
pub(super) const AHEAD_MAX: usize = 16 * 1024;

// === impl Upload ===

impl Upload {
    /// A request whose head could not be read: there is nothing to send or to throw away.
    pub(super) fn unread() -> Self {
        Self::of(BodyPipe::new(Vec::new(), Framing::None, Framing::None, TrailerPolicy::Drop))
    }

    /// A request that goes nowhere. Takes its head from `channel`; the body is thrown away.
    pub(super) fn to_discard(channel: &mut HttpStream, head: &RequestHead) -> Self {
        channel.consume(head.len);
        let came = intake(channel, head.framing);
        Self::of(BodyPipe::new(Vec::new(), came, head.framing, TrailerPolicy::Drop))
    }

    /// A request that goes to an upstream with the head `out`. Takes the client's from `channel`. If
    /// `is_held`, the body has to wait. `trailers` are names that may be behind it, besides those that are known.
    pub(super) fn to_send(
        out: Vec<u8>,
        channel: &mut HttpStream,
        head: &RequestHead,
        is_held: bool,
        trailers: &Rc<[NamePattern]>,
    ) -> Self {
        let trailers = match head.framing {
            // There are none behind it.
            Framing::None => TrailerPolicy::Drop,
            Framing::Exact(_) if !channel.is_stream() => TrailerPolicy::Drop,
            _ => TrailerPolicy::of(head.fields.lines(channel.unread()), trailers),
        };
        channel.consume(head.len);
        let mut flow = BodyPipe::new(out, intake(channel, head.framing), head.framing, trailers);
        flow.hold(is_held);
        Self::of(flow)
    }

    fn of(flow: BodyPipe) -> Self {
        Self { flow, sending: UploadState::Going, is_half_closed: false }
    }

    /// The head that goes to the upstream. Empty for a request that goes nowhere.
    pub(super) fn head(&self) -> &[u8] {
        self.flow.head()
    }

    /// Lets at most so many bytes of content through, and has fewer than `least` not count as moving.
    pub(super) fn limit(&mut self, max: Option<u64>, least: u64) {
        self.flow.limit(max);
        self.flow.demand(least);
    }

    /// Has the request go into this channel. Only while nothing of it was written, or after
    /// [`rewind`](Self::rewind).
    pub(super) fn aim(&mut self, from: &HttpStream, to: &HttpStream) {
        self.flow.aim(from, to);
    }

    /// Keeps the body back, or lets it go.
    pub(super) fn hold(&mut self, is_held: bool) {
        self.flow.hold(is_held);
    }

    /// Whether the body is kept back.
    pub(super) fn is_held(&self) -> bool {
        self.flow.is_held()
    }

    /// Whether there is more to send, and the upstream takes it.
    pub(super) fn is_going(&self) -> bool {
        self.sending == UploadState::Going
    }

    /// Whether all of it is written.
    pub(super) fn is_done(&self) -> bool {
        self.sending == UploadState::Done
    }

    /// Whether the client is waited for, which has not sent all of it.
    pub(super) fn is_reading(&self) -> bool {
        self.is_going() && self.flow.stuck() == Some(BlockedOn::Reading)
    }

    /// Whether the client has said that it will send nothing more.
    pub(super) fn is_half_closed(&self) -> bool {
        self.is_half_closed
    }

    /// Whether a byte of it was written.
    pub(super) fn has_begun(&self) -> bool {
        self.flow.sent() > 0
    }

    /// Whether it can be sent again: nothing of its body was written.
    pub(super) fn can_rewind(&self) -> bool {
        self.flow.can_rewind()
    }

    /// Starts again from the first byte.
    pub(super) fn rewind(&mut self) {
        self.flow.rewind();
        self.sending = UploadState::Going;
    }

    /// Sends no more of it.
    pub(super) fn give_up(&mut self) {
        self.sending = UploadState::Refused;
    }

    /// Sends no more of it, since it cannot be read any further.
    pub(super) fn break_off(&mut self) {
        self.sending = UploadState::Broken;
    }

    /// Moves the request on, as far as that goes without waiting. Only while it [is going].
    ///
    /// [is going]: Self::is_going
    pub(super) fn send(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        upstream: &mut HttpStream,
    ) -> Result<UploadProgress, UpstreamFailure> {
        match self.flow.poll(context, socket, upstream) {
            Poll::Ready(Err(TransferError::Writing(error)))
                if error.kind() == io::ErrorKind::InvalidData =>
            {
                let what = "the head cannot be said in HTTP/2, which the service speaks";
                return Err(UpstreamFailure::Refused(ProxyError::Malformed(what)));
            }
            Poll::Ready(Ok(())) => self.sending = UploadState::Done,
            // What it said before it closed is still to be read.
            Poll::Ready(Err(TransferError::Writing(_))) => self.sending = UploadState::Refused,
            Poll::Ready(Err(TransferError::Reading(_))) => return Err(UpstreamFailure::Left),
            Poll::Ready(Err(TransferError::Short | TransferError::TooSlow)) => {
                return Err(UpstreamFailure::Refused(ProxyError::BodyIncomplete));
            }
            Poll::Ready(Err(TransferError::TooLarge)) => {
                return Err(UpstreamFailure::Refused(ProxyError::BodyTooLarge));
            }
            Poll::Ready(Err(TransferError::Malformed(error))) => {
                return Err(UpstreamFailure::Refused(ProxyError::Body(error)));
            }
            Poll::Pending => {}
        }
        Ok(UploadProgress {
            is_going: self.is_going(),
            is_reading: self.is_reading(),
            has_moved: self.flow.has_moved(),
        })
    }

    /// Reads ahead what the client sends, to notice that it leaves. Not while that is a part of the body,
    /// unless the client keeps the body back until it is asked for it.
    pub(super) fn watch(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
        is_client_waiting: bool,
    ) -> Result<(), UpstreamFailure> {
        if socket.is_stream() {
            return if has_left(socket, context) { Err(UpstreamFailure::Left) } else { Ok(()) };
        }
        if self.is_going() && !is_client_waiting {
            return Ok(());
        }
        self.read_ahead(context, socket, connection)
    }

    /// Reads what the client has sent behind what is known, as far as there is room for it.
    pub(super) fn read_ahead(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
    ) -> Result<(), UpstreamFailure> {
        while !self.is_half_closed && socket.unread().len() < AHEAD_MAX {
            match socket.poll_read(context, AHEAD_MAX) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    self.is_half_closed = true;
                    connection.arm(Timeout::HalfClosed);
                }
                Poll::Ready(Err(_)) => return Err(UpstreamFailure::Left),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Whether the next request begins where the unread bytes of `channel` do. Throws the rest of the
    /// body away if all of it is there.
    pub(super) fn reaches_next(&mut self, channel: &mut HttpStream) -> bool {
        match self.sending {
            UploadState::Done => true,
            UploadState::Going | UploadState::Refused => self.flow.discard(channel),
            UploadState::Broken => false,
        }
    }
}

/// Whether the client of a stream has taken its request back.
pub(super) fn has_left(channel: &mut HttpStream, context: &mut Context<'_>) -> bool {
    match channel {
        HttpStream::Socket(_) => false,
        HttpStream::Stream(stream) => stream.poll_reset(context).is_ready(),
    }
}
