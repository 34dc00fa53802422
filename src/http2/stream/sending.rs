//! The way out of a stream.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::Method;

use super::{Http2Stream, ReceiveState, SendState, StreamReset, invalid};
use crate::http2::head;

/// Bytes that are sent at once: a stream must not take all of a connection's window.
const SEND_SIZE: usize = 64 * 1024;

impl Http2Stream {
    /// Sends a head that we have written; with `ends` there is nothing behind it.
    ///
    /// # Errors
    ///
    /// A head that HTTP/2 has no words for, or a stream that is closed.
    pub fn send_head(&mut self, bytes: &[u8], ends: bool) -> io::Result<()> {
        match std::mem::replace(&mut self.sending, SendState::Ended(None)) {
            SendState::Request { mut session, is_tls } => {
                let (request, key) = head::to_http2_request(bytes, is_tls).map_err(invalid)?;
                let is_tunnel = key.is_some();
                self.key = key;
                self.is_head_request = request.method() == Method::HEAD;
                let ends = ends && !is_tunnel && request.method() != Method::CONNECT;
                let sent = session.send_request(request, ends);
                let (response, content) = sent.map_err(|it| self.send_failed(&it))?;
                self.receiving = ReceiveState::Response(response);
                self.sending = after_head(content, ends);
                Ok(())
            }
            SendState::Response(mut sender) => {
                let response = match head::to_http2_response(bytes, self.key.as_deref()) {
                    Ok(response) => response,
                    Err(error) => {
                        self.sending = SendState::Response(sender);
                        return Err(invalid(error));
                    }
                };
                let content =
                    sender.send_response(response, ends).map_err(|it| self.send_failed(&it))?;
                self.sending = after_head(content, ends);
                Ok(())
            }
            other => {
                self.sending = other;
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// Sends the head of an interim answer.
    ///
    /// # Errors
    ///
    /// As [`Self::send_head`].
    pub fn send_interim(&mut self, bytes: &[u8]) -> io::Result<()> {
        let SendState::Response(sender) = &mut self.sending else { return Ok(()) };
        let response = head::to_http2_response(bytes, None).map_err(invalid)?;
        sender.send_informational(response).map_err(|it| self.send_failed(&it))
    }

    /// Sends what the other end's window has room for, and returns how much that was; with `ends`
    /// there is nothing behind it. Nothing is sent when the waiting is given up.
    ///
    /// # Errors
    ///
    /// The end of the connection, or a reset, which [`Self::broken`] tells of.
    pub fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        content: &[u8],
        ends: bool,
    ) -> Poll<io::Result<usize>> {
        let SendState::Content(sender) = &mut self.sending else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let mut count = 0;
        if !content.is_empty() {
            let size = content.len().min(SEND_SIZE);
            sender.reserve_capacity(size);
            while sender.capacity() == 0 {
                match ready!(sender.poll_capacity(context)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(self.send_failed(&error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            count = size.min(sender.capacity());
        }
        let ends = ends && count == content.len();
        let sent = sender.send_data(Bytes::copy_from_slice(&content[..count]), ends);
        sent.map_err(|it| self.send_failed(&it))?;
        self.meter_bytes(count);
        if ends {
            self.end_sending();
        }
        Poll::Ready(Ok(count))
    }

    /// Sends lines behind the content, which end the stream.
    ///
    /// # Errors
    ///
    /// As [`Self::poll_send`].
    pub fn send_trailers(&mut self, lines: &[u8]) -> io::Result<()> {
        let trailers = head::to_http2_trailers(lines).map_err(invalid)?;
        let SendState::Content(sender) = &mut self.sending else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        sender.send_trailers(trailers).map_err(|it| self.send_failed(&it))?;
        self.end_sending();
        Ok(())
    }

    /// Ends our side, if it has not ended.
    pub fn finish(&mut self) {
        if let SendState::Content(sender) = &mut self.sending {
            // One that is reset has ended too.
            let _ = sender.send_data(Bytes::new(), true);
            self.end_sending();
        }
    }

    /// Whether the other end takes no more, and has no use for an answer.
    pub fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.sending {
            SendState::Response(sender) => ready!(sender.poll_reset(context)),
            SendState::Content(sender) | SendState::Ended(Some(sender)) => {
                ready!(sender.poll_reset(context))
            }
            SendState::Request { .. } | SendState::Ended(None) => return Poll::Pending,
        };
        if let Ok(reason) = reset {
            self.reset = Some(StreamReset { reason, is_unprocessed: false });
        }
        Poll::Ready(())
    }

    /// Breaks the stream off, so that the other end does not take what it has for the whole. `why` is
    /// what the far end said when it broke it, if that is how it came.
    pub fn reset(&mut self, why: Option<StreamReset>) {
        let reason = match why.map(|it| it.reason) {
            // What is between us and the far end is nothing to this one.
            None | Some(Reason::NO_ERROR | Reason::PROTOCOL_ERROR | Reason::REFUSED_STREAM) => {
                Reason::INTERNAL_ERROR
            }
            Some(reason) => reason,
        };
        match &mut self.sending {
            SendState::Response(sender) => sender.send_reset(reason),
            SendState::Content(sender) | SendState::Ended(Some(sender)) => {
                sender.send_reset(reason)
            }
            SendState::Request { .. } | SendState::Ended(None) => {}
        }
    }

    fn end_sending(&mut self) {
        if let SendState::Content(sender) =
            std::mem::replace(&mut self.sending, SendState::Ended(None))
        {
            self.sending = SendState::Ended(Some(sender));
        }
    }
}

fn after_head(content: SendStream<Bytes>, ends: bool) -> SendState {
    if ends { SendState::Ended(Some(content)) } else { SendState::Content(content) }
}
