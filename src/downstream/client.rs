//! One client's life, from the first byte to the close.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
};

use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use tokio_util::task::TaskTracker;

use super::{
    After, Handler, HeadError,
    bind::Listener,
    clock::Wait,
    connection::Connection,
    roster::{Place, Roster},
};
use crate::{
    http1::{RequestHead, Scan},
    metrics::Counted,
    net::{Buffers, Socket},
};

/// A client: its socket, and what is known of its connection.
pub struct Client<M> {
    /// The socket.
    pub socket: Socket,
    connection: Rc<Connection<M>>,
    /// Whether an empty line came where the next request was waited for.
    has_skipped_line: bool,
    place: Place<M>,
    #[expect(dead_code, reason = "it is held for what its drop does")]
    guest: Guest,
}

/// What an open connection takes up.
pub(super) struct Guest {
    /// One of the worker's places.
    pub(super) _seat: OwnedSemaphorePermit,
    /// One of the open connections that are counted.
    pub(super) _open: Counted,
}

/// What all connections of a worker share.
pub(super) struct House<H: Handler> {
    pub(super) handler: Rc<H>,
    pub(super) roster: Rc<Roster<H::Memory>>,
    pub(super) buffers: Rc<Buffers>,
    pub(super) tasks: TaskTracker,
}

/// What came where a request was waited for.
enum Asked {
    Head(Result<RequestHead, HeadError>),
    /// Nothing after all, or only the empty line that old clients send behind a body: RFC 9112,
    /// section 2.2.
    Nothing,
    /// The end of the connection.
    Gone,
}

/// What becomes of a connection that had something to do.
enum Next<T> {
    Idle,
    Tunnel(Box<T>),
    Close,
}

// === impl Client ===

impl<M> Client<M> {
    /// The socket, and what is known of the connection.
    pub fn split(&mut self) -> (&mut Socket, &Connection<M>) {
        (&mut self.socket, &self.connection)
    }

    /// Writes all of `bytes`. What was written of them is not known when the future is dropped; the
    /// connection is of no use then.
    ///
    /// # Errors
    ///
    /// What the system says of the connection.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        let written = poll_fn(|context| {
            while !left.is_empty() {
                let written = self.socket.poll_write(context, [left, &[], &[]]);
                self.connection.note(Wait::Taken, written.is_pending(), false);
                left = &left[ready!(written)?..];
            }
            Poll::Ready(Ok(()))
        });
        written.await
    }

    /// Waits until the client asks something. Holds no buffer. False if it never will: it has closed,
    /// or the connection is to end.
    async fn asks(&mut self) -> bool {
        self.connection.wait_for_nothing();
        self.connection.begin(Wait::Request);
        poll_fn(|context| {
            self.connection.remember(context.waker());
            match self.socket.poll_readable(context) {
                Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
                // Whoever asks just now is answered; whoever does not will not be.
                Poll::Pending if self.connection.is_closing() => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Waits a moment for the client to ask again. Holds no buffer. False if it did not, or if enough
    /// others are waiting like this.
    async fn asks_again(&mut self) -> bool {
        let Some(_warm) = self.place.stay_warm() else { return false };
        self.connection.begin(Wait::NextRequest);
        poll_fn(|context| match self.socket.poll_readable(context) {
            Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
            Poll::Pending if self.connection.is_closing() => Poll::Ready(false),
            Poll::Pending if self.connection.take_alarm().is_some() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Reads a head. Dropping the future loses nothing of what was read.
    async fn read_head(&mut self) -> Asked {
        let mut scan = Scan::up_to(RequestHead::BYTES_MAX);
        self.connection.wait_for_nothing();
        self.connection.begin(Wait::Head);
        poll_fn(|context| {
            loop {
                if !self.has_skipped_line && self.socket.unread().starts_with(b"\r\n") {
                    self.has_skipped_line = true;
                    self.socket.consume(2);
                    if self.socket.unread().is_empty() {
                        return Poll::Ready(Asked::Nothing);
                    }
                }
                let unread = self.socket.unread();
                if !unread.is_empty() && scan.is_worth_parsing(unread) {
                    match RequestHead::parse(unread) {
                        Ok(None) => {}
                        Ok(Some(head)) => {
                            self.has_skipped_line = false;
                            return Poll::Ready(Asked::Head(Ok(head)));
                        }
                        Err(reject) => return Poll::Ready(Asked::Head(Err(reject.into()))),
                    }
                }
                if self.connection.take_alarm() == Some(Wait::Head) {
                    return Poll::Ready(Asked::Head(Err(HeadError::TooSlow)));
                }
                match self.socket.poll_read(context, RequestHead::BYTES_MAX + 1) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Asked::Gone),
                    Poll::Pending if self.socket.unread().is_empty() => {
                        return Poll::Ready(Asked::Nothing);
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Ends our side, and takes what still comes until the client ends its own: a socket that is
    /// closed with bytes unread is reset, and the client may lose the answer before it has read it
    /// (RFC 9112, section 9.6).
    async fn linger(&mut self) {
        self.connection.wait_for_nothing();
        self.connection.begin(Wait::Linger);
        poll_fn(|context| {
            if ready!(self.socket.poll_finish(context)).is_err() {
                return Poll::Ready(());
            }
            loop {
                self.socket.consume(self.socket.unread().len());
                match ready!(self.socket.poll_read(context, LINGER_AT_ONCE)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
    }
}

/// Bytes that are read at once only to be thrown away.
const LINGER_AT_ONCE: usize = 16 * 1024;

/// Starts a task that serves one connection to its end, and returns at once.
pub(super) fn serve<H: Handler>(
    stream: TcpStream,
    peer: SocketAddr,
    listener: Arc<Listener>,
    guest: Guest,
    house: &House<H>,
) {
    let House { handler, roster, buffers, tasks } = house;
    let connection = Rc::new(Connection::new(peer, listener, Rc::clone(roster.clock())));
    let client = Client {
        socket: Socket::new(stream, buffers),
        place: roster.enter(&connection),
        connection: Rc::clone(&connection),
        has_skipped_line: false,
        guest,
    };
    let task = tasks.spawn_local(live(client, Rc::clone(handler)));
    connection.task.replace(Some(task.abort_handle()));
}

/// What waits is small; what happens now and then has a box of its own.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn would have two places for the client, and every idle connection both"
)]
fn live<H: Handler>(mut client: Client<H::Memory>, handler: Rc<H>) -> impl Future<Output = ()> {
    async move {
        while client.asks().await {
            match Box::pin(answer(&mut client, &*handler)).await {
                Next::Idle => {}
                Next::Close => return,
                Next::Tunnel(tunnel) => {
                    return Box::pin(handler.tunnel(client, *tunnel)).await;
                }
            }
        }
    }
}

/// Answers requests for as long as there are bytes of them.
async fn answer<H: Handler>(client: &mut Client<H::Memory>, handler: &H) -> Next<H::Tunnel> {
    loop {
        let head = match client.read_head().await {
            Asked::Head(head) => head,
            Asked::Nothing => return Next::Idle,
            Asked::Gone => return Next::Close,
        };
        client.connection.wait_for_nothing();
        let after = handler.exchange(client, head).await;
        client.connection.wait_for_nothing();
        match after {
            After::GoOn if client.socket.unread().is_empty() && !client.asks_again().await => {
                return Next::Idle;
            }
            After::GoOn => {}
            After::Tunnel(tunnel) => return Next::Tunnel(Box::new(tunnel)),
            After::Cut => return Next::Close,
            After::Close => {
                client.linger().await;
                return Next::Close;
            }
        }
    }
}
