//! Reads the audit files of a folder, without locking the folder, and checks them against the state.

use std::{path::Path, sync::Arc};

use super::{
    StoreError,
    audit_file::{CURRENT, full_files},
    disk::{Disk, Folder},
    report::show,
};
use crate::audit::{AuditFile, AuditLine, Verification, verify};

/// The audit files of a folder, and what a check of them has found.
#[derive(Debug)]
pub struct AuditReport {
    /// The files, the oldest first.
    files: Vec<(String, Vec<u8>)>,
    /// The lines that are only in the state yet.
    waiting: Vec<Arc<str>>,
    /// What the check has found.
    pub verification: Verification,
}

/// How often the files are read: a running process may write and rename them meanwhile.
const ATTEMPTS: usize = 3;

/// Reads and checks the audit files of a folder. A running Flipgate is not disturbed.
///
/// # Errors
///
/// [`StoreError`] if the state or a file cannot be read.
pub fn read_audit(folder: &Path) -> Result<AuditReport, StoreError> {
    let mut report = read_once(folder)?;
    for _ in 1..ATTEMPTS {
        if report.verification.damages.is_empty() {
            break;
        }
        report = read_once(folder)?;
    }
    Ok(report)
}

fn read_once(folder: &Path) -> Result<AuditReport, StoreError> {
    let (place, disk) = (folder.display().to_string(), Folder::at(folder));
    // The files before the state: what is in them then, the state knows of.
    let failed = |source| StoreError::io("read the folder", &place, source);
    let names = disk.list().map_err(failed)?;
    let mut files = Vec::new();
    for name in full_files(&names).into_iter().chain([CURRENT.to_owned()]) {
        if names.contains(&name) {
            let failed = |source| StoreError::io("read", &format!("{place}/{name}"), source);
            let bytes = disk.read(&name).map_err(failed)?;
            files.push((name, bytes));
        }
    }
    let log = show(folder)?.state.unwrap_or_default().audit;
    let views: Vec<_> =
        files.iter().map(|(name, bytes)| AuditFile { name, bytes: &bytes[..] }).collect();
    let verification = verify(&views, &log.anchor());
    let waiting = usize::try_from(verification.waiting).unwrap_or(usize::MAX);
    let behind = log.pending.len().saturating_sub(waiting);
    let waiting = log.pending.values().skip(behind).cloned().collect();
    Ok(AuditReport { files, waiting, verification })
}

// === impl AuditReport ===

impl AuditReport {
    /// The newest lines that can be read and are wanted, the oldest first, with those that are only in the state yet.
    pub fn newest(&self, limit: usize, is_wanted: impl Fn(&AuditLine) -> bool) -> Vec<AuditLine> {
        let waiting = self.waiting.iter().rev().map(|it| it.as_bytes());
        let files = self.files.iter().rev();
        let written = files.flat_map(|(_, bytes)| bytes.split(|it| *it == b'\n').rev());
        let read = waiting.chain(written).filter_map(|it| serde_json::from_slice(it).ok());
        let mut lines: Vec<AuditLine> = read.filter(is_wanted).take(limit).collect();
        lines.reverse();
        lines
    }
}
