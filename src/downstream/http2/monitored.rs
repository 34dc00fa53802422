//! The socket of an HTTP/2 connection, monitored for silence, for a client that reads nothing, and for excess frames.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::SessionActivity;
use crate::{downstream::timeout::Timeout, http2::FrameValidator, net::Socket};

/// The flow-control window of a connection: bytes of all requests that the client may send before they are forwarded.
pub(super) const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that a connection may receive in an hour beyond eight times what its requests and responses have: more than
/// that are frames without purpose.
const EXCESS_MAX: u64 = 1024 * 1024;
const EXCESS_WINDOW: Duration = Duration::from_secs(3600);

/// The socket, monitored for silence, for a client that reads nothing, and for excess frames.
pub(super) struct MonitoredSocket<M> {
    socket: Socket,
    guard: FrameValidator,
    activity: Rc<SessionActivity<M>>,
    /// Bytes received since `since`, and the meter's value at that time.
    received: u64,
    metered: u64,
    since: Instant,
}

// === impl MonitoredSocket ===

impl<M> MonitoredSocket<M> {
    pub(super) fn new(socket: Socket, activity: Rc<SessionActivity<M>>) -> Self {
        let since = activity.connection.now();
        Self { socket, guard: FrameValidator::new(), activity, received: 0, metered: 0, since }
    }

    fn record_read(&mut self, received: u64) {
        let now = self.activity.connection.now();
        if now.saturating_duration_since(self.since) > EXCESS_WINDOW {
            (self.since, self.received, self.metered) = (now, 0, self.activity.meter.total());
        }
        self.received += received;
    }

    fn is_excessive(&self) -> bool {
        let metered = self.activity.meter.total() - self.metered;
        // Content that is not forwarded yet is within its window.
        self.received > metered.saturating_mul(8) + EXCESS_MAX + u64::from(CONNECTION_WINDOW)
    }

    fn record_written(&self, written: &Poll<io::Result<usize>>) {
        let has_progress = matches!(written, Poll::Ready(Ok(1..)));
        let connection = &self.activity.connection;
        connection.track(Timeout::Write, written.is_pending(), has_progress);
        // These bytes may end responses after their streams have ended.
        for timeout in [Timeout::Http2Idle, Timeout::Linger] {
            if has_progress && connection.is_armed(timeout) {
                connection.arm(timeout);
            }
        }
    }
}

impl<M> AsyncRead for MonitoredSocket<M> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.guard.take(buf) {
            return Poll::Ready(Ok(()));
        }
        loop {
            let read = pin!(&mut this.socket).poll_read(context, buf);
            let received = buf.filled().len() - before;
            if received == 0 {
                return read;
            }
            this.record_read(received as u64);
            let connection = &this.activity.connection;
            connection.disarm(Timeout::Http2KeepAlive);
            connection.disarm(Timeout::Pong);
            if this.is_excessive() {
                let message = "the client sends many more frames than its requests need";
                return Poll::Ready(Err(io::Error::other(message)));
            }
            if this.guard.filter(buf, before) {
                return read;
            }
        }
    }
}

impl<M> AsyncWrite for MonitoredSocket<M> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = pin!(&mut this.socket).poll_write(context, bytes);
        this.record_written(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = pin!(&mut this.socket).poll_write_vectored(context, parts);
        this.record_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = pin!(&mut this.socket).poll_flush(context);
        this.activity.connection.track(Timeout::Write, flushed.is_pending(), false);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
