//! A thread with its own runtime, its own listening sockets and its own connections.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    task::Poll,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, warn};

use super::{
    Handler,
    bind::{Bound, Entrance},
    clock::{Clock, Patience},
    crowd::Crowd,
    roster::Roster,
    serve::serve,
    shared::{Guest, House, Limits},
};
use crate::{metrics::Counted, net::Buffers};

/// How a worker treats its clients.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a client may take.
    pub patience: Patience,
    /// How many connections a worker has at once; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How many connections each client address has, of all workers.
    pub crowd: Arc<Crowd>,
    /// What one connection may do.
    pub limits: Limits,
    /// Open connections, of all workers.
    pub open: IntGauge,
}

/// How the workers are told to end.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Take no new connections, and end the ones there are after what they are doing.
    pub gently: CancellationToken,
    /// End at once.
    pub now: CancellationToken,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    thread: JoinHandle<usize>,
}

/// The time between two lines of the log that say so.
const SILENCE: Duration = Duration::from_secs(10);

/// A pause after an accept that failed for want of something, such as file descriptors.
const BREATH: Duration = Duration::from_millis(100);

// === impl Worker ===

impl Worker {
    /// Starts worker number `number` on its sockets of each listener. `make` is called on the
    /// worker's thread, inside its runtime, with the buffers that everybody there reads through.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started. A worker that then finds itself without a runtime stops
    /// them all.
    pub fn start<H: Handler>(
        number: usize,
        listeners: &mut [Bound],
        settings: Settings,
        stop: Stop,
        make: impl FnOnce(Rc<Buffers>) -> H + Send + 'static,
    ) -> io::Result<Self> {
        let sockets: Vec<(Arc<Entrance>, StdListener)> = listeners
            .iter_mut()
            .filter_map(|it| Some((Arc::clone(&it.entrance), it.sockets.pop()?)))
            .collect();
        let thread =
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // A worker that panics outside of its connections' tasks takes its listening sockets
                // with it; better that the process ends and is started again.
                let unexpected_end = stop.now.clone().drop_guard();
                let runtime =
                    Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => {
                        let cut = runtime.block_on(run(sockets, settings, stop, make));
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
        // A worker that panicked has none left.
        self.thread.join().unwrap_or_default()
    }
}

async fn run<H: Handler>(
    sockets: Vec<(Arc<Entrance>, StdListener)>,
    settings: Settings,
    stop: Stop,
    make: impl FnOnce(Rc<Buffers>) -> H,
) -> usize {
    let buffers = Rc::new(Buffers::default());
    let handler = Rc::new(make(Rc::clone(&buffers)));
    let roster = Rc::new(Roster::<H::Memory>::new(&settings.patience));
    let tasks = TaskTracker::new();
    // A listener takes a place before there is anybody to have it.
    let door = Arc::new(Semaphore::new(settings.connections_max + sockets.len()));
    let limits = settings.limits;
    let house = Rc::new(House { handler, roster, buffers, tasks, limits, crowd: settings.crowd });
    let House { handler, roster, tasks, .. } = &*house;
    let mut accepting = Vec::new();
    for (entrance, socket) in sockets {
        let acceptor = Acceptor {
            entrance,

            house: Rc::clone(&house),
            door: Arc::clone(&door),
            open: settings.open.clone(),
            said: Cell::default(),
        };
        accepting.push(tokio::task::spawn_local(acceptor.run(socket, stop.gently.clone())));
    }
    let mut step = tokio::time::interval(Clock::STEP);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.gently.cancelled() => break,
            () = stop.now.cancelled() => return roster.len(),
            _ = step.tick() => {
                roster.look(Instant::now());
                handler.tick();
            }
        }
    }
    for acceptor in accepting {
        let _ = acceptor.await;
    }
    roster.close();
    tasks.close();
    loop {
        tokio::select! {
            () = tasks.wait() => return 0,
            () = stop.now.cancelled() => return roster.len(),
            _ = step.tick() => {
                roster.look(Instant::now());
            }
        }
    }
}

struct Acceptor<H: Handler> {
    entrance: Arc<Entrance>,
    house: Rc<House<H>>,
    /// A place for each connection that may be open at once.
    door: Arc<Semaphore>,
    open: IntGauge,
    /// When it was last said that it cannot go on, and how often it was left out since.
    said: Cell<(Option<Instant>, u64)>,
}

impl<H: Handler> Acceptor<H> {
    async fn run(self, socket: StdListener, closing: CancellationToken) {
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                error!(listener = %self.entrance.listener.address, %error, "cannot accept connections");
                return;
            }
        };
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = self.accept(&socket) => {}
            }
        }
        // Whoever stands in the kernel's queue was told that the connection is open.
        while let Poll::Ready(Ok((stream, peer))) =
            poll_fn(|context| Poll::Ready(socket.poll_accept(context))).await
        {
            match Arc::clone(&self.door).try_acquire_owned() {
                Ok(place) => self.admit(stream, peer, place),
                Err(_full) => break,
            }
        }
    }

    /// Takes one connection, as soon as there is a place for it. Dropping the future takes none.
    async fn accept(&self, socket: &TcpListener) {
        let place = Arc::clone(&self.door).acquire_owned().await;
        let place = place.expect("the door is never closed");
        match socket.accept().await {
            Ok((stream, peer)) => self.admit(stream, peer, place),
            // The client is gone already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                let now = Instant::now();
                let was_said = |it: Instant| now.saturating_duration_since(it) < SILENCE;
                let (last, suppressed) = self.said.get();
                if last.is_some_and(was_said) {
                    self.said.set((last, suppressed + 1));
                } else {
                    self.said.set((Some(now), 0));
                    warn!(listener = %self.entrance.listener.address, %error, suppressed, "cannot accept; trying again");
                }
                tokio::time::sleep(BREATH).await;
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr, seat: OwnedSemaphorePermit) {
        // A response's last segment must not wait for the client's acknowledgement.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let guest = Guest { _seat: seat, standing: None, _open: Counted::new(&self.open) };
        serve(stream, peer, Arc::clone(&self.entrance), guest, &self.house);
    }
}
