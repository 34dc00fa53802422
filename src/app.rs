//! From a checked configuration to a running process, and to its end. The only file that knows every room, and the only
//! one that makes registries and runtimes.

mod certificates;
mod file_budget;
mod reload;
mod signals;
mod supervisor;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use prometheus::{IntCounter, Registry, process_collector::ProcessCollector};
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

pub use self::signals::{Signals, StartSignals};
use self::{
    file_budget::FileBudget,
    reload::Reloader,
    supervisor::{Supervisor, TaskHealth},
};
use crate::{
    admin,
    care::Care,
    config::{Config, ConfigSource, ConnectionsPerClient, own_addresses},
    control::{Control, EventKind},
    downstream::{self, BindError, Handler, Listener, Worker},
    metrics::Metrics,
    model::Color,
    proxy::{LoopMark, Proxy, ProxyContext},
    release::{Release, Watcher},
    rollout::{RolloutRunner, Rollouts},
    store::{CommitError, FileStore, Store, StoreError},
    upstream::{ConcurrencyLimit, PoolContext, Resolver, WorkerRegistry},
};

/// A running Flipgate.
#[derive(Debug)]
pub struct App {
    /// The addresses of the listeners, in the order of the configuration, with the actual ports.
    pub listeners: Vec<SocketAddr>,
    /// The address of the admin API, with the actual port.
    pub admin: admin::AdminAddress,
    /// The series that counts dropped log lines.
    pub log_dropped: IntCounter,
    control: Control,
    server: admin::AdminServer,
    workers: Vec<Worker>,
    stop: downstream::StopSignal,
    is_serving: Arc<AtomicBool>,
    delay: Duration,
    stop_timeout: Duration,
    reload: Reloader,
    supervisor: Supervisor,
    runtime: Runtime,
}

/// Why the process cannot start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin API.
    #[error(transparent)]
    Admin(#[from] admin::ListenError),
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state that follows from the configuration.
    #[error(transparent)]
    Start(#[from] CommitError),
    /// Threads and runtimes.
    #[error("cannot start threads: {0}")]
    Threads(#[from] io::Error),
    /// Series of the same name.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// How the process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExitOutcome {
    /// Connections that were cut at the timeout.
    pub cut: usize,
    /// Whether a second signal ended it at once.
    pub at_once: bool,
    /// Whether a vital task had died.
    pub has_failed: bool,
}

/// The time for calls of the admin API that are in progress at the end.
const ADMIN_PATIENCE: Duration = Duration::from_secs(1);

// === impl App ===

impl App {
    /// Opens every socket and the state, then starts all threads. A reload reads the configuration from `source` again.
    ///
    /// # Errors
    ///
    /// [`AppError`] that names the obstacle.
    pub fn start(config: Config, source: Option<ConfigSource>) -> Result<Self, AppError> {
        let open = |config: &Config| {
            Ok(Arc::new(FileStore::open_with(&config.state_dir, config.audit)?) as _)
        };
        Self::start_on(open, config, source)
    }

    /// The same with another store, which is opened after all sockets.
    ///
    /// # Errors
    ///
    /// [`AppError`] that names the obstacle.
    pub fn start_on(
        open: impl FnOnce(&Config) -> Result<Arc<dyn Store>, AppError>,
        config: Config,
        source: Option<ConfigSource>,
    ) -> Result<Self, AppError> {
        Self::start_with(open, config, source, |proxy| proxy)
    }

    /// The same with another handler around the proxy of each worker.
    ///
    /// # Errors
    ///
    /// [`AppError`] that names the obstacle.
    pub fn start_with<H: Handler>(
        open: impl FnOnce(&Config) -> Result<Arc<dyn Store>, AppError>,
        config: Config,
        source: Option<ConfigSource>,
        wrap: impl Fn(Proxy) -> H + Clone + Send + 'static,
    ) -> Result<Self, AppError> {
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        let mut bound = config
            .listeners
            .iter()
            .map(|it| downstream::bind(it, workers, config.timeouts.stall))
            .collect::<Result<Vec<_>, _>>()?;
        let admin_socket = admin::AdminListener::new(&config.admin.listen)?;
        let files = FileBudget::of_limit(config.connections_max);
        let store = open(&config)?;
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let metrics = Metrics::new(&registry)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("control")
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let mut supervisor = Supervisor::new(metrics.clone());

        let parts = PoolContext {
            own: own_addresses(
                bound.iter().map(|it| it.listener_context.listener.address),
                &admin_socket.address,
            ),
            ..PoolContext::new(Resolver::new(&config.names))
        };
        let (catalog, counted) = (config.catalog.clone(), metrics.clone());
        let starting = Control::start(store, catalog, counted, parts.clone(), workers);
        // Not by `block_on`: a program that embeds Flipgate may call this on its own runtime.
        let (started, begun) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move {
            // The next line waits for it.
            let _ = started.send(starting.await);
        });
        let begun =
            begun.recv().map_err(|_| io::Error::other("the control thread has panicked"))?;
        let (control, worker) = begun?;
        supervisor.run_vital("control", worker.run());
        let worker_registry = Arc::<WorkerRegistry>::default();
        let release = Release::new(
            control.clone(),
            metrics.clone(),
            parts.clone(),
            Arc::clone(&worker_registry),
        );
        let watching = release.clone();
        supervisor.run("watch", move || Watcher::new(watching.clone()).run());
        let rollouts = Rollouts::new(release.clone(), config.rollouts.clone());
        let run_rollouts = rollouts.clone();
        supervisor.run("rollout", move || RolloutRunner::new(run_rollouts.clone()).run());
        let (care_control, care_settings) = (control.clone(), config.care);
        let care_metrics = metrics.clone();
        supervisor.run("care", move || {
            let (control, parts) = (care_control.clone(), parts.clone());
            let counted = care_metrics.clone();
            let (pools, PoolContext { resolver: names, alerts, .. }) = (control.pools(), parts);
            let sink = Arc::new(move |event| control.events().publish(EventKind::Endpoint(event)));
            Care::new(pools, alerts, names, care_settings, sink, counted).run()
        });

        let shared = ProxyContext {
            switch: Arc::clone(control.switch()),
            ledger: Arc::clone(control.ledger()),
            metrics: metrics.clone(),
            in_flight: ConcurrencyLimit::new(config.in_flight_max),
            connections: ConcurrencyLimit::new(files.upstream),
            workers: Arc::clone(&worker_registry),
            least_progress: config.least_progress,
            forwarding: config.forwarding.clone(),
            mark: LoopMark::unique(),
            pools: control.pools(),
        };
        let exempt = config.catalog.trusted_proxies.iter().copied().collect();
        let per_client = config.connections_per_client.of(files.downstream);
        for (limit, value) in [
            ("connections", files.downstream),
            ("connections_per_client", per_client),
            ("upstream_connections", files.upstream),
            ("in_flight", config.in_flight_max),
        ] {
            metrics.limit(limit, value);
        }
        let settings = downstream::WorkerSettings {
            timeouts: config.timeouts,
            capacity: downstream::ConnectionCapacity::new(files.downstream, workers),
            per_client: Arc::new(match config.connections_per_client {
                ConnectionsPerClient::Auto => {
                    downstream::PerClientLimit::fair_share(per_client, exempt)
                }
                ConnectionsPerClient::AtMost(_) => {
                    downstream::PerClientLimit::new(per_client, exempt)
                }
            }),
            limits: config.connection,
            metrics: metrics.clone(),
        };
        let stop = downstream::StopSignal::default();
        let mut threads = Vec::new();
        for number in 0..workers {
            let (shared, limits) = (shared.clone(), config.upstream);
            let wrap = wrap.clone();
            let make = move |buffers| wrap(Proxy::new(&shared, number, limits, buffers));
            let settings = settings.clone();
            let worker = Worker::start(number, &mut bound, settings, stop.clone(), make);
            threads.push(worker.inspect_err(|_| stop.immediate.cancel())?);
        }
        let failed = stop.failed.clone();
        supervisor.run_vital("worker", async move {
            failed.cancelled().await;
            Err::<(), _>("a worker thread has panicked")
        });

        let is_serving = Arc::new(AtomicBool::new(true));
        let serving = Arc::clone(&is_serving);
        let (delay, stop_timeout) = (config.shutdown_delay, config.shutdown_patience);
        let admin_config = config.admin.clone();
        let listener_contexts: Vec<_> =
            bound.iter().map(|it| Arc::clone(&it.listener_context)).collect();
        let reload = Reloader::new(
            source,
            config,
            control.clone(),
            listener_contexts.clone(),
            metrics.clone(),
            rollouts.clone(),
        );
        let reloader = reload.clone();
        let watched = supervisor.watched();
        let api = admin::Api {
            control: control.clone(),
            release,
            rollouts,
            reload: Arc::new(move |actor| reloader.clone().reload(Some(actor))),
            is_serving: Arc::new(move || serving.load(SeqCst)),
            gone: Arc::new(move || watched.dead_tasks()),
            metrics: metrics.clone(),
        };
        let admin = admin_socket.address.clone();
        let server = admin::AdminServer::new(admin_socket, admin_config, api)?;
        let acceptor = server.acceptor();
        supervisor.run("admin", move || acceptor.clone().run());

        let listeners: Vec<_> =
            bound.iter().map(|it| it.listener_context.listener.address).collect();
        let applied = control.applied();
        let (generation, internal) = (applied.state.generation, &applied.catalog.internal);
        let internal = internal.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for listener in &bound {
            let Listener { address: listen, preview, tls, .. } =
                &listener.listener_context.listener;
            let (preview, tls) = (preview.map(Color::as_str), tls.is_some());
            info!(%listen, preview, tls, workers, "listening");
        }
        certificates::log_expiry(&listener_contexts, &metrics);
        let log_dropped = metrics.log_dropped.clone();
        let wanted = reload.clone();
        supervisor.run("reload", move || wanted.clone().run());
        supervisor.run("certificates", move || {
            certificates::watch(listener_contexts.clone(), metrics.clone())
        });
        drop(entered);
        info!(admin = %admin, generation = generation.0, internal, "started");
        control.events().publish(EventKind::Started { generation });
        Ok(Self {
            listeners,
            admin,
            log_dropped,
            control,
            server,
            workers: threads,
            stop,
            is_serving,
            delay,
            stop_timeout,
            reload,
            supervisor,
            runtime,
        })
    }

    /// The control plane, for code in the same process.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The runtime of the admin API and the control task.
    #[must_use]
    pub fn control_runtime(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// The names of the tasks that this owns.
    #[must_use]
    pub fn tasks(&self) -> Vec<&'static str> {
        self.supervisor.watched().names()
    }

    /// Makes a task panic, for tests. Returns whether there is a task with this name.
    #[must_use]
    pub fn plant_panic(&self, task: &str) -> bool {
        self.supervisor.watched().plant_panic(task)
    }

    /// Serves until a signal stops it: SIGTERM and SIGINT shut down gracefully, a second one at once; SIGHUP reads the
    /// configuration again. Signals since the registration of `signals` count.
    #[must_use]
    pub fn run(self, signals: Signals) -> ExitOutcome {
        let Signals { mut terminate, mut interrupt, mut hang_up } = signals;
        let reload = &self.reload;
        let fatal = self.supervisor.watched().fatal;
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => break,
                    _ = interrupt.recv() => break,
                    () = fatal.cancelled() => break,
                    _ = hang_up.recv() => reload.request(),
                }
            }
        });
        self.end(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            warn!("second signal: stopping at once");
        })
    }

    /// Closes the listeners, lets requests in flight complete within the configured time, and ends all threads.
    #[must_use]
    pub fn shut_down(self) -> ExitOutcome {
        self.end(std::future::pending())
    }

    /// Shuts down until `second_signal` is ready, and then ends at once.
    fn end(self, second_signal: impl Future<Output = ()>) -> ExitOutcome {
        let Self {
            control, server, workers, stop, is_serving, delay, stop_timeout, runtime, ..
        } = self;
        let TaskHealth { fatal, .. } = self.supervisor.watched();
        is_serving.store(false, SeqCst);
        control.events().publish(EventKind::Stopping);
        let (delay_s, timeout_s) = (delay.as_secs_f64(), stop_timeout.as_secs_f64());
        let ended = runtime.block_on(async {
            let mut second_signal = std::pin::pin!(second_signal);
            let mut at_once = false;
            // A dead task does not recover by waiting.
            if !delay.is_zero() && !fatal.is_cancelled() {
                info!(delay_s, "stopping; /readyz is 503, and the listeners close after the delay");
                at_once = tokio::select! {
                    () = tokio::time::sleep(delay) => false,
                    () = fatal.cancelled() => false,
                    () = &mut second_signal => true,
                };
            }
            info!(timeout_s, "stopping; requests in flight are completed");
            stop.graceful.cancel();
            control.refuse_held();
            let joined = tokio::task::spawn_blocking(|| {
                workers.into_iter().map(Worker::join).sum::<usize>()
            });
            let mut joined = std::pin::pin!(joined);
            let in_time = tokio::select! {
                biased;
                () = std::future::ready(()), if at_once => None,
                cut = &mut joined => Some(cut),
                () = tokio::time::sleep(stop_timeout) => None,
                () = &mut second_signal => {
                    at_once = true;
                    None
                }
            };
            let cut = match in_time {
                Some(cut) => cut,
                None => {
                    stop.immediate.cancel();
                    joined.await
                }
            };
            server.stop(ADMIN_PATIENCE).await;
            // Calls that were refused a moment ago.
            let _ = tokio::time::timeout(ADMIN_PATIENCE, control.flush_refusals()).await;
            let has_failed = stop.failed.is_cancelled() || fatal.is_cancelled();
            ExitOutcome { cut: cut.unwrap_or_default(), at_once, has_failed }
        });
        if ended.cut > 0 {
            warn!(connections = ended.cut, "requests cut at the timeout");
        }
        drop((self.supervisor, control, self.reload));
        runtime.shutdown_timeout(ADMIN_PATIENCE);
        if ended.has_failed {
            error!("stopped because a task has died");
        } else {
            info!("stopped");
        }
        ended
    }
}
