//! One direction of an exchange: moves a message from one stream to another, and changes its framing.

mod discard;
mod ending;
mod write;

use std::{
    borrow::Cow,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use self::ending::EarlyEnd;
use super::{headers, request_traits::is_grpc};
use crate::{
    http1::{BodyError, DecodeStep, Decoder, Encoding, FieldLines, Framing},
    model::NamePattern,
    net::HttpStream,
};

/// A head, and the body behind it. The first bytes of the body are sent together with the head. Nothing is read before
/// the bytes that were read last are written, so that a slow reader slows the sender down (backpressure).
#[derive(Debug)]
pub(super) struct BodyPipe {
    decoder: Decoder,
    encoding: Encoding,
    trailers: TrailerPolicy,
    /// The framing that the head declares.
    framing: Framing,
    /// Bytes before the content: the head, of the length `head`, and the line before a chunk.
    prefix: Vec<u8>,
    head: usize,
    prefix_sent: usize,
    /// The content that is being written, at the beginning of the unread bytes.
    step: DecodeStep,
    step_sent: usize,
    /// Bytes behind the content.
    suffix: Cow<'static, [u8]>,
    suffix_sent: usize,
    /// Bytes written so far.
    sent: u64,
    /// The bytes that were written at the last progress.
    noted: u64,
    /// What the pipe waits for.
    blocked_on: Option<BlockedOn>,
    /// Whether the body is held.
    is_held: bool,
    /// Trailers for a stream, and whether its end was sent.
    tail: Vec<u8>,
    has_ended: bool,
    /// Bytes of content that are still allowed.
    content_left: u64,
    /// Bytes that count as progress.
    min_progress: u64,
    /// For a body that can be ended between two events or messages.
    early_end: Option<Box<EarlyEnd>>,
}

/// What happens to trailers.
#[derive(Debug)]
pub(super) enum TrailerPolicy {
    /// Forwards allowed trailer fields, except those that `Connection` lists.
    Pass {
        /// The listed names, separated by commas.
        listed: Vec<u8>,
        /// Additional names that are allowed.
        more: Rc<[NamePattern]>,
        /// Whether they are gRPC metadata.
        is_grpc: bool,
    },
    /// Drops all.
    Drop,
}

/// What a pipe waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum BlockedOn {
    /// For bytes from the sender.
    Reading,
    /// For the receiver to take bytes.
    Writing,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// The connection ended before the body.
    #[error("the connection ended before the body")]
    Short,
    /// A timeout.
    #[error("it took too long")]
    TooSlow,
    /// The body is over its limit.
    #[error("the body is larger than allowed")]
    TooLarge,
    /// The body is malformed or ambiguous.
    #[error(transparent)]
    Malformed(BodyError),
    /// The color was replaced, and the stream ends by the policy of its kind.
    #[error("the stream ends after a flip")]
    Cut,
    /// Reading failed.
    #[error("reading failed: {0}")]
    Reading(io::Error),
    /// Writing failed.
    #[error("writing failed: {0}")]
    Writing(io::Error),
}

/// The framing of a body on this stream: the end of an HTTP/2 stream is the end of the body.
pub(super) fn source_framing(from: &HttpStream, framing: Framing) -> Framing {
    match from {
        HttpStream::Socket(_) => framing,
        HttpStream::Stream(_) if framing == Framing::None => Framing::None,
        HttpStream::Stream(it) if it.is_at_end() => Framing::None,
        HttpStream::Stream(_) => Framing::UntilClose,
    }
}

/// The size of one read.
const AT_ONCE: usize = 128 * 1024;

/// The size of one read for an HTTP/2 stream. A connection has many streams, and each may hold this much for a client
/// that does not read.
const AT_ONCE_TO_STREAM: usize = 32 * 1024;

// === impl TrailerPolicy ===

impl TrailerPolicy {
    /// The policy for a message with these header lines.
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
    /// A pipe that begins with `head`, for a body with the framing `from` that is sent with the framing `to`.
    pub(super) fn new(head: Vec<u8>, from: Framing, to: Framing, trailers: TrailerPolicy) -> Self {
        Self {
            decoder: Decoder::new(from),
            encoding: Encoding::of(to),
            trailers,
            framing: to,
            head: head.len(),
            prefix: head,
            prefix_sent: 0,
            step: DecodeStep::default(),
            step_sent: 0,
            suffix: Cow::Borrowed(b""),
            suffix_sent: 0,
            sent: 0,
            noted: 0,
            blocked_on: None,
            is_held: false,
            tail: Vec::new(),
            has_ended: false,
            content_left: u64::MAX,
            min_progress: 1,
            early_end: None,
        }
    }

    /// The head.
    pub(super) fn head(&self) -> &[u8] {
        &self.prefix[..self.head]
    }

    /// Limits the content to this many bytes.
    pub(super) fn limit(&mut self, max: Option<u64>) {
        self.content_left = max.unwrap_or(u64::MAX);
    }

    /// Sets the stream to write to. Only while nothing was written, or before everything is written again.
    pub(super) fn set_target(&mut self, from: &HttpStream, to: &HttpStream) {
        let encoding = match to {
            HttpStream::Socket(_) => Encoding::of(self.framing),
            HttpStream::Stream(_) => Encoding::Plain,
        };
        if encoding == self.encoding && self.tail.is_empty() {
            return;
        }
        self.encoding = encoding;
        self.prefix.truncate(self.head);
        self.suffix = Cow::Borrowed(b"");
        self.tail.clear();
        if self.step.data > 0 {
            self.frame(self.step.data);
        }
        if self.decoder.is_done() {
            self.end(from, to);
        }
    }

    /// Holds the body, or releases it.
    pub(super) fn hold_body(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Whether the body is held.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// Moves as much as possible. Ready when the last byte is written.
    ///
    /// Nothing is lost between two calls: bytes that were read and not written stay in `from`.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            if self.is_ready_for_content() && !from.unread().is_empty() {
                self.decode(from, to)?;
            }
            match self.poll_write(context, from, to) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(TransferError::Writing(error))),
                Poll::Pending => return self.block_on(BlockedOn::Writing),
            }
            if self.early_end.is_some() && self.is_to_end_here() {
                self.put_early_end(to);
                continue;
            }
            let flushed = to.poll_flush(context).map_err(TransferError::Writing)?;
            if self.decoder.is_done() {
                if flushed.is_pending() {
                    return self.block_on(BlockedOn::Writing);
                }
                self.blocked_on = None;
                return Poll::Ready(Ok(()));
            }
            if self.is_held {
                self.blocked_on = None;
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
                Poll::Pending => return self.block_on(BlockedOn::Reading),
            }
        }
    }

    /// Starts again from the first byte. Only while nothing of the body was written.
    pub(super) fn rewind(&mut self) {
        (self.prefix_sent, self.sent, self.noted, self.has_ended) = (0, 0, 0, false);
    }

    /// Whether the pipe can start again: nothing of the body was written.
    pub(super) fn can_rewind(&self) -> bool {
        self.sent <= self.prefix.len() as u64 && self.suffix_sent == 0
    }

    /// What the pipe waits for.
    pub(super) fn blocked_on(&self) -> Option<BlockedOn> {
        self.blocked_on
    }

    /// Bytes written so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Sets the bytes that count as progress.
    pub(super) fn set_min_progress(&mut self, least: u64) {
        self.min_progress = least.max(1);
    }

    /// Whether progress was made since the last time. Smaller amounts add up.
    pub(super) fn has_moved(&mut self) -> bool {
        let has_moved = self.sent >= self.noted.saturating_add(self.min_progress);
        if has_moved {
            self.noted = self.sent;
        }
        has_moved
    }

    fn block_on(&mut self, stuck: BlockedOn) -> Poll<Result<(), TransferError>> {
        self.blocked_on = Some(stuck);
        Poll::Pending
    }

    fn is_ready_for_content(&self) -> bool {
        let is_next = self.step.consumed == 0 && self.suffix_sent == self.suffix.len();
        is_next && !self.is_held && !self.decoder.is_done()
    }

    fn is_written(&self) -> bool {
        self.prefix_sent == self.prefix.len()
            && self.step_sent == self.step.data
            && self.suffix_sent == self.suffix.len()
    }

    /// Decodes the bytes that were read, and frames their content.
    fn decode(&mut self, from: &mut HttpStream, to: &HttpStream) -> Result<(), TransferError> {
        let mut piece = match from {
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
        let left = self.content_left.checked_sub(piece.data as u64);
        self.content_left = left.ok_or(TransferError::TooLarge)?;
        if let Some(early_end) = &mut self.early_end {
            let content = &from.unread()[piece.skip..piece.skip + piece.data];
            // A body that comes to its own end is not ended early.
            if self.decoder.is_done() {
                self.early_end = None;
            } else {
                piece.data = early_end.pass(content);
            }
        }
        if self.prefix_sent == self.prefix.len() {
            // The head stays: it is needed to start again, and for the log.
            self.prefix.truncate(self.head);
            self.prefix_sent = self.head;
        }
        self.suffix_sent = 0;
        self.suffix = Cow::Borrowed(b"");
        if piece.data > 0 {
            self.frame(piece.data);
            (self.step, self.step_sent) = (piece, 0);
        } else {
            from.consume(piece.consumed);
        }
        if self.decoder.is_done() {
            self.end(from, to);
        }
        Ok(())
    }

    fn frame(&mut self, data: usize) {
        self.encoding.put_before_data(&mut self.prefix, data);
        self.suffix = Cow::Borrowed(self.encoding.after_data());
    }

    /// Ends the body with the end of its connection.
    fn finish(&mut self, from: &HttpStream, to: &HttpStream) {
        self.decoder = Decoder::new(Framing::None);
        self.suffix_sent = 0;
        self.suffix = Cow::Borrowed(b"");
        self.end(from, to);
    }

    fn end(&mut self, from: &HttpStream, to: &HttpStream) {
        if self.encoding == Encoding::Plain && !to.is_stream() {
            return;
        }
        let has_data = self.step.data > self.step_sent;
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
        self.suffix = match (has_data, &*trailers) {
            (true, []) => Cow::Borrowed(b"\r\n0\r\n\r\n"),
            (false, []) => Cow::Borrowed(b"0\r\n\r\n"),
            (_, trailers) => {
                let mut end = self.suffix.to_vec();
                self.encoding.put_end(&mut end, trailers);
                Cow::Owned(end)
            }
        };
    }
}
