//! Reads the configuration again while the process runs.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify, Semaphore};
use tracing::{info, warn};

use super::certificates;
use crate::{
    admin::{ReloadError, ReloadFuture},
    config::{Config, ConfigSource},
    control::{Actor, Change, ChangeRequest, Control},
    downstream::ListenerContext,
    metrics::Metrics,
    rollout::Rollouts,
    tls,
};

/// Reads the configuration again on request.
#[derive(Clone, Debug)]
pub(super) struct Reloader {
    source: Option<ConfigSource>,
    /// The current configuration. Locked from the reading of a file to its application, so that of two reloads the
    /// later reading wins.
    config: Arc<Mutex<Config>>,
    readings: Arc<Semaphore>,
    control: Control,
    listener_contexts: Vec<Arc<ListenerContext>>,
    metrics: Metrics,
    rollouts: Rollouts,
    wanted: Arc<Notify>,
}

/// The timeout of reading the files.
const READING: Duration = Duration::from_secs(30);

/// The most readings in parallel: the current one, and some that never complete and keep a thread each.
const READINGS_MAX: usize = 8;

// === impl Reloader ===

impl Reloader {
    pub(super) fn new(
        source: Option<ConfigSource>,
        config: Config,
        control: Control,
        listener_contexts: Vec<Arc<ListenerContext>>,
        metrics: Metrics,
        rollouts: Rollouts,
    ) -> Self {
        let config = Arc::new(Mutex::new(config));
        let (readings, wanted) = (Arc::new(Semaphore::new(READINGS_MAX)), Arc::default());
        Self { source, config, readings, control, listener_contexts, metrics, rollouts, wanted }
    }

    /// Requests a reload without waiting for it. Requests during a reload are combined.
    pub(super) fn request(&self) {
        self.wanted.notify_one();
    }

    /// Reloads on request. If the future is dropped, a reload in progress is not applied.
    pub(super) async fn run(self) {
        loop {
            self.wanted.notified().await;
            if let Err(error) = self.clone().reload(None).await {
                warn!("{error}");
            }
        }
    }

    /// Applies the whole configuration or nothing. `actor` is the caller; `None` for a signal. The active colors stay. A separate thread reads the files: one that
    /// never ends, such as a pipe without a writer, blocks only this reload.
    pub(super) fn reload(self, actor: Option<Actor>) -> ReloadFuture {
        Box::pin(async move {
            let metrics = self.metrics.clone();
            let result = self.apply(actor).await;
            metrics.reloaded(result.is_ok());
            result
        })
    }

    fn apply(self, actor: Option<Actor>) -> ReloadFuture {
        Box::pin(async move {
            let Self {
                source,
                config,
                readings,
                control,
                listener_contexts,
                metrics: _,
                rollouts,
                wanted: _,
            } = self;
            let source = source.ok_or(ReloadError::NoFile)?;
            let waiting = tokio::time::timeout(READING, config.lock_owned()).await;
            let mut in_force = waiting.map_err(|_| ReloadError::UnderWay)?;
            // A reading that ends after its reload has timed out is never applied.
            let one = readings.try_acquire_owned().map_err(|_| ReloadError::UnderWay)?;
            let reading = tokio::task::spawn_blocking(move || {
                let _one = one;
                source.load()
            });
            let read = tokio::time::timeout(READING, reading).await;
            let read = read.map_err(|_| ReloadError::TooSlow(READING))?;
            let new = read.map_err(|error| ReloadError::Config(error.to_string()))?;
            let new = new.map_err(|error| ReloadError::Config(error.to_string()))?;
            new.log_warnings();
            let new = new.config;
            let fixed = in_force.needs_restart(&new);
            if !fixed.is_empty() {
                return Err(ReloadError::NeedsRestart(fixed));
            }
            let change = Change::Reconfigure(Arc::new(new.catalog.clone()));
            let call = ChangeRequest { actor, ..ChangeRequest::unconditional(change) };
            let before = control.applied().state.generation;
            if control.propose(call).await?.generation == before {
                info!("configuration reloaded; nothing has changed");
            }
            rollouts.configure(new.rollouts.clone());
            *in_force = new;
            // The files were checked a moment ago.
            let renewing = tokio::task::spawn_blocking(move || {
                for listener_context in &listener_contexts {
                    certificates::renew(listener_context, tls::ListenerTls::reload);
                }
            });
            // If it takes longer, the new certificates are used when it is done.
            if let Ok(Err(error)) = tokio::time::timeout(READING, renewing).await {
                warn!(%error, "certificates are still being reloaded");
            }
            drop(in_force);
            Ok(())
        })
    }
}
