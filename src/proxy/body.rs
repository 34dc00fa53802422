//! Bodies on their way through, and what they carry along.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{exchange::Exchange, headers, worker::Proxy};
use crate::{
    downstream::Connection,
    upstream::{Member, Sender},
};

/// The body of a request on its way to an upstream.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// As the client sends it.
    Relay(Upload),
}

/// A request's body as the client sends it.
pub struct Upload {
    incoming: Incoming,
    transfer: Rc<Transfer>,
    connection: Rc<Connection<Proxy>>,
    /// What stands for it in the connection.
    place: Rc<Cell<Instant>>,
}

/// How far a request's body has come; seen by both of the tasks that it concerns.
#[derive(Debug)]
pub(super) struct Transfer {
    is_complete: Cell<bool>,
    moved: Cell<Instant>,
    gate: Option<Arc<Gate>>,
}

/// Holds a request's body back until its upstream has said that it wants it
/// (`Expect: 100-continue`, RFC 9110, section 10.1.1).
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    waker: AtomicWaker,
}

const SHUT: u8 = 0;
const OPEN: u8 = 1;
const REFUSED: u8 = 2;

/// The body of an answer on its way to the client.
pub struct ResponseBody {
    content: Content,
    /// Ended with the last byte, or with the body if that is dropped before.
    exchange: Option<Exchange>,
}

enum Content {
    Own(Option<Bytes>),
    Relay { incoming: Incoming, back: Option<Return>, _gate: Option<LastChance> },
}

/// An upstream connection, to be given back when the answer has been read to its end.
pub(super) struct Return {
    pub(super) member: Arc<Member>,
    pub(super) sender: Sender<RequestBody>,
    /// Unless the request had no body.
    pub(super) transfer: Option<Rc<Transfer>>,
}

/// The gate of a request whose answer has come; shut for good when the answer is over.
#[derive(Debug)]
struct LastChance(Arc<Gate>);

// === impl Return ===

impl Return {
    /// Whether the upstream may still be taking the request's body: not if it never asked for it.
    pub(super) fn wants_more(&self) -> bool {
        let gate = self.transfer.as_ref().and_then(|it| it.gate.as_ref());
        gate.is_none_or(|it| it.is_open())
    }
}

// === impl RequestBody ===

impl RequestBody {
    pub(super) fn new(
        incoming: Incoming,
        connection: &Rc<Connection<Proxy>>,
        gate: Option<Arc<Gate>>,
    ) -> (Self, Option<Rc<Transfer>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let (is_complete, moved) = (Cell::new(false), Cell::new(Instant::now()));
        let transfer = Rc::new(Transfer { is_complete, moved, gate });
        let connection = Rc::clone(connection);
        let place = connection.upload_begins();
        (
            Self::Relay(Upload { incoming, transfer: Rc::clone(&transfer), connection, place }),
            Some(transfer),
        )
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Relay(upload) => upload.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Relay(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Relay(upload) => upload.incoming.size_hint(),
        }
    }
}

// === impl Upload ===

impl Upload {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, <RequestBody as Body>::Error>>> {
        if let Some(gate) = &self.transfer.gate
            && !ready!(gate.poll_open(context))
        {
            let refused = io::Error::other("the upstream did not want the request's body");
            return Poll::Ready(Some(Err(refused.into())));
        }
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        self.connection.await_body(frame.is_pending());
        let frame = ready!(frame).map(|it| it.map(headers::clean_trailers));
        self.connection.upload_moves(&self.place);
        self.transfer.moved.set(Instant::now());
        let is_last = frame.as_ref().is_none_or(|it| it.as_ref().is_ok_and(Frame::is_trailers));
        if is_last || self.incoming.is_end_stream() {
            self.transfer.is_complete.set(true);
        }
        Poll::Ready(frame.map(|it| it.map_err(Into::into)))
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("transfer", &self.transfer).finish_non_exhaustive()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.connection.upload_ends(&self.place);
    }
}

// === impl Transfer ===

impl Transfer {
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.get()
    }

    /// When a part of the body was last taken.
    pub(super) fn moved(&self) -> Instant {
        self.moved.get()
    }
}

// === impl Gate ===

impl Gate {
    /// Lets the body pass, unless it was refused before.
    pub(super) fn open(&self) {
        self.decide(OPEN);
    }

    /// Ends the body with an error, unless it was let pass before.
    fn refuse(&self) {
        self.decide(REFUSED);
    }

    fn is_open(&self) -> bool {
        self.state.load(SeqCst) == OPEN
    }

    fn decide(&self, decision: u8) {
        // Losing this race means that the decision was made already.
        let _ = self.state.compare_exchange(SHUT, decision, SeqCst, SeqCst);
        self.waker.wake();
    }

    fn poll_open(&self, context: &mut Context<'_>) -> Poll<bool> {
        self.waker.register(context.waker());
        match self.state.load(SeqCst) {
            SHUT => Poll::Pending,
            decision => Poll::Ready(decision == OPEN),
        }
    }
}

// === impl ResponseBody ===

impl ResponseBody {
    pub(super) fn own(text: Bytes) -> Self {
        Self { content: Content::Own(Some(text)), exchange: None }
    }

    pub(super) fn relay(incoming: Incoming, back: Return, exchange: Exchange) -> Self {
        let gate = back.transfer.as_ref().and_then(|it| it.gate.clone()).map(LastChance);
        let content = Content::Relay { incoming, back: Some(back), _gate: gate };
        Self { content, exchange: Some(exchange) }
    }

    /// Ties the end of this body to the end of the exchange.
    pub(super) fn ends(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self
    }

    fn end(&mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let back = match &mut self.content {
            Content::Own(_) => None,
            Content::Relay { back, .. } => back.take(),
        };
        exchange.complete(back);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = match &mut this.content {
            Content::Own(text) => text.take().map(|it| Ok(Frame::data(it))),
            Content::Relay { incoming, .. } => {
                let frame = Pin::new(incoming).poll_frame(context);
                if let Some(exchange) = &this.exchange {
                    exchange.await_upstream(frame.is_pending());
                }
                ready!(frame).map(|it| it.map(headers::clean_trailers))
            }
        };
        match &frame {
            None => this.end(),
            // hyper stops asking when it has what the length promised, and behind trailers.
            Some(Ok(frame)) if frame.is_trailers() || this.is_end_stream() => this.end(),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                if let Some(exchange) = this.exchange.take() {
                    exchange.broken(error);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(text) => text.is_none(),
            Content::Relay { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |it| it.len() as u64))
            }
            Content::Relay { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // A body without a byte is dropped without having been asked for one, and so is the body of
        // an answer of ours to HEAD.
        if matches!(self.content, Content::Own(_)) || self.is_end_stream() {
            self.end();
        }
    }
}

impl Drop for LastChance {
    fn drop(&mut self) {
        // A body that nobody asked for must not keep its connection waiting for it.
        self.0.refuse();
    }
}
