//! The task that drives all rollouts.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::task::{AbortHandle, JoinSet};
use tracing::error;

use super::{executor::drive, handle::Rollouts};
use crate::model::RolloutId;

/// Between a panic and the next attempt.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Drives all rollouts that are not over: those that begin, and those of an earlier process.
#[derive(Debug)]
pub struct RolloutRunner {
    rollouts: Rollouts,
    driven: HashMap<RolloutId, AbortHandle>,
    /// The versions of rollouts with which nothing can be done. They are driven again when they have another one.
    idle: HashMap<RolloutId, u64>,
    tasks: JoinSet<(RolloutId, Option<u64>)>,
}

// === impl RolloutRunner ===

impl RolloutRunner {
    /// A runner of these rollouts.
    #[must_use]
    pub fn new(rollouts: Rollouts) -> Self {
        Self { rollouts, driven: HashMap::new(), idle: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Runs until Flipgate stops. Dropping the future stops all rollouts where they are; commands end.
    pub async fn run(mut self) {
        let mut changes = self.rollouts.control().changes();
        loop {
            let applied = changes.borrow_and_update().clone();
            let running = applied.state.rollouts.iter().filter(|(_, it)| it.is_running());
            let running: HashMap<&RolloutId, u64> =
                running.map(|(id, it)| (id, it.version)).collect();
            self.idle.retain(|id, version| running.get(id) == Some(version));
            for id in running.keys() {
                if !self.driven.contains_key(*id) && !self.idle.contains_key(*id) {
                    self.begin(RolloutId::clone(id));
                }
            }
            let running = running.into_keys().collect();
            self.count(&running);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(ended) = self.tasks.join_next() => {
                    if let Ok((id, version)) = ended {
                        self.driven.remove(&id);
                        self.idle.extend(version.map(|it| (id, it)));
                    }
                }
            }
        }
    }

    /// Shows in the metrics where the rollouts are.
    fn count(&self, running: &HashSet<&RolloutId>) {
        let known = running.iter().filter_map(|id| self.rollouts.find(id).ok());
        let states: Vec<&str> =
            known.filter_map(|it| it.record.machine().ok().map(|it| it.state())).collect();
        for state in ["running", "undoing", "waiting", "stuck"] {
            let count = states.iter().filter(|it| **it == state).count();
            self.rollouts.release().metrics().rollouts_running(state, count);
        }
    }

    fn begin(&mut self, id: RolloutId) {
        let (rollouts, known) = (self.rollouts.clone(), id.clone());
        let task = self.tasks.spawn(async move {
            let driving = std::panic::AssertUnwindSafe(drive(rollouts.clone(), id.clone()));
            let ended = driving.catch_unwind().await;
            let version = match ended {
                Ok(version) => version,
                Err(_) => {
                    error!(rollout = %id, "the task of the rollout has panicked; it goes on with the stage that it was at");
                    tokio::time::sleep(AFTER_PANIC).await;
                    None
                }
            };
            (id, version)
        });
        self.driven.insert(known, task);
    }
}
