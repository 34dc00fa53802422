//! One side of an exchange, over HTTP/1 or HTTP/2.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::Socket;
use crate::http2::{Http2Stream, StreamReset};

/// An HTTP/1 connection, or one HTTP/2 stream. Both begin with a head in the form of HTTP/1. On a connection, the body
/// is framed in the bytes; a stream frames it itself.
#[derive(Debug)]
pub enum HttpStream {
    /// A connection, for one exchange after another.
    Socket(Socket),
    /// A stream, for one exchange. Boxed, since idle clients have none.
    Stream(Box<Http2Stream>),
}

// === impl HttpStream ===

impl HttpStream {
    /// The unconsumed bytes.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        match self {
            Self::Socket(it) => it.unread(),
            Self::Stream(it) => it.unread(),
        }
    }

    /// Marks the first `count` bytes as consumed.
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

    /// Reads available bytes after the unread ones; a stream reads only if there are none. Returns the number of new
    /// bytes: 0 at the end, or if `max` are unread.
    ///
    /// # Errors
    ///
    /// The error of the connection.
    pub fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        match self {
            Self::Socket(it) => it.poll_read(context, max),
            Self::Stream(it) => it.poll_read(context),
        }
    }

    /// Writes content unframed, as much as is accepted at once; for tunnels.
    ///
    /// # Errors
    ///
    /// The error of the connection.
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

    /// Flushes written bytes.
    ///
    /// # Errors
    ///
    /// The error of the connection.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(it) => it.poll_flush(context),
            Self::Stream(_) => Poll::Ready(Ok(())),
        }
    }

    /// Writes a complete response. `written` counts the bytes written so far, so that the call can be repeated.
    ///
    /// # Errors
    ///
    /// The error of the connection.
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

    /// Closes the sending side. Reading goes on.
    ///
    /// # Errors
    ///
    /// The error of the connection.
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Socket(it) => it.poll_finish(context),
            Self::Stream(it) => {
                it.finish();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Whether this is an HTTP/2 stream; its end is the end of the message.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    /// Whether dropping a connection sends a reset. A stream that is dropped before its end always does.
    pub fn set_reset_on_close(&self, is_reset: bool) {
        if let Self::Socket(it) = self {
            it.set_reset_on_close(is_reset);
        }
    }

    /// Enables TCP keep-alive, so that a vanished peer is noticed.
    pub fn enable_keep_alive(&self) {
        if let Self::Socket(it) = self {
            it.enable_keep_alive();
        }
    }

    /// Resets a stream, for the reason that the other side's stream was reset. To abort a connection, drop it.
    pub fn reset(&mut self, why: Option<StreamReset>) {
        if let Self::Stream(it) = self {
            it.reset(why);
        }
    }

    /// Whether a stream has sent its response head. False for a connection.
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
