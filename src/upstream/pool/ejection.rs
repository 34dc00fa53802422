//! Ejection of endpoints with failing requests, and panic mode.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::Pool;
use crate::upstream::{endpoint_health::Tier, endpoint_state::EndpointState};

/// The shortest ejection before another endpoint takes its place, when more endpoints fail than may be ejected.
pub(super) const ROTATION_MIN: Duration = Duration::from_secs(1);

/// Until when no endpoint can be ejected, so that failed requests need not take the lock.
#[derive(Debug)]
pub(super) struct EjectionTimes {
    start: Instant,
    /// In milliseconds after `start`.
    blocked_until: AtomicU64,
}

// === impl EjectionTimes ===

impl EjectionTimes {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), blocked_until: AtomicU64::new(0) }
    }

    /// Endpoints can be ejected again.
    pub(super) fn unblock(&self) {
        self.blocked_until.store(0, Relaxed);
    }

    fn block_until(&self, until: Instant) {
        self.blocked_until.store(self.millis(until), Relaxed);
    }

    fn are_blocked(&self, now: Instant) -> bool {
        self.millis(now) < self.blocked_until.load(Relaxed)
    }

    fn millis(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

// === impl Pool ===

impl Pool {
    /// Records a failed request. An endpoint with too many consecutive failures is ejected. At the maximum of ejected
    /// endpoints, the longest ejected one is readmitted for it.
    pub fn record_failure(&self, endpoint: &EndpointState, what: &str, now: Instant) {
        let rules = &self.policy.ejection;
        let Some(limit) = rules.failures else { return };
        // The state of a replaced pool may not hold for the new one.
        let is_last = self.revision == self.shared.last_revision.load(Relaxed);
        // In an outage every request comes here: most return without the lock.
        if endpoint.record_failure() < limit.get()
            || !is_last
            || rules.share == 0
            || endpoint.is_ejected()
            || self.ejection_times.are_blocked(now)
            || self.endpoint_set.load().endpoints.len() < 2
        {
            return;
        }
        let _change_lock = self.shared.change_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint_set = self.endpoint_set.load();
        let endpoints = &*endpoint_set.endpoints;
        let is_in_pool = endpoints.iter().any(|it| std::ptr::eq(&raw const **it, endpoint));
        // Another request may have been first.
        if !is_in_pool || endpoints.len() < 2 || endpoint.is_ejected() {
            return;
        }
        let most = (endpoints.len() * usize::from(rules.share) / 100).max(1);
        let since = |it: &Arc<EndpointState>| it.update_health(|it| it.ejected_since());
        let ejected = endpoints.iter().filter(|it| it.is_ejected());
        let ejected: Vec<_> = ejected.filter_map(|it| Some((since(it)?, it))).collect();
        if ejected.len() >= most {
            // The longest ejected endpoint may have recovered; this one has not.
            let Some((since, oldest)) = ejected.iter().min_by_key(|it| it.0) else { return };
            if now.saturating_duration_since(*since) < ROTATION_MIN {
                return self.ejection_times.block_until(*since + ROTATION_MIN);
            }
            oldest.update_health(|it| it.readmit(now));
            oldest.reset_failures();
        }
        let is_new = endpoint.update_health(|it| {
            let is_new = !it.is_ejected();
            if is_new {
                it.eject(
                    format!("{limit} consecutive requests failed; the last one: {what}").into(),
                    rules,
                    now,
                );
            }
            is_new
        });
        if is_new {
            self.metrics.ejected();
            self.update_panic();
        }
    }

    /// Readmits endpoints after their ejection. Call it often.
    pub fn release_ejected(&self, now: Instant) {
        for endpoint in self.endpoints() {
            if endpoint.update_health(|it| it.release(now)) {
                endpoint.reset_failures();
                self.ejection_times.unblock();
                self.shared.queue.notify_front();
            }
        }
        self.update_panic();
    }

    /// Decides whether too few endpoints are healthy, so that others get requests too (panic mode).
    pub(super) fn update_panic(&self) {
        let endpoint_set = self.endpoint_set.load();
        let count = endpoint_set.endpoints.len();
        let tiers = || endpoint_set.endpoints.iter().map(|it| it.tier());
        let too_few = |worst| {
            let healthy = tiers().filter(|it| *it <= worst).count();
            healthy * 100 < count * usize::from(self.policy.balance.panic)
        };
        // Ejected endpoints first, then also those with failed checks; none, if there are none of that tier.
        let panic_tier = [Tier::Ejected, Tier::Unhealthy]
            .into_iter()
            .zip([Tier::Unchecked, Tier::Ejected])
            .filter(|(tier, healthy)| too_few(*healthy) && tiers().any(|it| it == *tier))
            .map(|(tier, _)| tier as u8)
            .max();
        let (panic_tier, before) = (panic_tier.unwrap_or(0), self.panic_tier.load(Relaxed));
        self.panic_tier.store(panic_tier, Relaxed);
        if (panic_tier == 0) != (before == 0) {
            self.shared.alert.raise();
        }
    }

    /// Whether an endpoint is ejected.
    #[must_use]
    pub fn has_ejected(&self) -> bool {
        self.endpoint_set.load().endpoints.iter().any(|it| it.is_ejected())
    }
}
