//! Writing what a flow has taken, into a socket or into a stream.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::BodyPipe;
use crate::{http1::DecodeStep, http2::Http2Stream, net::HttpStream};

impl BodyPipe {
    /// Writes what was taken.
    pub(super) fn poll_put(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut HttpStream,
    ) -> Poll<io::Result<()>> {
        match to {
            HttpStream::Socket(socket) => {
                while !self.is_written() {
                    match ready!(socket.poll_write(context, self.parts(from)))? {
                        0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        count => self.written(count, from),
                    }
                }
            }
            HttpStream::Stream(stream) => {
                while !self.is_written() || self.decoder.is_done() && !self.has_ended {
                    ready!(self.poll_put_stream(context, from, stream))?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the next part to a stream: the head, some content, or the end.
    fn poll_put_stream(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut Http2Stream,
    ) -> Poll<io::Result<()>> {
        let left = self.piece.data - self.piece_sent;
        let is_last = self.decoder.is_done() && self.tail.is_empty();
        if self.own_sent < self.own.len() {
            self.has_ended = is_last && left == 0;
            to.send_head(&self.own, self.has_ended)?;
            self.written(self.own.len(), from);
        } else if left > 0 || is_last {
            let [_, content, _] = self.parts(from);
            let count = ready!(to.poll_send(context, content, is_last))?;
            self.has_ended = is_last && count == left;
            self.written(count, from);
        } else {
            to.send_trailers(&self.tail)?;
            self.has_ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn parts<'a>(&'a self, from: &'a HttpStream) -> [&'a [u8]; 3] {
        let DecodeStep { skip, data, .. } = self.piece;
        let content = match data {
            0 => &[][..],
            _ => &from.unread()[skip + self.piece_sent..skip + data],
        };
        [&self.own[self.own_sent..], content, &self.behind[self.behind_sent..]]
    }

    /// Notes that so many bytes of the parts were written.
    fn written(&mut self, count: usize, from: &mut HttpStream) {
        self.sent += count as u64;
        let own = count.min(self.own.len() - self.own_sent);
        self.own_sent += own;
        let content = (count - own).min(self.piece.data - self.piece_sent);
        self.piece_sent += content;
        self.behind_sent += count - own - content;
        if self.piece.consumed > 0 && self.piece_sent == self.piece.data {
            from.consume(self.piece.consumed);
            (self.piece, self.piece_sent) = (DecodeStep::default(), 0);
        }
    }
}
