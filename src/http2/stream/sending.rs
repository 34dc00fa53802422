//! The sending side of a stream.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::Method;

use super::{Http2Stream, ReceiveState, SendState, StreamReset, invalid};
use crate::http2::head;

/// Bytes that are sent at once: one stream must not take the whole window of a connection.
const SEND_SIZE: usize = 64 * 1024;

impl Http2Stream {
    /// Sends a head that Flipgate has written; `ends` means that nothing follows.
    ///
    /// # Errors
    ///
    /// HTTP/2 cannot represent the head, or the stream is closed.
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

    /// Sends the head of an interim response.
    ///
    /// # Errors
    ///
    /// As [`Self::send_head`].
    pub fn send_interim(&mut self, bytes: &[u8]) -> io::Result<()> {
        let SendState::Response(sender) = &mut self.sending else { return Ok(()) };
        let response = head::to_http2_response(bytes, None).map_err(invalid)?;
        sender.send_informational(response).map_err(|it| self.send_failed(&it))
    }

    /// Sends as much as the peer's window allows, and returns the number of bytes; `ends` means that nothing follows
    /// `content`. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the stream was reset; see [`Self::reset_reason`].
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

    /// Sends trailer lines, which end the stream.
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

    /// Ends the sending side, unless it has ended.
    pub fn finish(&mut self) {
        if let SendState::Content(sender) = &mut self.sending {
            // A stream that was reset has ended too.
            let _ = sender.send_data(Bytes::new(), true);
            self.end_sending();
        }
    }

    /// Ready when the peer has reset the stream, so that it needs no response.
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

    /// Resets the stream, so that the peer does not take a partial message for a complete one. `why` is the reset of
    /// the other side's stream, if that is the cause.
    pub fn reset(&mut self, why: Option<StreamReset>) {
        let reason = match why.map(|it| it.reason) {
            // Errors between Flipgate and the other side do not concern this peer.
            None | Some(Reason::NO_ERROR | Reason::PROTOCOL_ERROR | Reason::REFUSED_STREAM) => {
                Reason::INTERNAL_ERROR
            }
            Some(reason) => reason,
        };
        match &mut self.sending {
            SendState::Response(sender) => sender.send_reset(reason),
            SendState::Content(sender) | SendState::Ended(Some(sender)) => {
                sender.send_reset(reason);
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
