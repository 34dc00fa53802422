//! A worker: a thread with its own runtime, listening sockets and connections.

use std::{
    io,
    net::TcpListener as StdListener,
    panic::{AssertUnwindSafe, resume_unwind},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
};

use futures_util::FutureExt;
use tokio::{
    net::TcpListener,
    runtime::{Builder, LocalOptions},
    task::JoinSet,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::error;

use super::{
    Handler,
    acceptor::Acceptor,
    bind::{BoundListener, ListenerContext},
    capacity::ConnectionCapacity,
    clock::Clock,
    connection_table::ConnectionTable,
    context::{ConnectionLimits, WorkerContext},
    per_client::PerClientLimit,
    timeout::Timeouts,
};
use crate::{metrics::Metrics, net::BufferPool};

/// The settings of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The limits of timeouts.
    pub timeouts: Timeouts,
    /// The limit on open connections, of all workers.
    pub capacity: Arc<ConnectionCapacity>,
    /// The limit on connections per client address, of all workers.
    pub per_client: Arc<PerClientLimit>,
    /// The limits of one connection.
    pub limits: ConnectionLimits,
    /// Counts open connections and dead tasks, of all workers.
    pub metrics: Metrics,
}

/// Signals that stop the workers, and a signal that one has failed.
#[derive(Clone, Debug, Default)]
pub struct StopSignal {
    /// Accept no new connections, and close the open ones after their exchange in progress.
    pub graceful: CancellationToken,
    /// Stop at once.
    pub immediate: CancellationToken,
    /// A worker has panicked. Its connections continue without timeouts, as far as possible, until its owner stops the
    /// workers.
    pub failed: CancellationToken,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<usize>,
}

// === impl Worker ===

impl Worker {
    /// Starts worker number `number` on its sockets of each listener. `make_handler` is called on the worker's thread,
    /// inside its runtime, with the buffer pool of the worker.
    ///
    /// # Errors
    ///
    /// The thread cannot be started. A worker without a runtime signals [`StopSignal::failed`] instead.
    pub fn start<H: Handler>(
        number: usize,
        listeners: &mut [BoundListener],
        settings: WorkerSettings,
        stop: StopSignal,
        make_handler: impl FnOnce(Rc<BufferPool>) -> H + Send + 'static,
    ) -> io::Result<Self> {
        let sockets: Vec<(Arc<ListenerContext>, StdListener)> = listeners
            .iter_mut()
            .filter_map(|it| Some((Arc::clone(&it.listener_context), it.sockets.pop()?)))
            .collect();
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // A thread that panics closes its listening sockets and connections.
                let unexpected_end = stop.failed.clone().drop_guard();
                let runtime =
                    Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let cut =
                            runtime.block_on(run(number, sockets, settings, stop, make_handler));
                        // Name resolution in progress is not awaited.
                        runtime.shutdown_background();
                        unexpected_end.disarm();
                        cut
                    }
                    Err(error) => {
                        error!(%error, "cannot start the runtime of a worker");
                        0
                    }
                }
            })?;
        Ok(Self { thread })
    }

    /// Waits for the worker's end, and returns how many connections it had to cut.
    ///
    /// Blocks. Call it after [`StopSignal`].
    #[must_use]
    pub fn join(self) -> usize {
        // A thread that panicked has no connections left.
        self.thread.join().unwrap_or_default()
    }
}

/// Serves until a stop signal. Returns how many connections had to be cut.
async fn run<H: Handler>(
    number: usize,
    sockets: Vec<(Arc<ListenerContext>, StdListener)>,
    settings: WorkerSettings,
    stop: StopSignal,
    make_handler: impl FnOnce(Rc<BufferPool>) -> H,
) -> usize {
    let WorkerSettings { timeouts, capacity, per_client, limits, metrics } = settings;
    let buffers = Rc::new(BufferPool::default());
    let handler = Rc::new(make_handler(Rc::clone(&buffers)));
    let connection_table = Rc::new(ConnectionTable::<H::ConnectionCache>::new(&timeouts));
    let tasks = TaskTracker::new();
    let worker = Rc::new(WorkerContext {
        handler,
        connection_table,
        buffers,
        tasks,
        limits,
        capacity,
        per_client,
        metrics,
    });
    let mut acceptors = JoinSet::new();
    for (listener_context, socket) in sockets {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let acceptor = Acceptor::new(listener_context, socket, Rc::clone(&worker));
                acceptors.spawn_local(acceptor.run(stop.graceful.clone()));
            }
            Err(error) => {
                error!(listener = %listener_context.listener.address, %error, "cannot accept connections");
                stop.failed.cancel();
            }
        }
    }
    let mut step = tokio::time::interval(Clock::STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let serving = AssertUnwindSafe(serve(number, &worker, &stop, &mut step, &mut acceptors));
    if serving.catch_unwind().await.is_err() {
        error!("worker panicked; its connections continue until Flipgate stops");
        stop.failed.cancel();
        stop_requested(&stop).await;
    }
    if stop.immediate.is_cancelled() {
        return worker.connection_table.len();
    }
    while acceptors.join_next().await.is_some() {}
    worker.connection_table.close_all();
    worker.tasks.close();
    let finishing = AssertUnwindSafe(finish(&worker, &stop, &mut step)).catch_unwind().await;
    if finishing.is_err() {
        error!("worker panicked while its connections finished; they continue");
        stop.failed.cancel();
        tokio::select! {
            () = worker.tasks.wait() => {}
            () = stop.immediate.cancelled() => {}
        }
    }
    worker.connection_table.len()
}

/// Handles expired timeouts and closes idle connections for new ones, until a stop signal. Panics if an acceptor has
/// panicked outside its restart loop.
async fn serve<H: Handler>(
    number: usize,
    worker: &WorkerContext<H>,
    stop: &StopSignal,
    step: &mut Interval,
    acceptors: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            () = stop_requested(stop) => return,
            _ = step.tick() => {
                worker.step();
                worker.capacity.set_longest_idle_since(number, worker.connection_table.longest_idle_since());
            }
            () = worker.capacity.close_requested(number) => worker.close_idle_connections(number),
            () = worker.handler.serve_other_workers() => {}
            Some(Err(error)) = acceptors.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }
}

/// Waits until the last connection has ended, or for the signal to stop at once.
async fn finish<H: Handler>(worker: &WorkerContext<H>, stop: &StopSignal, step: &mut Interval) {
    loop {
        tokio::select! {
            () = worker.tasks.wait() => return,
            () = stop.immediate.cancelled() => return,
            () = worker.handler.serve_other_workers() => {}
            _ = step.tick() => worker.step(),
        }
    }
}

async fn stop_requested(stop: &StopSignal) {
    tokio::select! {
        () = stop.graceful.cancelled() => {}
        () = stop.immediate.cancelled() => {}
    }
}
