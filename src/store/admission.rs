//! Whether a change may be written, by the space that is left and by how far the audit file is.
//!
//! Rollbacks are exceptions: a full disk must not keep a bad version active.

use std::sync::Arc;

use tracing::warn;

use super::{
    StoreError,
    audit_log::AuditLog,
    audit_thread::AuditFeed,
    reserve::{FreedSpace, Reserve, is_full},
    state::State,
};

/// Decides whether a change may be written.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    feed: Arc<AuditFeed>,
    reserve: Arc<Reserve>,
    /// The folder's path, for messages.
    place: Arc<str>,
}

// === impl Admission ===

impl Admission {
    pub(super) fn new(feed: Arc<AuditFeed>, reserve: Arc<Reserve>, place: &str) -> Self {
        Self { feed, reserve, place: place.into() }
    }

    /// Removes the audit lines that are in a file from `next`, and decides whether it may follow on `before`.
    ///
    /// # Errors
    ///
    /// [`StoreError::Full`] or [`StoreError::AuditBehind`].
    pub(super) fn admit(&self, before: &State, next: &mut State) -> Result<(), StoreError> {
        next.audit.forget_written(self.feed.progress());
        let lines = next.audit.pending.len();
        let behind_max = match is_rollback(before, next) {
            true => 2 * AuditLog::PENDING_MAX,
            false => AuditLog::PENDING_MAX,
        };
        if lines > behind_max {
            let what = self.feed.failure().map(|it| it.what);
            let what = what.unwrap_or_else(|| "the file is slow".to_owned());
            return Err(StoreError::AuditBehind { lines, what });
        }
        if is_rollback(before, next) {
            return Ok(());
        }
        if let Some(failure) = self.feed.failure().filter(|it| it.is_full) {
            return Err(self.full(&failure.what));
        }
        match self.reserve.take() {
            Err(error) if is_full(&error) => {
                Err(self.full(&format!("no room for the reserve: {error}")))
            }
            Err(error) => {
                // The journal decides whether the folder can be written.
                warn!(%error, folder = %self.place, "cannot make the reserve for rollbacks");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Frees the reserve until the result is dropped.
    pub(super) fn give_up_reserve(&self) -> FreedSpace<'_> {
        let freed = self.reserve.give_up();
        if freed.is_removed {
            warn!(folder = %self.place, "the disk is full: the space that is reserved for rollbacks is used");
        }
        freed
    }

    /// Why only rollbacks are accepted, if so.
    pub(super) fn refusal(&self) -> Option<String> {
        let failure = self.feed.failure().filter(|it| it.is_full);
        let full = failure.map(|it| self.full(&it.what).to_string());
        let is_missing = self.reserve.is_refused();
        full.or_else(|| is_missing.then(|| self.full("no room for the reserve").to_string()))
    }

    fn full(&self, what: &str) -> StoreError {
        StoreError::Full { what: what.to_owned(), folder: self.place.to_string() }
    }
}

/// Whether a change is a rollback, by a caller or by Flipgate.
pub(super) fn is_rollback(before: &State, next: &State) -> bool {
    next.promotion.is_rollback && next.promotion != before.promotion
}
