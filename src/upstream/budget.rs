//! The retry budget: limits retries, so that they do not overload a failing pool.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use crate::model::Retry;

/// The retry budget of a pool. Each request adds a share of a retry, and so does time.
///
/// Counted in thousandths of a retry: a percentage of a request and a millisecond's share are whole numbers of them, so
/// nothing is lost to rounding however often time accrues.
#[derive(Debug)]
pub(super) struct RetryBudget {
    balance: AtomicI64,
    start: Instant,
    /// Up to when time has accrued, in milliseconds after `start`.
    added_until: AtomicU64,
}

const RETRY: i64 = 1000;

/// What one percent of a request adds.
const PERCENT: i64 = RETRY / 100;

/// The maximum balance: a quiet hour does not allow a minute of retries.
const BALANCE_MAX: i64 = 100 * RETRY;

/// The initial balance, in seconds of accrual.
const INITIAL_SECONDS: i64 = 10;

// === impl RetryBudget ===

impl RetryBudget {
    pub(super) fn new(rules: &Retry) -> Self {
        let balance = (i64::from(rules.budget_min) * INITIAL_SECONDS * RETRY).min(BALANCE_MAX);
        let (balance, start) = (AtomicI64::new(balance), Instant::now());
        Self { balance, start, added_until: AtomicU64::new(0) }
    }

    /// Adds the share of one request.
    pub(super) fn deposit(&self, rules: &Retry) {
        if self.balance.load(Relaxed) < BALANCE_MAX {
            self.balance.fetch_add(i64::from(rules.budget) * PERCENT, Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub(super) fn withdraw(&self, rules: &Retry, now: Instant) -> bool {
        self.accrue(rules, now);
        let take = |it: i64| (it >= RETRY).then(|| it - RETRY);
        self.balance.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Retries that are available.
    pub(super) fn left(&self, rules: &Retry, now: Instant) -> u32 {
        self.accrue(rules, now);
        u32::try_from(self.balance.load(Relaxed) / RETRY).unwrap_or_default()
    }

    fn accrue(&self, rules: &Retry, now: Instant) {
        let now = now.saturating_duration_since(self.start).as_millis();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        // The caller that moves the mark adds the time up to it, so each millisecond accrues once.
        let before = self.added_until.fetch_max(now, Relaxed);
        let passed = i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX);
        // N per second are N thousandths per millisecond.
        let accrued = passed.saturating_mul(i64::from(rules.budget_min));
        if accrued > 0 {
            let accrue = |it: i64| Some(it.saturating_add(accrued).min(BALANCE_MAX));
            let _ = self.balance.fetch_update(Relaxed, Relaxed, accrue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fifth_of_the_requests_and_three_a_second_may_be_retried() {
        let rules = Retry::default();
        let budget = RetryBudget::new(&rules);
        let mut now = budget.start;
        let take_all = |now| (0..).take_while(|_| budget.withdraw(&rules, now)).count();
        assert_eq!(take_all(now), 30, "the initial balance");
        (0..100).for_each(|_| budget.deposit(&rules));
        assert_eq!((budget.left(&rules, now), take_all(now)), (20, 20));
        now += Duration::from_secs(2);
        assert_eq!(take_all(now), 6);
        (0..10_000).for_each(|_| budget.deposit(&rules));
        now += Duration::from_secs(3600);
        assert_eq!(take_all(now), 100, "the maximum balance");
        assert!(!budget.withdraw(&Retry { budget_min: 0, ..rules }, now + Duration::from_secs(9)));
    }
    #[test]
    fn accrual_does_not_depend_on_the_number_of_calls() {
        // With a minimum of 3 and workers that called every millisecond, each share was rounded to 0.
        for budget_min in [1, 3, 9, 10, 13] {
            for step in [1, 2, 3, 7, 1000] {
                let rules = Retry { budget: 0, budget_min, ..Retry::default() };
                let budget = RetryBudget::new(&rules);
                let take = |now| (0..).take_while(|_| budget.withdraw(&rules, now)).count();
                take(budget.start);
                let taken: usize = (1..=7_000 / step)
                    .map(|it| take(budget.start + Duration::from_millis(it * step)))
                    .sum();
                let passed = 7_000 / step * step;
                let expected = u64::from(budget_min) * passed / 1000;
                assert_eq!(taken as u64, expected, "{budget_min} a second, every {step} ms");
            }
        }
    }

    #[test]
    fn several_workers_share_the_accrued_budget() {
        let rules = Retry { budget: 0, budget_min: 3, ..Retry::default() };
        let budget = RetryBudget::new(&rules);
        while budget.withdraw(&rules, budget.start) {}
        // Each worker calls at its own times, sometimes with a time before the mark.
        let taken: usize = std::thread::scope(|scope| {
            let worker = |offset: u64| {
                let (budget, rules) = (&budget, &rules);
                scope.spawn(move || {
                    let at = |it: u64| budget.start + Duration::from_millis(it * 4 + offset);
                    (0..2500).filter(|it| budget.withdraw(rules, at(*it))).count()
                })
            };
            let workers: Vec<_> = (0..4).map(worker).collect();
            workers.into_iter().map(|it| it.join().expect("no panic")).sum()
        });
        let left = usize::try_from(budget.left(&rules, budget.start)).expect("few");
        assert_eq!(taken + left, 29, "9,999 ms at 3 a second");
    }
}
