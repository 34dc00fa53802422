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

/// The watches in progress. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::release) struct WatchBoard(Arc<Mutex<HashMap<ServiceName, WatchProgress>>>);

// === impl WatchBoard ===

impl WatchBoard {
    /// How the watch of a service stands; `None` if there is none.
    pub(in crate::release) fn get(&self, service: &ServiceName) -> Option<WatchProgress> {
        self.all().get(service).copied()
    }

    pub(in crate::release) fn put(&self, service: &ServiceName, progress: WatchProgress) {
        self.all().insert(service.clone(), progress);
    }

    pub(in crate::release) fn remove(&self, service: &ServiceName) {
        self.all().remove(service);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ServiceName, WatchProgress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
