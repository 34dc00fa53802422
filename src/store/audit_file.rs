//! Writes audit lines to `audit.jsonl`, and begins a new file when one is full.
//!
//! What a file holds is read from the file itself: its last line says how far it is. So a process that was killed at
//! any point goes on where the last one was, and writes no line twice.

use std::{collections::HashMap, io, ops::Bound, sync::Arc};

use tracing::warn;

use super::{
    audit_log::{AuditLog, AuditProgress},
    disk::Disk,
};
use crate::audit::{self, AuditSettings, LineHash};

/// The name of the current file. Full files have a number behind it; 1 is the newest.
pub(super) const CURRENT: &str = "audit.jsonl";

/// Writes the audit files of a folder. Blocks.
#[derive(Debug)]
pub(super) struct AuditFiles {
    disk: Arc<dyn Disk>,
    settings: AuditSettings,
    /// How far the current file is; `None` if it must be read first.
    position: Option<FilePosition>,
    /// The length of the current file up to which it is durable, after a failed write.
    durable: Option<u64>,
    /// Files beyond the limit, the oldest first, and the number of the last line in them.
    surplus: Option<(Vec<String>, u64)>,
    /// Whether files beyond the limit may be there.
    has_rotated: bool,
}

#[derive(Clone, Copy, Debug)]
struct FilePosition {
    length: u64,
    /// The number of the last line that is durable.
    written: u64,
}

// === impl AuditFiles ===

impl AuditFiles {
    pub(super) fn new(disk: Arc<dyn Disk>, settings: AuditSettings) -> Self {
        let (position, durable, surplus) = (None, None, None);
        // A process that was killed may have left files beyond the limit.
        Self { disk, settings, position, durable, surplus, has_rotated: true }
    }

    /// Writes the lines that are missing in the files. When this returns, they are durable.
    ///
    /// # Errors
    ///
    /// What the system says. The next call finds out what was written, and completes it.
    pub(super) fn write(&mut self, log: &AuditLog) -> io::Result<AuditProgress> {
        let written = self.append(log).inspect_err(|_| self.position = None)?;
        let removable = self.remove_surplus(log, written)?;
        Ok(AuditProgress { written, removable })
    }

    fn append(&mut self, log: &AuditLog) -> io::Result<u64> {
        let mut position = self.position(log)?;
        let behind = (Bound::Excluded(position.written), Bound::Unbounded);
        let missing: Vec<_> = log.pending.iter().filter(|it| contains(behind, *it.0)).collect();
        let mut batch = String::new();
        for (number, line) in missing {
            let length = position.length + batch.len() as u64;
            if length > 0 && length + line.len() as u64 + 1 > self.settings.file_bytes_max {
                self.flush(&mut position, &mut batch, number.saturating_sub(1))?;
                self.rotate()?;
                position.length = 0;
            }
            batch.push_str(line);
            batch.push('\n');
        }
        self.flush(&mut position, &mut batch, log.count)?;
        self.position = Some(position);
        Ok(position.written)
    }

    /// Writes a batch that ends with line `last`.
    fn flush(
        &mut self,
        position: &mut FilePosition,
        batch: &mut String,
        last: u64,
    ) -> io::Result<()> {
        if !batch.is_empty() {
            self.durable = Some(position.length);
            // Opened anew each time: the file may have been removed or replaced.
            let (mut file, length) = self.disk.open(CURRENT)?;
            if length != position.length {
                return Err(io::Error::other("the file was changed by another program"));
            }
            file.write_at(position.length, batch.as_bytes())?;
            file.sync()?;
            if position.length == 0 {
                self.disk.sync_folder()?;
            }
            self.durable = None;
            position.length += batch.len() as u64;
            batch.clear();
        }
        position.written = position.written.max(last);
        Ok(())
    }

    /// How far the current file is. Removes what stands behind the last line that the state knows: the state has those
    /// lines, and a loss of power can have left them in part.
    fn position(&mut self, log: &AuditLog) -> io::Result<FilePosition> {
        let (mut file, length) = self.disk.open(CURRENT)?;
        if let Some(position) = self.position.filter(|it| it.length == length) {
            return Ok(position);
        }
        let mut bytes = self.disk.read(CURRENT)?;
        // The kernel may have dropped what it could not write, although the file shows it.
        if let Some(durable) = self.durable.and_then(|it| usize::try_from(it).ok()) {
            bytes.truncate(durable);
        }
        let (mut end, mut written) = match known_end(&bytes, log) {
            Some((end, number)) => (end, Some(number)),
            None => (bytes.iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1), None),
        };
        if written.is_none() {
            // If the current file is new, the line is in the one before it.
            let before = self.full_files()?.pop().map(|it| self.disk.read(&it)).transpose()?;
            written = before.and_then(|it| known_end(&it, log)).map(|it| it.1);
            let is_first = written.is_none() && log.before_pending() == 0;
            if is_first && length > 0 {
                self.set_aside()?;
                file = self.disk.open(CURRENT)?.0;
            }
            if is_first || written.is_some() {
                end = 0;
            } else {
                warn!(
                    file = CURRENT,
                    "the audit file does not have the last line that the state knows of: run `flipgate audit verify`"
                );
            }
        }
        let end = end as u64;
        if end < length {
            file.truncate(end)?;
        }
        // What a killed process has written may not be durable yet.
        file.sync()?;
        self.durable = None;
        let written = written.unwrap_or_else(|| log.before_pending());
        let position = FilePosition { length: end, written };
        self.position = Some(position);
        Ok(position)
    }

    /// Renames the files of another state, which was removed: its lines are no part of this log.
    fn set_aside(&mut self) -> io::Result<()> {
        let prefix = jiff::Timestamp::now().strftime("earlier-%Y%m%dT%H%M%S").to_string();
        let mut names = self.full_files()?;
        names.push(CURRENT.to_owned());
        for name in names {
            self.disk.rename(&name, &format!("{prefix}-{name}"))?;
        }
        warn!(names = %format!("{prefix}-{CURRENT}*"), "renamed audit files that do not belong to the state");
        self.disk.sync_folder()
    }

    /// Makes the current file the newest full one.
    fn rotate(&mut self) -> io::Result<()> {
        // The oldest first, so that no name is taken.
        for name in self.full_files()? {
            let number = number_of(&name).unwrap_or_default();
            self.rename(&name, &format!("{CURRENT}.{}", number.saturating_add(1)))?;
        }
        self.rename(CURRENT, &format!("{CURRENT}.1"))?;
        (self.has_rotated, self.surplus) = (true, None);
        Ok(())
    }

    /// Renames a file for good: if a later renaming were durable without this one, it would replace the file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)?;
        self.disk.sync_folder()
    }

    /// Removes full files beyond the limit once the state says that they may be missing. Returns the number of the last
    /// line that may be removed.
    fn remove_surplus(&mut self, log: &AuditLog, written: u64) -> io::Result<u64> {
        if !self.has_rotated {
            return Ok(log.removed);
        }
        let (names, last) = match self.surplus.take() {
            Some(known) => known,
            None => {
                let mut names = self.full_files()?;
                let kept =
                    names.split_off(names.len().saturating_sub(self.settings.full_files_max));
                if names.is_empty() {
                    self.has_rotated = false;
                    return Ok(log.removed);
                }
                let mut behind = 0;
                for name in kept.iter().map(String::as_str).chain([CURRENT]) {
                    let bytes = self.disk.read(name)?;
                    behind += bytes.iter().filter(|it| **it == b'\n').count() as u64;
                }
                (names, written.saturating_sub(behind))
            }
        };
        if log.removed < last {
            self.surplus = Some((names, last));
            return Ok(last);
        }
        for name in names {
            self.disk.remove(&name)?;
        }
        self.has_rotated = false;
        Ok(last)
    }

    fn full_files(&self) -> io::Result<Vec<String>> {
        Ok(full_files(&self.disk.list()?))
    }
}

fn contains(range: (Bound<u64>, Bound<u64>), number: u64) -> bool {
    std::ops::RangeBounds::contains(&range, &number)
}

/// The names of the full files, the oldest first.
pub(super) fn full_files(names: &[String]) -> Vec<String> {
    let mut full: Vec<_> = names.iter().filter_map(|it| Some((number_of(it)?, it))).collect();
    full.sort_by_key(|it| std::cmp::Reverse(it.0));
    full.into_iter().map(|it| it.1.clone()).collect()
}

/// The number of a full file.
fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix(CURRENT)?.strip_prefix('.')?.parse().ok()?;
    (number > 0 && format!("{CURRENT}.{number}") == name).then_some(number)
}

/// The end of the last line of a file that the state knows, in bytes, and the number of the line.
fn known_end(bytes: &[u8], log: &AuditLog) -> Option<(usize, u64)> {
    let known: HashMap<LineHash, u64> =
        log.anchor().ends.into_iter().filter(|it| it.0 > 0).map(|it| (it.1, it.0)).collect();
    let mut end = bytes.iter().rposition(|it| *it == b'\n')?;
    loop {
        let begin = bytes[..end].iter().rposition(|it| *it == b'\n').map_or(0, |it| it + 1);
        let number = audit::links(&bytes[begin..end]).ok().and_then(|it| known.get(&it.hash));
        match number {
            Some(number) => return Some((end + 1, *number)),
            None => end = begin.checked_sub(1)?,
        }
    }
}
