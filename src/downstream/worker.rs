//! A thread with its own runtime, its own listening sockets and its own connections.

use std::{
    io,
    net::TcpListener as StdListener,
    panic::{AssertUnwindSafe, resume_unwind},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Instant,
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
    clock::Clock,
    crowd::PerClientLimit,
    places::ConnectionCapacity,
    roster::ConnectionTable,
    shared::{ConnectionLimits, WorkerContext},
    wait::Timeouts,
};
use crate::{metrics::Metrics, net::BufferPool};

/// How a worker treats its clients.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How long a client may take.
    pub patience: Timeouts,
    /// The connections that there may be at once, of all workers.
    pub places: Arc<ConnectionCapacity>,
    /// How many connections each client address has, of all workers.
    pub crowd: Arc<PerClientLimit>,
    /// What one connection may do.
    pub limits: ConnectionLimits,
    /// Open connections and tasks that have died, of all workers.
    pub metrics: Metrics,
}

/// How the workers are told to end, and how they tell that one of them has died.
#[derive(Clone, Debug, Default)]
pub struct StopSignal {
    /// Take no new connections, and end the ones there are after what they are doing.
    pub gently: CancellationToken,
    /// End at once.
    pub now: CancellationToken,
    /// A worker has panicked. Its connections go on without timeouts, as far as possible, until the
    /// workers are told to end, which is up to their owner.
    pub failed: CancellationToken,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<usize>,
}

// === impl Worker ===

impl Worker {
    /// Starts worker number `number` on its sockets of each listener. `make` is called on the
    /// worker's thread, inside its runtime, with the buffers that everybody there reads through.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started. A worker that then finds itself without a runtime has failed.
    pub fn start<H: Handler>(
        number: usize,
        listeners: &mut [BoundListener],
        settings: WorkerSettings,
        stop: StopSignal,
        make: impl FnOnce(Rc<BufferPool>) -> H + Send + 'static,
    ) -> io::Result<Self> {
        let sockets: Vec<(Arc<ListenerContext>, StdListener)> = listeners
            .iter_mut()
            .filter_map(|it| Some((Arc::clone(&it.entrance), it.sockets.pop()?)))
            .collect();
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // A thread that panics takes its listening sockets and connections with it.
                let unexpected_end = stop.failed.clone().drop_guard();
                let runtime =
                    Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let cut = runtime.block_on(run(number, sockets, settings, stop, make));
                        // A name that is being resolved is not waited for.
                        runtime.shutdown_background();
                        unexpected_end.disarm();
                        cut
                    }
                    Err(error) => {
                        error!(%error, "a worker has no runtime");
                        0
                    }
                }
            })?;
        Ok(Self { thread })
    }

    /// Waits for the worker's end, and returns how many connections it had to cut.
    ///
    /// Blocks; to be called when the worker was told to stop.
    #[must_use]
    pub fn join(self) -> usize {
        // A thread that panicked has none left.
        self.thread.join().unwrap_or_default()
    }
}

/// Serves until it is told to end. Returns how many connections had to be cut.
async fn run<H: Handler>(
    number: usize,
    sockets: Vec<(Arc<ListenerContext>, StdListener)>,
    settings: WorkerSettings,
    stop: StopSignal,
    make: impl FnOnce(Rc<BufferPool>) -> H,
) -> usize {
    let WorkerSettings { patience, places, crowd, limits, metrics } = settings;
    let buffers = Rc::new(BufferPool::default());
    let handler = Rc::new(make(Rc::clone(&buffers)));
    let roster = Rc::new(ConnectionTable::<H::ConnectionCache>::new(&patience));
    let tasks = TaskTracker::new();
    let house =
        Rc::new(WorkerContext { handler, roster, buffers, tasks, limits, places, crowd, metrics });
    let mut acceptors = JoinSet::new();
    for (entrance, socket) in sockets {
        match TcpListener::from_std(socket) {
            Ok(socket) => {
                let acceptor = Acceptor::new(entrance, socket, Rc::clone(&house));
                acceptors.spawn_local(acceptor.run(stop.gently.clone()));
            }
            Err(error) => {
                error!(listener = %entrance.listener.address, %error, "cannot accept connections");
                stop.failed.cancel();
            }
        }
    }
    let mut step = tokio::time::interval(Clock::STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let serving = AssertUnwindSafe(serve(number, &house, &stop, &mut step, &mut acceptors));
    if serving.catch_unwind().await.is_err() {
        error!("a worker has panicked: its connections go on until flipgate ends");
        stop.failed.cancel();
        told_to_end(&stop).await;
    }
    if stop.now.is_cancelled() {
        return house.roster.len();
    }
    while acceptors.join_next().await.is_some() {}
    house.roster.close();
    house.tasks.close();
    let finishing = AssertUnwindSafe(finish(&house, &stop, &mut step)).catch_unwind().await;
    if finishing.is_err() {
        error!("a worker has panicked while its connections finished: they go on");
        stop.failed.cancel();
        tokio::select! {
            () = house.tasks.wait() => {}
            () = stop.now.cancelled() => {}
        }
    }
    house.roster.len()
}

/// Ends connections that take too long, and idle ones whose place is needed, until the worker is told to
/// end. Panics with an acceptor that
/// cannot go on.
async fn serve<H: Handler>(
    number: usize,
    house: &WorkerContext<H>,
    stop: &StopSignal,
    step: &mut Interval,
    acceptors: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            () = told_to_end(stop) => return,
            _ = step.tick() => {
                house.roster.look(Instant::now());
                house.handler.tick();
                house.places.tell(number, house.roster.longest_idle());
            }
            () = house.places.rung(number) => house.close_wanted(number),
            () = house.handler.serve_others() => {}
            Some(Err(error)) = acceptors.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }
}

/// Waits until the last connection has ended, or for the order to end at once.
async fn finish<H: Handler>(house: &WorkerContext<H>, stop: &StopSignal, step: &mut Interval) {
    loop {
        tokio::select! {
            () = house.tasks.wait() => return,
            () = stop.now.cancelled() => return,
            () = house.handler.serve_others() => {}
            _ = step.tick() => {
                house.roster.look(Instant::now());
                house.handler.tick();
            }
        }
    }
}

async fn told_to_end(stop: &StopSignal) {
    tokio::select! {
        () = stop.gently.cancelled() => {}
        () = stop.now.cancelled() => {}
    }
}
