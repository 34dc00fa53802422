//! Endpoints that are left out for a while, and what becomes of a pool that has few others.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::Pool;
use crate::upstream::{endpoint_health::Tier, endpoint_state::EndpointState};

/// How long an endpoint is left out at least before another one takes its turn, when there are more that
/// should be than may be.
pub(super) const TURN: Duration = Duration::from_secs(1);

/// Until when it is known that nobody can be left out, so that requests that fail need not look.
#[derive(Debug)]
pub(super) struct EjectionTimes {
    start: Instant,
    /// In milliseconds from the start.
    closed_until: AtomicU64,
}

// === impl EjectionTimes ===

impl EjectionTimes {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), closed_until: AtomicU64::new(0) }
    }

    /// Somebody may be left out again.
    pub(super) fn reopen(&self) {
        self.closed_until.store(0, Relaxed);
    }

    fn close(&self, until: Instant) {
        self.closed_until.store(self.millis(until), Relaxed);
    }

    fn are_closed(&self, now: Instant) -> bool {
        self.millis(now) < self.closed_until.load(Relaxed)
    }

    fn millis(&self, at: Instant) -> u64 {
        let passed = at.saturating_duration_since(self.start).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

// === impl Pool ===

impl Pool {
    /// Notes that a request came to nothing. A member of which too many in a row do is left out for a
    /// while. If as many are as may be, the one that is out for longest comes back for it.
    pub fn failed(&self, member: &EndpointState, what: &str, now: Instant) {
        let rules = &self.policy.ejection;
        let Some(limit) = rules.failures else { return };
        // What is known of a pool that was replaced may not hold for the one that has followed.
        let is_last = self.number == self.common.last.load(Relaxed);
        // In an outage each request comes here: most find out without the lock that there is nothing to do.
        if member.failed() < limit.get()
            || !is_last
            || rules.share == 0
            || member.is_ejected()
            || self.turns.are_closed(now)
            || self.roster.load().members.len() < 2
        {
            return;
        }
        let _changing = self.common.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let roster = self.roster.load();
        let members = &*roster.members;
        let is_of_us = members.iter().any(|it| std::ptr::eq(&raw const **it, member));
        // Others may have come first.
        if !is_of_us || members.len() < 2 || member.is_ejected() {
            return;
        }
        let most = (members.len() * usize::from(rules.share) / 100).max(1);
        let since = |it: &Arc<EndpointState>| it.learn(|it| it.ejected_since());
        let out = members.iter().filter(|it| it.is_ejected());
        let out: Vec<_> = out.filter_map(|it| Some((since(it)?, it))).collect();
        if out.len() >= most {
            // Whoever was out for longest may be well again, which this one is not.
            let Some((since, oldest)) = out.iter().min_by_key(|it| it.0) else { return };
            if now.saturating_duration_since(*since) < TURN {
                return self.turns.close(*since + TURN);
            }
            oldest.learn(|it| it.let_in(now));
            oldest.forgive();
        }
        let is_new = member.learn(|it| {
            let is_new = !it.is_ejected();
            if is_new {
                it.eject(
                    format!("{limit} requests in a row came to nothing, the last one: {what}")
                        .into(),
                    rules,
                    now,
                );
            }
            is_new
        });
        if is_new {
            self.metrics.ejected();
            self.assess();
        }
    }

    /// Lets in again whose time outside is over. To be called often.
    pub fn release(&self, now: Instant) {
        for member in self.members() {
            if member.learn(|it| it.release(now)) {
                member.forgive();
                self.turns.reopen();
                self.common.queue.call();
            }
        }
        self.assess();
    }

    /// Finds out whether so few are left that the others have to help.
    pub(super) fn assess(&self) {
        let roster = self.roster.load();
        let count = roster.members.len();
        let standings = || roster.members.iter().map(|it| it.standing());
        let are_few = |worst| {
            let well = standings().filter(|it| *it <= worst).count();
            well * 100 < count * usize::from(self.policy.balance.panic)
        };
        // First those whom requests have found bad, then those of whom it is known by their checks; and
        // nobody, where nobody could help.
        let helpers = [Tier::Ejected, Tier::Shunned]
            .into_iter()
            .zip([Tier::Untried, Tier::Ejected])
            .filter(|(helper, well)| are_few(*well) && standings().any(|it| it == *helper))
            .map(|(helper, _)| helper as u8)
            .max();
        let (helpers, before) = (helpers.unwrap_or(0), self.helpers.load(Relaxed));
        self.helpers.store(helpers, Relaxed);
        if (helpers == 0) != (before == 0) {
            self.common.bell.ring();
        }
    }

    /// Whether an endpoint is left out for a while.
    #[must_use]
    pub fn has_ejected(&self) -> bool {
        self.roster.load().members.iter().any(|it| it.is_ejected())
    }
}
