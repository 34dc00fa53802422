//! The handle of rollouts: begins them, says where they are, and writes what happens to them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    board::Board,
    child::HelperProgram,
    event::{Entry, Event},
    events::of_last_entry,
    machine::{Impossible, Machine, Next},
    plan::{Plan, SecretSource},
    record::{Deployment, Owner, Record, RecordError},
};
use crate::{
    control::{
        Actor, Change, ChangeError, ChangeOutcome, ChangeRequest, Control, EventKind, Idempotency,
        PromotionTerms, ReasonKind, RefusalReason, RolloutChange, RolloutEvent, RolloutStep,
    },
    model::{Color, Generation, RolloutId, ServiceName, Version, WeightedEndpoint},
    release::{Release, ReleaseError},
    store::RolloutState,
};

/// The rollouts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rollouts {
    release: Release,
    settings: Arc<Mutex<Arc<RolloutSettings>>>,
    board: Board,
}

/// The plans of the configuration, and what they need.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RolloutSettings {
    /// The plans, by name.
    pub plans: BTreeMap<String, Plan>,
    /// Whether stages may run commands.
    pub exec: bool,
    /// The environment variables that plans name as secrets.
    pub environment: BTreeMap<String, String>,
    /// The program of the helper that runs commands.
    pub helper: HelperProgram,
}

/// What a rollout is begun with.
#[derive(Clone, Debug)]
pub struct BeginCall {
    /// The name of the plan; `None` for the one that Flipgate brings along, unless the configuration has a plan of its name.
    pub plan: Option<String>,
    /// What is deployed.
    pub services: BTreeMap<ServiceName, DeploymentCall>,
    /// Why.
    pub reason: Option<String>,
    /// The promotion is taken back unless it is confirmed within this time.
    pub confirm_within: Option<Duration>,
    /// The caller.
    pub actor: Actor,
    /// The generations that it was decided on. `None` for any.
    pub if_generation: Option<Vec<Generation>>,
    /// Its idempotency key.
    pub idempotency: Option<Idempotency>,
}

/// What is deployed of one service.
#[derive(Clone, Debug)]
pub struct DeploymentCall {
    /// The color that becomes active; `None` for the one that is not active.
    pub candidate: Option<Color>,
    /// The version.
    pub version: Option<Version>,
    /// The endpoints. Empty: those that the candidate has.
    pub endpoints: Vec<WeightedEndpoint>,
}

/// Why a rollout does not begin, or does not change.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// There is no such plan.
    #[error("there is no plan `{name}`; the configuration has {}", listed(.known))]
    UnknownPlan {
        /// The name.
        name: String,
        /// The plans that there are.
        known: Vec<String>,
    },
    /// The plan has commands, which are not allowed.
    #[error(
        "the plan `{0}` runs commands; set `rollouts.exec = true` in the configuration to allow that"
    )]
    ExecNotAllowed(String),
    /// There is no such rollout.
    #[error("there is no rollout {0}; `flipgate rollouts` lists them")]
    Unknown(RolloutId),
    /// That is not possible now.
    #[error("rollout {id}: {why}")]
    Impossible {
        /// The rollout.
        id: RolloutId,
        /// Why.
        why: Impossible,
    },
    /// The record cannot be used.
    #[error("rollout {id}: {error}")]
    Record {
        /// The rollout.
        id: RolloutId,
        /// Why.
        error: RecordError,
    },
    /// The change was refused, or could not be written.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// A gate refuses the promotion, or another change was refused.
    #[error(transparent)]
    Release(#[from] ReleaseError),
}

fn listed(names: &[String]) -> String {
    match names.is_empty() {
        true => "none but `default`".to_owned(),
        false => names.join(", "),
    }
}

/// A rollout as it is in the state.
#[derive(Clone, Debug)]
pub struct KnownRollout {
    /// What the state has of it.
    pub state: Arc<RolloutState>,
    /// Its record.
    pub record: Record,
}

// === impl Rollouts ===

impl Rollouts {
    /// The rollouts of a release.
    #[must_use]
    pub fn new(release: Release, settings: RolloutSettings) -> Self {
        let settings = Arc::new(Mutex::new(Arc::new(settings)));
        Self { release, settings, board: Board::default() }
    }

    /// Uses other plans from now on. Rollouts in progress have copies of theirs.
    pub fn configure(&self, settings: RolloutSettings) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings);
    }

    pub(super) fn settings(&self) -> Arc<RolloutSettings> {
        Arc::clone(&self.settings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn release(&self) -> &Release {
        &self.release
    }

    pub(super) fn control(&self) -> &Control {
        self.release.control()
    }

    /// What running stages wait for.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// The plan of this name.
    fn plan(&self, name: Option<&str>) -> Result<Plan, RolloutError> {
        let settings = self.settings();
        let wanted = name.unwrap_or(Plan::DEFAULT);
        let plan = match settings.plans.get(wanted) {
            Some(plan) => plan.clone(),
            None if wanted == Plan::DEFAULT => Plan::built_in(),
            None => {
                let known = settings.plans.keys().cloned().collect();
                return Err(RolloutError::UnknownPlan { name: wanted.to_owned(), known });
            }
        };
        match plan.runs_commands() && !settings.exec {
            true => Err(RolloutError::ExecNotAllowed(plan.name)),
            false => Ok(plan),
        }
    }

    /// The record that a call would begin with, without beginning anything.
    ///
    /// # Errors
    ///
    /// Why it would be refused.
    pub fn prepare(&self, id: &RolloutId, call: &BeginCall) -> Result<Record, RolloutError> {
        let plan = self.plan(call.plan.as_deref())?;
        let applied = self.control().applied();
        let (mut services, mut reasons) = (BTreeMap::new(), Vec::new());
        let mut refuse = |service: Option<&ServiceName>, problem| {
            reasons.push(RefusalReason { service: service.cloned(), problem });
        };
        if call.services.is_empty() {
            refuse(None, ReasonKind::NothingNamed);
        }
        for (name, it) in &call.services {
            let known = applied.state.services.get(name);
            let Some(state) = known.filter(|_| applied.catalog.services().contains_key(name))
            else {
                let is_damaged = applied.state.damaged.contains_key(name);
                refuse(
                    Some(name),
                    if is_damaged { ReasonKind::Damaged } else { ReasonKind::UnknownService },
                );
                continue;
            };
            let candidate = it.candidate.unwrap_or(state.active.other());
            let (pool, active) =
                (state.pool(candidate).spec(), state.pool(candidate.other()).spec());
            if candidate == state.active {
                refuse(Some(name), ReasonKind::AlreadyActive(candidate));
            } else if it.endpoints.is_empty() && pool.endpoints.is_empty() {
                refuse(Some(name), ReasonKind::NoEndpoints(candidate));
            }
            let endpoints = match it.endpoints.is_empty() {
                true => pool.endpoints.clone(),
                false => it.endpoints.clone(),
            };
            services.insert(
                name.clone(),
                Deployment {
                    candidate,
                    version: it.version.clone().or_else(|| pool.version.clone()),
                    endpoints,
                    active_version: active.version.clone(),
                    active_endpoints: active.endpoints.clone(),
                },
            );
        }
        if !reasons.is_empty() {
            return Err(ChangeError::Refused(reasons).into());
        }
        let Actor { name, address, uid, is_authenticated } = call.actor.clone();
        let owner = Owner { name, address, uid, is_authenticated };
        let mut record = Record::new(id, plan, services, owner, unix_millis());
        record.reason.clone_from(&call.reason);
        record.confirm_within = call.confirm_within;
        record.key = call.idempotency.as_ref().map(|it| it.key.clone());
        Ok(record)
    }

    /// The rollout that a call would begin, as it would be.
    ///
    /// # Errors
    ///
    /// Why it would be refused.
    pub fn dry_run(&self, id: &RolloutId, call: &BeginCall) -> Result<KnownRollout, RolloutError> {
        let record = self.prepare(id, call)?;
        let state = RolloutState {
            version: 0,
            owner: call.actor.shown().into(),
            services: call.services.keys().cloned().collect(),
            ended_at: None,
            promoted: None,
            before: Vec::new(),
            record: record.write().into(),
        };
        Ok(KnownRollout { state: Arc::new(state), record })
    }

    /// Begins a rollout. Its stages are run by the runner. A repeated call with the same idempotency key returns the rollout
    /// that the first one began.
    ///
    /// # Errors
    ///
    /// Why it was refused; then nothing has changed.
    pub async fn begin(&self, call: BeginCall) -> Result<(RolloutId, ChangeOutcome), RolloutError> {
        let id = new_id();
        let record = self.prepare(&id, &call)?;
        let owner = call.actor.shown();
        let record_owner = owner.clone();
        let services = call.services.keys().cloned().collect();
        let change = Change::Rollout(RolloutChange::Begin { owner: owner.into(), services });
        let request = ChangeRequest {
            if_generation: call.if_generation,
            idempotency: call.idempotency,
            actor: Some(call.actor),
            reason: call.reason,
            rollout: Some(RolloutStep {
                id: id.clone(),
                expected: 0,
                record: record.write().into(),
                is_over: false,
            }),
            ..ChangeRequest::unconditional(change)
        };
        let key = request.idempotency.as_ref().map(|it| it.key.clone());
        let done = self.control().propose(request).await?;
        let begun = match (done.is_replayed, key) {
            (true, Some(key)) => done.applied.state.rollouts.iter().find_map(|(id, it)| {
                let record = Record::read(&it.record).ok()?;
                (record.key.as_deref() == Some(&*key)).then(|| id.clone())
            }),
            _ => None,
        };
        if begun.is_none() {
            let Record { plan, services, reason, .. } = &record;
            let event = RolloutEvent::RolloutStarted {
                rollout: id.to_string(),
                plan: plan.name.clone(),
                services: services.keys().cloned().collect(),
                by: record_owner,
                reason: reason.clone(),
            };
            self.control().events().publish(EventKind::Rollout(event));
        }
        Ok((begun.unwrap_or(id), done))
    }

    /// A rollout.
    ///
    /// # Errors
    ///
    /// If there is none, or its record cannot be read.
    pub fn find(&self, id: &RolloutId) -> Result<KnownRollout, RolloutError> {
        let applied = self.control().applied();
        let state = applied.state.rollouts.get(id);
        let state = Arc::clone(state.ok_or_else(|| RolloutError::Unknown(id.clone()))?);
        let record = Record::read(&state.record);
        let record = record.map_err(|error| RolloutError::Record { id: id.clone(), error })?;
        Ok(KnownRollout { state, record })
    }

    /// All rollouts, the latest first.
    #[must_use]
    pub fn list(&self) -> Vec<(RolloutId, Result<KnownRollout, RolloutError>)> {
        let applied = self.control().applied();
        let ids: Vec<RolloutId> = applied.state.rollouts.keys().cloned().collect();
        let mut all: Vec<_> = ids.into_iter().map(|id| (id.clone(), self.find(&id))).collect();
        // Several may have begun in the same second.
        all.sort_by_key(|(_, it)| std::cmp::Reverse(it.as_ref().map_or(0, |it| it.record.began)));
        all
    }

    /// Writes what has happened to a rollout. Dropping the future does not cancel the change.
    ///
    /// # Errors
    ///
    /// [`RolloutError::Impossible`] if that cannot happen where the rollout is; nothing has changed then.
    pub async fn write(
        &self,
        id: &RolloutId,
        event: Event,
        by: Option<Actor>,
    ) -> Result<ChangeOutcome, RolloutError> {
        let change = Change::Rollout(RolloutChange::Advance);
        self.write_with(id, event, by, (change, PromotionTerms::default())).await
    }

    /// Makes a change of the state, and writes in the same commit that it was made.
    ///
    /// # Errors
    ///
    /// Why the change was refused, or that the rollout has gone on otherwise; nothing has changed then.
    pub(super) async fn write_with(
        &self,
        id: &RolloutId,
        event: Event,
        by: Option<Actor>,
        (change, terms): (Change, PromotionTerms),
    ) -> Result<ChangeOutcome, RolloutError> {
        loop {
            let KnownRollout { state, mut record } = self.find(id)?;
            let plan = record.plan.clone();
            let before = Machine::replay(&plan, &record.entries);
            let impossible = |why| RolloutError::Impossible { id: id.clone(), why };
            if !state.is_running() {
                return Err(impossible(Impossible::Over));
            }
            record.entries.push(Entry { at: unix_millis(), event: event.clone() });
            let machine = record.machine();
            let machine = machine.map_err(|_| impossible(why_not(&record, &event)))?;
            let is_over = matches!(machine.next(), Next::Over(_));
            let owner = Actor::from(&record.owner);
            let reason = format!("rollout {id}: {}", describe(&record, &event));
            let request = ChangeRequest {
                actor: Some(by.clone().unwrap_or(owner)),
                reason: Some(reason),
                terms: terms.clone(),
                rollout: Some(RolloutStep {
                    id: id.clone(),
                    expected: state.version,
                    record: record.write().into(),
                    is_over,
                }),
                ..ChangeRequest::unconditional(change.clone())
            };
            let made = match &change {
                Change::Promote(_) | Change::Rollback { .. } => {
                    self.release.make(request, false).await
                }
                _ => self.control().propose(request).await.map_err(ReleaseError::from),
            };
            match made {
                Ok(done) => {
                    if let Ok(before) = before {
                        self.publish(id, &record, &before);
                    }
                    return Ok(done);
                }
                Err(error) if has_moved(&error) => {}
                // Another change of any service was applied while the gates ran.
                Err(ReleaseError::Change(ChangeError::Stale { .. })) => {}
                Err(ReleaseError::Change(error)) => return Err(error.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Rollouts {
    /// Publishes what the last entry of a record means.
    fn publish(&self, id: &RolloutId, record: &Record, before: &Machine<'_>) {
        for event in of_last_entry(id.as_str(), record, before) {
            self.control().events().publish(EventKind::Rollout(event));
        }
        if let Ok(Next::Over(outcome)) = record.machine().map(|it| it.next()) {
            self.release.metrics().rollout_ended(&record.plan.name, outcome.word());
        }
    }
}

/// Whether another event was written first.
fn has_moved(error: &ReleaseError) -> bool {
    matches!(error, ReleaseError::Change(ChangeError::Refused(reasons))
        if reasons.iter().any(|it| matches!(it.problem, ReasonKind::RolloutMoved(_))))
}

/// Why the last event of a record is not possible.
fn why_not(record: &Record, event: &Event) -> Impossible {
    let before = &record.entries[..record.entries.len() - 1];
    let machine = Machine::replay(&record.plan, before);
    let tried = machine.map_err(|it| it.1).and_then(|mut it| it.apply(event, 0));
    tried.err().unwrap_or(Impossible::Over)
}

/// An event for the audit log.
fn describe(record: &Record, event: &Event) -> String {
    use super::event::{Direction, Step};
    let name = |step: &Step| {
        let name = record.plan.stages.get(step.stage).map_or("?", |it| it.name.as_str());
        match step.direction {
            Direction::Do => format!("stage `{name}`"),
            Direction::Undo => format!("undo of stage `{name}`"),
        }
    };
    match event {
        Event::Began(step) => format!("{} begins", name(step)),
        Event::Repeated(step) => format!("{} is repeated", name(step)),
        Event::Child { step, child } => format!("{}: helper {}", name(step), child.pid),
        Event::Made(step) => format!("{}: made", name(step)),
        Event::Done { step, .. } => format!("{} is done", name(step)),
        Event::Failed { step, .. } => format!("{} has failed", name(step)),
        Event::Skipped { stage } => format!("{} is skipped", name(&Step::forward(*stage))),
        Event::Approved { .. } => "approved".to_owned(),
        Event::Cancelled { reason, .. } => match reason {
            Some(reason) => format!("cancelled: {reason}"),
            None => "cancelled".to_owned(),
        },
        Event::Retried { .. } => "tried again".to_owned(),
        Event::TakenBack { reason } => format!("taken back: {reason}"),
    }
}

impl From<&Owner> for Actor {
    fn from(owner: &Owner) -> Self {
        let Owner { name, address, uid, is_authenticated } = owner.clone();
        Self { name, address, uid, is_authenticated }
    }
}

impl RolloutSettings {
    /// The secrets of a plan, by name.
    ///
    /// # Errors
    ///
    /// Which one cannot be read, and why.
    pub(super) fn secrets(&self, plan: &Plan) -> Result<BTreeMap<String, String>, String> {
        let mut secrets = BTreeMap::new();
        for (name, source) in &plan.secrets {
            let value = match source {
                SecretSource::Env(variable) => {
                    self.environment.get(variable).cloned().ok_or_else(|| {
                        format!("secret `{name}`: the environment variable {variable} is not set")
                    })?
                }
                SecretSource::File(path) => read_secret(path)
                    .map_err(|error| format!("secret `{name}`: {}: {error}", path.display()))?,
            };
            secrets.insert(name.clone(), value);
        }
        Ok(secrets)
    }
}

/// The most bytes of the file of a secret.
const SECRET_MAX: u64 = 64 * 1024;

/// The first line of a file.
fn read_secret(path: &std::path::Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut text = String::new();
    file.take(SECRET_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err("it has no first line".to_owned()),
    }
}

/// The time, in milliseconds of Unix time.
pub(super) fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// The id of a rollout that begins now.
pub fn new_id() -> RolloutId {
    const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let letters = (0..4).map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]));
    let text = format!("{now}-{}", letters.collect::<String>());
    text.parse().expect("digits, letters and hyphens")
}
