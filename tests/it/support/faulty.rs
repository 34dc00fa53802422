//! A store that fails on demand, and that other processes change.

use std::sync::{Arc, Mutex};

use flipgate::{
    model::Generation,
    store::{
        CommitError, CommitFuture, FileStore, Revision, ServiceState, State, Store, StoreError,
        StoreHealth,
    },
};
use tokio::sync::{Notify, watch};

/// What becomes of the next commit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is refused.
    Refuse,
    /// It waits until the test releases it.
    Hold,
    /// It is not known whether it was written.
    Forget,
    /// Another process flips this service first, to this generation.
    Overtake(&'static str, u64),
}

/// Plans what goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Arc<Shared>);

/// The store that does as it was planned.
#[derive(Debug)]
pub(crate) struct FaultyStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: FileStore,
    planned: Mutex<Option<Fault>>,
    read_only: Mutex<Option<String>>,
    held: Notify,
    released: Notify,
}

impl FaultyStore {
    pub(crate) fn around(store: FileStore) -> (Self, Faults) {
        let (planned, read_only) = (Mutex::default(), Mutex::default());
        let (held, released) = (Notify::new(), Notify::new());
        let shared = Shared { store, planned, read_only, held, released };
        let shared = Arc::new(shared);
        (Self(Arc::clone(&shared)), Faults(shared))
    }
}

impl Faults {
    /// Has the next commit go wrong.
    pub(crate) fn next(&self, fault: Fault) {
        *self.0.planned.lock().expect("no panic") = Some(fault);
    }

    /// Waits until a commit is held.
    pub(crate) async fn held(&self) {
        self.0.held.notified().await;
    }

    /// Lets the held commit go on.
    pub(crate) fn release(&self) {
        self.0.released.notify_one();
    }

    /// Another process flips a service.
    pub(crate) async fn flip_behind(&self, service: &str, generation: u64) {
        self.0.flip(service, generation).await;
    }
}

impl Shared {
    async fn flip(&self, service: &str, generation: u64) {
        let mut state = self.store.watch().borrow().clone();
        let mut flipped = ServiceState::clone(&state.services[service]);
        flipped.promote(flipped.active.other());
        let service = service.parse().expect("a name");
        state.services.insert(service, Arc::new(flipped));
        state.generation = Generation(generation);
        Arc::make_mut(&mut state.promotion).generation = state.generation;
        self.store.commit(state.revision, state).await.expect("no other change is made");
    }
}

fn planted() -> StoreError {
    let source = std::io::Error::other("planted");
    StoreError::Io { doing: "write", place: "journal-1".to_owned(), source }
}

impl Store for FaultyStore {
    fn commit(&self, expected: Revision, next: State) -> CommitFuture {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            let why = shared.read_only.lock().expect("no panic").clone();
            if let Some(why) = why {
                return Err(CommitError::ReadOnly(why));
            }
            let planned = shared.planned.lock().expect("no panic").take();
            match planned {
                Some(Fault::Refuse) => Err(CommitError::Refused(planted())),
                Some(Fault::Forget) => {
                    *shared.read_only.lock().expect("no panic") = Some(planted().to_string());
                    Err(CommitError::Unknown(planted()))
                }
                Some(Fault::Overtake(service, generation)) => {
                    shared.flip(service, generation).await;
                    shared.store.commit(expected, next).await
                }
                Some(Fault::Hold) => {
                    shared.held.notify_one();
                    shared.released.notified().await;
                    shared.store.commit(expected, next).await
                }
                None => shared.store.commit(expected, next).await,
            }
        })
    }

    fn watch(&self) -> watch::Receiver<State> {
        self.0.store.watch()
    }

    fn condition(&self) -> StoreHealth {
        let read_only = self.0.read_only.lock().expect("no panic").clone();
        StoreHealth { read_only, ..self.0.store.condition() }
    }

    fn place(&self) -> String {
        self.0.store.place()
    }
}
