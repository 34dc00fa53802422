//! The socket of a connection of HTTP/2, watched for silence, for an end that takes nothing, for noise.

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

/// How much a client may send of all requests together before it was passed on.
pub(super) const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Bytes that a connection may send in an hour beyond eight times what its requests have to do with:
/// more than that are frames for their own sake.
const NOISE_MAX: u64 = 1024 * 1024;
const NOISE_TIME: Duration = Duration::from_secs(3600);

/// The socket, watched: for silence, for an end that takes nothing, for noise.
pub(super) struct MonitoredSocket<M> {
    socket: Socket,
    guard: FrameValidator,
    course: Rc<SessionActivity<M>>,
    /// Bytes that came since this time, and what the meter showed then.
    came: u64,
    meant: u64,
    since: Instant,
}

// === impl MonitoredSocket ===

impl<M> MonitoredSocket<M> {
    pub(super) fn new(socket: Socket, course: Rc<SessionActivity<M>>) -> Self {
        let since = course.connection.now();
        Self { socket, guard: FrameValidator::new(), course, came: 0, meant: 0, since }
    }

    fn note_read(&mut self, came: u64) {
        let now = self.course.connection.now();
        if now.saturating_duration_since(self.since) > NOISE_TIME {
            (self.since, self.came, self.meant) = (now, 0, self.course.meter.total());
        }
        self.came += came;
    }

    fn is_noise(&self) -> bool {
        let meant = self.course.meter.total() - self.meant;
        // Content that nobody has taken yet is within the window that it has.
        self.came > meant.saturating_mul(8) + NOISE_MAX + u64::from(CONNECTION_WINDOW)
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        let has_moved = matches!(written, Poll::Ready(Ok(1..)));
        let connection = &self.course.connection;
        connection.note(Timeout::Taken, written.is_pending(), has_moved);
        // What is written may be the rest of answers whose streams have ended for us.
        for wait in [Timeout::Stream, Timeout::Linger] {
            if has_moved && connection.is_waiting(wait) {
                connection.begin(wait);
            }
        }
    }
}

impl<M> AsyncRead for MonitoredSocket<M> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        let before = room.filled().len();
        if watched.guard.take(room) {
            return Poll::Ready(Ok(()));
        }
        loop {
            let read = pin!(&mut watched.socket).poll_read(context, room);
            let came = room.filled().len() - before;
            if came == 0 {
                return read;
            }
            watched.note_read(came as u64);
            let connection = &watched.course.connection;
            connection.end(Timeout::Sound);
            connection.end(Timeout::Pong);
            if watched.is_noise() {
                let what = "more frames than its requests have a use for";
                return Poll::Ready(Err(io::Error::other(what)));
            }
            if watched.guard.pass(room, before) {
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
        let watched = self.get_mut();
        let written = pin!(&mut watched.socket).poll_write(context, bytes);
        watched.note_written(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let watched = self.get_mut();
        let written = pin!(&mut watched.socket).poll_write_vectored(context, parts);
        watched.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        let flushed = pin!(&mut watched.socket).poll_flush(context);
        watched.course.connection.note(Timeout::Taken, flushed.is_pending(), false);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.get_mut().socket).poll_shutdown(context)
    }
}
