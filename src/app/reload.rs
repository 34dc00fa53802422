//! Reading the configuration again while the process runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Semaphore};
use tracing::info;

use super::certificates;
use crate::{
    admin::{ReloadError, Reloading},
    config::Config,
    control::{Call, Change, Control},
    downstream::Entrance,
    tls,
};

/// Reads the configuration again when asked to.
#[derive(Clone, Debug)]
pub(super) struct Reloader {
    path: Option<PathBuf>,
    /// What is in force. Held from the reading of a file to its application, so that of two reloads
    /// the later reading wins.
    config: Arc<Mutex<Config>>,
    readings: Arc<Semaphore>,
    control: Control,
    entrances: Vec<Arc<Entrance>>,
}

/// How long the files of a configuration may take to be read.
const READING: Duration = Duration::from_secs(30);

/// Readings at the same time: one that is waited for, and some that never come to their end, each of which
/// keeps a thread.
const READINGS_MAX: usize = 8;

// === impl Reloader ===

impl Reloader {
    pub(super) fn new(
        path: Option<PathBuf>,
        config: Config,
        control: Control,
        entrances: Vec<Arc<Entrance>>,
    ) -> Self {
        let (config, readings) = (Arc::new(Mutex::new(config)), Semaphore::new(READINGS_MAX));
        Self { path, config, readings: Arc::new(readings), control, entrances }
    }

    /// Whole or not at all. The active colors stay what they are. Files are read on a thread of their own:
    /// one that never comes to its end, such as a pipe that nobody writes to, holds up this reload and
    /// nothing else.
    pub(super) fn reload(self) -> Reloading {
        Box::pin(async move {
            let Self { path, config, readings, control, entrances } = self;
            let path = path.ok_or(ReloadError::NoFile)?;
            let mut in_force = config.try_lock_owned().map_err(|_| ReloadError::UnderWay)?;
            // What is read when nobody waits any more is never applied.
            let one = readings.try_acquire_owned().map_err(|_| ReloadError::UnderWay)?;
            let reading = tokio::task::spawn_blocking(move || {
                let _one = one;
                Config::load(&path)
            });
            let read = tokio::time::timeout(READING, reading).await;
            let read = read.map_err(|_| ReloadError::TooSlow(READING))?;
            let new = read.map_err(|error| ReloadError::Config(error.to_string()))?;
            let new = new.map_err(|error| ReloadError::Config(error.to_string()))?;
            let fixed = in_force.needs_restart(&new);
            if !fixed.is_empty() {
                return Err(ReloadError::NeedsRestart(fixed));
            }
            let change = Change::Follow(Arc::new(new.catalog.clone()));
            let call = Call { change, if_generation: None, idempotency: None, reason: None };
            let before = control.applied().state.generation;
            if control.propose(call).await?.generation == before {
                info!("configuration read again: nothing has changed");
            }
            *in_force = new;
            // They were read and checked a moment ago.
            let renewing = tokio::task::spawn_blocking(move || {
                for entrance in &entrances {
                    certificates::renew(entrance, tls::Server::reload);
                }
                drop(in_force);
            });
            // One that takes long shows the new certificates when it is done.
            let _ = tokio::time::timeout(READING, renewing).await;
            Ok(())
        })
    }
}
