//! Counts tasks that die.

use prometheus::IntCounterVec;

use super::Metrics;

/// Counts the task that owns it if that panics.
// Not `Clone`: one panic would be counted twice.
#[derive(Debug)]
pub struct TaskGuard {
    deaths: IntCounterVec,
    task: &'static str,
}

// === impl Metrics ===

impl Metrics {
    /// Counts a dead task. `task` is a word of a fixed list.
    pub fn task_died(&self, task: &'static str) {
        self.task_deaths.with_label_values(&[task]).inc();
    }

    /// Counts a task if it panics while it owns the guard.
    #[must_use]
    pub fn guard_task(&self, task: &'static str) -> TaskGuard {
        TaskGuard { deaths: self.task_deaths.clone(), task }
    }
}

// === impl TaskGuard ===

impl Drop for TaskGuard {
    fn drop(&mut self) {
        // Unwinding drops the values of the task.
        if std::thread::panicking() {
            self.deaths.with_label_values(&[self.task]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use prometheus::Registry;

    use super::*;

    #[test]
    fn only_a_task_that_panics_is_counted() {
        let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
        let count = |task| metrics.task_deaths.with_label_values(&[task]).get();
        drop(metrics.guard_task("drain"));
        assert_eq!(count("drain"), 0);
        let guard = metrics.guard_task("drain");
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let _guard = guard;
            panic!("planted");
        }));
        assert!(panicked.is_err());
        assert_eq!((count("drain"), count("check")), (1, 0));
    }
}
