//! How the watches in progress stand, for the status.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::model::ServiceName;

/// How one watch stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WatchProgress {
    /// Failures that count.
    pub failures: u64,
    /// Answers that count, with the failures.
    pub requests: u64,
    /// The share of failures, from 0 to 1.
    pub share: f64,
    /// Whether the color before serves what cannot be connected.
    pub rescue: bool,
}

/// How the gradual promotion of a service stands.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareProgress {
    /// How its watch stands.
    pub watch: WatchProgress,
    /// Why the time of the step is over, and the step goes on.
    pub waiting: Option<String>,
}

/// What is in progress, by service. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub(in crate::release) struct Board<T>(Arc<Mutex<HashMap<ServiceName, T>>>);

/// The watches in progress.
pub(in crate::release) type WatchBoard = Board<WatchProgress>;

/// The gradual promotions in progress.
pub(in crate::release) type ShareBoard = Board<ShareProgress>;

// === impl Board ===

impl<T> Default for Board<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone> Board<T> {
    /// How a service stands; `None` if nothing is in progress.
    pub(in crate::release) fn get(&self, service: &ServiceName) -> Option<T> {
        self.all().get(service).cloned()
    }

    pub(in crate::release) fn put(&self, service: &ServiceName, progress: T) {
        self.all().insert(service.clone(), progress);
    }

    pub(in crate::release) fn remove(&self, service: &ServiceName) {
        self.all().remove(service);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServiceName, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
