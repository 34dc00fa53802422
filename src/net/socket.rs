//! A socket that reads ahead.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_util::io::poll_read_buf;

use super::buffers::{Buffer, Buffers, LARGE, SMALL};

/// A socket with what was read from it and not yet used. Belongs to one task: the last one who was
/// told to wait for reading, and the last one for writing, are woken.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Only while there is something in it.
    unread: Option<Buffer>,
    /// Whether the last reading filled all the room that there was.
    is_flowing: bool,
    buffers: Rc<Buffers>,
}

// === impl Socket ===

impl Socket {
    /// A socket that nothing was read from.
    #[must_use]
    pub fn new(stream: TcpStream, buffers: &Rc<Buffers>) -> Self {
        Self { stream, unread: None, is_flowing: false, buffers: Rc::clone(buffers) }
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
        self.stream.poll_read_ready(context)
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
                ready!(self.stream.poll_read_ready(context))?;
                let size = if self.is_flowing { LARGE } else { SMALL };
                self.unread.insert(self.buffers.take(size.min(max)))
            }
        };
        let Some(room) = buffer.room(max) else { return Poll::Ready(Ok(0)) };
        let read = poll_read_buf(Pin::new(&mut self.stream), context, room);
        match &read {
            Poll::Ready(Ok(1..)) => self.is_flowing = room.len() == room.capacity(),
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
        let stream = Pin::new(&mut self.stream);
        match parts {
            [only, [], []] | [[], only, []] | [[], [], only] => stream.poll_write(context, only),
            parts => stream.poll_write_vectored(context, &parts.map(IoSlice::new)),
        }
    }

    /// Tells the other end that nothing more will be written. Reading goes on.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
    pub fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    /// Whether nothing has come since what was last read, and the other end has not closed, as far as
    /// is known without asking the system.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let seen = self.stream.try_read(&mut [0]);
        self.unread.is_none()
            && matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Makes the closing of this socket a reset, or no longer one: whoever takes the end of the
    /// connection for the end of a message must not take a part of it for the whole.
    pub fn closes_with_reset(&self, is_reset: bool) {
        let linger = is_reset.then_some(Duration::ZERO);
        // One that cannot be told so any more is broken already.
        let _ = socket2::SockRef::from(&self.stream).set_linger(linger);
    }

    /// Has the system find out when the other end is gone without a word.
    pub fn keep_alive(&self) {
        // One that cannot be told so is watched by our own patience alone.
        let _ = socket2::SockRef::from(&self.stream).set_keepalive(true);
    }
}
