//! One end of an exchange, whatever version of HTTP is spoken there.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::Socket;
use crate::http2::{Http2Stream, StreamReset};

/// A connection of HTTP/1, or one stream of HTTP/2. Both begin with a head in the form of HTTP/1;
/// what follows it is framed in the bytes of the one, and by the other itself.
#[derive(Debug)]
pub enum HttpStream {
    /// A connection, on which one exchange follows another.
    Socket(Socket),
    /// A stream, which is there for one exchange. In a box, since idle clients have none.
    Stream(Box<Http2Stream>),
}

// === impl HttpStream ===

impl HttpStream {
    /// What was read and not yet used.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        match self {
            Self::Socket(it) => it.unread(),
            Self::Stream(it) => it.unread(),
        }
    }

    /// Notes that the first `count` bytes were used.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        match self {
            Self::Socket(it) => it.consume(count),
            Self::Stream(it) => it.consume(count),
        }
    }

    /// Reads what there is, behind what is unread; a stream only when nothing is. Returns how many bytes
    /// came: 0 at the end, or when there are `max` already.
    ///
    /// # Errors
    ///
    /// What is said of the connection.
    pub fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(it) => it.poll_read(context, max),
            Self::Stream(it) => it.poll_read(context),
        }
    }

    /// Writes content as it is, as much as is taken at once; for a tunnel.
    ///
    /// # Errors
    ///
    /// What is said of the connection.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(it) => it.poll_write(context, parts),
            Self::Stream(it) => {
                let some = parts.into_iter().find(|it| !it.is_empty()).unwrap_or_default();
                it.poll_send(context, some, false)
            }
        }
    }

    /// Has what was written leave.
    ///
    /// # Errors
    ///
    /// What is said of the connection.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(it) => it.poll_flush(context),
            Self::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    /// Writes an answer of our own as a whole, but for what was `written` of it already.
    ///
    /// # Errors
    ///
    /// What is said of the connection.
    pub fn poll_send_response(
        &mut self,
        context: &mut Context<'_>,
        head: &[u8],
        body: &[u8],
        written: &mut usize,
    ) -> Poll<io::Result<()>> {
        if let Self::Stream(stream) = self
            && *written == 0
        {
            stream.send_head(head, body.is_empty())?;
            *written = head.len();
        }
        while *written < head.len() + body.len() {
            let (head, body) = match written.checked_sub(head.len()) {
                Some(more) => (&[][..], &body[more..]),
                None => (&head[*written..], body),
            };
            *written += match self {
                Self::Socket(it) => ready!(it.poll_write(context, [head, body, &[]]))?,
                Self::Stream(it) => ready!(it.poll_send(context, body, true))?,
            };
        }
        self.poll_flush(context)
    }

    /// Tells the other end that nothing more will be written. Reading goes on.
    ///
    /// # Errors
    ///
    /// What is said of the connection.
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(it) => it.poll_finish(context),
            Self::Stream(it) => {
                it.finish();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether this is a stream, whose end says where a message ends.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Makes the closing of a connection a reset, or no longer one. A stream that is dropped before
    /// its end is reset anyway.
    pub fn set_reset_on_close(&self, is_reset: bool) {
        if let Self::Socket(it) = self {
            it.set_reset_on_close(is_reset);
        }
    }

    /// Has the system find out when the other end is gone without a word.
    pub fn enable_keep_alive(&self) {
        if let Self::Socket(it) = self {
            it.enable_keep_alive();
        }
    }

    /// Breaks a stream off, for the reason that another one was. A connection is to be dropped.
    pub fn reset(&mut self, why: Option<StreamReset>) {
        if let Self::Stream(it) = self {
            it.reset(why);
        }
    }

    /// Whether the head of an answer was sent, as far as streams are concerned.
    #[must_use]
    pub fn has_sent_head(&self) -> bool {
        matches!(self, Self::Stream(it) if it.has_sent_head())
    }

    /// Why a stream was reset, if it was.
    #[must_use]
    pub fn reset_reason(&self) -> Option<StreamReset> {
        match self {
            Self::Socket(_) => None,
            Self::Stream(it) => it.reset_reason(),
        }
    }
}
