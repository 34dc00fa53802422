//! A socket that reads ahead.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::{
    buffers::{Buffer, BufferPool, LARGE, SMALL},
    transport::Transport,
};

/// A socket with its unread bytes. One task uses it: only the last waker for reading and the last for writing are
/// woken.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    /// Only while it is not empty.
    unread: Option<Buffer>,
    /// Whether the last read filled the buffer.
    filled_buffer: bool,
    buffers: Rc<BufferPool>,
}

// === impl Socket ===

impl Socket {
    /// A socket without unread bytes.
    #[must_use]
    pub fn new(transport: Transport, buffers: &Rc<BufferPool>) -> Self {
        Self { transport, unread: None, filled_buffer: false, buffers: Rc::clone(buffers) }
    }

    /// The unconsumed bytes.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.unread.as_ref().map_or(&[], Buffer::unread)
    }

    /// The unconsumed bytes, to be modified in place.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        self.unread.as_mut().map_or(&mut [], Buffer::unread_mut)
    }

    /// Marks the first `count` bytes as consumed. The last one returns the buffer.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        if let Some(buffer) = &mut self.unread {
            buffer.consume(count);
            if buffer.unread().is_empty() {
                self.unread = None;
            }
        } else {
            assert!(count == 0, "more bytes consumed than read");
        }
    }

    /// Ready when bytes or the end of the connection have arrived. Holds no memory meanwhile.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_readable(context)
    }

    /// Reads available bytes after the unread ones, up to `max` unread in total. Returns the number of new bytes: 0 at
    /// the end, or if `max` are unread. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn poll_read(&mut self, context: &mut Context<'_>, max: usize) -> Poll<io::Result<usize>> {
        let buffer = match &mut self.unread {
            Some(buffer) => buffer,
            None => {
                ready!(self.transport.poll_readable(context))?;
                let size = if self.filled_buffer { LARGE } else { SMALL };
                self.unread.insert(self.buffers.take(size.min(max)))
            }
        };
        let Some(spare) = buffer.reserve(max) else { return Poll::Ready(Ok(0)) };
        let read = poll_read_buf(Pin::new(&mut self.transport), context, spare);
        match &read {
            Poll::Ready(Ok(1..)) => self.filled_buffer = spare.len() == spare.capacity(),
            _ if buffer.unread().is_empty() => self.unread = None,
            _ => {}
        }
        read
    }

    /// Writes the parts as far as the system accepts them at once, and returns the number of bytes. At least one part
    /// must not be empty.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        parts: [&[u8]; 3],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.transport);
        match parts {
            [only, [], []] | [[], only, []] | [[], [], only] => stream.poll_write(context, only),
            parts => stream.poll_write_vectored(context, &parts.map(IoSlice::new)),
        }
    }

    /// Flushes data that TLS has buffered because the system accepted no more.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    /// Closes the sending side. Reading goes on.
    ///
    /// # Errors
    ///
    /// The system's error.
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }

    /// Whether nothing has arrived since the last read, and the peer has not closed, as far as the runtime knows.
    #[must_use]
    pub fn is_reusable(&mut self) -> bool {
        self.unread.is_none() && self.transport.is_reusable()
    }

    /// Like [`Self::is_reusable`], with a system call.
    #[must_use]
    pub fn check_reusable(&mut self) -> bool {
        self.unread.is_none() && self.transport.check_reusable()
    }

    /// Whether the peer has closed its sending side, or the connection, behind bytes that were not read. With a system call.
    #[must_use]
    pub fn has_hung_up(&self) -> bool {
        self.transport.has_hung_up()
    }

    /// Whether dropping the socket sends a reset. If the end of the connection is the end of the message, a client must
    /// not take a partial message for a complete one.
    pub fn set_reset_on_close(&self, is_reset: bool) {
        self.transport.set_linger(is_reset.then_some(Duration::ZERO));
    }

    /// Enables TCP keep-alive, so that a vanished peer is noticed.
    pub fn enable_keep_alive(&self) {
        self.transport.enable_keep_alive();
    }

    /// The transport.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The transport without the unread bytes; only for sockets without any, or if they do not matter.
    #[must_use]
    pub fn into_transport(self) -> Transport {
        self.transport
    }
}

/// For libraries with their own buffers; the unread bytes come first.
impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        spare: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        let unread = socket.unread();
        if unread.is_empty() {
            return Pin::new(&mut socket.transport).poll_read(context, spare);
        }
        let count = unread.len().min(spare.remaining());
        spare.put_slice(&unread[..count]);
        socket.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_finish(context)
    }
}
