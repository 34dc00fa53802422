//! What a socket's bytes go through: TCP, a unix socket, or TLS over TCP.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsStream;

use super::tls_idle;

/// What a socket's bytes go through.
#[derive(Debug)]
pub enum Transport {
    /// Bytes as they are.
    Tcp(TcpStream),
    /// The same, on this machine.
    Unix(UnixStream),
    /// Encrypted. In a box, since it is large and the others are many.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The same call on whatever is inside.
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
    /// Whether there is something to read, or the end, or what only TLS has a use for.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
            Self::Tls(stream) => match stream.get_ref() {
                // Decrypted already, or the other end's farewell.
                (_, session) if !session.wants_read() => Poll::Ready(Ok(())),
                (stream, _) => stream.poll_read_ready(context),
            },
        }
    }

    /// Whether nothing has come and the other end has not closed, as far as the runtime knows.
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

    /// The same, by asking the system: the runtime does not know yet what came in the last moment.
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

    /// Makes the closing of a TCP connection a reset, or no longer one.
    pub(super) fn set_linger(&self, linger: Option<Duration>) {
        if let Some(stream) = self.tcp() {
            // One that cannot be told so any more is broken already.
            let _ = SockRef::from(stream).set_linger(linger);
        }
    }

    /// Has the system find out when the other end is gone without a word.
    pub(super) fn enable_keep_alive(&self) {
        if let Some(stream) = self.tcp() {
            // One that cannot be told so is watched by our own patience alone.
            let _ = SockRef::from(stream).set_keepalive(true);
        }
    }

    /// Whether it is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The TCP connection that the bytes go by, if it is one.
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
            // What is written is with the system.
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
