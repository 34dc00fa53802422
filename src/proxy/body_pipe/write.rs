//! Writes decoded bytes to a socket or an HTTP/2 stream.

use std::{
    io,
    task::{Context, Poll, ready},
};

use super::BodyPipe;
use crate::{http1::DecodeStep, http2::Http2Stream, net::HttpStream};

impl BodyPipe {
    /// Writes everything that was decoded.
    pub(super) fn poll_write(
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
                    ready!(self.poll_write_stream(context, from, stream))?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the next part to a stream: the head, content, or the end.
    fn poll_write_stream(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        to: &mut Http2Stream,
    ) -> Poll<io::Result<()>> {
        let left = self.step.data - self.step_sent;
        let has_suffix = self.suffix_sent < self.suffix.len();
        let is_last = self.decoder.is_done() && self.tail.is_empty() && !has_suffix;
        if self.prefix_sent < self.prefix.len() {
            self.has_ended = is_last && left == 0;
            to.send_head(&self.prefix, self.has_ended)?;
            self.written(self.prefix.len(), from);
        } else if left > 0 || is_last {
            let [_, content, _] = self.parts(from);
            let count = ready!(to.poll_send(context, content, is_last))?;
            self.has_ended = is_last && count == left;
            self.written(count, from);
        } else if has_suffix {
            // What an early end adds to the content.
            let is_last = self.decoder.is_done() && self.tail.is_empty();
            let suffix = &self.suffix[self.suffix_sent..];
            let count = ready!(to.poll_send(context, suffix, is_last))?;
            self.has_ended = is_last && count == suffix.len();
            self.written(count, from);
        } else {
            to.send_trailers(&self.tail)?;
            self.has_ended = true;
        }
        Poll::Ready(Ok(()))
    }

    fn parts<'a>(&'a self, from: &'a HttpStream) -> [&'a [u8]; 3] {
        let DecodeStep { skip, data, .. } = self.step;
        let content = match data {
            0 => &[][..],
            _ => &from.unread()[skip + self.step_sent..skip + data],
        };
        [&self.prefix[self.prefix_sent..], content, &self.suffix[self.suffix_sent..]]
    }

    /// Notes that this many bytes were written.
    fn written(&mut self, count: usize, from: &mut HttpStream) {
        self.sent += count as u64;
        let own = count.min(self.prefix.len() - self.prefix_sent);
        self.prefix_sent += own;
        let content = (count - own).min(self.step.data - self.step_sent);
        self.step_sent += content;
        self.suffix_sent += count - own - content;
        if self.step.consumed > 0 && self.step_sent == self.step.data {
            from.consume(self.step.consumed);
            (self.step, self.step_sent) = (DecodeStep::default(), 0);
        }
    }
}
