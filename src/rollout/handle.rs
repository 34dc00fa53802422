//! The handle of rollouts: says where they are, and writes what happens to them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    board::Board,
    event::{Entry, Event},
    events::of_last_entry,
    machine::{Impossible, Machine, Next},
    record::{Owner, Record, RecordError},
    settings::RolloutSettings,
};
use crate::{
    control::{
        Actor, Change, ChangeError, ChangeOutcome, ChangeRequest, Control, EventKind,
        PromotionTerms, ReasonKind, RolloutChange, RolloutStep,
    },
    model::{Color, RolloutId, ServiceName},
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
    /// The plan cannot wait for a confirmation.
    #[error("`confirm_within` cannot be used with the plan `{plan}`: {why}")]
    NoConfirmation {
        /// The plan.
        plan: String,
        /// Why.
        why: &'static str,
    },
    /// A version cannot be a part of commands and URLs.
    #[error("service `{service}`, {color}: {why}")]
    WrongVersion {
        /// The service.
        service: ServiceName,
        /// The pool.
        color: Color,
        /// Why.
        why: String,
    },
    /// The plan with all it names is too long.
    #[error(
        "the plan `{0}` with the services is too long to be kept; shorten the texts of its stages"
    )]
    TooLarge(String),
    /// The rollout that a call with this idempotency key began is not kept any more.
    #[error("a rollout was begun under the key `{0}` and is not kept any more; nothing was begun")]
    NotKept(String),
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
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        // Plans in progress may name variables that no other plan does.
        let mut environment = known.environment.clone();
        environment.extend(settings.environment);
        *known = Arc::new(RolloutSettings { environment, ..settings });
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

    /// A rollout.
    ///
    /// # Errors
    ///
    /// If there is none, or its record cannot be read.
    pub fn find(&self, id: &RolloutId) -> Result<KnownRollout, RolloutError> {
        let state = self.state(id).ok_or_else(|| RolloutError::Unknown(id.clone()))?;
        self.read(id, state)
    }

    /// What the state has of a rollout.
    #[must_use]
    pub fn state(&self, id: &RolloutId) -> Option<Arc<RolloutState>> {
        self.control().applied().state.rollouts.get(id).map(Arc::clone)
    }

    pub(super) fn read(
        &self,
        id: &RolloutId,
        state: Arc<RolloutState>,
    ) -> Result<KnownRollout, RolloutError> {
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
            let KnownRollout { state, mut record } = match self.find(id) {
                Err(RolloutError::Record { .. }) if matches!(event, Event::Cancelled { .. }) => {
                    return self.end_unreadable(id, by).await;
                }
                found => found?,
            };
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
            let text: Arc<str> = record.write().into();
            let is_full = record.is_full() || text.len() > RolloutState::RECORD_MAX;
            if is_full && matches!(event, Event::Retried { .. }) {
                return Err(impossible(Impossible::TooOften));
            }
            let pools = match &change {
                Change::Promote(colors) => record.set_pools(colors.keys()),
                _ => BTreeMap::new(),
            };
            let owner = Actor::from(&record.owner);
            let reason = format!("rollout {id}: {}", describe(&record, &event));
            let request = ChangeRequest {
                actor: Some(by.clone().unwrap_or(owner)),
                reason: Some(reason),
                terms: terms.clone(),
                rollout: Some(RolloutStep {
                    id: id.clone(),
                    expected: state.version,
                    record: text.clone(),
                    is_over,
                    pools: pools.clone(),
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
    /// Ends a rollout with a record that cannot be read. Nothing of it is undone.
    async fn end_unreadable(
        &self,
        id: &RolloutId,
        by: Option<Actor>,
    ) -> Result<ChangeOutcome, RolloutError> {
        let state = self.state(id).ok_or_else(|| RolloutError::Unknown(id.clone()))?;
        if !state.is_running() {
            return Err(RolloutError::Impossible { id: id.clone(), why: Impossible::Over });
        }
        let request = ChangeRequest {
            actor: by,
            reason: Some(format!("rollout {id}: cancelled, its record cannot be read")),
            rollout: Some(RolloutStep {
                id: id.clone(),
                expected: state.version,
                record: Arc::clone(&state.record),
                is_over: true,
                pools: BTreeMap::new(),
            }),
            ..ChangeRequest::unconditional(Change::Rollout(RolloutChange::Advance))
        };
        Ok(self.control().propose(request).await?)
    }

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

/// The time, in milliseconds of Unix time.
pub(super) fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
