//! One client's connection.

#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Poll, Waker},
    time::Instant,
};

use hyper::{server::conn::http1, service::service_fn};
use tokio::net::TcpStream;
use tracing::debug;

use super::{
    Handler,
    bind::Listener,
    io::Io,
    roster::{Patience, Roster},
};

/// What is known of one client's connection, and what it is doing.
pub struct Connection<H: Handler> {
    peer: IpAddr,
    listener: Arc<Listener>,
    memory: H::Memory,
    roster: Rc<Roster<H>>,
    /// What answers hold on to whose last bytes are still in our buffers.
    departing: RefCell<Vec<H::Hold>>,
    /// What answers hold on to whose requests are still being sent.
    lingering: RefCell<Vec<H::Hold>>,
    phase: Cell<Phase>,
    /// Whether an answer's body has not come to its end yet.
    is_answering: Cell<bool>,
    /// Whether bytes of an answer are still in our buffers.
    is_writing: Cell<bool>,
    /// Bodies of requests that are still being read, oldest first, each with when it last moved.
    uploads: RefCell<Vec<Rc<Cell<Instant>>>>,
    /// Since when bytes wait that the client does not take.
    write_blocked: Cell<Option<Instant>>,
    /// Since when we wait for bytes of a request's body.
    body_awaited: Cell<Option<Instant>>,
    /// Since when we wait for bytes of an answer's body.
    upstream_awaited: Cell<Option<Instant>>,
    asked: Cell<Option<Ask>>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Nothing is asked.
    Idle(Instant),
    /// A head has begun.
    Head(Instant),
    /// A request is being read, answered or its answer written.
    Exchange,
}

/// What the roster asks of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    /// Close after what you are doing.
    Close,
    /// End now.
    End(Overdue),
}

/// What took too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Overdue {
    Head,
    KeepAlive,
    Stall,
    Upstream,
}

/// Bytes of a request's head. Above it hyper answers 431.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Bytes of a connection's reading and of its writing that are kept in memory.
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// The answer to a head that took too long. RFC 9110, section 15.5.9.
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    connection: close\r\n\
    content-length: 0\r\n\
    proxy-status: flipgate; error=http_request_error\r\n\r\n";

// === impl Connection ===

impl<H: Handler> Connection<H> {
    fn new(peer: SocketAddr, listener: Arc<Listener>, roster: Rc<Roster<H>>) -> Self {
        Self {
            peer: peer.ip().to_canonical(),
            listener,
            memory: H::Memory::default(),
            departing: RefCell::default(),
            lingering: RefCell::default(),
            is_answering: Cell::new(false),
            is_writing: Cell::new(false),
            uploads: RefCell::default(),
            phase: Cell::new(Phase::Idle(roster.now())),
            write_blocked: Cell::new(None),
            body_awaited: Cell::new(None),
            upstream_awaited: Cell::new(None),
            asked: Cell::new(None),
            waker: RefCell::new(None),
            roster,
        }
    }

    /// The address at the other end. An IPv4 address is never written as IPv6.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The listener that the client came in by.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// What the handler remembers of this connection.
    pub fn memory(&self) -> &H::Memory {
        &self.memory
    }

    /// Keeps `hold` until everything that was answered so far is written to the client's socket.
    pub fn hold_until_written(&self, hold: H::Hold) {
        self.departing.borrow_mut().push(hold);
    }

    /// Keeps `hold` until no request's body is being read any more, and until everything is written.
    pub fn hold_until_uploaded(&self, hold: H::Hold) {
        if self.uploads.borrow().is_empty() {
            // It was given up before its answer came to an end.
            return self.hold_until_written(hold);
        }
        self.lingering.borrow_mut().push(hold);
    }

    /// Notes that the answer's body has been given away to its end, or given up.
    pub fn answered(&self) {
        self.is_answering.set(false);
        self.is_writing.set(true);
        self.upstream_awaited.set(None);
    }

    /// Notes that a request's body is being read from now on. What is returned stands for it.
    pub fn upload_begins(&self) -> Rc<Cell<Instant>> {
        let upload = Rc::new(Cell::new(self.roster.now()));
        self.uploads.borrow_mut().push(Rc::clone(&upload));
        upload
    }

    /// Notes that a part of a request's body was taken.
    pub fn upload_moves(&self, upload: &Cell<Instant>) {
        upload.set(self.roster.now());
    }

    /// Notes that a request's body has come to its end, or was given up.
    pub fn upload_ends(&self, upload: &Rc<Cell<Instant>>) {
        self.uploads.borrow_mut().retain(|it| !Rc::ptr_eq(it, upload));
        self.await_body(false);
        if self.uploads.borrow().is_empty() {
            let lingering = self.lingering.take();
            if self.is_writing.get() {
                self.departing.borrow_mut().extend(lingering);
            }
            self.settle();
        }
    }

    fn begin_exchange(&self) {
        self.is_answering.set(true);
        self.phase.set(Phase::Exchange);
    }

    /// Nothing is asked any more when the last answer is written and the last body read.
    fn settle(&self) {
        let is_reading = !self.uploads.borrow().is_empty();
        let is_busy = self.is_answering.get() || self.is_writing.get() || is_reading;
        if !is_busy && matches!(self.phase.get(), Phase::Exchange) {
            self.phase.set(Phase::Idle(self.roster.now()));
        }
    }

    /// Lets go of everything: the connection has ended, whatever was left to write or read.
    pub(super) fn end(&self) {
        drop(self.departing.take());
        drop(self.lingering.take());
    }

    /// Notes whether a request's body is being waited for.
    pub fn await_body(&self, is_awaited: bool) {
        self.note(&self.body_awaited, is_awaited);
    }

    /// Notes whether an answer's body is being waited for.
    pub fn await_upstream(&self, is_awaited: bool) {
        self.note(&self.upstream_awaited, is_awaited);
    }

    /// Writes down the time when something begins to be so, and strikes it out when it ends.
    fn note(&self, since: &Cell<Option<Instant>>, is_so: bool) {
        match (is_so, since.get()) {
            (true, None) => since.set(Some(self.roster.now())),
            (false, Some(_)) => since.set(None),
            _ => {}
        }
    }

    /// Notes that bytes have come.
    pub(super) fn has_read(&self) {
        if let Phase::Idle(_) = self.phase.get() {
            self.phase.set(Phase::Head(self.roster.now()));
        }
    }

    /// Notes whether bytes wait that the client does not take.
    pub(super) fn has_tried_to_write(&self, is_blocked: bool) {
        self.note(&self.write_blocked, is_blocked);
    }

    /// Notes that nothing is left in our buffers.
    pub(super) fn has_written_all(&self) {
        let mut departing = self.departing.borrow_mut();
        if !departing.is_empty() {
            departing.clear();
        }
        drop(departing);
        if self.is_writing.replace(false) {
            self.settle();
        }
    }

    pub(super) fn overdue(&self, now: Instant, patience: &Patience) -> Option<Overdue> {
        let longer_than = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        let stalled = [self.write_blocked.get(), self.body_awaited.get()];
        if stalled.into_iter().flatten().any(|since| longer_than(since, patience.stall)) {
            return Some(Overdue::Stall);
        }
        // Answered already, but its upstream does not take the rest of the request. An answer that
        // is just being written is not cut for that.
        let uploads = self.uploads.borrow();
        let is_left_over = uploads.len() > 1 || !self.is_answering.get();
        let is_stuck = uploads.first().is_some_and(|it| longer_than(it.get(), patience.stall));
        if is_left_over && is_stuck && !self.is_writing.get() {
            return Some(Overdue::Stall);
        }
        drop(uploads);
        if self.upstream_awaited.get().is_some_and(|since| longer_than(since, patience.upstream)) {
            return Some(Overdue::Upstream);
        }
        match self.phase.get() {
            Phase::Head(since) if longer_than(since, patience.head) => Some(Overdue::Head),
            Phase::Idle(since) if longer_than(since, patience.keep_alive) => {
                Some(Overdue::KeepAlive)
            }
            _ => None,
        }
    }

    pub(super) fn ask(&self, ask: Ask) {
        // Whoever is to end now is not asked to end gently instead.
        if !matches!(self.asked.get(), Some(Ask::End(_))) {
            self.asked.set(Some(ask));
        }
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn remember(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|it| it.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

/// Serves one connection to its end. Dropping the future closes it at once.
pub(super) async fn serve<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    listener: Arc<Listener>,
    handler: Rc<H>,
    roster: Rc<Roster<H>>,
) {
    let connection = Rc::new(Connection::new(peer, listener, Rc::clone(&roster)));
    let _place = roster.enter(&connection);
    let service = service_fn(|request| {
        connection.begin_exchange();
        let answer = Rc::clone(&handler).handle(request, Rc::clone(&connection));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let mut driver = http1::Builder::new()
        // The roster watches heads and pauses; hyper's one limit would have to serve for both.
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(Io::new(stream, Rc::clone(&connection)), service);
    let end = std::future::poll_fn(|context| {
        match connection.asked.take() {
            Some(Ask::Close) => Pin::new(&mut driver).graceful_shutdown(),
            Some(Ask::End(overdue)) => return Poll::Ready(Err(overdue)),
            None => {}
        }
        connection.remember(context.waker());
        Pin::new(&mut driver).poll(context).map(Ok)
    })
    .await;
    match end {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%peer, %error, "connection ended"),
        Err(overdue) => {
            debug!(%peer, ?overdue, "connection took too long");
            if overdue == Overdue::Head {
                // A client that is too slow to ask may be too slow to be told; it is not waited for.
                let _ = driver.into_parts().io.stream().try_write(TOO_SLOW);
            }
        }
    }
}
