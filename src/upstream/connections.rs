//! One worker's connections to endpoints.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::oneshot};

use super::{connect::ConnectError, member::Member, pool::Pool};
use crate::metrics::Counted;

/// The connections of one worker that wait for a request. `B` is the body of the requests.
#[derive(Debug)]
pub struct Connections<B> {
    limits: Limits,
    /// By the member's address, which its `Weak` beside it keeps from being used again. The last one put back is the first one taken, so that few stay hot and
    /// the others age out.
    idle: RefCell<HashMap<*const Member, Waiting<B>>>,
}

/// How connections are opened and kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How long opening one may take.
    pub connect: Duration,
    /// How long one may wait for the next request. Best below the application's own limit, so that
    /// we close first.
    pub idle: Duration,
    /// How many of a worker may wait at one endpoint.
    pub idle_max: usize,
    /// How long one that nobody wants any more may take to send what is left.
    pub stall: Duration,
}

#[derive(Debug)]
struct Waiting<B> {
    member: Weak<Member>,
    senders: Vec<(Sender<B>, Instant)>,
}

/// A connection that is ready for one request.
#[derive(Debug)]
pub struct Connection<B> {
    /// Takes the request.
    pub sender: Sender<B>,
    /// Whether it carried a request before: the other end may be about to close it.
    pub is_reused: bool,
}

/// The near end of a connection. When it is dropped, the connection ends: at once if there is
/// nothing left to write, else at the latest after [`Limits::stall`].
#[derive(Debug)]
pub struct Sender<B> {
    sender: SendRequest<B>,
    _lifeline: oneshot::Sender<()>,
}

/// How long a connection may take to notice that its last answer is over.
const NOTICE: Duration = Duration::from_millis(250);

// === impl Sender ===

impl<B: Body + 'static> Sender<B> {
    /// Sends a request and waits for the head of the answer. Dropping the future ends the
    /// connection.
    ///
    /// # Errors
    ///
    /// With the request, if nothing of it was sent.
    pub fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + use<B> {
        self.sender.try_send_request(request)
    }

    fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

// === impl Connections ===

impl<B> Connections<B>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// No connections yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, idle: RefCell::default() }
    }

    /// A connection that waited for a request and is still open, if there is one. Dropping the
    /// future closes the connection that it was about to return, and no other.
    pub async fn waiting(&self, member: &Arc<Member>) -> Option<Connection<B>> {
        loop {
            let key = Arc::as_ptr(member);
            let mut sender = self.idle.borrow_mut().get_mut(&key)?.senders.pop()?.0;
            if sender.is_ready() {
                return Some(Connection { sender, is_reused: true });
            }
            if sender.is_closed() {
                continue;
            }
            // The end of its last answer may still have to be noticed; or the other end does not
            // take the rest of the last request, and never will. Waited for once, not for each.
            let ready = tokio::time::timeout(NOTICE, sender.sender.ready()).await;
            return match ready {
                Ok(Ok(())) => Some(Connection { sender, is_reused: true }),
                _ => None,
            };
        }
    }

    /// A new connection. Must be called on a worker's runtime, which drives it from then on and
    /// ends it at the latest with itself. Nothing is left behind when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`ConnectError`], which is counted already.
    pub async fn open(&self, pool: &Pool, member: &Member) -> Result<Connection<B>, ConnectError> {
        let stream = match member.connect(self.limits.connect).await {
            Ok(stream) => stream,
            Err(error) => {
                pool.metrics().connect_error(error.reason.as_str());
                return Err(error);
            }
        };
        let (sender, driver) = handshake(stream).await;
        let open = Counted::new(&pool.metrics().connections);
        let (lifeline, gone) = oneshot::channel();
        let patience = self.limits.stall;
        tokio::task::spawn_local(async move {
            let mut driver = std::pin::pin!(driver);
            // How a connection ended is told by the request that was on it.
            tokio::select! {
                biased;
                _ = &mut driver => {}
                // Nobody wants it any more. What it still has to write may never be taken.
                _ = gone => drop(tokio::time::timeout(patience, driver).await),
            }
            drop(open);
        });
        let sender = Sender { sender, _lifeline: lifeline };
        Ok(Connection { sender, is_reused: false })
    }

    /// Keeps a connection whose answer has been read to its end for the next request, or closes it
    /// if enough are waiting.
    pub fn put_back(&self, member: &Arc<Member>, sender: Sender<B>, now: Instant) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let waiting = idle
            .entry(Arc::as_ptr(member))
            .or_insert_with(|| Waiting { member: Arc::downgrade(member), senders: Vec::new() });
        if waiting.senders.len() < self.limits.idle_max {
            waiting.senders.push((sender, now));
        }
    }

    /// Closes what waited too long, what the other end has closed, and what belongs to members
    /// that are in no pool any more.
    pub fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|_, waiting| {
            if waiting.member.strong_count() == 0 {
                return false;
            }
            waiting.senders.retain(|(sender, since)| {
                !sender.is_closed() && now.saturating_duration_since(*since) < self.limits.idle
            });
            !waiting.senders.is_empty()
        });
    }
}

type Driver<B> = http1::Connection<TokioIo<TcpStream>, B>;

async fn handshake<B>(stream: TcpStream) -> (SendRequest<B>, Driver<B>)
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .expect("HTTP/1 has no handshake: nothing is sent or read before the first request")
}

/// Fields of a response's head; the same as for requests.
const HEADERS_MAX: usize = 100;

/// Bytes of a connection's reading and of its writing that are kept in memory.
const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// Bytes of a response's head. More than of a request's, since applications set many cookies.
const HEAD_BYTES_MAX: usize = 64 * 1024;
