//! A disk that loses power, fills up, breaks and lies.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::store::disk::{Disk, DiskFile};

/// What a disk writes as one.
const SECTOR: usize = 512;

/// A folder in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Simulated(Arc<Mutex<Inner>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Inner {
    files: Vec<Content>,
    /// What programs see.
    names: BTreeMap<String, usize>,
    /// What a loss of power leaves for certain.
    durable_names: BTreeMap<String, usize>,
    /// Changes of names that were not synced.
    unsynced_names: Vec<Renaming>,
    /// Calls so far.
    calls: usize,
    fault: Option<(usize, Fault)>,
    /// The call from which on every one fails.
    dead_from: Option<usize>,
    /// The longest that a write may be, as if there were no more room.
    room: Option<usize>,
    /// Bytes of all files at most.
    capacity: Option<usize>,
    /// Files that cannot be opened.
    refused: BTreeSet<String>,
    /// Files that were synced, counted each time.
    pub(super) syncs: usize,
    /// The disk after each call.
    history: Option<Vec<Inner>>,
    /// A number of the test's, kept with the history.
    pub(super) note: u64,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that were written and not synced, in order.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug)]
enum Renaming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// It fails with nothing done.
    Io,
    /// There is no room.
    NoSpace,
    /// A write fails with half of it done; anything else with all of it done.
    Half,
    /// A sync fails and what it was for is dropped: the next sync succeeds.
    Dropped,
    /// A sync succeeds and has done nothing.
    Lie,
}

impl Fault {
    pub(super) const ALL: [Self; 5] =
        [Self::Io, Self::NoSpace, Self::Half, Self::Dropped, Self::Lie];
}

#[derive(Debug)]
struct SimulatedFile {
    disk: Simulated,
    number: usize,
}

enum Planned {
    Go,
    HalfThenFail,
    Drop,
    Lie,
}

impl Simulated {
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no test panics in here")
    }

    pub(super) fn of(inner: Inner) -> Self {
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Has call number `call` go wrong, from now on counted from 0.
    pub(super) fn plan(&self, call: usize, fault: Fault) {
        let mut inner = self.inner();
        (inner.calls, inner.fault) = (0, Some((call, fault)));
    }

    /// Keeps the disk as it is after each call.
    pub(super) fn remember(&self) {
        self.inner().history = Some(Vec::new());
    }

    pub(super) fn history(&self) -> Vec<Inner> {
        self.inner().history.take().expect("asked to remember")
    }

    pub(super) fn calls(&self) -> usize {
        self.inner().calls
    }

    /// Changes a file outside of the store.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner();
        let number = inner.names[name];
        change(&mut inner.files[number].now);
    }

    /// One call: what is to become of it.
    fn call(inner: &mut Inner, is_sync: bool) -> io::Result<Planned> {
        let call = inner.calls;
        inner.calls += 1;
        if inner.dead_from.is_some_and(|it| call >= it) {
            return Err(io::Error::other("planned: the disk is dead"));
        }
        let Some((_, fault)) = inner.fault.filter(|it| it.0 == call) else {
            return Ok(Planned::Go);
        };
        match fault {
            Fault::Io => Err(io::Error::other("planned: I/O error")),
            Fault::NoSpace => Err(io::ErrorKind::StorageFull.into()),
            Fault::Half => Ok(Planned::HalfThenFail),
            Fault::Dropped if is_sync => Ok(Planned::Drop),
            Fault::Lie if is_sync => Ok(Planned::Lie),
            Fault::Dropped | Fault::Lie => Ok(Planned::Go),
        }
    }

    fn named(&self, renaming: Renaming) -> io::Result<()> {
        let mut inner = self.inner();
        let planned = Self::call(&mut inner, false)?;
        renaming.apply(&mut inner.names)?;
        inner.unsynced_names.push(renaming);
        inner.remember();
        match planned {
            Planned::HalfThenFail => Err(io::Error::other("planned: done, but it failed")),
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn remember(&mut self) {
        if let Some(mut history) = self.history.take() {
            history.push(self.clone());
            self.history = Some(history);
        }
    }

    /// Has every call fail but the next so many.
    pub(super) fn die_after(&mut self, calls: usize) {
        self.dead_from = Some(self.calls + calls);
    }

    /// Takes no longer writes than these any more, or all again.
    pub(super) fn leave_room(&mut self, room: Option<usize>) {
        self.room = room;
    }

    /// Takes no more than these bytes beyond those that are there, or any number again.
    pub(super) fn leave_bytes(&mut self, bytes: Option<usize>) {
        let used = self.names.values().map(|it| self.files[*it].now.len()).sum::<usize>();
        self.capacity = bytes.map(|it| used + it);
    }

    /// Lets no program open a file, or does again.
    pub(super) fn refuse(&mut self, name: &str, is_refused: bool) {
        match is_refused {
            true => drop(self.refused.insert(name.to_owned())),
            false => drop(self.refused.remove(name)),
        }
    }

    /// How many things a loss of power now may take or leave.
    pub(super) fn uncertain(&self) -> usize {
        let sectors: usize = self.files.iter().map(|it| it.unsynced.len()).sum();
        sectors + self.unsynced_names.len()
    }

    /// The disk after a loss of power: of what was not synced, that is there for which `stays` says so.
    pub(super) fn after_power_loss(&self, mut stays: impl FnMut(usize) -> bool) -> Self {
        let mut place = 0;
        let mut next = || {
            place += 1;
            stays(place - 1)
        };
        let mut after = Self::default();
        for Content { durable, unsynced, .. } in &self.files {
            let mut bytes = durable.clone();
            for (offset, sector) in unsynced {
                if next() {
                    put(&mut bytes, *offset, sector);
                }
            }
            after.files.push(Content { now: bytes.clone(), durable: bytes, unsynced: Vec::new() });
        }
        after.names = self.durable_names.clone();
        for renaming in &self.unsynced_names {
            if next() {
                // One that depends on another that was lost is lost too.
                let _ = renaming.apply(&mut after.names);
            }
        }
        after.durable_names = after.names.clone();
        after
    }
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) -> io::Result<()> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to) => {
                let file = names.remove(from).ok_or_else(missing)?;
                names.insert(to.clone(), file);
            }
            Self::Remove(name) => drop(names.remove(name).ok_or_else(missing)?),
        }
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, part: &[u8]) {
    let end = offset + part.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(part);
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.inner();
        let number = inner.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(inner.files[*number].now.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let number = {
            let mut inner = self.inner();
            // A name that is there keeps its inode, which is emptied.
            match inner.names.get(name).copied() {
                Some(number) => {
                    let content = &mut inner.files[number];
                    content.now.clear();
                    number
                }
                None => {
                    inner.files.push(Content::default());
                    inner.files.len() - 1
                }
            }
        };
        self.named(Renaming::Create(name.to_owned(), number))?;
        Ok(Box::new(SimulatedFile { disk: self.clone(), number }))
    }

    fn open(&self, name: &str) -> io::Result<(Box<dyn DiskFile>, u64)> {
        if self.inner().refused.contains(name) {
            return Err(io::Error::other("refused"));
        }
        let known = self.inner().names.get(name).copied();
        let Some(number) = known else { return Ok((self.create(name)?, 0)) };
        let length = self.inner().files[number].now.len() as u64;
        Ok((Box::new(SimulatedFile { disk: self.clone(), number }), length))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.named(Renaming::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.named(Renaming::Remove(name.to_owned()))
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut inner = self.inner();
        match Self::call(&mut inner, true)? {
            Planned::Lie => {}
            Planned::Drop => {
                inner.unsynced_names.clear();
                return Err(io::Error::other("planned: dropped"));
            }
            planned => {
                inner.durable_names = inner.names.clone();
                inner.unsynced_names.clear();
                if matches!(planned, Planned::HalfThenFail) {
                    return Err(io::Error::other("planned: done, but it failed"));
                }
            }
        }
        inner.remember();
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let planned = Simulated::call(&mut inner, false)?;
        if inner.room.is_some_and(|it| bytes.len() > it) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let offset = usize::try_from(offset).expect("small");
        let growth = (offset + bytes.len()).saturating_sub(inner.files[self.number].now.len());
        let used = inner.names.values().map(|it| inner.files[*it].now.len()).sum::<usize>();
        if growth > 0 && inner.capacity.is_some_and(|it| used + growth > it) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let is_half = matches!(planned, Planned::HalfThenFail);
        let bytes = if is_half { &bytes[..bytes.len() / 2] } else { bytes };
        let content = &mut inner.files[self.number];
        let before = content.now.clone();
        put(&mut content.now, offset, bytes);
        let first = offset / SECTOR;
        for sector in first..(offset + bytes.len()).div_ceil(SECTOR) {
            let range = sector * SECTOR..content.now.len().min((sector + 1) * SECTOR);
            let own = &content.now[range.clone()];
            // A sector that is written as it was makes no difference; and zeros where nothing was are
            // taken as one, so that a file of many blocks does not drown the rest.
            if before.get(range.clone()) == Some(own) {
                continue;
            }
            let own = own.to_vec();
            if own.iter().all(|it| *it == 0)
                && let Some((place, last)) = content.unsynced.last_mut()
                && *place + last.len() == range.start
                // Only zeros are joined, so its last sector says what all of them are.
                && last[last.len().saturating_sub(SECTOR)..].iter().all(|it| *it == 0)
            {
                last.extend(own);
                continue;
            }
            content.unsynced.push((range.start, own));
        }
        inner.remember();
        if is_half { Err(io::Error::other("planned: half is written")) } else { Ok(()) }
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        Simulated::call(&mut inner, false)?;
        let length = usize::try_from(length).expect("small");
        let content = &mut inner.files[self.number];
        // As if it were synced at once: a line that was cut off was not complete.
        content.now.truncate(length);
        content.durable.truncate(length);
        content.unsynced.retain(|(offset, bytes)| offset + bytes.len() <= length);
        inner.remember();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let planned = Simulated::call(&mut inner, true)?;
        inner.syncs += 1;
        let content = &mut inner.files[self.number];
        match planned {
            Planned::Lie => {}
            Planned::Drop => {
                content.unsynced.clear();
                return Err(io::Error::other("planned: dropped"));
            }
            planned => {
                content.durable = content.now.clone();
                content.unsynced.clear();
                if matches!(planned, Planned::HalfThenFail) {
                    return Err(io::Error::other("planned: done, but it failed"));
                }
            }
        }
        inner.remember();
        Ok(())
    }
}
