//! One direction of an exchange: bytes of one channel, framed anew, on their way into another one.

mod discard;
mod write;

use std::{
    borrow::Cow,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use super::{headers, request_traits::is_grpc};
use crate::{
    http1::{BodyError, DecodeStep, Decoder, Encoding, FieldLines, Framing},
    model::NamePattern,
    net::HttpStream,
};

/// A head of our own and the body behind it, from one channel into another one. The first bytes of
/// the body leave together with the head; nothing is read before what was read last is written, so
/// that whoever takes slowly is sent slowly.
#[derive(Debug)]
pub(super) struct BodyPipe {
    decoder: Decoder,
    encoding: Encoding,
    trailers: TrailerPolicy,
    /// How the body was told.
    told: Framing,
    /// What goes before the content: a head of this length, and the line before a chunk.
    own: Vec<u8>,
    head: usize,
    own_sent: usize,
    /// The content that is being written; it stands at the beginning of what is unread.
    piece: DecodeStep,
    piece_sent: usize,
    /// What goes behind the content.
    behind: Cow<'static, [u8]>,
    behind_sent: usize,
    /// Bytes that were written in all.
    sent: u64,
    /// How many of them its owner has noted.
    noted: u64,
    /// What is being waited for.
    stuck: Option<BlockedOn>,
    /// Whether the content has to wait until somebody wants it.
    is_held: bool,
    /// What goes to a stream behind the content, and whether its end was sent: streams end themselves.
    tail: Vec<u8>,
    has_ended: bool,
    /// Bytes of content that may still come.
    allowed: u64,
    /// How many have to be written for it to count as moving.
    least: u64,
}

/// What becomes of trailers.
#[derive(Debug)]
pub(super) enum TrailerPolicy {
    /// Those that may be trailers go on, but for what the head's `Connection` has listed.
    Pass {
        /// Names, with commas between them.
        listed: Vec<u8>,
        /// Names that may be trailers, besides those that are known.
        more: Rc<[NamePattern]>,
        /// Whether they are the metadata of a gRPC call.
        is_grpc: bool,
    },
    /// Nobody takes them.
    Drop,
}

/// What a flow waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BlockedOn {
    /// For bytes.
    Reading,
    /// For bytes to be taken.
    Writing,
}

/// Why a flow cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// The end of the connection came before the end of the body.
    #[error("the connection ended before the body")]
    Short,
    /// It took too long.
    #[error("it took too long")]
    TooSlow,
    /// There is more of the body than may be.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// The body cannot be read in one way only.
    #[error(transparent)]
    Malformed(BodyError),
    /// Reading failed.
    #[error("reading failed: {0}")]
    Reading(io::Error),
    /// Writing failed.
    #[error("writing failed: {0}")]
    Writing(io::Error),
}

/// How a body comes out of this channel that is told to be framed like this: streams tell its end
/// themselves.
pub(super) fn intake(from: &HttpStream, framing: Framing) -> Framing {
    match from {
        HttpStream::Socket(_) => framing,
        HttpStream::Stream(_) if framing == Framing::None => Framing::None,
        HttpStream::Stream(it) if it.is_at_end() => Framing::None,
        HttpStream::Stream(_) => Framing::UntilClose,
    }
}

/// Bytes of a body that are read at once.
const AT_ONCE: usize = 128 * 1024;

/// The same for a stream: a connection has many of them, and each may hold this for a client that does
/// not read.
const AT_ONCE_TO_STREAM: usize = 32 * 1024;

// === impl TrailerPolicy ===

impl TrailerPolicy {
    /// Those of a message whose head has these lines.
    pub(super) fn of(lines: FieldLines<'_>, more: &Rc<[NamePattern]>) -> Self {
        Self::Pass {
            listed: lines.connection_listed(),
            more: Rc::clone(more),
            is_grpc: is_grpc(lines),
        }
    }
}

// === impl BodyPipe ===

impl BodyPipe {
    /// A flow that begins with `head`, of a body that is framed as `from` and will be as `to`.
    pub(super) fn new(head: Vec<u8>, from: Framing, to: Framing, trailers: TrailerPolicy) -> Self {
        Self {
            decoder: Decoder::new(from),
            encoding: Encoding::of(to),
            trailers,
            told: to,
            head: head.len(),
            own: head,
            own_sent: 0,
            piece: DecodeStep::default(),
            piece_sent: 0,
            behind: Cow::Borrowed(b""),
            behind_sent: 0,
            sent: 0,
            noted: 0,
            stuck: None,
            is_held: false,
            tail: Vec::new(),
            has_ended: false,
            allowed: u64::MAX,
            least: 1,
        }
    }

    /// The head that the flow begins with.
    pub(super) fn head(&self) -> &[u8] {
        &self.own[..self.head]
    }

    /// Lets so many bytes of content through, and no more.
    pub(super) fn limit(&mut self, max: Option<u64>) {
        self.allowed = max.unwrap_or(u64::MAX);
    }

    /// Has the flow go into this channel. Only while nothing was written of it, or all of that is to be
    /// written again.
    pub(super) fn aim(&mut self, from: &HttpStream, to: &HttpStream) {
        let encoding = match to {
            HttpStream::Socket(_) => Encoding::of(self.told),
            HttpStream::Stream(_) => Encoding::Plain,
        };
        if encoding == self.encoding && self.tail.is_empty() {
            return;
        }
        self.encoding = encoding;
        self.own.truncate(self.head);
        self.behind = Cow::Borrowed(b"");
        self.tail.clear();
        if self.piece.data > 0 {
            self.put_around(self.piece.data);
        }
        if self.decoder.is_done() {
            self.end(from, to);
        }
    }

    /// Keeps the content back, or lets it go.
    pub(super) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Whether the content is kept back.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Moves what can be moved. Ready when the last byte is written.
    ///
    /// Nothing is lost between two calls; what was read and not yet written stays in `from`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            if self.wants_content() && !from.unread().is_empty() {
                self.take(from, to)?;
            }
            match self.poll_put(context, from, to) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(TransferError::Writing(error))),
                Poll::Pending => return self.waits_for(BlockedOn::Writing),
            }
            let flushed = to.poll_flush(context).map_err(TransferError::Writing)?;
            if self.decoder.is_done() {
                if flushed.is_pending() {
                    return self.waits_for(BlockedOn::Writing);
                }
                self.stuck = None;
                return Poll::Ready(Ok(()));
            }
            if self.is_held {
                self.stuck = None;
                return Poll::Pending;
            }
            if !from.unread().is_empty() {
                continue;
            }
            let at_once = if to.is_stream() { AT_ONCE_TO_STREAM } else { AT_ONCE };
            match from.poll_read(context, at_once) {
                Poll::Ready(Ok(0)) if self.decoder.ends_at_close() => self.finish(from, to),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(TransferError::Short)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(TransferError::Reading(error))),
                Poll::Pending => return self.waits_for(BlockedOn::Reading),
            }
        }
    }

    /// Starts again from the first byte; only while none of the body was written.
    pub(super) fn rewind(&mut self) {
        (self.own_sent, self.sent, self.noted, self.has_ended) = (0, 0, 0, false);
    }

    /// Whether the flow can start again: of a body, nothing was written.
    pub(super) fn can_rewind(&self) -> bool {
        self.sent <= self.own.len() as u64 && self.behind_sent == 0
    }

    /// What is being waited for.
    pub(super) fn stuck(&self) -> Option<BlockedOn> {
        self.stuck
    }

    /// Bytes that were written in all.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Has fewer bytes than these not count as moving.
    pub(super) fn demand(&mut self, least: u64) {
        self.least = least.max(1);
    }

    /// Whether enough was written since this was last so. What is not enough adds up.
    pub(super) fn has_moved(&mut self) -> bool {
        let has_moved = self.sent >= self.noted.saturating_add(self.least);
        if has_moved {
            self.noted = self.sent;
        }
        has_moved
    }

    fn waits_for(&mut self, stuck: BlockedOn) -> Poll<Result<(), TransferError>> {
        self.stuck = Some(stuck);
        Poll::Pending
    }

    fn wants_content(&self) -> bool {
        let is_next = self.piece.consumed == 0 && self.behind_sent == self.behind.len();
        is_next && !self.is_held && !self.decoder.is_done()
    }

    fn is_written(&self) -> bool {
        self.own_sent == self.own.len()
            && self.piece_sent == self.piece.data
            && self.behind_sent == self.behind.len()
    }

    /// Looks at what was read, and puts around its content what belongs there.
    fn take(&mut self, from: &mut HttpStream, to: &HttpStream) -> Result<(), TransferError> {
        let piece = match from {
            HttpStream::Socket(from) => {
                self.decoder.decode(from.unread_mut()).map_err(TransferError::Malformed)?
            }
            HttpStream::Stream(from) => {
                let whole = from.unread().len();
                if from.is_at_end() {
                    self.decoder = Decoder::new(Framing::None);
                }
                DecodeStep { skip: 0, data: whole, consumed: whole }
            }
        };
        let left = self.allowed.checked_sub(piece.data as u64);
        self.allowed = left.ok_or(TransferError::TooLarge)?;
        if self.own_sent == self.own.len() {
            // The head stays: a flow that starts again needs it, and so does the log.
            self.own.truncate(self.head);
            self.own_sent = self.head;
        }
        self.behind_sent = 0;
        self.behind = Cow::Borrowed(b"");
        if piece.data > 0 {
            self.put_around(piece.data);
            (self.piece, self.piece_sent) = (piece, 0);
        } else {
            from.consume(piece.consumed);
        }
        if self.decoder.is_done() {
            self.end(from, to);
        }
        Ok(())
    }

    fn put_around(&mut self, data: usize) {
        self.encoding.put_before_data(&mut self.own, data);
        self.behind = Cow::Borrowed(self.encoding.after_data());
    }

    /// What the body came by is at its end, and so is the body.
    fn finish(&mut self, from: &HttpStream, to: &HttpStream) {
        self.decoder = Decoder::new(Framing::None);
        self.behind_sent = 0;
        self.behind = Cow::Borrowed(b"");
        self.end(from, to);
    }

    fn end(&mut self, from: &HttpStream, to: &HttpStream) {
        if self.encoding == Encoding::Plain && !to.is_stream() {
            return;
        }
        let has_data = self.piece.data > self.piece_sent;
        let came = match from {
            HttpStream::Socket(_) => self.decoder.trailers(),
            HttpStream::Stream(from) => from.trailers(),
        };
        let trailers = match came {
            raw @ [_, ..] => match &self.trailers {
                TrailerPolicy::Pass { listed, more, is_grpc } => {
                    let allowed = headers::Allowed { more, is_grpc: *is_grpc };
                    headers::clean_trailers(raw, listed, allowed)
                }
                TrailerPolicy::Drop => Vec::new(),
            },
            [] => Vec::new(),
        };
        if to.is_stream() {
            self.tail = trailers;
            return;
        }
        self.behind = match (has_data, &*trailers) {
            (true, []) => Cow::Borrowed(b"\r\n0\r\n\r\n"),
            (false, []) => Cow::Borrowed(b"0\r\n\r\n"),
            (_, trailers) => {
                let mut end = self.behind.to_vec();
                self.encoding.put_end(&mut end, trailers);
                Cow::Owned(end)
            }
        };
    }
}
