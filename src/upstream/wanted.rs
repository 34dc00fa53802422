//! Has other workers give up idle connections to an endpoint that has as many as it may, when a request of this
//! worker waits for one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

/// The workers of a process, to be called by each other.
#[derive(Debug, Default)]
pub struct Workers(Mutex<Vec<Weak<Notify>>>);

/// One of the workers. Leaves them when it is dropped.
#[derive(Debug)]
pub(super) struct Bell {
    workers: Arc<Workers>,
    own: Arc<Notify>,
}

// === impl Workers ===

impl Workers {
    pub(super) fn join(self: &Arc<Self>) -> Bell {
        let own = Arc::new(Notify::new());
        self.all().push(Arc::downgrade(&own));
        Bell { workers: Arc::clone(self), own }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bell ===

impl Bell {
    /// Calls all other workers. Called after it was noted what is wanted, so that whoever hears it sees that.
    pub(super) fn call_others(&self) {
        for other in self.workers.all().iter().filter_map(Weak::upgrade) {
            if !Arc::ptr_eq(&other, &self.own) {
                other.notify_one();
            }
        }
    }

    /// Waits until another worker calls; many calls may be heard as one. Dropping the future loses none.
    pub(super) async fn called(&self) {
        self.own.notified().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let own = Arc::downgrade(&self.own);
        self.workers.all().retain(|it| !it.ptr_eq(&own));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_call_reaches_all_others_and_is_not_lost_by_those_who_do_not_listen() {
        let workers = Arc::new(Workers::default());
        let [one, two, three] = [(); 3].map(|()| workers.join());
        assert!(two.called().now_or_never().is_none(), "dropped while nobody calls");
        one.call_others();
        one.call_others();
        for heard in [&two, &three] {
            assert!(heard.called().now_or_never().is_some());
            assert!(heard.called().now_or_never().is_none(), "heard as one");
        }
        assert!(one.called().now_or_never().is_none(), "it does not call itself");
        drop((two, three));
        assert_eq!(workers.all().len(), 1);
    }
}
