//! The task that takes the connections of one listening socket.
//!
//! It survives its own panics: while no task accepts on a socket, the kernel goes on completing
//! connections to it, and their clients would wait for an answer that never comes.

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

/// Takes the connections of one listening socket.
pub(super) struct Acceptor<H: Handler> {
    listener_context: Arc<ListenerContext>,
    socket: TcpListener,
    worker: Rc<WorkerContext<H>>,
    /// Lines of the log that are not to be written for each connection.
    said: AcceptLogLimiter,
    said_full: AcceptLogLimiter,
}

/// When the log last said something, and how often it was left out since.
#[derive(Default)]
struct AcceptLogLimiter(Cell<(Option<Instant>, u64)>);

/// The time between two lines of the log that say the same.
const SILENCE: Duration = Duration::from_secs(10);

/// A pause after an accept that failed for want of something, such as file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// The pause after the second panic, doubled each time, up to the longest. There is none after the first.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The next panic after so long counts as the first one again.
const SETTLED: Duration = Duration::from_secs(10);

// === impl Acceptor ===

impl<H: Handler> Acceptor<H> {
    pub(super) fn new(
        listener_context: Arc<ListenerContext>,
        socket: TcpListener,
        worker: Rc<WorkerContext<H>>,
    ) -> Self {
        let (said, said_full) = Default::default();
        Self { listener_context, socket, worker, said, said_full }
    }

    /// Takes connections until `closing`, and then those that the kernel has completed already. A panic
    /// costs the connection that was being taken, if there was one.
    pub(super) async fn run(self, closing: CancellationToken) {
        let mut pause = Duration::ZERO;
        loop {
            let since = Instant::now();
            let life = AssertUnwindSafe(self.live(&closing)).catch_unwind();
            if life.await.is_ok() {
                return;
            }
            self.worker.metrics.task_died("acceptor");
            if since.elapsed() >= SETTLED {
                pause = Duration::ZERO;
            }
            let (listener, pause_ms) =
                (self.listener_context.listener.address, pause.as_millis() as u64);
            error!(%listener, pause_ms, "an acceptor has panicked: it is started again");
            if !pause.is_zero() {
                tokio::select! {
                    () = closing.cancelled() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
            pause = longer(pause);
        }
    }

    async fn live(&self, closing: &CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = self.accept() => {}
            }
        }
        // The clients of the connections in the kernel's queue know them as open.
        while let Poll::Ready(Ok((stream, peer))) =
            poll_fn(|context| Poll::Ready(self.socket.poll_accept(context))).await
        {
            match self.worker.capacity.try_take() {
                Some(place) => self.admit(stream, peer, place),
                None => break,
            }
        }
    }

    /// Takes one connection, and serves it as soon as there is a place for it. Dropping the future takes
    /// none, or ends the one that has no place.
    async fn accept(&self) {
        match self.socket.accept().await {
            Ok((stream, peer)) => {
                let place = match self.worker.capacity.try_take() {
                    Some(place) => place,
                    None => {
                        self.tell_of_full();
                        self.worker.capacity.take().await
                    }
                };
                self.admit(stream, peer, place);
            }
            // The client is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if let Some(suppressed) = self.said.now() {
                    warn!(listener = %self.listener_context.listener.address, %error, suppressed, "cannot accept; trying again");
                }
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    fn tell_of_full(&self) {
        if let Some(suppressed) = self.said_full.now() {
            let (listener, connections) =
                (self.listener_context.listener.address, self.worker.capacity.max());
            warn!(
                %listener, connections, suppressed,
                "as many clients are connected as limits.connections and the limit of open files allow: \
                 connections that are idle are closed for new ones"
            );
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, seat: OwnedSemaphorePermit) {
        // A response's last segment must not wait for the client's acknowledgement.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let open = GaugeGuard::new(&self.worker.metrics.downstream_connections);
        let guard = ConnectionGuard { _seat: seat, standing: None, _open: open };
        serve(stream, peer, Arc::clone(&self.listener_context), guard, &self.worker);
    }
}

// === impl AcceptLogLimiter ===

impl AcceptLogLimiter {
    /// How often it was left out, if it is to be said now.
    fn now(&self) -> Option<u64> {
        let now = Instant::now();
        let (last, suppressed) = self.0.get();
        if last.is_some_and(|it| now.saturating_duration_since(it) < SILENCE) {
            self.0.set((last, suppressed + 1));
            return None;
        }
        self.0.set((Some(now), 0));
        Some(suppressed)
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(PAUSE, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acceptor_that_goes_on_panicking_takes_no_more_than_a_little_of_a_core() {
        let pauses = std::iter::successors(Some(Duration::ZERO), |it| Some(longer(*it)));
        let pauses: Vec<_> = pauses.take(10).map(|it| it.as_millis()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
