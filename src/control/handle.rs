//! The handle by which changes are asked for, and by which everybody looks at what is applied.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::{
    catalog::Catalog,
    change::{Change, ChangeError, ChangeOutcome, ChangeRequest},
    events::Events,
    plan::follow,
    reconcile::Reconciler,
    shared::{Applied, ControlShared},
    snapshot::{StatusSnapshot, shown_removed},
    worker::{ControlTask, PendingChange},
};
use crate::{
    metrics::{Metrics, PromotionKind, PromotionResult},
    model::{Color, OwnAddresses, Rules, ServiceName},
    store::{CommitError, Revision, State, Store, StoreHealth},
    switch::{Ledger, Service, Switch},
    tls::UpstreamConnector,
    upstream::{Pool, PoolContext, Pools},
};

/// Asks for changes, and looks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    calls: mpsc::Sender<PendingChange>,
    shared: Arc<ControlShared>,
}

/// Calls that wait for the one before them.
const QUEUE: usize = 64;

// === impl Control ===

impl Control {
    /// Takes the state that the store has and what the configuration says, commits what follows from both,
    /// and makes the first table. Returns the task that makes and applies all changes from then on, for its
    /// owner to run; it ends when every [`Control`] is gone, or when the store does.
    ///
    /// # Errors
    ///
    /// If the state that follows cannot be written.
    pub async fn start(
        store: Arc<dyn Store>,
        catalog: Catalog,
        metrics: Metrics,
        parts: PoolContext,
        workers: usize,
    ) -> Result<(Self, ControlTask), CommitError> {
        let mut watch = store.watch();
        let found = watch.borrow_and_update().clone();
        let is_new = found.revision == Revision::default() && found.services.is_empty();
        let mut next = follow(&found, &catalog);
        if next != found {
            if !is_new {
                next.generation = found.generation.next();
            }
            store.commit(found.revision, next).await?;
        }
        let state = watch.borrow_and_update().clone();
        tell_of_start(&state, &catalog, &store.place(), is_new);
        let ledger = Arc::new(Ledger::new(workers));
        let (reconciler, first, table) = Reconciler::first(state, catalog, &metrics, &parts);
        let shared = Arc::new(ControlShared {
            store,
            switch: Arc::new(Switch::new(table)),
            ledger,
            metrics,
            parts,
            events: Arc::new(Events::from_now()),
            removed: Arc::default(),
            pools: watch::Sender::new(first.pools.clone()),
            applied: watch::Sender::new(Arc::new(first)),
            busy: Mutex::default(),
        });
        let (calls, questions) = mpsc::channel(QUEUE);
        let worker = ControlTask::new(Arc::clone(&shared), questions, watch, reconciler);
        Ok((Self { calls, shared }, worker))
    }

    /// Asks for a change and waits until it is written and applied, or refused. Dropping the future
    /// does not take the call back: it is made, or not, as if it had been waited for.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]. Nothing has changed then, unless it says that the outcome is unknown.
    pub async fn propose(&self, call: ChangeRequest) -> Result<ChangeOutcome, ChangeError> {
        let kind = match call.change {
            Change::Promote(_) => Some(PromotionKind::Promote),
            Change::Rollback { .. } => Some(PromotionKind::Rollback),
            Change::SetPool { .. } | Change::Follow(_) => None,
        };
        // Held until the pools have them.
        let _connectors = self.read_ahead(&call.change).await;
        let (answer, answered) = oneshot::channel();
        let asked = self.calls.send(PendingChange { call, answer }).await;
        let done = match asked {
            Ok(()) => answered.await.unwrap_or(Err(ChangeError::Stopping)),
            Err(_) => Err(ChangeError::Stopping),
        };
        if let Some(kind) = kind {
            let result = match &done {
                Ok(_) => PromotionResult::Promoted,
                Err(ChangeError::Stale { .. }) => PromotionResult::Stale,
                Err(ChangeError::Refused(_) | ChangeError::KeyReused(_)) => {
                    PromotionResult::Refused
                }
                Err(ChangeError::Store(_) | ChangeError::Stopping) => PromotionResult::Failed,
            };
            self.shared.metrics.promotion(kind, result);
        }
        done
    }

    /// Reads the files that the pools of a change need, on a thread for that: the one that makes changes must
    /// not wait for a disk.
    async fn read_ahead(&self, change: &Change) -> Vec<Arc<UpstreamConnector>> {
        let settings = change.tls_settings(&self.catalog());
        if settings.is_empty() {
            return Vec::new();
        }
        let connectors = self.shared.parts.connectors.clone();
        let guard = self.shared.metrics.guard_task("files");
        let read = move || {
            let read = settings.iter().map(|it| connectors.get(it)).collect();
            drop(guard);
            read
        };
        // If the reading has panicked, the change reads by itself, and says why it cannot.
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// What is applied now: a state, the configuration, and the pools that follow from both.
    #[must_use]
    pub fn applied(&self) -> Arc<Applied> {
        self.shared.applied()
    }

    /// The whole picture of now. Takes time in proportion to the number of services: not for the thread
    /// that changes are made on.
    #[must_use]
    pub fn picture(&self) -> StatusSnapshot {
        self.picture_of(&self.applied())
    }

    /// The picture of what was applied at one moment, with what is inside now.
    #[must_use]
    pub fn picture_of(&self, applied: &Applied) -> StatusSnapshot {
        StatusSnapshot::of(&self.shared.switch, applied, applied.pools.keys())
    }

    /// The same of these services alone, in proportion to their number.
    #[must_use]
    pub fn picture_of_some(&self, applied: &Applied, services: &[ServiceName]) -> StatusSnapshot {
        StatusSnapshot::of(&self.shared.switch, applied, services.iter())
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.shared.applied.borrow().catalog)
    }

    /// The text of a scrape. Takes time in proportion to the number of services.
    #[must_use]
    pub fn scrape(&self) -> String {
        let picture = self.picture();
        let generation = picture.generation;
        let StoreHealth { read_only, refused, waiting: _ } = self.condition();
        let is_writable = read_only.is_none() && refused.is_none();
        // During a reload a service may be noted as removed, and still or already be there.
        let mut removed = self.shared.removed.names();
        removed.retain(|it| !picture.services.contains_key(it));
        let mut shown: Vec<_> =
            picture.services.into_iter().map(|(it, service)| service.shown(it)).collect();
        let removed = removed.into_iter();
        shown.extend(removed.map(|it| shown_removed(&self.shared.switch, it)));
        self.shared.metrics.show(generation, is_writable, &shown)
    }

    /// What happens.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// The pointer that requests read.
    #[must_use]
    pub fn switch(&self) -> &Arc<Switch<Arc<Rules>, Pool>> {
        &self.shared.switch
    }

    /// Where the process itself can be reached, which is no endpoint.
    #[must_use]
    pub fn own_addresses(&self) -> &OwnAddresses {
        &self.shared.parts.own
    }

    /// Who is inside.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger<Instant>> {
        &self.shared.ledger
    }

    /// The pools of all services, as they change.
    #[must_use]
    pub fn pools(&self) -> watch::Receiver<Pools> {
        self.shared.pools.subscribe()
    }

    /// Whether changes can be written.
    #[must_use]
    pub fn condition(&self) -> StoreHealth {
        self.shared.store.condition()
    }

    /// For how long the loop that makes changes has been at work on one; nothing while it waits for a change
    /// or for the store.
    #[must_use]
    pub fn stuck(&self) -> Option<Duration> {
        self.shared.busy_for()
    }

    pub(super) fn active(&self, service: &ServiceName) -> Option<Color> {
        self.shared.switch.read(|table| table.service(service).map(Service::active))
    }

    /// The color that was active when a service was removed that is not forgotten yet.
    pub(super) fn removed(&self, service: &ServiceName) -> Option<Color> {
        self.shared.removed.active(service)
    }

    pub(super) fn changes(&self) -> watch::Receiver<Arc<Applied>> {
        self.shared.applied.subscribe()
    }
}

fn tell_of_start(state: &State, catalog: &Catalog, place: &str, is_new: bool) {
    /// Services that are told one by one.
    const TOLD_MAX: usize = 100;
    for name in state.damaged.keys() {
        error!(
            service = %name,
            state = place,
            "the entry of this service is damaged: it answers nobody until you promote the \
             color that shall be active (flipgate promote {name}=COLOR). What was set at run time \
             is then lost; a copy of the file is beside it"
        );
    }
    if is_new {
        warn!(state = place, "no state yet: starting with what the file says");
    }
    let services = catalog.services();
    for (place_of, name) in services.keys().enumerate() {
        let Some(service) = state.services.get(name) else { continue };
        let active = service.active;
        if place_of < TOLD_MAX {
            info!(service = %name, %active, state = place, "service");
        }
        if service.pool(active).spec().endpoints.is_empty() {
            error!(service = %name, %active, "the active color has no endpoint: every request gets 503");
        }
    }
    if services.len() > TOLD_MAX {
        info!(services = services.len(), state = place, "more services, not listed");
    }
}
