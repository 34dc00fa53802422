//! Space that is kept for rollbacks: a file that is removed when the disk is full and a rollback must be written, and
//! made again when there is room.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::disk::Disk;

/// The name of the file.
pub(super) const RESERVE: &str = "reserve";

/// Enough for a small journal file, for audit lines, and for a snapshot of few services.
pub(super) const RESERVE_BYTES: usize = 1 << 20;

/// Bytes that are written at once.
const CHUNK: usize = 64 << 10;

/// The reserve of a folder.
#[derive(Debug)]
pub(super) struct Reserve {
    disk: Arc<dyn Disk>,
    bytes: usize,
    /// Locked while the file is made or removed.
    state: Mutex<ReserveState>,
}

#[derive(Debug, Default)]
struct ReserveState {
    /// Whether the file is there.
    is_held: bool,
    /// Whether there was no room for it at the last try.
    is_refused: bool,
}

/// Space that another try to make the reserve does not take.
#[derive(Debug)]
pub(super) struct FreedSpace<'a> {
    /// Whether a reserve was removed. If not, a try to make it may have taken the space a moment ago.
    pub(super) is_removed: bool,
    _locked: MutexGuard<'a, ReserveState>,
}

// === impl Reserve ===

impl Reserve {
    /// A reserve of so many bytes, which is not taken yet.
    pub(super) fn new(disk: Arc<dyn Disk>, bytes: usize) -> Self {
        Self { disk, bytes, state: Mutex::default() }
    }

    /// Makes the file if it is not there, and makes it larger if it is too small. Blocks for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// What the system says. Then a file of an earlier process with at least [`RESERVE_BYTES`] is kept as it was, and any
    /// other is removed, so that its space is free.
    pub(super) fn take(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.is_held && !state.is_refused {
            return Ok(());
        }
        let mut before = 0;
        let mut fill = || {
            let (mut file, length) = self.disk.open(RESERVE)?;
            before = length;
            let zeros = vec![0; CHUNK];
            // Written, not only made longer: a hole in a file takes no space.
            let mut begin = usize::try_from(length).unwrap_or(usize::MAX).min(self.bytes);
            while begin < self.bytes {
                let count = CHUNK.min(self.bytes - begin);
                file.write_at(begin as u64, &zeros[..count])?;
                begin += count;
            }
            file.sync()
        };
        let filled = fill();
        // The state has grown since, and the disk is full: the smaller reserve is what a rollback needs now.
        let is_kept = filled.is_err() && before >= RESERVE_BYTES as u64 && self.cut(before).is_ok();
        if filled.is_err() && !is_kept {
            let _ = self.disk.remove(RESERVE);
        }
        state.is_held = filled.is_ok() || is_kept;
        state.is_refused = filled.as_ref().is_err_and(is_full);
        filled
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        let (mut file, now) = self.disk.open(RESERVE)?;
        if length < now { file.truncate(length) } else { Ok(()) }
    }

    /// Frees the space. The reserve is not made again before the result is dropped.
    pub(super) fn give_up(&self) -> FreedSpace<'_> {
        let mut state = self.lock();
        let had_any = std::mem::replace(&mut state.is_held, false);
        let is_removed = had_any && self.disk.remove(RESERVE).is_ok();
        FreedSpace { is_removed, _locked: state }
    }

    /// Whether the space is there.
    pub(super) fn is_held(&self) -> bool {
        self.lock().is_held
    }

    /// Whether there was no room for it at the last try.
    pub(super) fn is_refused(&self) -> bool {
        self.lock().is_refused
    }

    fn lock(&self) -> MutexGuard<'_, ReserveState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an error says that the disk, or the share of it that this user may have, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
