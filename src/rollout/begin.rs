//! How a rollout begins.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    handle::{KnownRollout, RolloutError, Rollouts, unix_millis},
    plan::Plan,
    record::{Deployment, Owner, Record},
};
use crate::{
    control::{
        Actor, Change, ChangeError, ChangeOutcome, ChangeRequest, EventKind, Idempotency,
        ReasonKind, RefusalReason, RolloutChange, RolloutEvent, RolloutStep,
    },
    model::{Color, Generation, RolloutId, ServiceName, Version, WeightedEndpoint},
    store::RolloutState,
};

/// The longest version of a rollout.
const VERSION_MAX: usize = 64;

/// The longest record at the begin: what happens is added to it.
const BEGIN_MAX: usize = RolloutState::RECORD_MAX / 2;

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

// === impl Rollouts ===

impl Rollouts {
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
        let mut plan = self.plan(call.plan.as_deref())?;
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
        match plan.confirmation(call.confirm_within) {
            Ok(None) => {}
            Ok(Some(_)) => plan.wait_for_confirmation(),
            Err(why) => return Err(RolloutError::NoConfirmation { plan: plan.name, why }),
        }
        for (service, it) in &services {
            // That of the active color is no part of the call: nothing but a command could take it for something else.
            let active = it.active_version.as_ref().filter(|_| plan.runs_commands());
            for (color, version) in
                [(it.candidate, it.version.as_ref()), (it.candidate.other(), active)]
            {
                let Some(why) = version.and_then(|it| wrong_version(it.as_str())) else { continue };
                let service = service.clone();
                return Err(RolloutError::WrongVersion { service, color, why });
            }
        }
        let Actor { name, address, uid, is_authenticated } = call.actor.clone();
        let owner = Owner { name, address, uid, is_authenticated };
        let mut record = Record::new(id, plan, services, owner, unix_millis());
        record.reason.clone_from(&call.reason);
        record.confirm_within = call.confirm_within;
        record.key = call.idempotency.as_ref().map(|it| it.key.clone());
        match record.write().len() > BEGIN_MAX {
            true => Err(RolloutError::TooLarge(record.plan.name)),
            false => Ok(record),
        }
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
        // Before anything of the call is checked: what the first one has changed since, or a plan that is gone, would
        // refuse the second.
        if let Some(key) = &call.idempotency
            && let Some(repeated) = self.control().repeated(key)
        {
            return self.begun_under(&key.key, repeated?);
        }
        let id = new_id();
        let record = self.prepare(&id, &call)?;
        let owner = call.actor.shown();
        let services = call.services.keys().cloned().collect();
        let change =
            Change::Rollout(RolloutChange::Begin { owner: owner.as_str().into(), services });
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
                pools: BTreeMap::new(),
            }),
            ..ChangeRequest::unconditional(change)
        };
        let done = self.control().propose(request).await?;
        if done.is_replayed {
            let key = record.key.unwrap_or_default();
            return self.begun_under(&key, done);
        }
        let Record { plan, services, reason, .. } = record;
        let event = RolloutEvent::RolloutStarted {
            rollout: id.to_string(),
            plan: plan.name,
            services: services.into_keys().collect(),
            by: owner,
            reason,
        };
        self.control().events().publish(EventKind::Rollout(event));
        Ok((id, done))
    }

    /// The rollout that an earlier call with this key began.
    fn begun_under(
        &self,
        key: &str,
        replayed: ChangeOutcome,
    ) -> Result<(RolloutId, ChangeOutcome), RolloutError> {
        let is_of_key = |it: &RolloutState| {
            Record::read(&it.record).is_ok_and(|it| it.key.as_deref() == Some(key))
        };
        // A key that expired can have begun several.
        let rollouts = &replayed.applied.state.rollouts;
        let latest = rollouts.iter().filter(|it| is_of_key(it.1)).map(|it| it.0.clone()).max();
        let id = latest.ok_or_else(|| RolloutError::NotKept(key.to_owned()))?;
        Ok((id, replayed))
    }
}

/// Why a version cannot be that of a rollout, which becomes a part of commands and URLs.
#[must_use]
pub fn wrong_version(version: &str) -> Option<String> {
    let is_valid = |it: u8| it.is_ascii_alphanumeric() || b"._+-".contains(&it);
    let is_good = (1..=VERSION_MAX).contains(&version.len()) && version.bytes().all(is_valid);
    match (is_good, version.starts_with('-')) {
        (true, false) => None,
        (true, true) => {
            Some("the version begins with `-`, so a command could take it for an option".to_owned())
        }
        (false, _) => Some(format!(
            "the version of a rollout has 1 to {VERSION_MAX} letters, digits, `.`, `_`, `+` and `-`"
        )),
    }
}

/// The id of a rollout that begins now.
pub fn new_id() -> RolloutId {
    const LETTERS: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let letters = (0..4).map(|_| char::from(LETTERS[fastrand::usize(..LETTERS.len())]));
    let text = format!("{now}-{}", letters.collect::<String>());
    text.parse().expect("digits, letters and hyphens")
}
