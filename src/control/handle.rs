//! The handle of the control plane: proposes changes, and reads what is applied.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::{
    audited::{RefusedCall, entry_of_refusal, entry_of_start},
    catalog::Catalog,
    change::{Change, ChangeError, ChangeOutcome, ChangeRequest, Idempotency},
    endings::Endings,
    events::Events,
    intake_terms::wake_all,
    pin_terms::random_secret,
    pins::{need_key, note_changes},
    plan::reconfigure,
    reconcile::Reconciler,
    refusals::Refusals,
    shared::{Applied, ControlShared, unix_millis, unix_seconds},
    snapshot::{StatusSnapshot, removed_gauges},
    worker::{ControlTask, PendingChange},
};
use crate::{
    continuity::HoldLimits,
    metrics::Metrics,
    model::{Color, OwnAddresses, ServiceName},
    store::{CommitError, Revision, State, Store, StoreHealth},
    switch::{Ledger, Service, Switch},
    tls::UpstreamConnector,
    upstream::{PoolContext, Pools, ServiceSwitch},
};

/// The handle of the control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    calls: mpsc::Sender<PendingChange>,
    shared: Arc<ControlShared>,
}

/// Changes that may wait for the current one.
const QUEUE: usize = 64;

/// The memory of all held requests.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

// === impl Control ===

impl Control {
    /// Reads the state of the store, applies the configuration to it, commits the result, and makes the first table.
    /// Returns the task that makes and applies all later changes, for its owner to run. The task ends when every
    /// [`Control`] is dropped, or when the store ends.
    ///
    /// # Errors
    ///
    /// If the state cannot be written.
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
        let mut next = reconfigure(&found, &catalog);
        need_key(&mut next, &catalog, random_secret);
        if next != found {
            if !is_new {
                next.generation = found.generation.next();
            }
            note_changes(&found, &mut next, None, unix_millis());
            let entry = entry_of_start(&found, &next);
            next.audit.append(&entry);
            store.commit(found.revision, next).await?;
        }
        let state = watch.borrow_and_update().clone();
        log_start(&state, &catalog, &store.place(), is_new);
        let ledger = Arc::new(Ledger::new(workers));
        let hold_limits = Arc::new(HoldLimits::new(HELD_BYTES_MAX));
        let (reconciler, first, table) =
            Reconciler::first(state, catalog, &metrics, &parts, &hold_limits);
        let (switch, events) = (Arc::new(Switch::new(table)), Arc::new(Events::from_now()));
        let endings = Arc::new(Endings::new(Arc::clone(&switch), Arc::clone(&events)));
        let shared = Arc::new(ControlShared {
            store,
            switch,
            ledger,
            metrics,
            parts,
            events,
            endings,
            removed: Arc::default(),
            refusals: Refusals::new(),
            hold_limits,
            pools: watch::Sender::new(first.pools.clone()),
            applied: watch::Sender::new(Arc::new(first)),
            busy: Mutex::default(),
            began: unix_seconds(),
        });
        let (calls, questions) = mpsc::channel(QUEUE);
        let worker = ControlTask::new(Arc::clone(&shared), questions, watch, reconciler);
        Ok((Self { calls, shared }, worker))
    }

    /// Proposes a change and waits until it is written and applied, or refused. Dropping the future does not cancel the
    /// change.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]. Nothing has changed then, unless it says that the outcome is unknown.
    pub async fn propose(&self, call: ChangeRequest) -> Result<ChangeOutcome, ChangeError> {
        // Kept until the pools have them.
        let _connectors = self.read_ahead(&call.change).await;
        let (answer, answered) = oneshot::channel();
        match self.calls.send(PendingChange { call, answer }).await {
            Ok(()) => answered.await.unwrap_or(Err(ChangeError::Stopping)),
            Err(_) => Err(ChangeError::Stopping),
        }
    }

    /// What a call with this idempotency key has come to before, or why it is refused because of the key. `None` for a key
    /// that is new. A call that is proposed meanwhile can still turn out as a repeated one.
    #[must_use]
    pub fn repeated(&self, key: &Idempotency) -> Option<Result<ChangeOutcome, ChangeError>> {
        self.shared.repeated(&self.applied(), key)
    }

    /// Has a call that changed no state recorded in the audit log. Returns at once. `is_known` is for callers that may make
    /// calls at all: a flood of other calls does not hide theirs.
    pub fn record_refusal(&self, call: RefusedCall, is_known: bool) {
        let entry = entry_of_refusal(call, self.applied().state.generation);
        self.shared.refusals.add(entry, is_known);
    }

    /// Waits until refused calls are recorded, or cannot be. Cancel-safe.
    pub async fn flush_refusals(&self) {
        self.shared.refusals.flush().await;
    }

    /// Has every request refused that is held, and those that would have to wait: Flipgate stops.
    pub fn refuse_held(&self) {
        self.shared.hold_limits.stop();
        wake_all(&self.shared.switch);
    }

    pub(super) fn shared(&self) -> &ControlShared {
        &self.shared
    }

    /// Reads the certificate files of the pools of a change on a blocking thread: the control task must not wait for a
    /// disk.
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
        // If that panics, the change reads them itself, and reports its error.
        tokio::task::spawn_blocking(read).await.unwrap_or_default()
    }

    /// The applied state, the configuration, and the pools that follow from both.
    #[must_use]
    pub fn applied(&self) -> Arc<Applied> {
        self.shared.applied()
    }

    /// A snapshot of all services. Takes time in proportion to the number of services: do not call it on the control
    /// thread.
    #[must_use]
    pub fn snapshot(&self) -> StatusSnapshot {
        self.snapshot_of(&self.applied())
    }

    /// A snapshot of an applied state, with the current requests in flight.
    #[must_use]
    pub fn snapshot_of(&self, applied: &Applied) -> StatusSnapshot {
        StatusSnapshot::of(&self.shared.switch, self.ledger(), applied, applied.pools.keys())
    }

    /// A snapshot of these services only, in time proportional to their number.
    #[must_use]
    pub fn snapshot_of_services(
        &self,
        applied: &Applied,
        services: &[ServiceName],
    ) -> StatusSnapshot {
        StatusSnapshot::of(&self.shared.switch, self.ledger(), applied, services.iter())
    }

    /// The current configuration.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.shared.applied.borrow().catalog)
    }

    /// The text of a scrape. Takes time in proportion to the number of services.
    #[must_use]
    pub fn scrape(&self) -> String {
        let picture = self.snapshot();
        let generation = picture.generation;
        let StoreHealth { read_only, refused, audit: _, waiting: _ } = self.store_health();
        let is_writable = read_only.is_none() && refused.is_none();
        // During a reload a service may be recorded as removed and still be there.
        let mut removed = self.shared.removed.names();
        removed.retain(|it| !picture.services.contains_key(it));
        let mut shown: Vec<_> =
            picture.services.into_iter().map(|(it, service)| service.gauges(it)).collect();
        let removed = removed.into_iter();
        shown.extend(removed.map(|it| removed_gauges(&self.shared.switch, it)));
        self.shared.metrics.show(generation, is_writable, &shown)
    }

    /// The events.
    #[must_use]
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// The switch.
    #[must_use]
    pub fn switch(&self) -> &Arc<ServiceSwitch> {
        &self.shared.switch
    }

    /// The addresses of this process, which cannot be endpoints.
    #[must_use]
    pub fn own_addresses(&self) -> &OwnAddresses {
        &self.shared.parts.own
    }

    /// The ledger of requests in flight.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger<Instant>> {
        &self.shared.ledger
    }

    /// The pools of all services.
    #[must_use]
    pub fn pools(&self) -> watch::Receiver<Pools> {
        self.shared.pools.subscribe()
    }

    /// Whether changes can be written.
    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        self.shared.store.condition()
    }

    /// How long the control task has been working on a change; `None` while it waits for a change or for the store.
    #[must_use]
    pub fn busy_for(&self) -> Option<Duration> {
        self.shared.busy_for()
    }

    pub(super) fn active(&self, service: &ServiceName) -> Option<Color> {
        self.shared.switch.read(|table| table.service(service).map(Service::active))
    }

    /// The last active color of a removed service.
    pub(super) fn removed(&self, service: &ServiceName) -> Option<Color> {
        self.shared.removed.active(service)
    }

    /// The applied state, each time that it changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Applied>> {
        self.shared.applied.subscribe()
    }
}

fn log_start(state: &State, catalog: &Catalog, place: &str, is_new: bool) {
    /// The most services that are logged one by one.
    const LISTED_MAX: usize = 100;
    for name in state.damaged.keys() {
        error!(
            service = %name,
            state = place,
            "the state of this service is damaged: it refuses all requests until you promote a color (flipgate promote \
             {name}=COLOR). Pools that were set at run time are lost then; a copy of the file is beside it"
        );
    }
    if is_new {
        warn!(state = place, "no state yet: starting with the configuration");
    }
    let services = catalog.services();
    for (place_of, name) in services.keys().enumerate() {
        let Some(service) = state.services.get(name) else { continue };
        let active = service.active;
        if place_of < LISTED_MAX {
            info!(service = %name, %active, state = place, "service");
        }
        if service.pool(active).spec().endpoints.is_empty() {
            error!(service = %name, %active, "the active color has no endpoint: every request gets 503");
        }
    }
    if services.len() > LISTED_MAX {
        info!(services = services.len(), state = place, "more services, not listed");
    }
}
