//! The part of the state that the audit files are written from: the lines that are not known to be in a file, and
//! where the chain ends.
//!
//! A line is made with the change that it is about, and both are one record of the journal. So neither exists without
//! the other.

use std::sync::Arc;

use crate::{
    audit::{self, AuditAnchor, AuditEntry, LineHash},
    model::VersionedMap,
};

/// The audit lines that wait for a file, and the end of their chain. Cheap to clone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditLog {
    /// How many lines there ever were.
    pub count: u64,
    /// The hash of the last line.
    pub hash: LineHash,
    /// How many of the first lines rotation may have removed.
    pub removed: u64,
    /// Commits that had only lines of refused calls. Callers do not see them as revisions: nothing was changed.
    pub refusal_commits: u64,
    /// The lines that are not known to be in a file, by number: the first line of all is number 1.
    pub pending: VersionedMap<u64, Arc<str>>,
}

/// What the audit files hold, as the thread that writes them knows it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct AuditProgress {
    /// The number of the last line that is durable in a file.
    pub(super) written: u64,
    /// The number of the last line that rotation wants to remove.
    pub(super) removable: u64,
}

// === impl AuditLog ===

impl AuditLog {
    /// The most lines that wait for a file. Beyond it only rollbacks are accepted, for as many lines again.
    pub const PENDING_MAX: usize = 1000;

    /// Adds the line of an entry.
    pub fn append(&mut self, entry: &AuditEntry) {
        let (line, hash) = audit::line(entry, self.hash);
        (self.count, self.hash) = (self.count + 1, hash);
        self.pending.insert(self.count, line.into());
    }

    /// Forgets what is in the files. The next change does it, so that it costs no write of its own.
    pub(super) fn forget_written(&mut self, progress: AuditProgress) {
        let AuditProgress { written, removable } = progress;
        let numbers: Vec<u64> =
            self.pending.keys().copied().take_while(|it| *it <= written).collect();
        for number in numbers {
            self.pending.remove(&number);
        }
        self.removed = self.removed.max(removable.min(self.count));
    }

    /// The number of the last line before those that wait, which must be in a file.
    pub(super) fn before_pending(&self) -> u64 {
        self.pending.keys().next().map_or(self.count, |it| it.saturating_sub(1))
    }

    /// What the files must agree with.
    #[must_use]
    pub fn anchor(&self) -> AuditAnchor {
        let mut ends = vec![(self.count, self.hash)];
        for (number, line) in self.pending.iter() {
            // A line that cannot be read is no end: nothing in a file can match it.
            let Ok(links) = audit::links(line.as_bytes()) else { continue };
            ends.push((number.saturating_sub(1), links.previous));
            ends.push((*number, links.hash));
        }
        ends.dedup();
        AuditAnchor { removed: self.removed, ends }
    }
}
