//! The thread that writes the audit files, so that no change waits for them. It also makes the reserve again when there
//! is room.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{info, warn};

use super::{
    audit_file::{AuditFiles, CURRENT},
    audit_log::{AuditLog, AuditProgress},
    reserve::{Reserve, is_full},
};

/// Between two tries after a failed one.
const RETRY: Duration = Duration::from_secs(1);

/// What the thread and the store tell each other.
#[derive(Debug, Default)]
pub(super) struct AuditFeed {
    inner: Mutex<FeedState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FeedState {
    /// The newest log, until the thread takes it.
    newest: Option<AuditLog>,
    is_closed: bool,
    progress: AuditProgress,
    failure: Option<AuditFailure>,
}

/// Why lines are missing in the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct AuditFailure {
    pub(super) what: String,
    pub(super) is_full: bool,
}

// === impl AuditFeed ===

impl AuditFeed {
    /// Has the lines of a log written. Returns at once.
    pub(super) fn publish(&self, log: &AuditLog) {
        self.lock().newest = Some(log.clone());
        self.changed.notify_all();
    }

    /// Has the thread write what it can at once, and end.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_all();
    }

    pub(super) fn progress(&self) -> AuditProgress {
        self.lock().progress
    }

    pub(super) fn failure(&self) -> Option<AuditFailure> {
        self.lock().failure.clone()
    }

    /// Writes until the feed is closed.
    pub(super) fn run(&self, mut files: AuditFiles, reserve: &Reserve, place: &str) {
        let mut log = None;
        loop {
            let (newest, is_closed) =
                self.next(log.is_some() || !reserve.is_held() || reserve.is_refused());
            log = newest.or(log);
            if let Some(lines) = &log {
                // A panic costs this try: the files say what was written.
                let tried = AssertUnwindSafe(|| files.write(lines));
                let tried = catch_unwind(tried)
                    .unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")));
                if self.note(tried, place) {
                    log = None;
                }
            }
            if is_closed {
                return;
            }
            // A read-only folder has no room either; the store says so.
            let _ = reserve.take();
        }
    }

    /// Waits for a newer log, or for the end; with `is_behind` only for a while.
    fn next(&self, is_behind: bool) -> (Option<AuditLog>, bool) {
        let mut inner = self.lock();
        let is_idle = |it: &mut FeedState| it.newest.is_none() && !it.is_closed;
        inner = match is_behind {
            true => {
                let waited = self.changed.wait_timeout_while(inner, RETRY, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            false => {
                let waited = self.changed.wait_while(inner, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner)
            }
        };
        (inner.newest.take(), inner.is_closed)
    }

    /// Notes how a try ended. Returns whether it succeeded.
    fn note(&self, tried: io::Result<AuditProgress>, place: &str) -> bool {
        let mut inner = self.lock();
        match tried {
            Ok(progress) => {
                inner.progress = progress;
                if inner.failure.take().is_some() {
                    info!(file = %format!("{place}/{CURRENT}"), "audit lines are written again; none is missing");
                }
                true
            }
            Err(error) => {
                let what = format!("cannot write {place}/{CURRENT}: {error}");
                let failure = AuditFailure { what, is_full: is_full(&error) };
                if inner.failure.as_ref() != Some(&failure) {
                    warn!(
                        error = failure.what,
                        "audit lines wait in the state until the file can be written"
                    );
                }
                inner.failure = Some(failure);
                false
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
