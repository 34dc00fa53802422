//! Discards bodies.

use std::task::{Context, Poll, ready};

use super::{AT_ONCE, BodyPipe};
use crate::{http1::DecodeStep, net::HttpStream};

impl BodyPipe {
    /// Consumes the whole body, if it is there already.
    pub(in crate::proxy) fn discard(&mut self, from: &mut HttpStream) -> bool {
        let HttpStream::Socket(from) = from else { return false };
        if self.step.consumed > 0 {
            from.consume(self.step.consumed);
            self.step = DecodeStep::default();
        }
        while !self.decoder.is_done() && !from.unread().is_empty() {
            match self.decoder.decode(from.unread_mut()) {
                Ok(piece) => from.consume(piece.consumed),
                Err(_) => return false,
            }
        }
        self.decoder.is_done()
    }

    /// Reads and discards the rest of the body, at most `left` bytes. Ready when the body ended (`true`), or when it
    /// cannot be read any further.
    pub(in crate::proxy) fn poll_discard(
        &mut self,
        context: &mut Context<'_>,
        from: &mut HttpStream,
        left: &mut usize,
    ) -> Poll<bool> {
        from.consume(std::mem::take(&mut self.step).consumed);
        loop {
            while !self.decoder.is_done() && !from.unread().is_empty() {
                let used = match from {
                    HttpStream::Stream(from) => from.unread().len(),
                    HttpStream::Socket(from) => match self.decoder.decode(from.unread_mut()) {
                        Ok(piece) => piece.consumed,
                        Err(_) => return Poll::Ready(false),
                    },
                };
                from.consume(used);
                match left.checked_sub(used) {
                    Some(less) => *left = less,
                    None => return Poll::Ready(false),
                }
            }
            if self.decoder.is_done() {
                return Poll::Ready(true);
            }
            match ready!(from.poll_read(context, AT_ONCE)) {
                Ok(1..) => {}
                Ok(0) => {
                    let is_whole = match from {
                        HttpStream::Stream(from) => from.is_at_end(),
                        HttpStream::Socket(_) => self.decoder.ends_at_close(),
                    };
                    return Poll::Ready(is_whole);
                }
                Err(_) => return Poll::Ready(false),
            }
        }
    }
}
