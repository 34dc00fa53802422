//! The task that accepts connections on one listening socket.
//!
//! The task restarts after a panic: while no task accepts, the kernel still completes connections, and their clients
//! would wait for a response that never comes.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{
    Handler,
    bind::ListenerContext,
    context::{ConnectionGuard, WorkerContext},
    serve::serve,
};
use crate::metrics::GaugeGuard;

/// Accepts the connections of one listening socket.
pub(super) struct Acceptor<H: Handler> {
    listener_context: Arc<ListenerContext>,
    socket: TcpListener,
    worker: Rc<WorkerContext<H>>,
    /// Limiters for log messages that would otherwise come with each connection.
    error_log: AcceptLogLimiter,
    full_log: AcceptLogLimiter,
}

/// Limits one log message to once in [`LOG_INTERVAL`], and counts how often it was suppressed.
#[derive(Default)]
struct AcceptLogLimiter(Cell<(Option<Instant>, u64)>);

/// The shortest time between two log messages of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The delay after an accept that failed for lack of a resource, such as file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The delay after the second panic. It doubles with each further panic up to the maximum. There is none after the
/// first.
const RESTART_DELAY: Duration = Duration::from_millis(10);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(1);

/// A panic after this much time without one counts as the first again.
const RESTART_DELAY_RESET: Duration = Duration::from_secs(10);

// === impl Acceptor ===

impl<H: Handler> Acceptor<H> {
    pub(super) fn new(
        listener_context: Arc<ListenerContext>,
        socket: TcpListener,
        worker: Rc<WorkerContext<H>>,
    ) -> Self {
        let (error_log, full_log) = Default::default();
        Self { listener_context, socket, worker, error_log, full_log }
    }

    /// Accepts connections until `closing`, and then those that the kernel has already completed. A panic costs at most
    /// the connection that was being accepted.
    pub(super) async fn run(self, closing: CancellationToken) {
        let mut delay = Duration::ZERO;
        loop {
            let since = Instant::now();
            let accepting = AssertUnwindSafe(self.accept_all(&closing)).catch_unwind();
            if accepting.await.is_ok() {
                return;
            }
            self.worker.metrics.task_died("acceptor");
            if since.elapsed() >= RESTART_DELAY_RESET {
                delay = Duration::ZERO;
            }
            let (listener, pause_ms) =
                (self.listener_context.listener.address, delay.as_millis() as u64);
            error!(%listener, pause_ms, "acceptor panicked; restarting it");
            if !delay.is_zero() {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(delay) => {}
                }
            }
            delay = next_delay(delay);
        }
    }

    async fn accept_all(&self, closing: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = self.accept() => {}
            }
        }
        // The kernel has completed these connections, so their clients consider them open.
        while let Poll::Ready(Ok((stream, peer))) =
            poll_fn(|context| Poll::Ready(self.socket.poll_accept(context))).await
        {
            match self.worker.capacity.try_acquire() {
                Some(permit) => self.start(stream, peer, permit),
                None => break,
            }
        }
    }

    /// Accepts one connection and serves it as soon as capacity allows. Dropping the future accepts none, or closes the
    /// connection that waits for capacity.
    async fn accept(&self) {
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                let permit = match self.worker.capacity.try_acquire() {
                    Some(permit) => permit,
                    None => {
                        self.log_full();
                        self.worker.capacity.acquire().await
                    }
                };
                self.start(stream, peer, permit);
            }
            // The client has already closed the connection.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(suppressed) = self.error_log.now() {
                    let listener = self.listener_context.listener.address;
                    warn!(%listener, %error, suppressed, "cannot accept connections; retrying");
                }
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }

    fn log_full(&self) {
        if let Some(suppressed) = self.full_log.now() {
            let (listener, connections) =
                (self.listener_context.listener.address, self.worker.capacity.max());
            warn!(
                %listener, connections, suppressed,
                "connection limit reached (limits.connections or the limit of open files): \
                 closing idle connections for new ones"
            );
        }
    }

    fn start(&self, stream: TcpStream, peer: SocketAddr, capacity_permit: OwnedSemaphorePermit) {
        // Without TCP_NODELAY the last segment of a response waits for the client's acknowledgement.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let open = GaugeGuard::new(&self.worker.metrics.downstream_connections);
        let guard =
            ConnectionGuard { _capacity_permit: capacity_permit, client_permit: None, _open: open };
        serve(stream, peer, Arc::clone(&self.listener_context), guard, &self.worker);
    }
}

// === impl AcceptLogLimiter ===

impl AcceptLogLimiter {
    /// If the message may be logged now, returns how often it was suppressed since the last time.
    fn now(&self) -> Option<u64> {
        let now = Instant::now();
        let (last, suppressed) = self.0.get();
        if last.is_some_and(|it| now.saturating_duration_since(it) < LOG_INTERVAL) {
            self.0.set((last, suppressed + 1));
            return None;
        }
        self.0.set((Some(now), 0));
        Some(suppressed)
    }
}

fn next_delay(delay: Duration) -> Duration {
    (delay * 2).clamp(RESTART_DELAY, RESTART_DELAY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restart_delay_doubles_up_to_one_second() {
        let delays = std::iter::successors(Some(Duration::ZERO), |it| Some(next_delay(*it)));
        let delays: Vec<_> = delays.take(10).map(|it| it.as_millis()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
