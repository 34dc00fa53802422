//! How often the active colors failed in the last minutes: a new color is not judged more strictly than the one before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    model::{Color, ServiceName},
    upstream::Pool,
};

/// The time between two samples.
pub(in crate::release) const INTERVAL: Duration = Duration::from_secs(10);

/// Samples of five minutes.
const SAMPLES: usize = 30;

/// The failures and answers of a pool since the process began.
pub(in crate::release) fn totals(pool: &Pool) -> (u64, u64) {
    let metrics = pool.metrics();
    let outcomes = metrics.outcomes();
    let (failed, excluded) = (outcomes.failed(), outcomes.excluded());
    let answered = (metrics.requests() + outcomes.rescued()).saturating_sub(excluded);
    (failed, answered.max(failed))
}

/// Samples of the services that have a watch. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub(in crate::release) struct Baselines(Arc<Mutex<HashMap<ServiceName, Samples>>>);

#[derive(Debug)]
struct Samples {
    color: Color,
    /// Failures and answers, oldest first.
    samples: VecDeque<(u64, u64)>,
    taken: Instant,
}

// === impl Baselines ===

impl Baselines {
    /// Takes a sample of the active pool of a service, if it is time.
    pub(in crate::release) fn sample(&self, service: &ServiceName, active: &Pool, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let color = active.color();
        let fresh = || Samples { color, samples: VecDeque::new(), taken: now };
        let known = all.entry(service.clone()).or_insert_with(fresh);
        if known.color != color {
            *known = fresh();
        }
        if known.samples.is_empty() || now.saturating_duration_since(known.taken) >= INTERVAL {
            if known.samples.len() == SAMPLES {
                known.samples.pop_front();
            }
            known.samples.push_back(totals(active));
            known.taken = now;
        }
    }

    /// Failures and answers of the active pool in the last minutes.
    pub(in crate::release) fn of(&self, service: &ServiceName, active: &Pool) -> (u64, u64) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = all.get(service).filter(|it| it.color == active.color());
        let Some((failed, answered)) = oldest.and_then(|it| it.samples.front()) else {
            return (0, 0);
        };
        let (failed_now, answered_now) = totals(active);
        (failed_now.saturating_sub(*failed), answered_now.saturating_sub(*answered))
    }

    /// Forgets the services that have no watch any more.
    pub(in crate::release) fn retain(&self, is_kept: impl Fn(&ServiceName) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_kept(name));
    }
}
