//! The journal at work: appends each change, goes on to the next file when one is full, and finds out what
//! a failed write has come to. Blocks; `file` gives it a thread.

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
    disk::Disk,
    entries::Delta,
    record::{FileId, blocks_of},
    recovery::SNAPSHOT,
    segment::Segment,
    snapshot,
    state::{Revision, State},
};

/// Blocks of a file of the journal where there is little room.
const SMALL: usize = 16;

/// Bytes of one change at most.
const BODY_MAX: usize = 1 << 30;

/// The one that appends to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    files: JournalFiles,
    /// The last state that was acknowledged.
    state: State,
    /// The file that records go to; none if one is still to be made.
    current: Option<Segment>,
    spare: Spare,
    /// The largest number that a file has had.
    last_number: u64,
    /// Why nothing can be changed any more.
    read_only: Option<String>,
    housekeeper: Sender<HousekeepingJob>,
}

/// The file that will be the next one. Made in advance, off the path of an acknowledgement.
#[derive(Debug)]
enum Spare {
    None,
    /// It could not be made. It is tried again when this file is full.
    Failed,
    Coming(Receiver<io::Result<Segment>>),
    Ready(Segment),
}

/// What is done off the path of an acknowledgement.
#[derive(Debug)]
pub(super) enum HousekeepingJob {
    /// Make the next file.
    Prepare { number: u64, id: FileId, done: Sender<io::Result<Segment>> },
    /// Write a snapshot that this file continues, and remove what is older.
    Snapshot { state: State, journal: (u64, FileId) },
}

/// The files of the folder, shared with the housekeeper.
#[derive(Clone, Debug)]
pub(super) struct JournalFiles {
    disk: Arc<dyn Disk>,
    /// The folder's path, for messages.
    place: Arc<str>,
    /// The number of the file that the snapshot in force names. Locked while that is replaced.
    base: Arc<Mutex<u64>>,
    /// Blocks of a file of the journal: as many changes, if each is small.
    blocks: usize,
}

// === impl Journal ===

impl Journal {
    /// Goes on from a state that was recovered. Nothing is written yet.
    pub(super) fn new(
        files: JournalFiles,
        state: State,
        last_number: u64,
        housekeeper: Sender<HousekeepingJob>,
    ) -> Self {
        let (current, spare, read_only) = (None, Spare::None, None);
        Self { files, state, current, spare, last_number, read_only, housekeeper }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Why nothing can be changed any more.
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
        let delta = Delta::between(&self.state, &next);
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
            return Err(self.undo(error));
        }
        // If it is lost, a later damage of this record looks like one that was torn.
        if let Err(error) = current.mark_last() {
            warn!(%error, "a change is durable, but could not be marked as acknowledged");
        }
        self.state = next;
        self.prepare();
        Ok(self.state.revision)
    }

    /// Decides the outcome of a record after its write or sync failed. A failed sync is never tried
    /// again: the kernel may have dropped what it could not write, and would report success (PostgreSQL,
    /// "fsync errors", 2018). Instead the state from before is written to new files, after which the record
    /// can never come back.
    fn undo(&mut self, error: StoreError) -> CommitError {
        (self.current, self.spare) = (None, Spare::None);
        match self.renew() {
            Ok(()) => {
                error!(%error, "a change could not be written and was refused; the state was written to new files");
                CommitError::Refused(error)
            }
            Err(again) => {
                error!(
                    %error, again = %again,
                    "it is not known whether a change was written: no more changes are taken until a restart"
                );
                self.read_only = Some(format!("{error}; then: {again}"));
                CommitError::Unknown(error)
            }
        }
    }

    /// Sees to it that the current file has room for a body.
    fn make_room(&mut self, body: usize) -> Result<(), StoreError> {
        let Some(current) = &self.current else {
            // Nothing is in doubt: both snapshots, the one that is there and the new one, are of this state.
            return self.renew_for(body);
        };
        if current.has_room(body) {
            return Ok(());
        }
        let (number, id) = (current.number + 1, current.next_id);
        let spare = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::Ready(spare) => Some(spare),
            Spare::Coming(coming) => coming.recv().ok().and_then(Result::ok),
            Spare::None | Spare::Failed => None,
        };
        let next = match spare.filter(|it| it.has_room(body)) {
            Some(spare) => spare,
            None => self.files.make(number, id, blocks_of(body))?,
        };
        self.last_number = self.last_number.max(number);
        // If it is lost, a start that does not find the next file takes it for one that was never used.
        if let Some(Err(error)) = self.current.replace(next).map(|mut it| it.mark_followed()) {
            warn!(%error, "a full file of the journal could not be marked");
        }
        let state = self.state.clone();
        self.send(HousekeepingJob::Snapshot { state, journal: (number, id) });
        Ok(())
    }

    /// Has the next file made when this one is half full.
    fn prepare(&mut self) {
        if let Spare::Coming(coming) = &self.spare {
            match coming.try_recv() {
                Ok(Ok(spare)) => self.spare = Spare::Ready(spare),
                Ok(Err(error)) => {
                    let place = &self.files.place;
                    warn!(%error, %place, "the next file of the journal cannot be made: is the disk full?");
                    self.spare = Spare::Failed;
                }
                Err(_) => {}
            }
        }
        let Some(current) = &self.current else { return };
        if matches!(self.spare, Spare::None) && current.is_half_full() {
            let (number, id) = (current.number + 1, current.next_id);
            // The number is taken from now on, also if the file cannot be made.
            self.last_number = self.last_number.max(number);
            let (done, coming) = std::sync::mpsc::channel();
            self.spare = Spare::Coming(coming);
            self.send(HousekeepingJob::Prepare { number, id, done });
        }
    }

    /// Writes the state to new files, which are in force from then on.
    fn renew(&mut self) -> Result<(), StoreError> {
        self.renew_for(0)
    }

    fn renew_for(&mut self, body: usize) -> Result<(), StoreError> {
        let (number, id) = (self.last_number + 1, FileId::random());
        let segment = self.files.make(number, id, blocks_of(body))?;
        self.last_number = number;
        self.files.write_next(&self.state, (number, id)).inspect_err(|_| {
            // Nothing names the file yet: it would only take up room.
            let _ = self.files.disk.remove(&Segment::name(number));
        })?;
        self.files.put_in_force(number)?;
        self.current = Some(segment);
        Ok(())
    }

    /// Prepares for changes: from here on, what was recovered is in new files and durable.
    ///
    /// # Errors
    ///
    /// Why it cannot. The state stays what it is; each change tries again.
    pub(super) fn begin(&mut self) -> Result<(), StoreError> {
        self.renew()
    }

    /// Writes a last snapshot, so that the file can be read by itself. `keeper` is the thread that
    /// [`JournalFiles::keep`] runs on.
    pub(super) fn finish(self, keeper: JoinHandle<()>) {
        let Self { files, state, current, read_only, housekeeper, .. } = self;
        // Only one at a time writes a snapshot of the same number.
        drop(housekeeper);
        let _ = keeper.join();
        let (Some(Segment { number, id, .. }), None) = (current, read_only) else { return };
        if let Err(error) = files.replace(&state, (number, id)) {
            info!(%error, "the last snapshot could not be written; nothing is lost");
        }
    }

    fn send(&self, job: HousekeepingJob) {
        if self.housekeeper.send(job).is_err() {
            error!("the thread that writes snapshots has ended: the journal will grow");
        }
    }
}

// === impl JournalFiles ===

impl JournalFiles {
    /// Blocks of a file of the journal that are enough for a day of changes and made in a moment.
    pub(super) const BLOCKS: usize = 512;

    pub(super) fn new(disk: Arc<dyn Disk>, place: &str, blocks: usize) -> Self {
        Self { disk, place: place.into(), base: Arc::default(), blocks }
    }

    /// Does what is to be done off the path of an acknowledgement, until there is no more of it.
    pub(super) fn keep(&self, jobs: &Receiver<HousekeepingJob>) {
        while let Ok(job) = jobs.recv() {
            // The writer makes a missing file itself, and a missing snapshot costs room in the journal.
            // No state is half changed by that: the files say what is in force.
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(job)));
            if worked.is_err() {
                error!(
                    "a snapshot of the state was cut short by a panic: the journal is kept instead"
                );
            }
        }
    }

    pub(super) fn work(&self, job: HousekeepingJob) {
        match job {
            HousekeepingJob::Prepare { number, id, done } => {
                let made = self.create(number, id, 1);
                // The writer may have made another one meanwhile.
                let _ = done.send(made);
            }
            HousekeepingJob::Snapshot { state, journal } => {
                if let Err(error) = self.replace(&state, journal) {
                    warn!(%error, "a snapshot of the state could not be written: the journal is kept instead");
                }
            }
        }
    }

    /// Writes a snapshot and puts it in force, unless a newer one is; then removes what is older.
    fn replace(&self, state: &State, journal: (u64, FileId)) -> Result<(), StoreError> {
        self.write_next(state, journal)?;
        self.put_in_force(journal.0)
    }

    /// Writes a snapshot beside the one in force.
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

    /// Puts the snapshot that was written for file `number` in force, unless a newer one is; then removes what
    /// is older.
    fn put_in_force(&self, number: u64) -> Result<(), StoreError> {
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

    /// Removes files that nothing needs. A file that cannot be removed does no harm.
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

    /// Makes a file of the journal with room for this many blocks at least.
    fn make(&self, number: u64, id: FileId, needed: usize) -> Result<Segment, StoreError> {
        let made = self.create(number, id, needed);
        made.map_err(|error| self.failed("make", &Segment::name(number), error))
    }

    /// A disk that is nearly full still takes a small one.
    fn create(&self, number: u64, id: FileId, needed: usize) -> io::Result<Segment> {
        match Segment::create(&*self.disk, number, id, self.blocks.max(needed)) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                Segment::create(&*self.disk, number, id, SMALL.max(needed))
            }
            made => made,
        }
    }

    fn failed(&self, doing: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError::io(doing, &format!("{}/{name}", self.place), source)
    }
}

/// What the snapshot for file `number` is called until it is in force.
fn next_name(number: u64) -> String {
    format!("{SNAPSHOT}.next-{number}")
}
