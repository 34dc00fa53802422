//! One stream, as one end of an exchange.

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
use http::{Method, Request};

use super::head::{self, HeadDefect, Shape};

/// A stream of a client or to an upstream. Read and written as a socket is: what comes begins with a
/// head in the form of HTTP/1, behind it the content as it is, and an end. What is sent has a head
/// first, too.
///
/// What was read counts against the other end's window until it is consumed, and what is sent waits
/// for the other end's window: so whoever takes slowly is sent slowly, on both sides. Dropping a
/// stream before its end resets it.
#[derive(Debug)]
pub struct Stream {
    sending: Sending,
    receiving: Receiving,
    /// What came and was not yet used.
    unread: Bytes,
    /// Whether it is content, and not a head.
    is_content: bool,
    /// Whether nothing comes behind it.
    is_at_end: bool,
    /// Lines, once they have come.
    trailers: Vec<u8>,
    /// Whether it goes to an upstream, and what was asked there is only for a head.
    is_upstream: bool,
    is_for_head: bool,
    /// The key of the WebSocket that is asked for, which only the other end's HTTP/1.1 has.
    key: Option<String>,
    /// Why the other end has reset the stream, or we have.
    reset: Option<Reset>,
    meter: Option<Rc<Meter>>,
}

/// Bytes of heads and content that the streams of a connection have had to do with, both ways.
#[derive(Debug, Default)]
pub struct Meter(Cell<u64>);

/// Why a stream broke.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reset {
    reason: Reason,
    /// Whether the other end has done nothing with the request: sections 6.8 and 8.7.
    is_unprocessed: bool,
}

#[derive(Debug)]
enum Sending {
    /// A request can be sent.
    Request { session: SendRequest<Bytes>, is_tls: bool },
    /// A response can be sent.
    Response(SendResponse<Bytes>),
    /// Content can be sent.
    Content(SendStream<Bytes>),
    /// It has ended.
    Over(Option<SendStream<Bytes>>),
}

#[derive(Debug)]
enum Receiving {
    /// Nothing was asked yet.
    NotYet,
    Response(ResponseFuture),
    Content(RecvStream),
    Over,
}

/// Lines of trailers, as of HTTP/1.
const TRAILERS_MAX: usize = 100;

/// Bytes that are sent at once: a stream must not take all of a connection's window.
const AT_ONCE: usize = 64 * 1024;

// === impl Stream ===

impl Stream {
    /// A client's stream, which begins with the head of its request.
    ///
    /// # Errors
    ///
    /// [`HeadDefect`] for a request that HTTP/2 does not allow. It was reset.
    pub fn of_client(
        request: Request<RecvStream>,
        mut response: SendResponse<Bytes>,
        meter: Rc<Meter>,
    ) -> Result<Self, HeadDefect> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let is_at_end = body.is_end_stream();
        let mut bytes = Vec::new();
        match head::put_request(&mut bytes, &request, is_at_end) {
            Ok(key) => Ok({
                meter.add(bytes.len());
                Self {
                    sending: Sending::Response(response),
                    receiving: Receiving::Content(body),
                    unread: bytes.into(),
                    is_content: false,
                    is_at_end,
                    trailers: Vec::new(),
                    is_upstream: false,
                    is_for_head: false,
                    key,
                    reset: None,
                    meter: Some(meter),
                }
            }),
            Err(defect) => {
                response.send_reset(Reason::PROTOCOL_ERROR);
                Err(defect)
            }
        }
    }

    /// A stream to an upstream, on which a request can be sent. `session` is ready for one.
    #[must_use]
    pub fn to_upstream(session: SendRequest<Bytes>, is_tls: bool) -> Self {
        Self {
            sending: Sending::Request { session, is_tls },
            receiving: Receiving::NotYet,
            unread: Bytes::new(),
            is_content: false,
            is_at_end: false,
            trailers: Vec::new(),
            is_upstream: true,
            is_for_head: false,
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

    /// Whether the head of an answer was sent.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        matches!(self.sending, Sending::Content(_) | Sending::Over(_))
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
    pub fn broken(&self) -> Option<Reset> {
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
            && let Receiving::Content(body) = &mut self.receiving
        {
            // One that is closed has no window left to open.
            let _ = body.flow_control().release_capacity(count);
            self.count(count);
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
                Receiving::NotYet | Receiving::Over => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Receiving::Response(_) => ready!(self.poll_head(context))?,
                Receiving::Content(body) => match ready!(body.poll_data(context)) {
                    Some(Ok(data)) => {
                        self.is_at_end = body.is_end_stream();
                        self.is_content = true;
                        self.unread = data;
                    }
                    // Section 8.1: the answer is there as a whole, and no more of the request is wanted.
                    Some(Err(error)) if self.is_upstream && is_satisfied(&error) => {
                        self.is_at_end = true;
                    }
                    Some(Err(error)) => return Poll::Ready(Err(self.broke(error))),
                    None => {
                        let trailers = ready!(body.poll_trailers(context));
                        self.is_at_end = true;
                        match trailers {
                            Ok(None) => {}
                            Ok(Some(found)) if found.len() > TRAILERS_MAX => {
                                let defect = HeadDefect("there are too many trailers");
                                return Poll::Ready(Err(self.refuse(defect)));
                            }
                            Ok(Some(found)) => {
                                let put = head::put_trailers(&mut self.trailers, &found);
                                put.map_err(|it| self.refuse(it))?;
                            }
                            Err(error) => return Poll::Ready(Err(self.broke(error))),
                        }
                    }
                },
            }
            if !self.unread.is_empty() {
                return Poll::Ready(Ok(self.unread.len()));
            }
        }
    }

    /// Reads a response's head, or an interim one.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Receiving::Response(response) = &mut self.receiving else { return Poll::Ready(Ok(())) };
        let mut bytes = Vec::new();
        match response.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => {
                let put = head::put_response(&mut bytes, &interim, Shape::Body, None);
                put.map_err(|it| self.refuse(it))?;
                self.unread = bytes.into();
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.broke(error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match ready!(std::pin::Pin::new(response).poll(context)) {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let response = http::Response::from_parts(parts, ());
                self.is_at_end = body.is_end_stream();
                let key = self.key.as_deref();
                let shape = match (self.is_for_head, self.is_at_end) {
                    (true, _) => Shape::Head,
                    (false, true) => Shape::Empty,
                    (false, false) => Shape::Body,
                };
                let put = head::put_response(&mut bytes, &response, shape, key);
                put.map_err(|it| self.refuse(it))?;
                self.receiving = Receiving::Content(body);
                self.unread = bytes.into();
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(self.broke(error))),
        }
    }

    /// Sends a head that we have written; with `ends` there is nothing behind it.
    ///
    /// # Errors
    ///
    /// A head that HTTP/2 has no words for, or a stream that is closed.
    pub fn send_head(&mut self, bytes: &[u8], ends: bool) -> io::Result<()> {
        match std::mem::replace(&mut self.sending, Sending::Over(None)) {
            Sending::Request { mut session, is_tls } => {
                let (request, key) = head::request(bytes, is_tls).map_err(invalid)?;
                let is_tunnel = key.is_some();
                self.key = key;
                self.is_for_head = request.method() == Method::HEAD;
                let ends = ends && !is_tunnel && request.method() != Method::CONNECT;
                let sent = session.send_request(request, ends);
                let (response, content) = sent.map_err(|it| self.failed(&it))?;
                self.receiving = Receiving::Response(response);
                self.sending = after_head(content, ends);
                Ok(())
            }
            Sending::Response(mut sender) => {
                let response = match head::response(bytes, self.key.as_deref()) {
                    Ok(response) => response,
                    Err(defect) => {
                        self.sending = Sending::Response(sender);
                        return Err(invalid(defect));
                    }
                };
                let content =
                    sender.send_response(response, ends).map_err(|it| self.failed(&it))?;
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
        let Sending::Response(sender) = &mut self.sending else { return Ok(()) };
        let response = head::response(bytes, None).map_err(invalid)?;
        sender.send_informational(response).map_err(|it| self.failed(&it))
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
        let Sending::Content(sender) = &mut self.sending else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let mut count = 0;
        if !content.is_empty() {
            let wanted = content.len().min(AT_ONCE);
            sender.reserve_capacity(wanted);
            while sender.capacity() == 0 {
                match ready!(sender.poll_capacity(context)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(self.failed(&error))),
                    None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                }
            }
            count = wanted.min(sender.capacity());
        }
        let ends = ends && count == content.len();
        let sent = sender.send_data(Bytes::copy_from_slice(&content[..count]), ends);
        sent.map_err(|it| self.failed(&it))?;
        self.count(count);
        if ends {
            self.end();
        }
        Poll::Ready(Ok(count))
    }

    /// Sends lines behind the content, which end the stream.
    ///
    /// # Errors
    ///
    /// As [`Self::poll_send`].
    pub fn send_trailers(&mut self, lines: &[u8]) -> io::Result<()> {
        let trailers = head::trailers(lines).map_err(invalid)?;
        let Sending::Content(sender) = &mut self.sending else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        sender.send_trailers(trailers).map_err(|it| self.failed(&it))?;
        self.end();
        Ok(())
    }

    /// Ends our side, if it has not ended.
    pub fn finish(&mut self) {
        if let Sending::Content(sender) = &mut self.sending {
            // One that is reset has ended too.
            let _ = sender.send_data(Bytes::new(), true);
            self.end();
        }
    }

    /// Whether the other end takes no more, and has no use for an answer.
    pub fn poll_reset(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.sending {
            Sending::Response(sender) => ready!(sender.poll_reset(context)),
            Sending::Content(sender) | Sending::Over(Some(sender)) => {
                ready!(sender.poll_reset(context))
            }
            Sending::Request { .. } | Sending::Over(None) => return Poll::Pending,
        };
        if let Ok(reason) = reset {
            self.reset = Some(Reset { reason, is_unprocessed: false });
        }
        Poll::Ready(())
    }

    /// Breaks the stream off, so that the other end does not take what it has for the whole. `why` is
    /// what the far end said when it broke it, if that is how it came.
    pub fn reset(&mut self, why: Option<Reset>) {
        let reason = match why.map(|it| it.reason) {
            // What is between us and the far end is nothing to this one.
            None | Some(Reason::NO_ERROR | Reason::PROTOCOL_ERROR | Reason::REFUSED_STREAM) => {
                Reason::INTERNAL_ERROR
            }
            Some(reason) => reason,
        };
        match &mut self.sending {
            Sending::Response(sender) => sender.send_reset(reason),
            Sending::Content(sender) | Sending::Over(Some(sender)) => sender.send_reset(reason),
            Sending::Request { .. } | Sending::Over(None) => {}
        }
    }

    fn count(&self, bytes: usize) {
        if let Some(meter) = &self.meter {
            meter.add(bytes);
        }
    }

    fn end(&mut self) {
        if let Sending::Content(sender) = std::mem::replace(&mut self.sending, Sending::Over(None))
        {
            self.sending = Sending::Over(Some(sender));
        }
    }

    fn refuse(&mut self, defect: HeadDefect) -> io::Error {
        self.reset(Some(Reset { reason: Reason::PROTOCOL_ERROR, is_unprocessed: false }));
        invalid(defect)
    }

    /// Notes that nothing more comes.
    fn broke(&mut self, error: h2::Error) -> io::Error {
        self.receiving = Receiving::Over;
        self.note(&error);
        io::Error::new(io::ErrorKind::ConnectionReset, error)
    }

    /// Notes that nothing more is taken. What has come, and comes, is as good as before.
    fn failed(&mut self, error: &h2::Error) -> io::Error {
        self.note(error);
        io::Error::new(io::ErrorKind::BrokenPipe, error.to_string())
    }

    fn note(&mut self, error: &h2::Error) {
        let is_farewell = error.is_go_away() && error.is_remote();
        let reset = error.reason().map(|reason| Reset {
            reason,
            is_unprocessed: error.is_remote()
                && (reason == Reason::REFUSED_STREAM || is_farewell && reason == Reason::NO_ERROR),
        });
        self.reset = self.reset.or(reset);
    }
}

// === impl Meter ===

impl Meter {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.get()
    }

    fn add(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_add(bytes as u64));
    }
}

// === impl Reset ===

impl Reset {
    /// Whether the other end has done nothing with the request, so that it can be sent elsewhere.
    #[must_use]
    pub fn is_unprocessed(self) -> bool {
        self.is_unprocessed
    }
}

/// Whether the other end has ended a stream without there being anything wrong.
fn is_satisfied(error: &h2::Error) -> bool {
    error.is_remote() && error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
}

fn after_head(content: SendStream<Bytes>, ends: bool) -> Sending {
    if ends { Sending::Over(Some(content)) } else { Sending::Content(content) }
}

fn invalid(defect: HeadDefect) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, defect)
}
