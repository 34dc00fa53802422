//! Evaluates expressions, and compares large responses, on threads of their own, with a time limit and a guard against
//! panics.
//!
//! An expression has no cost limit, and a thread cannot be stopped. So a thread that exceeds its time goes on until the
//! expression ends, and few may do so at the same time.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, oneshot};

use super::duration_text::written;

/// The names in the rules of manifests.
pub const MANIFEST_NAMES: [&str; 4] = ["old", "new", "active", "candidate"];

/// The names in expressions about a response.
pub const RESPONSE_NAMES: [&str; 3] = ["body", "status", "headers"];

/// Threads that evaluate at the same time.
const THREADS_MAX: usize = 8;

/// The time for one evaluation.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Runs evaluations. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Evaluator(Arc<Semaphore>);

// === impl Evaluator ===

impl Evaluator {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(THREADS_MAX)))
    }

    /// Runs `work` on a thread. Dropping the future does not stop the thread.
    ///
    /// # Errors
    ///
    /// Why there is no result: it took too long, or it panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let too_long = || format!("the evaluation took longer than {}", written(TIME_MAX));
        let permit = tokio::time::timeout(TIME_MAX, Arc::clone(&self.0).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err("too many evaluations are still running".to_owned());
        };
        let (done, wait) = oneshot::channel();
        let thread = std::thread::Builder::new().name("expression".to_owned());
        let thread = thread.spawn(move || {
            let result = std::panic::catch_unwind(AssertUnwindSafe(work));
            drop(permit);
            // The caller may have given up.
            let _ = done.send(result);
        });
        thread.map_err(|error| format!("cannot start a thread: {error}"))?;
        match tokio::time::timeout(TIME_MAX, wait).await {
            Ok(Ok(Ok(result))) => Ok(result),
            Ok(_) => Err("the evaluation failed with an internal error: see the log".to_owned()),
            Err(_elapsed) => Err(too_long()),
        }
    }
}
