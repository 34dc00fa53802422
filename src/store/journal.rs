//! Writes the journal: appends each change, continues in the next file when one is full, and decides the
//! outcome of a failed write. Blocks; `file` gives it a thread.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender},
    },
    thread::JoinHandle,
};

use tracing::{error, info, warn};

use super::{
    CommitError, StoreError,
    admission::{Admission, is_rollback},
    audit_log::AuditProgress,
    disk::Disk,
    entries::Delta,
    record::{FileId, blocks_of},
    recovery::SNAPSHOT,
    reserve::is_full,
    segment::Segment,
    snapshot,
    state::{Revision, State},
};

/// Blocks of a journal file on a disk that is nearly full.
const SMALL: usize = 16;

/// Bytes of one change at most.
const BODY_MAX: usize = 1 << 30;

/// Appends to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    files: JournalFiles,
    /// The last state that was acknowledged.
    state: State,
    /// The file that gets the records; `None` before it is made.
    current: Option<Segment>,
    next_segment: NextSegment,
    /// The largest number that a file has had.
    last_number: u64,
    /// Why the state is read-only.
    read_only: Option<String>,
    housekeeper: Sender<HousekeepingJob>,
    /// Whether there is space for a change; `None` if only the journal decides.
    admission: Option<Admission>,
}

/// The file that will be the next one. Made in advance, off the path of an acknowledgement.
#[derive(Debug)]
enum NextSegment {
    None,
    /// It could not be made. The writer tries again when the current file is full.
    Failed,
    Requested(Receiver<io::Result<Segment>>),
    Ready(Segment),
}

/// Work of the housekeeping thread: no acknowledgement waits for it.
#[derive(Debug)]
pub(super) enum HousekeepingJob {
    /// Make the next file.
    Prepare { number: u64, id: FileId, done: Sender<io::Result<Segment>> },
    /// Write a snapshot that this file continues, and remove what is older.
    Snapshot { state: Box<State>, journal: (u64, FileId) },
}

/// The files of the folder, shared with the housekeeper.
#[derive(Clone, Debug)]
pub(super) struct JournalFiles {
    disk: Arc<dyn Disk>,
    /// The folder's path, for messages.
    place: Arc<str>,
    /// The number of the journal file in the current snapshot. Locked while the snapshot is replaced.
    base: Arc<Mutex<u64>>,
    /// Blocks of a file of the journal: as many changes, if each is small.
    blocks: usize,
}

// === impl Journal ===

impl Journal {
    /// Continues from a recovered state. Writes nothing yet.
    pub(super) fn new(
        files: JournalFiles,
        state: State,
        last_number: u64,
        housekeeper: Sender<HousekeepingJob>,
    ) -> Self {
        let (current, next_segment, read_only) = (None, NextSegment::None, None);
        let admission = None;
        Self { files, state, current, next_segment, last_number, read_only, housekeeper, admission }
    }

    /// The same with a reserve and an audit file.
    pub(super) fn admitting_by(self, admission: Admission) -> Self {
        Self { admission: Some(admission), ..self }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Why the state is read-only.
    pub(super) fn read_only(&self) -> Option<&str> {
        self.read_only.as_deref()
    }

    /// Makes `next` the state, if `expected` is still the revision of the last one.
    ///
    /// # Errors
    ///
    /// [`CommitError`]. Only after [`CommitError::Unknown`] may a restart find `next`.
    pub(super) fn commit(
        &mut self,
        expected: Revision,
        mut next: State,
    ) -> Result<Revision, CommitError> {
        if let Some(why) = &self.read_only {
            return Err(CommitError::ReadOnly(why.clone()));
        }
        if expected != self.state.revision {
            return Err(CommitError::Conflict { current: self.state.revision });
        }
        next.revision = expected.next();
        if let Some(admission) = &self.admission {
            admission.admit(&self.state, &mut next).map_err(CommitError::Refused)?;
        }
        match (self.write(&next), self.admission.clone()) {
            (Err(CommitError::Refused(error)), Some(admission))
                if error.is_full() && is_rollback(&self.state, &next) =>
            {
                // Nothing of the first try can come back: it was not written, or the state is in new files.
                let _space = admission.give_up_reserve();
                self.write(&next)?;
            }
            (written, _) => written?,
        }
        self.state = next;
        self.prepare();
        Ok(self.state.revision)
    }

    /// Writes the record of the next state, and makes it durable.
    fn write(&mut self, next: &State) -> Result<(), CommitError> {
        let delta = Delta::between(&self.state, next);
        let body = serde_json::to_vec(&delta).expect("maps with text keys and plain values only");
        if body.len() > BODY_MAX {
            return Err(CommitError::Refused(StoreError::TooLarge(body.len())));
        }
        self.make_room(body.len()).map_err(CommitError::Refused)?;
        let Some(current) = &mut self.current else {
            return Err(CommitError::Refused(StoreError::TooLarge(body.len())));
        };
        let number = current.number;
        if let Err(error) = current.append(next.revision.0, &body) {
            let error = self.files.failed("write", &Segment::name(number), error);
            return Err(self.recover_from_failed_write(error));
        }
        // Without the mark, later damage of this record looks like an incomplete record.
        if let Err(error) = current.mark_last() {
            warn!(%error, "cannot mark a change as acknowledged; the change is durable");
        }
        Ok(())
    }

    /// Decides the outcome of a record after its write or sync failed. A failed sync is never tried
    /// again: the kernel may have dropped what it could not write, and would report success (PostgreSQL,
    /// "fsync errors", 2018). Instead the state from before is written to new files, after which the record
    /// can never come back.
    fn recover_from_failed_write(&mut self, error: StoreError) -> CommitError {
        (self.current, self.next_segment) = (None, NextSegment::None);
        let renewed = match (self.renew(), self.admission.clone()) {
            // Without new files no change is possible until a restart, not even a rollback.
            (Err(again), Some(admission)) if again.is_full() => {
                let _space = admission.give_up_reserve();
                self.renew()
            }
            (renewed, _) => renewed,
        };
        match renewed {
            Ok(()) => {
                error!(%error, "cannot write a change, so it was refused; the state was written to new files");
                CommitError::Refused(error)
            }
            Err(again) => {
                error!(
                    %error, again = %again,
                    "unknown whether a change was written: the state is read-only until a restart"
                );
                self.read_only = Some(format!("{error}; then: {again}"));
                CommitError::Unknown(error)
            }
        }
    }

    /// Makes sure that the current file has room for a body.
    fn make_room(&mut self, body: usize) -> Result<(), StoreError> {
        let Some(current) = &self.current else {
            // No outcome is unknown here: the current and the new snapshot have the same state.
            return self.renew_for(body);
        };
        if current.has_room(body) {
            return Ok(());
        }
        let (number, id) = (current.number + 1, current.next_id);
        let spare = match std::mem::replace(&mut self.next_segment, NextSegment::None) {
            NextSegment::Ready(spare) => Some(spare),
            NextSegment::Requested(coming) => coming.recv().ok().and_then(Result::ok),
            NextSegment::None | NextSegment::Failed => None,
        };
        let next = match spare.filter(|it| it.has_room(body)) {
            Some(spare) => spare,
            None => self.files.make(number, id, blocks_of(body))?,
        };
        self.last_number = self.last_number.max(number);
        // Without the note, a start that does not find the next file assumes that it was never used.
        if let Some(Err(error)) = self.current.replace(next).map(|mut it| it.mark_followed()) {
            warn!(%error, "cannot mark a full journal file as continued");
        }
        let state = Box::new(self.state.clone());
        self.send(HousekeepingJob::Snapshot { state, journal: (number, id) });
        Ok(())
    }

    /// Requests the next file when the current one is half full.
    fn prepare(&mut self) {
        if let NextSegment::Requested(coming) = &self.next_segment {
            match coming.try_recv() {
                Ok(Ok(spare)) => self.next_segment = NextSegment::Ready(spare),
                Ok(Err(error)) => {
                    let place = &self.files.place;
                    warn!(%error, %place, "cannot make the next journal file; check the free disk space");
                    self.next_segment = NextSegment::Failed;
                }
                Err(_) => {}
            }
        }
        let Some(current) = &self.current else { return };
        if matches!(self.next_segment, NextSegment::None) && current.is_half_full() {
            let (number, id) = (current.number + 1, current.next_id);
            // The number is not used again, even if the file cannot be made.
            self.last_number = self.last_number.max(number);
            let (done, coming) = std::sync::mpsc::channel();
            self.next_segment = NextSegment::Requested(coming);
            self.send(HousekeepingJob::Prepare { number, id, done });
        }
    }

    /// Writes the state to a new snapshot and a new journal file, and uses them from then on.
    fn renew(&mut self) -> Result<(), StoreError> {
        self.renew_for(0)
    }

    fn renew_for(&mut self, body: usize) -> Result<(), StoreError> {
        let (number, id) = (self.last_number + 1, FileId::random());
        let segment = self.files.make(number, id, blocks_of(body))?;
        self.last_number = number;
        self.files.write_next(&self.state, (number, id)).inspect_err(|_| {
            // No snapshot refers to the file yet: remove it, to free the space.
            let _ = self.files.disk.remove(&Segment::name(number));
        })?;
        self.files.make_current(number)?;
        self.current = Some(segment);
        Ok(())
    }

    /// Prepares for changes: writes the recovered state to new files and makes it durable.
    ///
    /// # Errors
    ///
    /// Why the files cannot be written. The state stays as it is; each change tries again.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.renew()
    }

    /// Writes a last snapshot, so that `state.jsonl` has the whole state. `housekeeping` is the thread of
    /// [`JournalFiles::keep`].
    pub(super) fn finish(self, housekeeping: JoinHandle<()>) {
        let Self { files, state, current, read_only, housekeeper, .. } = self;
        // The housekeeping thread must not write a snapshot of the same number at the same time.
        drop(housekeeper);
        let _ = housekeeping.join();
        let (Some(Segment { number, id, .. }), None) = (current, read_only) else { return };
        if let Err(error) = files.replace(&state, (number, id)) {
            info!(%error, "cannot write the last snapshot; the journal still has all changes");
        }
    }

    /// Leaves out of the last snapshot what the audit files have.
    pub(super) fn forget_written(&mut self, progress: AuditProgress) {
        self.state.audit.forget_written(progress);
    }

    fn send(&self, job: HousekeepingJob) {
        if self.housekeeper.send(job).is_err() {
            error!("the snapshot thread has ended; the journal grows until a restart");
        }
    }
}

// === impl JournalFiles ===

impl JournalFiles {
    /// Blocks of a journal file: enough for a day of changes, and quick to make.
    pub(super) const BLOCKS: usize = 512;

    pub(super) fn new(disk: Arc<dyn Disk>, place: &str, blocks: usize) -> Self {
        Self { disk, place: place.into(), base: Arc::default(), blocks }
    }

    /// Runs the housekeeping jobs until the channel closes.
    pub(super) fn keep(&self, jobs: &Receiver<HousekeepingJob>) {
        while let Ok(job) = jobs.recv() {
            // The writer makes a missing file itself; without the snapshot the journal grows.
            // A panic cannot leave the state half changed: the files decide which snapshot is current.
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(job)));
            if worked.is_err() {
                error!("the snapshot thread panicked; the journal is kept instead");
            }
        }
    }

    pub(super) fn work(&self, job: HousekeepingJob) {
        match job {
            HousekeepingJob::Prepare { number, id, done } => {
                let made = self.create(number, id, 1);
                // The writer may have made another file meanwhile.
                let _ = done.send(made);
            }
            HousekeepingJob::Snapshot { state, journal } => {
                if let Err(error) = self.replace(&state, journal) {
                    warn!(%error, "cannot write a snapshot of the state; the journal is kept instead");
                }
            }
        }
    }

    /// Writes a snapshot and makes it the current one, unless a newer one is; then removes older files.
    fn replace(&self, state: &State, journal: (u64, FileId)) -> Result<(), StoreError> {
        self.write_next(state, journal)?;
        self.make_current(journal.0)
    }

    /// Writes a snapshot beside the current one.
    fn write_next(&self, state: &State, journal: (u64, FileId)) -> Result<(), StoreError> {
        let name = next_name(journal.0);
        let write = || {
            let mut file = self.disk.create(&name)?;
            file.write_at(0, snapshot::write(state, journal).as_bytes())?;
            file.sync()
        };
        write().map_err(|error| {
            let _ = self.disk.remove(&name);
            self.failed("write", &name, error)
        })
    }

    /// Makes the snapshot for file `number` the current one, unless a newer one is; then removes older
    /// files.
    fn make_current(&self, number: u64) -> Result<(), StoreError> {
        let name = next_name(number);
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if *base > number {
            let _ = self.disk.remove(&name);
            return Ok(());
        }
        let renamed = self.disk.rename(&name, SNAPSHOT);
        renamed.map_err(|error| {
            let _ = self.disk.remove(&name);
            self.failed("replace", SNAPSHOT, error)
        })?;
        let synced = self.disk.sync_folder();
        synced.map_err(|error| self.failed("sync the folder of", SNAPSHOT, error))?;
        *base = number;
        drop(base);
        self.remove_older_than(number);
        Ok(())
    }

    /// Removes files that are not needed. A file that cannot be removed is ignored at the next start.
    fn remove_older_than(&self, number: u64) {
        for name in self.disk.list().unwrap_or_default() {
            let is_old_journal = Segment::number_of(&name).is_some_and(|it| it < number);
            let next = name.strip_prefix(SNAPSHOT).and_then(|it| it.strip_prefix(".next"));
            let is_half = next.is_some_and(|it| {
                it.strip_prefix('-')
                    .and_then(|it| it.parse().ok())
                    .is_none_or(|it: u64| it < number)
            });
            if is_old_journal || is_half {
                let _ = self.disk.remove(&name);
            }
        }
    }

    /// Makes a journal file with room for at least this many blocks.
    fn make(&self, number: u64, id: FileId, needed: usize) -> Result<Segment, StoreError> {
        let made = self.create(number, id, needed);
        made.map_err(|error| self.failed("make", &Segment::name(number), error))
    }

    /// Tries a small file if the disk has no room for a large one.
    fn create(&self, number: u64, id: FileId, needed: usize) -> io::Result<Segment> {
        match Segment::create(&*self.disk, number, id, self.blocks.max(needed)) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                Segment::create(&*self.disk, number, id, SMALL.max(needed))
            }
            made => made,
        }
    }

    fn failed(&self, doing: &'static str, name: &str, source: io::Error) -> StoreError {
        let is_full = is_full(&source);
        let error = StoreError::io(doing, &format!("{}/{name}", self.place), source);
        match is_full {
            true => StoreError::Full { what: error.to_string(), folder: self.place.to_string() },
            false => error,
        }
    }
}

/// The name of the snapshot for file `number` until it is the current one.
fn next_name(number: u64) -> String {
    format!("{SNAPSHOT}.next-{number}")
}
