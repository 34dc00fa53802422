//! One HTTP/2 stream: its state, and receiving.

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

/// A stream of a client or to an upstream. It is read and written like a socket: the received bytes begin with a head
/// in the form of HTTP/1, then content without framing, then the end. Sending begins with a head too.
///
/// Received bytes count against the peer's window until they are consumed, and sending waits for the peer's window. So
/// a slow recipient slows the sender, in both directions. Dropping a stream before its end resets it.
#[derive(Debug)]
pub struct Http2Stream {
    sending: SendState,
    receiving: ReceiveState,
    /// The unconsumed bytes.
    unread: Bytes,
    /// Whether they are content, and not a head.
    is_content: bool,
    /// Whether nothing follows them.
    is_at_end: bool,
    /// The trailer lines, once received.
    trailers: Vec<u8>,
    /// Whether the request to an upstream is HEAD.
    is_head_request: bool,
    /// Bytes of the longest `Cookie` field of a client.
    cookie_max: usize,
    /// The key of the requested WebSocket, which only the HTTP/1.1 side has.
    key: Option<String>,
    /// Why the peer or Flipgate has reset the stream.
    reset: Option<StreamReset>,
    meter: Option<Rc<ByteMeter>>,
}

/// Counts the bytes of heads and content of a connection's streams, in both directions.
#[derive(Debug, Default)]
pub struct ByteMeter(Cell<u64>);

/// Why a stream was reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamReset {
    reason: Reason,
    /// Whether the peer has not processed the request (sections 6.8 and 8.7).
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
    /// The sending side has ended.
    Ended(Option<SendStream<Bytes>>),
}

#[derive(Debug)]
enum ReceiveState {
    /// No request was sent yet.
    NotSent,
    Response(ResponseFuture),
    Content(RecvStream),
    Ended,
}

/// The maximum number of trailer lines, as for HTTP/1.
const TRAILERS_MAX: usize = 100;

// === impl Http2Stream ===

impl Http2Stream {
    /// A client's stream, which begins with the head of its request.
    ///
    /// # Errors
    ///
    /// [`MalformedHead`] for a malformed request. Its stream was reset.
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

    /// A stream to an upstream, on which a request can be sent. `session` must be ready for one.
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

    /// The unconsumed bytes: a head or content, never both.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Bytes of the longest `Cookie` field of a client: the head has them joined in one line.
    #[must_use]
    pub fn cookie_max(&self) -> usize {
        self.cookie_max
    }

    /// Whether the response head was sent.
    #[must_use]
    pub fn has_sent_head(&self) -> bool {
        matches!(self.sending, SendState::Content(_) | SendState::Ended(_))
    }

    /// Whether nothing follows the unconsumed bytes.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// The trailer lines.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Why the stream was reset, if it was.
    #[must_use]
    pub fn reset_reason(&self) -> Option<StreamReset> {
        self.reset
    }

    /// Marks the first `count` bytes as consumed, and opens the peer's window by as many.
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
            // A closed stream has no window.
            let _ = body.flow_control().release_capacity(count);
            self.meter_bytes(count);
        }
    }

    /// Reads the next bytes, if none are unconsumed. Returns the number of new bytes: 0 at the end. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The connection has ended, or the stream was reset; see [`Self::reset_reason`].
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

    /// Waits for the end of a request without content; its head may be unconsumed. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`Self::poll_read`], and if there is content.
    pub fn poll_end_without_content(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_at_end {
            if !ready!(self.poll_content(context))?.is_empty() {
                return Poll::Ready(Err(
                    self.reject(MalformedHead("a request that declares no content has some"))
                ));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads the next content; empty at the end, after which there may be trailers.
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
                let error = MalformedHead("too many trailer fields");
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

    /// Reads a response head, final or interim.
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

    /// Records that nothing more can be received.
    fn receive_failed(&mut self, error: h2::Error) -> io::Error {
        self.receiving = ReceiveState::Ended;
        self.record_reset(&error);
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }

    /// Records that nothing more can be sent. Receiving may continue.
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
        // Content that was received but not consumed still counts.
        if let ReceiveState::Content(body) = &mut self.receiving {
            let unread = body.flow_control().used_capacity();
            self.meter_bytes(unread);
        }
    }
}

// === impl ByteMeter ===

impl ByteMeter {
    /// All bytes so far.
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
    /// Whether the peer has not processed the request, so that it can be retried.
    #[must_use]
    pub fn is_unprocessed(self) -> bool {
        self.is_unprocessed
    }

    /// Whether the message was malformed (section 8.1.1).
    #[must_use]
    pub fn is_malformed(self) -> bool {
        self.reason == Reason::PROTOCOL_ERROR
    }
}

fn invalid(error: MalformedHead) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
