//! Sends a request to the upstream, and reads ahead what the client sends behind it.

use std::{
    io,
    rc::Rc,
    task::{Context, Poll},
};

use super::{
    body_pipe::{BlockedOn, BodyPipe, TrailerPolicy, TransferError, source_framing},
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

/// A request that is being sent.
pub(super) struct Upload {
    pipe: BodyPipe,
    state: UploadState,
    /// Whether the client has closed its sending side.
    is_half_closed: bool,
    /// Whether a byte was written before the last rewind.
    was_sent: bool,
    /// Whether an endpoint may have processed it.
    may_be_processed: bool,
}

/// How far the request was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum UploadState {
    /// There is more to send.
    Going,
    /// Everything is written.
    Done,
    /// The upstream takes no more.
    Refused,
    /// It cannot be read any further, so the start of the next request is not known.
    Broken,
}

/// The result of sending more.
#[derive(Clone, Copy, Debug)]
pub(super) struct UploadProgress {
    /// Whether there is more to send.
    pub(super) is_going: bool,
    /// Whether the client has to send it first.
    pub(super) is_reading: bool,
    /// Whether progress was made since the last call.
    pub(super) has_moved: bool,
}

/// Bytes that are read ahead during a response, to notice that the client leaves.
pub(super) const AHEAD_MAX: usize = 16 * 1024;

// === impl Upload ===

impl Upload {
    /// A request with a head that could not be read: nothing to send or to discard.
    pub(super) fn empty() -> Self {
        Self::of(BodyPipe::new(Vec::new(), Framing::None, Framing::None, TrailerPolicy::Drop))
    }

    /// A request that is not forwarded. Consumes its head in `channel`; the body is discarded.
    pub(super) fn to_discard(channel: &mut HttpStream, head: &RequestHead) -> Self {
        channel.consume(head.len);
        let came = source_framing(channel, head.framing);
        Self::of(BodyPipe::new(Vec::new(), came, head.framing, TrailerPolicy::Drop))
    }

    /// A request that goes to an upstream with the head `out`. Consumes the client's head in `channel`. If `is_held`,
    /// the body has to wait. `trailers` are additional names of trailer fields.
    pub(super) fn to_send(
        out: Vec<u8>,
        channel: &mut HttpStream,
        head: &RequestHead,
        is_held: bool,
        trailers: &Rc<[NamePattern]>,
    ) -> Self {
        let trailers = match head.framing {
            // There are no trailers without a body.
            Framing::None => TrailerPolicy::Drop,
            Framing::Exact(_) if !channel.is_stream() => TrailerPolicy::Drop,
            _ => TrailerPolicy::of(head.fields.lines(channel.unread()), trailers),
        };
        channel.consume(head.len);
        let mut flow =
            BodyPipe::new(out, source_framing(channel, head.framing), head.framing, trailers);
        flow.hold_body(is_held);
        Self::of(flow)
    }

    fn of(pipe: BodyPipe) -> Self {
        Self {
            pipe,
            state: UploadState::Going,
            is_half_closed: false,
            was_sent: false,
            may_be_processed: false,
        }
    }

    /// The head for the upstream. Empty for a request that is not forwarded.
    pub(super) fn head(&self) -> &[u8] {
        self.pipe.head()
    }

    /// Limits the content to `max` bytes, and sets the bytes that count as progress.
    pub(super) fn limit(&mut self, max: Option<u64>, least: u64) {
        self.pipe.limit(max);
        self.pipe.set_min_progress(least);
    }

    /// Sets the stream that the request is sent to. Only while nothing was written, or after [`rewind`](Self::rewind).
    pub(super) fn set_target(&mut self, from: &HttpStream, to: &HttpStream) {
        self.pipe.set_target(from, to);
    }

    /// Holds the body, or releases it.
    pub(super) fn hold_body(&mut self, is_held: bool) {
        self.pipe.hold_body(is_held);
    }

    /// Whether the body is held.
    pub(super) fn is_held(&self) -> bool {
        self.pipe.is_held()
    }

    /// Whether there is more to send, and the upstream takes it.
    pub(super) fn is_going(&self) -> bool {
        self.state == UploadState::Going
    }

    /// Whether everything is written.
    pub(super) fn is_done(&self) -> bool {
        self.state == UploadState::Done
    }

    /// Whether the client has to send more first.
    pub(super) fn is_reading(&self) -> bool {
        self.is_going() && self.pipe.blocked_on() == Some(BlockedOn::Reading)
    }

    /// Whether the client has closed its sending side.
    pub(super) fn is_half_closed(&self) -> bool {
        self.is_half_closed
    }

    /// Whether a byte was written.
    pub(super) fn has_begun(&self) -> bool {
        self.pipe.sent() > 0
    }

    /// Whether it can be sent again: nothing of its body was written.
    pub(super) fn can_rewind(&self) -> bool {
        self.pipe.can_rewind()
    }

    /// Whether a byte was ever written, to any endpoint.
    pub(super) fn was_ever_sent(&self) -> bool {
        self.was_sent || self.has_begun()
    }

    /// Notes that an endpoint may have processed the request: it took it on a fresh connection.
    pub(super) fn note_processed(&mut self) {
        self.may_be_processed = true;
    }

    /// Whether an endpoint may have processed the request.
    pub(super) fn may_be_processed(&self) -> bool {
        self.may_be_processed
    }

    /// Starts again from the first byte.
    pub(super) fn rewind(&mut self) {
        self.was_sent |= self.has_begun();
        self.pipe.rewind();
        self.state = UploadState::Going;
    }

    /// Stops sending.
    pub(super) fn give_up(&mut self) {
        self.state = UploadState::Refused;
    }

    /// Notes that everything was written: a request that was sent again is over, and the first one counts.
    pub(super) fn mark_done(&mut self) {
        self.state = UploadState::Done;
    }

    /// Stops sending, because the request cannot be read any further.
    pub(super) fn mark_refused(&mut self) {
        self.state = UploadState::Broken;
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
        match self.pipe.poll(context, socket, upstream) {
            Poll::Ready(Err(TransferError::Writing(error)))
                if error.kind() == io::ErrorKind::InvalidData =>
            {
                let what = "the head cannot be said in HTTP/2, which the service speaks";
                return Err(UpstreamFailure::Error(ProxyError::Malformed(what)));
            }
            Poll::Ready(Ok(())) => self.state = UploadState::Done,
            // The bytes before the close still have to be read.
            Poll::Ready(Err(TransferError::Writing(_))) => self.state = UploadState::Refused,
            Poll::Ready(Err(TransferError::Reading(_))) => return Err(UpstreamFailure::ClientLeft),
            Poll::Ready(Err(
                TransferError::Short | TransferError::TooSlow | TransferError::Cut,
            )) => {
                return Err(UpstreamFailure::Error(ProxyError::BodyIncomplete));
            }
            Poll::Ready(Err(TransferError::TooLarge)) => {
                return Err(UpstreamFailure::Error(ProxyError::BodyTooLarge));
            }
            Poll::Ready(Err(TransferError::Malformed(error))) => {
                return Err(UpstreamFailure::Error(ProxyError::Body(error)));
            }
            Poll::Pending => {}
        }
        Ok(UploadProgress {
            is_going: self.is_going(),
            is_reading: self.is_reading(),
            has_moved: self.pipe.has_moved(),
        })
    }

    /// Reads ahead, to notice that the client leaves. Not while the next bytes are a part of the body, unless the
    /// client waits for `100 Continue`.
    pub(super) fn watch(
        &mut self,
        context: &mut Context<'_>,
        socket: &mut HttpStream,
        connection: &ClientConnection<PeerCache>,
        is_client_waiting: bool,
    ) -> Result<(), UpstreamFailure> {
        if socket.is_stream() {
            return if client_has_left(socket, context) {
                Err(UpstreamFailure::ClientLeft)
            } else {
                Ok(())
            };
        }
        if self.is_going() && !is_client_waiting {
            return Ok(());
        }
        self.read_ahead(context, socket, connection)
    }

    /// Reads bytes behind the request, up to a limit.
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
                Poll::Ready(Err(_)) => return Err(UpstreamFailure::ClientLeft),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Whether the unread bytes of `channel` begin with the next request. Discards the rest of the body if all of it is
    /// there.
    pub(super) fn ends_before_next_request(&mut self, channel: &mut HttpStream) -> bool {
        match self.state {
            UploadState::Done => true,
            UploadState::Going | UploadState::Refused => self.pipe.discard(channel),
            UploadState::Broken => false,
        }
    }
}

/// Whether the client has canceled its stream.
pub(super) fn client_has_left(channel: &mut HttpStream, context: &mut Context<'_>) -> bool {
    match channel {
        HttpStream::Socket(_) => false,
        HttpStream::Stream(stream) => stream.poll_reset(context).is_ready(),
    }
}
