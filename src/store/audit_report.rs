//! Reads the audit files of a folder, without locking the folder, and checks them against the state.

use std::{path::Path, sync::Arc};

use super::{
    StoreError,
    audit_file::{CURRENT, full_files},
    disk::{Disk, Folder},
    file::is_held,
    report::show,
};
use crate::audit::{AuditDamage, AuditFile, AuditLine, LinePlace, Verification, verify};

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

/// A running process writes a line to the file within this time.
const WRITTEN_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(10);

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
    let mut verification = verify(&views, &log.anchor());
    let waiting = usize::try_from(verification.waiting).unwrap_or(usize::MAX);
    let behind = log.pending.len().saturating_sub(waiting);
    let waiting: Vec<_> = log.pending.values().skip(behind).cloned().collect();
    let is_running = is_held(folder).map_err(failed)?;
    if is_running && waiting.first().is_some_and(|it| is_overdue(it)) {
        let (file, count) = (CURRENT.to_owned(), waiting.len());
        let line = files.last().map_or(0, |(_, it)| it.iter().filter(|it| **it == b'\n').count());
        let what = format!(
            "is missing: {} only in the state, although Flipgate runs. They were cut off, or it cannot \
             write the file (`audit_refused` in `flipgate status --json`)",
            if count == 1 { "1 line is".to_owned() } else { format!("{count} lines are") }
        );
        let place = LinePlace { file, line: line + 1 };
        verification.damages.push(AuditDamage { place, what });
    }
    Ok(AuditReport { files, waiting, verification })
}

/// Whether a running process should have written a line by now.
fn is_overdue(line: &str) -> bool {
    let line: Option<AuditLine> = serde_json::from_str(line).ok();
    let time = line.and_then(|it| it.time.parse::<jiff::Timestamp>().ok());
    time.is_some_and(|it| jiff::Timestamp::now().duration_since(it) > WRITTEN_WITHIN)
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
