//! One direction of a tunnel.

use std::{
    io,
    task::{Context, Poll, ready},
};

use crate::{
    net::HttpStream,
    proxy::body_pipe::TransferError,
    websocket::{Border, Extensions, FrameTracker, Sender},
};

/// One direction.
pub(super) struct TunnelDirection {
    /// Bytes that are sent before those that are read.
    first: Vec<u8>,
    /// Where the frames end in what was written.
    frames: FrameTracker,
    course: Course,
    state: DirectionState,
    /// Whether bytes wait for the receiver.
    pub(super) is_blocked: bool,
    /// Whether bytes were written since the last check.
    pub(super) has_moved: bool,
}

/// Which of the bytes that are read are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Course {
    /// All.
    Free,
    /// Those before the next such border.
    Until(Border),
    /// None: they are discarded.
    Discard,
    /// None, and the sender has ended.
    Ended,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum DirectionState {
    Flowing,
    /// Everything is written, but the end was not sent yet.
    Finishing,
    Finished,
}

/// The size of one read.
pub(super) const AT_ONCE: usize = 128 * 1024;

// === impl TunnelDirection ===

impl TunnelDirection {
    pub(super) fn new(first: Vec<u8>, sender: Sender, extensions: Extensions) -> Self {
        Self {
            first,
            frames: FrameTracker::new(sender, extensions),
            course: Course::Free,
            state: DirectionState::Flowing,
            is_blocked: false,
            has_moved: false,
        }
    }

    /// Where the frames end in what was written.
    pub(super) fn frames(&self) -> &FrameTracker {
        &self.frames
    }

    /// Whether the sender has not ended.
    pub(super) fn is_flowing(&self) -> bool {
        self.state == DirectionState::Flowing
    }

    /// Sets which of the bytes from now on are written.
    pub(super) fn set_course(&mut self, course: Course) {
        self.course = course;
    }

    /// Whether everything up to the border of its course is written.
    pub(super) fn is_at_border(&self) -> bool {
        matches!(self.course, Course::Until(border) if self.frames.is_at(border))
    }

    /// Sends these bytes, and nothing of what is read from now on. Only at a border.
    pub(super) fn send_last(&mut self, bytes: &[u8]) {
        self.first.extend_from_slice(bytes);
        self.course = Course::Discard;
    }

    /// Whether everything that has to be written is written, and flushed.
    pub(super) fn is_written(&self) -> bool {
        self.first.is_empty() && !self.is_blocked
    }

    /// `Ready` when everything and the end are written, or when nothing can be written any more: the other direction
    /// may go on. An error if that cannot go on either.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> io::Result<Poll<()>> {
        if self.state == DirectionState::Flowing {
            match self.flow(context, from, to) {
                Poll::Ready(Ok(())) => self.state = DirectionState::Finishing,
                // Many TLS peers end without `close_notify` when they have sent everything.
                Poll::Ready(Err(TransferError::Reading(error)))
                    if error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    self.state = DirectionState::Finishing;
                }
                Poll::Ready(Err(TransferError::Reading(error))) => return Err(error),
                Poll::Ready(Err(_)) => self.state = DirectionState::Finished,
                Poll::Pending => return Ok(Poll::Pending),
            }
            self.is_blocked = false;
        }
        if self.state == DirectionState::Finishing {
            if to.poll_finish(context).is_pending() {
                return Ok(Poll::Pending);
            }
            self.state = DirectionState::Finished;
        }
        Ok(Poll::Ready(()))
    }

    /// Moves as much as possible, up to the end of the source or the border of its course.
    fn flow(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> Poll<Result<(), TransferError>> {
        loop {
            if matches!(self.course, Course::Discard | Course::Ended) {
                from.consume(from.unread().len());
            }
            loop {
                let content = self.allowed(from.unread());
                if self.first.is_empty() && content.is_empty() {
                    break;
                }
                let written = to.poll_write(context, [&self.first, content, &[]]);
                self.is_blocked = written.is_pending();
                let count = ready!(written).map_err(TransferError::Writing)?;
                self.has_moved = true;
                let own = count.min(self.first.len());
                match own == self.first.len() {
                    true => self.first = Vec::new(),
                    false => drop(self.first.drain(..own)),
                }
                self.frames.advance(&from.unread()[..count - own]);
                from.consume(count - own);
            }
            // Flushes bytes that TLS still buffers.
            self.is_blocked = to.poll_flush(context).map_err(TransferError::Writing)?.is_pending();
            if self.is_at_border() || self.course == Course::Ended {
                return Poll::Pending;
            }
            match ready!(from.poll_read(context, AT_ONCE)) {
                Ok(1..) => {}
                // What is discarded may end in any way: the last bytes are still to be written.
                Ok(0) | Err(_) if self.course == Course::Discard => self.course = Course::Ended,
                Ok(0) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(TransferError::Reading(error))),
            }
        }
    }

    /// The part of the bytes that were read that is written.
    fn allowed<'a>(&self, unread: &'a [u8]) -> &'a [u8] {
        match self.course {
            Course::Free => unread,
            Course::Until(border) => &unread[..self.frames.until(border, unread)],
            Course::Discard | Course::Ended => &[],
        }
    }
}
