//! The transport of a socket: TCP, a unix socket, or TLS over TCP.

use std::{
    io::{self, IoSlice},
    os::fd::AsFd,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsStream;

use super::tls_idle;

/// The transport of a socket.
#[derive(Debug)]
pub enum Transport {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// TLS over TCP. Boxed, since it is large and the others are more common.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls the same method of the inner type.
macro_rules! dispatch {
    ($transport:expr, $it:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($it) => $call,
            Transport::Unix($it) => $call,
            Transport::Tls($it) => $call,
        }
    };
}

// === impl Transport ===

impl Transport {
    /// Ready when bytes, the end of the connection, or TLS session data have arrived.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Tls(stream) => match stream.get_ref() {
                // There is decrypted content, or a `close_notify`.
                (_, session) if !session.wants_read() => Poll::Ready(Ok(())),
                (stream, _) => stream.poll_read_ready(context),
            },
        }
    }

    /// Whether nothing has arrived and the peer has not closed, as far as the runtime knows.
    pub(super) fn is_reusable(&mut self) -> bool {
        match self {
            Self::Tcp(stream) => would_block(&stream.try_read(&mut [0])),
            Self::Unix(stream) => would_block(&stream.try_read(&mut [0])),
            Self::Tls(stream) => match &mut **stream {
                TlsStream::Client(it) => {
                    let (tcp, session) = it.get_mut();
                    tls_idle::is_reusable(tcp, session)
                }
                TlsStream::Server(it) => {
                    let (tcp, session) = it.get_mut();
                    tls_idle::is_reusable(tcp, session)
                }
            },
        }
    }

    /// Like [`Self::is_reusable`], with a system call: the runtime may not know yet what arrived a moment ago.
    pub(super) fn check_reusable(&mut self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        match self {
            Self::Tcp(stream) => would_block(&SockRef::from(&*stream).peek(&mut byte)),
            Self::Unix(stream) => would_block(&SockRef::from(&*stream).peek(&mut byte)),
            Self::Tls(stream) => match &mut **stream {
                TlsStream::Client(it) => {
                    let (tcp, session) = it.get_mut();
                    tls_idle::check_reusable(tcp, session)
                }
                TlsStream::Server(it) => {
                    let (tcp, session) = it.get_mut();
                    tls_idle::check_reusable(tcp, session)
                }
            },
        }
    }

    /// Whether the peer has closed its sending side, or the connection. The runtime knows that only when everything before it
    /// was read.
    pub(super) fn has_hung_up(&self) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let descriptor = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_fd(),
        };
        let mut polled = [PollFd::new(&descriptor, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let found = poll(&mut polled, Some(&now));
        found.is_ok_and(|it| it > 0) && polled[0].revents().intersects(gone)
    }

    /// Whether dropping a TCP connection sends a reset.
    pub(super) fn set_linger(&self, linger: Option<Duration>) {
        if let Some(stream) = self.tcp() {
            // If this fails, the connection is already broken.
            let _ = SockRef::from(stream).set_linger(linger);
        }
    }

    /// Enables TCP keep-alive.
    pub(super) fn enable_keep_alive(&self) {
        if let Some(stream) = self.tcp() {
            // If this fails, Flipgate's own timeouts still apply.
            let _ = SockRef::from(stream).set_keepalive(true);
        }
    }

    /// Whether it uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The TCP connection, unless it is a unix socket.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) => None,
            Self::Tls(stream) => Some(stream.get_ref().0),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        dispatch!(self.get_mut(), it => Pin::new(it).poll_read(context, buf))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        dispatch!(self.get_mut(), it => Pin::new(it).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        dispatch!(self.get_mut(), it => Pin::new(it).poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // The system already has all written bytes.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        dispatch!(self.get_mut(), it => Pin::new(it).poll_shutdown(context))
    }
}

fn would_block<T>(seen: &io::Result<T>) -> bool {
    matches!(seen, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

#[cfg(test)]
mod tests;
