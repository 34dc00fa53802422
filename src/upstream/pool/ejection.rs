//! Endpoints that are left out for a while, and what becomes of a pool that has few others.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::Pool;
use crate::upstream::{condition::Standing, member::Member};

/// How long an endpoint is left out at least before another one takes its turn, when there are more that
/// should be than may be.
pub(super) const TURN: Duration = Duration::from_secs(1);

impl Pool {
    /// Notes that a request came to nothing. A member of which too many in a row do is left out for a
    /// while. If as many are as may be, the one that is out for longest comes back for it.
    pub fn failed(&self, member: &Member, what: &str, now: Instant) {
        let rules = &self.policy.ejection;
        let Some(limit) = rules.failures else { return };
        // What is known of a pool that was replaced may not hold for the one that has followed.
        let is_last = self.number == self.common.last.load(Relaxed);
        if member.failed() < limit.get() || !is_last {
            return;
        }
        let _changing = self.common.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let members = self.members();
        let is_of_us = members.iter().any(|it| std::ptr::eq(&raw const **it, member));
        let most = (members.len() * usize::from(rules.share) / 100).max(1);
        if !is_of_us || members.len() < 2 || rules.share == 0 {
            return;
        }
        let since = |it: &Arc<Member>| it.learn(|it| it.ejected_since());
        let mut out: Vec<_> = members.iter().filter_map(|it| Some((since(it)?, it))).collect();
        out.sort_by_key(|it| it.0);
        if out.iter().any(|it| std::ptr::eq(&raw const **it.1, member)) {
            return;
        }
        if out.len() >= most {
            // Whoever was out for longest may be well again, which this one is not.
            let Some((since, oldest)) = out.first() else { return };
            if now.saturating_duration_since(*since) < TURN {
                return;
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
        let helpers = [Standing::Ejected, Standing::Shunned]
            .into_iter()
            .zip([Standing::Untried, Standing::Ejected])
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
        self.roster.load().members.iter().any(|it| it.learn(|it| it.is_ejected()))
    }
}
