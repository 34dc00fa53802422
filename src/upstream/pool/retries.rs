//! The retries of a pool, which its budget limits.

use std::time::Instant;

use super::Pool;

impl Pool {
    /// Retries that are available now.
    #[must_use]
    pub fn retries_left(&self, now: Instant) -> u32 {
        self.shared.budget.left(&self.policy.retry, now)
    }

    /// Adds the share of a request to the retry budget.
    pub fn deposit(&self) {
        self.shared.budget.deposit(&self.policy.retry);
    }

    /// Takes one retry from the budget, if there is one.
    #[must_use]
    pub fn withdraw(&self, now: Instant) -> bool {
        self.shared.budget.withdraw(&self.policy.retry, now)
    }
}
