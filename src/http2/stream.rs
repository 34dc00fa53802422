//! One stream, as one end of an exchange: what it is, and its way in.

mod sending;

use std::{
    cell::Cell,
    io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{
    Reason, RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
    server::SendResponse,
};
use http::Request;

use super::{
    guard::MARK,
    head::{self, MalformedHead, ResponseFraming},
};

/// A stream of a client or to an upstream. Read and written as a socket is: what comes begins with a
/// head in the form of HTTP/1, behind it the content as it is, and an end. What is sent has a head
/// first, too.
///
/// What was read counts against the other end's window until it is consumed, and what is sent waits
/// for the other end's window: so whoever takes slowly is sent slowly, on both sides. Dropping a
/// stream before its end resets it.
#[derive(Debug)]
pub struct Http2Stream {
    sending: SendState,
    receiving: ReceiveState,
    /// What came and was not yet used.
    unread: Bytes,
    /// Whether it is content, and not a head.
    is_content: bool,
    /// Whether nothing comes behind it.
    is_at_end: bool,
    /// Lines, once they have come.
    trailers: Vec<u8>,
    /// Whether what was asked of an upstream is only for a head.
    is_head_request: bool,
    /// Bytes of the longest value of `Cookie` that a client has sent.
    cookie_max: usize,
    /// The key of the WebSocket that is asked for, which only the other end's HTTP/1.1 has.
    key: Option<String>,
    /// Why the other end has reset the stream, or we have.
    reset: Option<StreamReset>,
    meter: Option<Rc<ByteMeter>>,
}

/// Bytes of heads and content that the streams of a connection have had to do with, both ways.
#[derive(Debug, Default)]
pub struct ByteMeter(Cell<u64>);

/// Why a stream broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamReset {
    reason: Reason,
    /// Whether the other end has done nothing with the request: sections 6.8 and 8.7.
    is_unprocessed: bool,
}

#[derive(Debug)]
enum SendState {
    /// A request can be sent.
    Request { session: SendRequest<Bytes>, is_tls: bool },
    /// A response can be sent.
    Response(SendResponse<Bytes>),
    /// Content can be sent.
    Content(SendStream<Bytes>),
    /// It has ended.
    Ended(Option<SendStream<Bytes>>),
}

#[derive(Debug)]
enum ReceiveState {
    /// Nothing was asked yet.
    NotSent,
    Response(ResponseFuture),
    Content(RecvStream),
    Ended,
}

/// Lines of trailers, as of HTTP/1.
const TRAILERS_MAX: usize = 100;

// === impl Http2Stream ===

impl Http2Stream {
    /// A client's stream, which begins with the head of its request.
    ///
    /// # Errors
    ///
    /// [`MalformedHead`] for a request that HTTP/2 does not allow. It was reset.
    pub fn from_client(
        request: Request<RecvStream>,
        mut response: SendResponse<Bytes>,
        meter: Rc<ByteMeter>,
    ) -> Result<Self, MalformedHead> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let is_at_end = body.is_end_stream();
        let mut bytes = Vec::new();
        match head::write_http1_request(&mut bytes, &request, is_at_end) {
            Ok(head::RequestMeta { key, cookie_max }) => Ok({
                meter.add(bytes.len());
                Self {
                    sending: SendState::Response(response),
                    receiving: ReceiveState::Content(body),
                    unread: bytes.into(),
                    is_content: false,
                    is_at_end,
                    trailers: Vec::new(),
                    is_head_request: false,
                    cookie_max,
                    key,
                    reset: None,
                    meter: Some(meter),
                }
            }),
            Err(error) => {
                response.send_reset(Reason::PROTOCOL_ERROR);
                Err(error)
            }
        }
    }

    /// A stream to an upstream, on which a request can be sent. `session` is ready for one.
    #[must_use]
    pub fn to_upstream(session: SendRequest<Bytes>, is_tls: bool) -> Self {
        Self {
            sending: SendState::Request { session, is_tls },
            receiving: ReceiveState::NotSent,
            unread: Bytes::new(),
            is_content: false,
            is_at_end: false,
            trailers: Vec::new(),
            is_head_request: false,
            cookie_max: 0,
            key: None,
            reset: None,
            meter: None,
        }
    }

    /// What was read and not yet used: a head, or a part of the content, but never both.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Bytes of the longest value of `Cookie` that a client has sent: its head has all of them in one line.
    #[must_use]
    pub fn cookie_max(&self) -> usize {
        self.cookie_max
    }

    /// Whether the head of an answer was sent.
    #[must_use]
    pub fn has_sent_head(&self) -> bool {
        matches!(self.sending, SendState::Content(_) | SendState::Ended(_))
    }

    /// Whether nothing comes behind what is unread.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// The lines that came behind the content.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Why the stream broke, if it did.
    #[must_use]
    pub fn reset_reason(&self) -> Option<StreamReset> {
        self.reset
    }

    /// Notes that the first `count` bytes were used, and lets the other end send as many more.
    ///
    /// # Panics
    ///
    /// If there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.unread.advance(count);
        if self.is_content
            && count > 0
            && let ReceiveState::Content(body) = &mut self.receiving
        {
            // One that is closed has no window left to open.
            let _ = body.flow_control().release_capacity(count);
            self.meter_bytes(count);
        }
    }

    /// Reads what comes next, when nothing is unread. Returns how many bytes came: 0 at the end. Nothing
    /// is lost when the waiting is given up.
    ///
    /// # Errors
    ///
    /// The end of the connection, or a reset, which [`Self::broken`] tells of.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            if !self.unread.is_empty() || self.is_at_end {
                return Poll::Ready(Ok(0));
            }
            match &mut self.receiving {
                ReceiveState::NotSent | ReceiveState::Ended => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                ReceiveState::Response(_) => ready!(self.poll_head(context))?,
                ReceiveState::Content(_) => {
                    let data = ready!(self.poll_content(context))?;
                    self.is_content = true;
                    self.unread = data;
                }
            }
            if !self.unread.is_empty() {
                return Poll::Ready(Ok(self.unread.len()));
            }
        }
    }

    /// Waits for the end of a request that has no content, whose head may be unread. Nothing is lost when the
    /// waiting is given up.
    ///
    /// # Errors
    ///
    /// As [`Self::poll_read`], and for content.
    pub fn poll_end_without_content(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_at_end {
            if !ready!(self.poll_content(context))?.is_empty() {
                return Poll::Ready(Err(self.reject(MalformedHead("there is content after all"))));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what comes next of the content; nothing at the end, behind which there may be trailers.
    fn poll_content(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let ReceiveState::Content(body) = &mut self.receiving else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        match ready!(body.poll_data(context)) {
            Some(Ok(data)) => {
                self.is_at_end = body.is_end_stream();
                return Poll::Ready(Ok(data));
            }
            Some(Err(error)) => return Poll::Ready(Err(self.receive_failed(error))),
            None => {}
        }
        let trailers = ready!(body.poll_trailers(context));
        self.is_at_end = true;
        match trailers {
            Ok(None) => {}
            Ok(Some(found)) if found.len() > TRAILERS_MAX + 1 => {
                let error = MalformedHead("there are too many trailers");
                return Poll::Ready(Err(self.reject(error)));
            }
            Ok(Some(mut found)) => {
                found.remove(MARK);
                let put = head::write_http1_trailers(&mut self.trailers, &found);
                put.map_err(|it| self.reject(it))?;
            }
            Err(error) => return Poll::Ready(Err(self.receive_failed(error))),
        }
        Poll::Ready(Ok(Bytes::new()))
    }

    /// Reads a response's head, or an interim one.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ReceiveState::Response(response) = &mut self.receiving else {
            return Poll::Ready(Ok(()));
        };
        let mut bytes = Vec::new();
        match response.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => {
                let put =
                    head::write_http1_response(&mut bytes, &interim, ResponseFraming::Body, None);
                put.map_err(|it| self.reject(it))?;
                self.unread = bytes.into();
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.receive_failed(error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match ready!(std::pin::Pin::new(response).poll(context)) {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let response = http::Response::from_parts(parts, ());
                self.is_at_end = body.is_end_stream();
                let key = self.key.as_deref();
                let framing = match (self.is_head_request, self.is_at_end) {
                    (true, _) => ResponseFraming::Head,
                    (false, true) => ResponseFraming::Empty,
                    (false, false) => ResponseFraming::Body,
                };
                let put = head::write_http1_response(&mut bytes, &response, framing, key);
                put.map_err(|it| self.reject(it))?;
                self.receiving = ReceiveState::Content(body);
                self.unread = bytes.into();
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.receive_failed(error))),
        }
    }

    fn meter_bytes(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.add(bytes);
        }
    }

    fn reject(&mut self, error: MalformedHead) -> io::Error {
        self.reset(Some(StreamReset { reason: Reason::PROTOCOL_ERROR, is_unprocessed: false }));
        invalid(error)
    }

    /// Notes that nothing more comes.
    fn receive_failed(&mut self, error: h2::Error) -> io::Error {
        self.receiving = ReceiveState::Ended;
        self.record_reset(&error);
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }

    /// Notes that nothing more is taken. What has come, and comes, is as good as before.
    fn send_failed(&mut self, error: &h2::Error) -> io::Error {
        self.record_reset(error);
        io::Error::new(io::ErrorKind::BrokenPipe, error.to_string())
    }

    fn record_reset(&mut self, error: &h2::Error) {
        let is_go_away = error.is_go_away() && error.is_remote();
        let reset = error.reason().map(|reason| StreamReset {
            reason,
            is_unprocessed: error.is_remote()
                && (reason == Reason::REFUSED_STREAM || is_go_away && reason == Reason::NO_ERROR),
        });
        self.reset = self.reset.or(reset);
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        // What came and was never used was meant for it all the same.
        if let ReceiveState::Content(body) = &mut self.receiving {
            let held = body.flow_control().used_capacity();
            self.meter_bytes(held);
        }
    }
}

// === impl ByteMeter ===

impl ByteMeter {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.get()
    }

    fn add(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes as u64));
    }
}

// === impl StreamReset ===

impl StreamReset {
    /// Whether the other end has done nothing with the request, so that it can be sent elsewhere.
    #[must_use]
    pub fn is_unprocessed(self) -> bool {
        self.is_unprocessed
    }

    /// Whether the message was malformed: section 8.1.1.
    #[must_use]
    pub fn is_malformed(self) -> bool {
        self.reason == Reason::PROTOCOL_ERROR
    }
}

fn invalid(error: MalformedHead) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
