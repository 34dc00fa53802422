//! The pool that serves requests which could not be connected to any endpoint of another one.

use std::sync::{Arc, Mutex, PoisonError};

use super::Pool;

/// The pool that was active before, while it may serve what this one cannot take.
#[derive(Debug, Default)]
pub struct Rescuer(Mutex<Option<Arc<Pool>>>);

// === impl Rescuer ===

impl Rescuer {
    /// Names the pool, or none any more. When this returns, no call of [`Rescuer::claim`] uses the pool of before.
    pub fn set(&self, pool: Option<Arc<Pool>>) {
        let before =
            std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), pool);
        drop(before);
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Takes a claim on the pool by `claim`, if there is one.
    pub fn claim<T>(&self, claim: impl FnOnce(&Arc<Pool>) -> Option<T>) -> Option<T> {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.as_ref().and_then(claim)
    }
}

// === impl Pool ===

impl Pool {
    /// The pool that may serve requests which cannot be connected here.
    #[must_use]
    pub fn rescuer(&self) -> &Rescuer {
        &self.rescuer
    }
}
