//! The one task that changes the truth.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::{
    catalog::Catalog,
    change::{Call, Change, ChangeError, Done},
    events::{EventKind, Events},
    picture::Picture,
    plan::{follow, plan},
};
use crate::{
    metrics::{Metrics, PromotionResult, Shown},
    model::{Color, Generation, PoolSpec, Rules, ServiceName},
    store::{Accepted, FileStore, StoreError, Truth},
    switch::{Draft, Drain, Ledger, Service, Switch, Table},
    upstream::{Admission, Names, Pool},
};

/// Asks for changes, and looks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    calls: mpsc::Sender<Question>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    switch: Arc<Switch<Arc<Rules>, Pool>>,
    ledger: Arc<Ledger<Instant>>,
    metrics: Metrics,
    names: Names,
    events: Events,
    /// The truth that the switch shows. Locked while both change, so that they are seen together.
    applied: Mutex<Applied>,
    changes: watch::Sender<Generation>,
}

#[derive(Clone, Debug)]
struct Applied {
    truth: Arc<Truth>,
    catalog: Arc<Catalog>,
}

struct Question {
    call: Call,
    answer: oneshot::Sender<Result<Done, ChangeError>>,
}

/// The owner of the truth.
struct Actor {
    store: Arc<FileStore>,
    shared: Arc<Shared>,
    /// The watchers of drains.
    watchers: TaskTracker,
    rules: u64,
}

/// Why control could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The truth could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Calls that wait for the one before them.
const QUEUE: usize = 64;

// === impl Control ===

impl Control {
    /// Takes what was remembered and what the configuration says, writes what follows from both,
    /// and starts the task that changes it from then on. Must be called on the control runtime. The
    /// task ends when every [`Control`] is gone.
    ///
    /// # Errors
    ///
    /// If the truth cannot be written.
    pub fn start(
        store: FileStore,
        found: Option<&Truth>,
        catalog: Catalog,
        metrics: Metrics,
        names: Names,
        workers: usize,
    ) -> Result<Self, StartError> {
        let known = found.cloned().unwrap_or_default();
        let mut truth = follow(&known, &catalog);
        if found.is_some() && truth != known {
            truth.generation = truth.generation.next();
        }
        if found != Some(&truth) {
            store.put(&truth)?;
        }
        for name in truth.damaged.keys() {
            error!(
                service = %name,
                file = %store.path().display(),
                "the entry of this service is damaged: it answers nobody until you promote the \
                 color that shall be active (flipgate promote {name}=COLOR). What was set at run time \
                 is then lost; a copy of the file is beside it"
            );
        }
        let file = std::path::absolute(store.path()).unwrap_or_else(|_| store.path().to_owned());
        if found.is_none() {
            warn!(file = %file.display(), "no state yet: starting with what the file says");
        }
        for name in catalog.services().keys() {
            let Some(service) = truth.services.get(name) else { continue };
            let active = service.active;
            info!(service = %name, %active, state = %file.display(), "service");
            if service.pool(active).spec().endpoints.is_empty() {
                error!(service = %name, %active, "the active color has no endpoint: every request gets 503");
            }
        }
        let drafts = drafts(&truth, &catalog, None, &metrics, &names);
        let table = Table::first(truth.generation, catalog.rules(0), drafts);
        let (changes, _) = watch::channel(truth.generation);
        let applied = Applied { truth: Arc::new(truth), catalog: Arc::new(catalog) };
        let shared = Arc::new(Shared {
            switch: Arc::new(Switch::new(table)),
            ledger: Arc::new(Ledger::new(workers)),
            metrics,
            names,
            events: Events::from_now(),
            applied: Mutex::new(applied),
            changes,
        });
        let (calls, questions) = mpsc::channel(QUEUE);
        let actor = Actor {
            store: Arc::new(store),
            shared: Arc::clone(&shared),
            watchers: TaskTracker::new(),
            rules: 0,
        };
        tokio::spawn(actor.run(questions));
        Ok(Self { calls, shared })
    }

    /// Asks for a change and waits until it is written and applied, or refused. Dropping the future
    /// does not take the call back: it is made, or not, as if it had been waited for.
    ///
    /// # Errors
    ///
    /// [`ChangeError`], and then nothing has changed.
    pub async fn propose(&self, call: Call) -> Result<Done, ChangeError> {
        let is_promotion = matches!(call.change, Change::Promote(_) | Change::Rollback { .. });
        let (answer, answered) = oneshot::channel();
        let asked = self.calls.send(Question { call, answer }).await;
        let done = match asked {
            Ok(()) => answered.await.unwrap_or(Err(ChangeError::Stopping)),
            Err(_) => Err(ChangeError::Stopping),
        };
        if is_promotion {
            self.shared.metrics.promotion(match &done {
                Ok(_) => PromotionResult::Promoted,
                Err(ChangeError::Stale { .. }) => PromotionResult::Stale,
                Err(ChangeError::Refused(_) | ChangeError::KeyReused(_)) => {
                    PromotionResult::Refused
                }
                Err(ChangeError::Store(_) | ChangeError::Stopping) => PromotionResult::Failed,
            });
        }
        done
    }

    /// The whole picture.
    #[must_use]
    pub fn picture(&self) -> Picture {
        // Held while looking at the switch, so that both are of one generation.
        let applied = self.shared.applied();
        Picture::of(&self.shared.switch, &applied.truth)
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.shared.applied().catalog)
    }

    /// The text of a scrape.
    #[must_use]
    pub fn scrape(&self) -> String {
        let picture = self.picture();
        let shown: Vec<Shown> = picture
            .services
            .into_iter()
            .map(|(service, it)| Shown {
                service,
                active: it.active,
                pools: [it.blue.shown(), it.green.shown()],
            })
            .collect();
        self.shared.metrics.show(picture.generation, &shown)
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

    /// Who is inside.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger<Instant>> {
        &self.shared.ledger
    }

    pub(super) fn names(&self) -> &Names {
        &self.shared.names
    }

    pub(super) fn active(&self, service: &ServiceName) -> Option<Color> {
        self.shared.switch.look(|table| table.service(service).map(Service::active))
    }

    pub(super) fn changes(&self) -> watch::Receiver<Generation> {
        self.shared.changes.subscribe()
    }
}

// === impl Actor ===

impl Actor {
    async fn run(mut self, mut questions: mpsc::Receiver<Question>) {
        while let Some(Question { call, answer }) = questions.recv().await {
            let done = self.make(call).await;
            // Whoever asked may have gone; what was made stays made.
            let _ = answer.send(done);
        }
    }

    async fn make(&mut self, call: Call) -> Result<Done, ChangeError> {
        let Call { change, if_generation, idempotency, reason } = call;
        let Applied { truth, catalog } = self.shared.applied().clone();
        if let Some((key, fingerprint)) = &idempotency
            && let Some(before) = truth.accepted.iter().find(|it| it.key == *key)
        {
            return match before.fingerprint == *fingerprint {
                true => Ok(Done { generation: before.generation, is_repeated: true }),
                false => Err(ChangeError::KeyReused(key.clone())),
            };
        }
        if let Some(decided_on) = if_generation
            && !decided_on.contains(&truth.generation)
        {
            return Err(ChangeError::Stale { decided_on, current: truth.generation });
        }
        if let Change::Follow(new) = &change
            && **new == *catalog
        {
            return Ok(Done { generation: truth.generation, is_repeated: false });
        }
        let mut next = plan(&truth, &catalog, &change).map_err(ChangeError::Refused)?;
        let generation = next.generation;
        if let Some((key, fingerprint)) = idempotency {
            next.accept(Accepted { key, fingerprint, generation });
        }
        let catalog = match &change {
            Change::Follow(new) => Arc::new(Catalog::clone(new)),
            _ => catalog,
        };
        self.write(&truth, &next).await?;
        let drains = self.apply(next, catalog);
        self.tell(&change, generation, reason);
        self.watch(drains);
        Ok(Done { generation, is_repeated: false })
    }

    /// Writes `next`. If that fails, `truth` is what a restart shall find.
    async fn write(&self, truth: &Arc<Truth>, next: &Truth) -> Result<(), ChangeError> {
        let put = |truth: Truth| {
            let store = Arc::clone(&self.store);
            let put = tokio::task::spawn_blocking(move || store.put(&truth));
            async {
                put.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            }
        };
        let Err(error) = put(next.clone()).await else { return Ok(()) };
        error!(%error, "a change could not be written and was not made");
        // The new file may be in place without being durable; put the old truth back over it.
        if let Err(again) = put(Truth::clone(truth)).await {
            error!(error = %again, "the state file may hold a change that was refused");
        }
        Err(error.into())
    }

    /// Makes `next` what requests see.
    fn apply(&mut self, next: Truth, catalog: Arc<Catalog>) -> Vec<Drain<Pool>> {
        let mut applied = self.shared.applied();
        let seen = self.shared.switch.load();
        let rules = match Arc::ptr_eq(&applied.catalog, &catalog) {
            true => Arc::clone(seen.rules()),
            false => {
                self.rules += 1;
                catalog.rules(self.rules)
            }
        };
        let drafts = drafts(&next, &catalog, Some(&seen), &self.shared.metrics, &self.shared.names);
        let table = seen.next(rules, drafts);
        let drains = self
            .shared
            .switch
            .replace(seen, table)
            .expect("this task alone replaces the table, and it has just read it");
        let before = applied.catalog.services().keys();
        for name in before.filter(|it| !catalog.services().contains_key(*it)) {
            self.shared.metrics.forget(name);
        }
        let generation = next.generation;
        *applied = Applied { truth: Arc::new(next), catalog };
        drop(applied);
        self.shared.changes.send_replace(generation);
        drains
    }

    fn tell(&self, change: &Change, generation: Generation, reason: Option<String>) {
        let events = &self.shared.events;
        match change {
            Change::Promote(_) | Change::Rollback { .. } => {
                let rollback = matches!(change, Change::Rollback { .. });
                let truth = Arc::clone(&self.shared.applied().truth);
                let services: BTreeMap<_, _> = truth
                    .last_promotion
                    .iter()
                    .filter_map(|it| Some((it.clone(), truth.services.get(it)?.active)))
                    .collect();
                for (service, active) in &services {
                    let (generation, reason) = (generation.0, reason.as_deref());
                    info!(generation, %service, %active, rollback, reason, "promoted");
                }
                events.publish(EventKind::Promoted { generation, services, rollback, reason });
            }
            Change::SetPool { service, color, spec, force } => {
                let endpoints = spec.endpoints.len();
                let number = generation.0;
                info!(generation = number, %service, %color, endpoints, force, "pool changed");
                let (service, color) = (service.clone(), *color);
                events.publish(EventKind::PoolChanged { generation, service, color });
            }
            Change::Follow(_) => {
                info!(generation = generation.0, "configuration applied");
                events.publish(EventKind::Reloaded { generation });
            }
        }
    }

    /// Tells when the replaced sides are drained: those that were active, and those that somebody
    /// was inside of.
    fn watch(&self, drains: Vec<Drain<Pool>>) {
        for mut drain in drains {
            if !drain.was_active() && drain.in_flight() == 0 {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            let since = Instant::now();
            self.watchers.spawn(async move {
                drain.wait().await;
                let took = since.elapsed();
                let (service, color) = (drain.service().clone(), drain.color());
                let generation = drain.retired_by();
                if drain.was_active() {
                    shared.metrics.drained(&service, color, took.as_secs_f64());
                }
                let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                let active = |it: &Table<_, _>| it.service(&service).map(Service::active);
                let is_active = shared.switch.look(active) == Some(color);
                // Other sides of the color may still have somebody inside.
                let is_held = !shared.switch.drains(&service, color).is_empty();
                let event = if is_active || is_held {
                    info!(%service, %color, generation = generation.0, took_ms, "released");
                    EventKind::Released { service, color, generation, took_ms }
                } else {
                    info!(%service, %color, generation = generation.0, took_ms, "drained");
                    EventKind::Drained { service, color, generation, took_ms }
                };
                shared.events.publish(event);
            });
        }
    }
}

// === impl Shared ===

impl Shared {
    fn applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The services of the catalog as the truth has them. A pool that stays what it was is the same
/// pool, and an endpoint that stays in a changed pool keeps its connections.
fn drafts(
    truth: &Truth,
    catalog: &Catalog,
    seen: Option<&Table<Arc<Rules>, Pool>>,
    metrics: &Metrics,
    names: &Names,
) -> Vec<Draft<Pool>> {
    let draft = |(name, spec): (&ServiceName, &super::ServiceSpec)| {
        let known = truth.services.get(name);
        // Without a truth nobody knows which color may answer, so neither has anybody to.
        let nobody = PoolSpec::default();
        let policy = &spec.policy;
        let old = |color| seen.and_then(|it| it.service(name)).map(|it| it.side(color).pool());
        let admission = old(Color::Blue).map(|it| it.admission());
        let admission = match admission.filter(|it| it.is_for(&policy.limits)) {
            Some(same) => Arc::clone(same),
            None => Admission::new(&policy.limits),
        };
        let pool = |color| {
            let spec = known.map_or(&nobody, |it| it.pool(color).spec());
            let (policy, admission) = (Arc::clone(policy), Arc::clone(&admission));
            match old(color) {
                Some(old) if old.is_of(spec, &policy) => Arc::clone(old),
                Some(old) => Arc::new(old.changed(spec.clone(), policy, admission)),
                None => {
                    let metrics = Arc::new(metrics.pool(name, color));
                    let (name, spec, names) = (name.clone(), spec.clone(), names.clone());
                    Arc::new(Pool::new(name, color, spec, policy, admission, names, metrics))
                }
            }
        };
        Draft {
            name: name.clone(),
            active: known.map_or(spec.active, |it| it.active),
            blue: pool(Color::Blue),
            green: pool(Color::Green),
        }
    };
    catalog.services().iter().map(draft).collect()
}
