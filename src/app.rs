//! From a checked configuration to a running process, and to its end. The only file that knows
//! every room; the only one that makes registries and runtimes.

mod certificates;
mod files;
mod signals;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use prometheus::{IntCounter, Registry};
use tokio::{runtime::Runtime, sync::Mutex};
use tracing::{info, warn};

use self::files::Files;
pub use self::signals::{Signals, StartSignals};
use crate::{
    admin::{self, ReloadError, Reloading},
    config::Config,
    control::{Call, Change, Control, EventKind, StartError},
    downstream::{self, BindError, Entrance, Listener, Worker},
    metrics::Metrics,
    model::Color,
    proxy::{Proxy, Shared},
    store::{FileStore, StoreError},
    tls,
    upstream::{Ceiling, Names},
};

/// A running Flipgate.
#[derive(Debug)]
pub struct App {
    /// Where clients come in, in the order of the configuration, with their real ports.
    pub listeners: Vec<SocketAddr>,
    /// Where the admin API is, with its real port.
    pub admin: admin::Address,
    /// The series that counts dropped log lines.
    pub log_dropped: IntCounter,
    control: Control,
    server: admin::Server,
    workers: Vec<Worker>,
    stop: downstream::Stop,
    is_serving: Arc<AtomicBool>,
    patience: Duration,
    reload: Reloader,
    runtime: Runtime,
}

/// Reads the configuration again when asked to.
#[derive(Clone, Debug)]
struct Reloader {
    path: Option<PathBuf>,
    /// What is in force. Held from the reading of a file to its application, so that of two reloads
    /// the later reading wins.
    config: Arc<Mutex<Config>>,
    control: Control,
    entrances: Vec<Arc<Entrance>>,
}

/// Why the process cannot start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// An address for clients.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address of the admin API.
    #[error(transparent)]
    Admin(#[from] admin::ListenError),
    /// The truth.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The truth, when it was first written.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Threads and runtimes.
    #[error("cannot start threads: {0}")]
    Threads(#[from] io::Error),
    /// Series of the same name.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// How the process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Connections that were cut since they were not done in time.
    pub cut: usize,
    /// Whether it was told to end at once.
    pub at_once: bool,
}

/// How long calls of the admin API that are under way at the end may take.
const ADMIN_PATIENCE: Duration = Duration::from_secs(1);

// === impl App ===

impl App {
    /// Opens every socket and the state, then starts all threads. `path` is where the configuration
    /// is read from again on a reload.
    ///
    /// # Errors
    ///
    /// [`AppError`] that names what is in the way.
    pub fn start(config: Config, path: Option<PathBuf>) -> Result<Self, AppError> {
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        let mut bound = config
            .listeners
            .iter()
            .map(|it| downstream::bind(it, workers))
            .collect::<Result<Vec<_>, _>>()?;
        let admin_socket = admin::Bound::new(&config.admin.listen)?;
        let files = Files::of_limit(config.connections_max);
        let (store, found) = FileStore::open(&config.state_dir)?;
        let names = Names::new(&config.names);
        let metrics = Metrics::new(&Registry::new())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let entered = runtime.enter();

        let catalog = config.catalog.clone();
        let control =
            Control::start(store, found.as_ref(), catalog, metrics.clone(), names, workers)?;
        let watcher = control.clone();
        runtime.spawn(async move { watcher.watch().await });

        let shared = Shared {
            switch: Arc::clone(control.switch()),
            ledger: Arc::clone(control.ledger()),
            metrics: metrics.clone(),
            in_flight: Ceiling::new(config.in_flight_max),
            connections: Ceiling::new(files.upstream),
            least_progress: config.least_progress,
        };
        let settings = downstream::Settings {
            patience: config.patience,
            connections_max: files.downstream.div_ceil(workers),
            crowd: Arc::new(downstream::Crowd::new(config.connections_per_client)),
            limits: config.connection,
            open: metrics.downstream_connections.clone(),
        };
        let stop = downstream::Stop::default();
        let mut threads = Vec::new();
        for number in 0..workers {
            let (shared, limits) = (shared.clone(), config.upstream);
            let make = move |buffers| Proxy::new(&shared, number, limits, buffers);
            let settings = settings.clone();
            let worker = Worker::start(number, &mut bound, settings, stop.clone(), make);
            threads.push(worker.inspect_err(|_| stop.now.cancel())?);
        }

        let is_serving = Arc::new(AtomicBool::new(true));
        let serving = Arc::clone(&is_serving);
        let patience = config.shutdown_patience;
        let admin_config = config.admin.clone();
        let config = Arc::new(Mutex::new(config));
        let entrances: Vec<_> = bound.iter().map(|it| Arc::clone(&it.entrance)).collect();
        let reload =
            Reloader { path, config, control: control.clone(), entrances: entrances.clone() };
        let reloader = reload.clone();
        let api = admin::Api {
            control: control.clone(),
            reload: Arc::new(move || reloader.clone().reload()),
            is_serving: Arc::new(move || serving.load(SeqCst)),
        };
        let admin = admin_socket.address.clone();
        let server = admin::Server::start(admin_socket, admin_config, api)?;
        drop(entered);

        let listeners: Vec<_> = bound.iter().map(|it| it.entrance.listener.address).collect();
        let generation = control.picture().generation;
        for listener in &bound {
            let Listener { address: listen, preview, tls, .. } = &listener.entrance.listener;
            let (preview, tls) = (preview.map(Color::as_str), tls.is_some());
            info!(%listen, preview, tls, workers, "listening");
        }
        certificates::tell_of_expiry(&entrances, &metrics);
        runtime.spawn(certificates::watch(entrances, metrics.clone()));
        info!(admin = %admin, generation = generation.0, "started");
        control.events().publish(EventKind::Started { generation });
        Ok(Self {
            listeners,
            admin,
            log_dropped: metrics.log_dropped,
            control,
            server,
            workers: threads,
            stop,
            is_serving,
            patience,
            reload,
            runtime,
        })
    }

    /// Changes and pictures, for whoever lives in the same process.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Serves until the process is told to stop: SIGTERM or SIGINT end it gently, a second one at
    /// once; SIGHUP reads the configuration again. Signals that came since `signals` were registered
    /// count too.
    #[must_use]
    pub fn run(self, signals: Signals) -> Ended {
        let Signals { mut terminate, mut interrupt, mut hang_up } = signals;
        let reload = self.reload.clone();
        let broken = self.stop.now.clone();
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    // A worker could not go on.
                    () = broken.cancelled() => break,
                    _ = hang_up.recv() => {
                        if let Err(error) = reload.clone().reload().await {
                            warn!("{error}");
                        }
                    }
                }
            }
        });
        let at_once = self.stop.now.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            warn!("told to end a second time: ending at once");
            at_once.cancel();
        });
        self.shut_down()
    }

    /// Takes no new connections, lets what is under way finish within the configured patience, and
    /// ends all threads.
    #[must_use]
    pub fn shut_down(self) -> Ended {
        let Self { control, server, workers, stop, is_serving, patience, runtime, .. } = self;
        is_serving.store(false, SeqCst);
        control.events().publish(EventKind::Stopping);
        let patience_s = patience.as_secs_f64();
        info!(patience_s, "stopping: finishing what is under way");
        stop.gently.cancel();
        let ended = runtime.block_on(async {
            let joined = tokio::task::spawn_blocking(|| {
                workers.into_iter().map(Worker::join).sum::<usize>()
            });
            let mut joined = std::pin::pin!(joined);
            let in_time = tokio::time::timeout(patience, &mut joined).await;
            let at_once = stop.now.is_cancelled();
            let cut = match in_time {
                Ok(cut) => cut,
                Err(_elapsed) => {
                    stop.now.cancel();
                    joined.await
                }
            };
            server.stop(ADMIN_PATIENCE).await;
            Ended { cut: cut.unwrap_or_default(), at_once }
        });
        if ended.cut > 0 {
            warn!(connections = ended.cut, "cut what was not done in time");
        }
        runtime.shutdown_timeout(ADMIN_PATIENCE);
        info!("stopped");
        ended
    }
}

// === impl Reloader ===

impl Reloader {
    /// Whole or not at all. The active colors stay what they are.
    fn reload(self) -> Reloading {
        Box::pin(async move {
            let Self { path, config, control, entrances } = self;
            let path = path.ok_or(ReloadError::NoFile)?;
            let mut config = config.lock().await;
            let new =
                Config::load(&path).map_err(|error| ReloadError::Config(error.to_string()))?;
            let fixed = config.needs_restart(&new);
            if !fixed.is_empty() {
                return Err(ReloadError::NeedsRestart(fixed));
            }
            let change = Change::Follow(Box::new(new.catalog.clone()));
            let call = Call { change, if_generation: None, idempotency: None, reason: None };
            let before = control.picture().generation;
            if control.propose(call).await?.generation == before {
                info!("configuration read again: nothing has changed");
            }
            *config = new;
            for entrance in &entrances {
                // They were read and checked a moment ago.
                certificates::renew(entrance, tls::Server::reload);
            }
            Ok(())
        })
    }
}
