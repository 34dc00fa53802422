//! One direction of an exchange: bytes of one socket, framed anew, on their way into another one.

use std::{
    borrow::Cow,
    io,
    task::{Context, Poll},
};

use super::headers;
use crate::{
    http1::{BodyError, Decoder, Encoding, Framing, Piece},
    net::Socket,
};

/// A head of our own and the body behind it, from one socket into another one. The first bytes of
/// the body leave together with the head; nothing is read before what was read last is written, so
/// that whoever takes slowly is sent slowly.
#[derive(Debug)]
pub(super) struct Flow {
    decoder: Decoder,
    encoding: Encoding,
    trailers: Trailers,
    /// What goes before the content: a head, and the line before a chunk.
    own: Vec<u8>,
    own_sent: usize,
    /// The content that is being written; it stands at the beginning of what is unread.
    piece: Piece,
    piece_sent: usize,
    /// What goes behind the content.
    behind: Cow<'static, [u8]>,
    behind_sent: usize,
    /// Bytes that were written in all.
    sent: u64,
    /// How many of them its owner has noted.
    noted: u64,
    /// What is being waited for.
    stuck: Option<Stuck>,
    /// Whether the content has to wait until somebody wants it.
    is_held: bool,
}

/// What becomes of trailers.
#[derive(Debug)]
pub(super) enum Trailers {
    /// They go on, but for what the head's `Connection` has listed.
    Pass {
        /// Names, with commas between them.
        listed: Vec<u8>,
    },
    /// Nobody takes them.
    Drop,
}

/// What a flow waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stuck {
    /// For bytes.
    Reading,
    /// For bytes to be taken.
    Writing,
}

/// Why a flow cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The end of the connection came before the end of the body.
    #[error("the connection ended before the body")]
    Short,
    /// It took too long.
    #[error("it took too long")]
    TooSlow,
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

/// Bytes of a body that are read at once.
const AT_ONCE: usize = 128 * 1024;

// === impl Flow ===

impl Flow {
    /// A flow that begins with `head`, of a body that is framed as `from` and will be as `to`.
    pub(super) fn new(head: Vec<u8>, from: Framing, to: Framing, trailers: Trailers) -> Self {
        Self {
            decoder: Decoder::new(from),
            encoding: Encoding::of(to),
            trailers,
            own: head,
            own_sent: 0,
            piece: Piece::default(),
            piece_sent: 0,
            behind: Cow::Borrowed(b""),
            behind_sent: 0,
            sent: 0,
            noted: 0,
            stuck: None,
            is_held: false,
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
        from: &mut Socket,
        to: &mut Socket,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.wants_content() && !from.unread().is_empty() {
                self.take(from).map_err(Broken::Malformed)?;
            }
            while !self.is_written() {
                match to.poll_write(context, self.parts(from)) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(Broken::Writing(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(count)) => self.written(count, from),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Writing(error))),
                    Poll::Pending => return self.waits_for(Stuck::Writing),
                }
            }
            if self.decoder.is_done() {
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
            match from.poll_read(context, AT_ONCE) {
                Poll::Ready(Ok(0)) if self.decoder.is_to_close() => self.finish(),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Broken::Short)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Reading(error))),
                Poll::Pending => return self.waits_for(Stuck::Reading),
            }
        }
    }

    /// Takes the whole body if it is there already, to throw it away.
    pub(super) fn discard(&mut self, from: &mut Socket) -> bool {
        if self.piece.used > 0 {
            from.consume(self.piece.used);
            self.piece = Piece::default();
        }
        while !self.decoder.is_done() && !from.unread().is_empty() {
            match self.decoder.decode(from.unread_mut()) {
                Ok(piece) => from.consume(piece.used),
                Err(_) => return false,
            }
        }
        self.decoder.is_done()
    }

    /// Starts again from the first byte; only while none of the body was written.
    pub(super) fn rewind(&mut self) {
        (self.own_sent, self.sent) = (0, 0);
    }

    /// Whether the flow can start again: of a body, nothing was written.
    pub(super) fn can_rewind(&self) -> bool {
        self.sent <= self.own.len() as u64 && self.behind_sent == 0
    }

    /// What is being waited for.
    pub(super) fn stuck(&self) -> Option<Stuck> {
        self.stuck
    }

    /// Bytes that were written in all.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether something was written since this was asked the last time.
    pub(super) fn has_moved(&mut self) -> bool {
        self.sent != std::mem::replace(&mut self.noted, self.sent)
    }

    fn waits_for(&mut self, stuck: Stuck) -> Poll<Result<(), Broken>> {
        self.stuck = Some(stuck);
        Poll::Pending
    }

    fn wants_content(&self) -> bool {
        let is_next = self.piece.used == 0 && self.behind_sent == self.behind.len();
        is_next && !self.is_held && !self.decoder.is_done()
    }

    fn is_written(&self) -> bool {
        self.own_sent == self.own.len()
            && self.piece_sent == self.piece.data
            && self.behind_sent == self.behind.len()
    }

    /// Looks at what was read, and puts around its content what belongs there.
    fn take(&mut self, from: &mut Socket) -> Result<(), BodyError> {
        let piece = self.decoder.decode(from.unread_mut())?;
        if self.own_sent == self.own.len() {
            self.own.clear();
            self.own_sent = 0;
        }
        self.behind_sent = 0;
        self.behind = Cow::Borrowed(b"");
        if piece.data > 0 {
            self.encoding.put_before_data(&mut self.own, piece.data);
            self.behind = Cow::Borrowed(self.encoding.behind_data());
            (self.piece, self.piece_sent) = (piece, 0);
        } else {
            from.consume(piece.used);
        }
        if self.decoder.is_done() {
            self.end();
        }
        Ok(())
    }

    /// The connection that the body came by is at its end, and so is the body.
    fn finish(&mut self) {
        self.decoder = Decoder::new(Framing::None);
        self.behind_sent = 0;
        self.behind = Cow::Borrowed(b"");
        self.end();
    }

    fn end(&mut self) {
        if self.encoding == Encoding::Plain {
            return;
        }
        let has_data = self.piece.data > self.piece_sent;
        let trailers = match self.decoder.trailers() {
            raw @ [_, ..] => match &self.trailers {
                Trailers::Pass { listed } => headers::clean_trailers(raw, listed),
                Trailers::Drop => Vec::new(),
            },
            [] => Vec::new(),
        };
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

    fn parts<'a>(&'a self, from: &'a Socket) -> [&'a [u8]; 3] {
        let Piece { skip, data, .. } = self.piece;
        let content = match data {
            0 => &[][..],
            _ => &from.unread()[skip + self.piece_sent..skip + data],
        };
        [&self.own[self.own_sent..], content, &self.behind[self.behind_sent..]]
    }

    /// Notes that so many bytes of the parts were written.
    fn written(&mut self, count: usize, from: &mut Socket) {
        self.sent += count as u64;
        let own = count.min(self.own.len() - self.own_sent);
        self.own_sent += own;
        let content = (count - own).min(self.piece.data - self.piece_sent);
        self.piece_sent += content;
        self.behind_sent += count - own - content;
        if self.piece.used > 0 && self.piece_sent == self.piece.data {
            from.consume(self.piece.used);
            (self.piece, self.piece_sent) = (Piece::default(), 0);
        }
    }
}
