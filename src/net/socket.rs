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

/// A socket with what was read from it and not yet used. Belongs to one task: the last one who was
/// told to wait for reading, and the last one for writing, are woken.
#[derive(Debug)]
pub struct Socket {
    transport: Transport,
    /// Only while there is something in it.
    unread: Option<Buffer>,
    /// Whether the last reading filled all the room that there was.
    filled_buffer: bool,
    buffers: Rc<BufferPool>,
}

// === impl Socket ===

impl Socket {
    /// A socket that nothing was read from.
    #[must_use]
    pub fn new(transport: Transport, buffers: &Rc<BufferPool>) -> Self {
        Self { transport, unread: None, filled_buffer: false, buffers: Rc::clone(buffers) }
    }

    /// What was read and not yet used.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        self.unread.as_ref().map_or(&[], Buffer::unread)
    }

    /// The same, to be moved about.
    pub fn unread_mut(&mut self) -> &mut [u8] {
        self.unread.as_mut().map_or(&mut [], Buffer::unread_mut)
    }

    /// Notes that the first `count` bytes were used. With the last one the buffer is given back.
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
            assert!(count == 0, "only what is there can be used");
        }
    }

    /// Whether there is something to read, or the end. Holds no memory while it waits.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_readable(context)
    }

    /// Reads what there is, behind what is unused, until `max` bytes are. Returns how many came: 0
    /// at the end, or when there are `max` already. Nothing is lost when the waiting is given up.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
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

    /// Writes what is taken at once of some parts, and returns how much that was. At least one part
    /// must not be empty.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
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

    /// Has what was written leave, which TLS may have kept back when the system took no more.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    /// Tells the other end that nothing more will be written. Reading goes on.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }

    /// Whether nothing has come since what was last read, and the other end has not closed, as far as
    /// the runtime knows.
    #[must_use]
    pub fn is_reusable(&mut self) -> bool {
        self.unread.is_none() && self.transport.is_reusable()
    }

    /// The same, by asking the system.
    #[must_use]
    pub fn check_reusable(&mut self) -> bool {
        self.unread.is_none() && self.transport.check_reusable()
    }

    /// Makes the closing of this socket a reset, or no longer one: whoever takes the end of the
    /// connection for the end of a message must not take a part of it for the whole.
    pub fn set_reset_on_close(&self, is_reset: bool) {
        self.transport.set_linger(is_reset.then_some(Duration::ZERO));
    }

    /// Has the system find out when the other end is gone without a word.
    pub fn enable_keep_alive(&self) {
        self.transport.enable_keep_alive();
    }

    /// What the bytes go through.
    #[must_use]
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The same without what was read ahead; only for sockets that have read nothing ahead, or
    /// what is done with.
    #[must_use]
    pub fn into_transport(self) -> Transport {
        self.transport
    }
}

/// For whoever reads and writes through other buffers; what was read ahead comes first.
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
