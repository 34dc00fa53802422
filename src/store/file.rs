//! A state folder that one process holds, with the thread that writes to it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::{
    CommitError, CommitFuture, Store, StoreError, StoreHealth,
    admission::Admission,
    audit_file::AuditFiles,
    audit_thread::AuditFeed,
    disk::{Disk, Folder},
    journal::{Journal, JournalFiles},
    record::FileId,
    recovery::{Recovered, SNAPSHOT, recover},
    reserve::{RESERVE_BYTES, Reserve},
    snapshot,
    state::{Revision, State},
};
use crate::audit::AuditSettings;

/// A state folder that only this process changes. Other processes may read it.
// Not `Clone`: it ends with its thread, which releases the folder.
#[derive(Debug)]
pub struct FileStore {
    place: String,
    requests: Option<mpsc::Sender<CommitRequest>>,
    state: watch::Receiver<State>,
    condition: Arc<Mutex<Writing>>,
    admission: Admission,
    feed: Arc<AuditFeed>,
    thread: Option<JoinHandle<()>>,
}

/// A change that a caller waits for.
struct CommitRequest {
    expected: Revision,
    next: State,
    answer: oneshot::Sender<Result<Revision, CommitError>>,
}

#[derive(Debug, Default)]
struct Writing {
    read_only: Option<String>,
    refused: Option<String>,
    since: Option<Instant>,
}

/// How many changes may wait for an earlier change.
const QUEUE: usize = 64;

/// How long `open` waits for another process to release the folder: it may be about to end, or a child that
/// it has just started may still have the lock.
const ENDING: Duration = Duration::from_secs(1);

// === impl FileStore ===

impl FileStore {
    /// Takes the folder, making it if it is not there, reads what it holds, and starts the thread that
    /// writes to it. The state is empty, at revision 0, if nothing was ever written. If the disk takes
    /// nothing, changes are refused and tried again one by one; what is there is served.
    ///
    /// Blocks for as long as the disk takes.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed then, except that the folder may have been made. That another
    /// process holds it is known after a second.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, AuditSettings::default())
    }

    /// The same with other sizes of the audit files.
    ///
    /// # Errors
    ///
    /// As [`FileStore::open`].
    pub fn open_with(folder: &Path, audit: AuditSettings) -> Result<Self, StoreError> {
        let place = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let place = place.display().to_string();
        fs::create_dir_all(folder)
            .map_err(|error| StoreError::io("make the folder", &place, error))?;
        let lock = FolderLock::take(folder, &place)?;
        Self::start(Arc::new(Folder::at(folder)), &place, lock, audit)
    }

    pub(super) fn start(
        disk: Arc<dyn Disk>,
        place: &str,
        lock: impl Send + 'static,
        audit: AuditSettings,
    ) -> Result<Self, StoreError> {
        let Recovered { state, last_number, torn, is_old, .. } = recover(&*disk, place)?;
        if let Some((file, offset)) = torn {
            warn!(
                file = %format!("{place}/{file}"), offset,
                "removed an incomplete record at the end of the journal: the change was never acknowledged"
            );
        }
        let state = state.unwrap_or_default();
        keep_copies(&*disk, place, &state, is_old);
        // The snapshot is written once more when the journal cannot be.
        let snapshot_bytes = snapshot::write(&state, (0, FileId(0))).len();
        let reserve = Arc::new(Reserve::new(Arc::clone(&disk), RESERVE_BYTES + 2 * snapshot_bytes));
        let feed = Arc::<AuditFeed>::default();
        let admission = Admission::new(Arc::clone(&feed), Arc::clone(&reserve), place);
        let audit_files = AuditFiles::new(Arc::clone(&disk), audit);
        let files = JournalFiles::new(disk, place, JournalFiles::BLOCKS);
        let (jobs, to_do) = std::sync::mpsc::channel();
        let housekeeping_files = files.clone();
        let housekeeping = spawn("snapshots", place, move || housekeeping_files.keep(&to_do))?;
        let mut journal =
            Journal::new(files, state.clone(), last_number, jobs).admitting_by(admission.clone());
        let begun = journal.begin();
        if let Err(error) = &begun {
            warn!(%error, "cannot write the state: changes are refused until a write succeeds");
        }
        if let Err(error) = reserve.take() {
            warn!(%error, folder = place, "cannot make the reserve for rollbacks");
        }
        feed.publish(&state.audit);
        let (writing, audit_place) = (Arc::clone(&feed), place.to_owned());
        let audit = spawn("audit", place, move || {
            writing.run(audit_files, &reserve, &audit_place);
        })?;
        let (published, state) = watch::channel(state);
        let (requests, asked) = mpsc::channel(QUEUE);
        let refused = begun.err().map(|it| it.to_string());
        let condition = Arc::new(Mutex::new(Writing { refused, ..Writing::default() }));
        let (shown, told) = (Arc::clone(&condition), Arc::clone(&feed));
        let thread = spawn("state", place, move || {
            let _lock = lock;
            write(journal, asked, &published, &shown, (&told, audit), housekeeping);
        })?;
        let (requests, thread) = (Some(requests), Some(thread));
        let place = place.to_owned();
        Ok(Self { place, requests, state, condition, admission, feed, thread })
    }

    /// Takes no more changes, waits for those under way, writes a last snapshot and releases the folder.
    /// Dropping the store does the same. Blocks for as long as the disk takes.
    pub fn close(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the end of the watch.
            let _ = thread.join();
        }
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.end();
    }
}

impl Store for FileStore {
    fn commit(&self, expected: Revision, next: State) -> CommitFuture {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.clone();
        Box::pin(async move {
            let requests = requests.ok_or(CommitError::Stopping)?;
            let request = CommitRequest { expected, next, answer };
            requests.send(request).await.map_err(|_| CommitError::Stopping)?;
            drop(requests);
            // If the thread has ended, it may have written the change or not.
            answered.await.unwrap_or(Err(CommitError::Unknown(StoreError::Ended)))
        })
    }

    fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    fn condition(&self) -> StoreHealth {
        let writing = self.condition.lock().unwrap_or_else(PoisonError::into_inner);
        let Writing { read_only, refused, since } = &*writing;
        let (read_only, refused) = (read_only.clone(), refused.clone());
        let refused = refused.or_else(|| self.admission.refusal());
        let audit = self.feed.failure().map(|it| it.what);
        StoreHealth { read_only, refused, audit, waiting: since.map(|it| it.elapsed()) }
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}

/// Runs the writer thread.
fn write(
    mut journal: Journal,
    mut asked: mpsc::Receiver<CommitRequest>,
    published: &watch::Sender<State>,
    shown: &Mutex<Writing>,
    (feed, audit): (&AuditFeed, JoinHandle<()>),
    housekeeping: JoinHandle<()>,
) {
    let show = |since| shown.lock().unwrap_or_else(PoisonError::into_inner).since = since;
    while let Some(CommitRequest { expected, next, answer }) = asked.blocking_recv() {
        show(Some(Instant::now()));
        let done = journal.commit(expected, next);
        show(None);
        {
            let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
            match &done {
                Ok(_) => shown.refused = None,
                Err(CommitError::Refused(error)) => shown.refused = Some(error.to_string()),
                Err(_) => {}
            }
            if let Some(why) = journal.read_only() {
                shown.read_only.get_or_insert_with(|| why.to_owned());
            }
        }
        if done.is_ok() {
            feed.publish(&journal.state().audit);
            published.send_replace(journal.state().clone());
        }
        // The caller may no longer wait; the change stays written.
        let _ = answer.send(done);
    }
    feed.close();
    // Its panics are caught.
    let _ = audit.join();
    journal.forget_written(feed.progress());
    journal.finish(housekeeping);
    debug!("state closed");
}

fn spawn(
    name: &str,
    place: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| StoreError::io("start a thread for", place, error))
}

/// Copies what the new files will not have: lines that cannot be read, and the file of an older version.
fn keep_copies(disk: &dyn Disk, place: &str, state: &State, is_old: bool) {
    let mut copies = Vec::new();
    if is_old {
        copies.push(format!("{SNAPSHOT}.format-1"));
    }
    if !state.damaged.is_empty() {
        copies.push(format!("{SNAPSHOT}.damaged"));
    }
    let names = disk.list().unwrap_or_default();
    for copy in copies {
        // The first copy has the damaged lines as they were; the file is rewritten after it.
        if !is_old && names.contains(&copy) {
            continue;
        }
        let keep = || {
            let bytes = disk.read(SNAPSHOT)?;
            let mut file = disk.create(&copy)?;
            file.write_at(0, &bytes)?;
            file.sync()
        };
        let copy = format!("{place}/{copy}");
        match keep() {
            Ok(()) if is_old => warn!(
                copy,
                "the state was written by version 0.1.0 and is converted to format 2; to go back to that version, \
                 stop, put the copy back as state.jsonl, and repeat the promotions made since"
            ),
            Ok(()) => {}
            Err(error) => warn!(%error, copy, "cannot keep a copy of the state file"),
        }
    }
}

/// Holds a folder. The lock is on the folder itself, so that it stays when files in it are removed;
/// the file `lock` is locked too, for version 0.1.0.
struct FolderLock {
    _folder: File,
    _file: File,
}

impl FolderLock {
    fn take(path: &Path, place: &str) -> Result<Self, StoreError> {
        let folder = File::open(path).map_err(|error| StoreError::io("open", place, error))?;
        let name = path.join("lock");
        let file = match OpenOptions::new().create(true).truncate(false).write(true).open(&name) {
            // The state can still be served, and locking the file needs no write access.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                File::open(&name).map_err(|_| error)
            }
            opened => opened,
        };
        let file =
            file.map_err(|error| StoreError::io("open", &name.display().to_string(), error))?;
        for (held, of) in [(&folder, path.to_owned()), (&file, name)] {
            match lock_within_deadline(held) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.to_owned())),
                Err(TryLockError::Error(error)) => {
                    return Err(StoreError::io("lock", &of.display().to_string(), error));
                }
            }
        }
        Ok(Self { _folder: folder, _file: file })
    }
}

/// Whether a process holds the folder.
pub(super) fn is_held(path: &Path) -> io::Result<bool> {
    // Shared, so that two callers do not take each other for the process.
    match File::open(path)?.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing runs yet that could be held up")]
fn lock_within_deadline(lock: &File) -> Result<(), TryLockError> {
    let deadline = Instant::now() + ENDING;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(ENDING / 50);
            }
            known => return known,
        }
    }
}
