//! The record of a rollout: what it is for, its plan, and all of its events. It is kept in the state as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    durations,
    event::{Direction, Entry, Event, Step},
    machine::Machine,
    plan::{Action, Plan},
};
use crate::model::{Color, PoolSpec, RolloutId, ServiceName, Version, WeightedEndpoint};

/// The record of a rollout.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// The version of this format.
    format: u32,
    /// The id.
    id: String,
    /// The plan, as it was at the start.
    pub plan: Plan,
    /// What is deployed.
    pub services: BTreeMap<ServiceName, Deployment>,
    /// The caller that began it.
    pub owner: Owner,
    /// Why, in the caller's words.
    pub reason: Option<String>,
    /// The idempotency key of the call that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Overrides that of the plan: the promotion is taken back unless it is confirmed within this time.
    #[serde(with = "durations::optional")]
    pub confirm_within: Option<std::time::Duration>,
    /// When it began, in milliseconds of Unix time.
    pub began: u64,
    /// What has happened since.
    pub entries: Vec<Entry>,
}

/// What is deployed of one service.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Deployment {
    /// The color that becomes active.
    pub candidate: Color,
    /// Its version.
    pub version: Option<Version>,
    /// Its endpoints. Empty: those that it has.
    pub endpoints: Vec<WeightedEndpoint>,
    /// The version and the endpoints of the active color at the start.
    pub active_version: Option<Version>,
    /// Its endpoints.
    pub active_endpoints: Vec<WeightedEndpoint>,
}

/// The caller that began a rollout.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Owner {
    /// The name of its token, or `local` without a token.
    pub name: String,
    /// Its address, or `unix` for the unix socket.
    pub address: String,
    /// The user that opened the unix socket.
    pub uid: Option<u32>,
    /// Whether it had a token.
    pub is_authenticated: bool,
}

/// The format that this version writes.
const FORMAT: u32 = 1;

/// The most events of one rollout. Retries and repeated attempts by hand are the only ones without another limit.
const ENTRIES_MAX: usize = 2000;

/// Why a record cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// It is not of a format that this version reads.
    #[error("its record cannot be read: {0}")]
    Unreadable(String),
    /// A later version has written it.
    #[error(
        "its record has format {0}, which a later version of Flipgate has written; this one reads format {FORMAT}"
    )]
    Later(u32),
    /// Its events contradict each other.
    #[error("its record contradicts itself at event {0}: {1}")]
    Contradiction(usize, String),
}

impl Record {
    /// The record of a rollout that begins.
    #[must_use]
    pub fn new(
        id: &RolloutId,
        plan: Plan,
        services: BTreeMap<ServiceName, Deployment>,
        owner: Owner,
        began: u64,
    ) -> Self {
        Self {
            format: FORMAT,
            id: id.to_string(),
            plan,
            services,
            owner,
            reason: None,
            key: None,
            confirm_within: None,
            began,
            entries: Vec::new(),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`RecordError`].
    pub fn read(text: &str) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |error: serde_json::Error| RecordError::Unreadable(error.to_string());
        let Head { format } = serde_json::from_str(text).map_err(unreadable)?;
        if format > FORMAT {
            return Err(RecordError::Later(format));
        }
        let record: Self = serde_json::from_str(text).map_err(unreadable)?;
        record.machine()?;
        Ok(record)
    }

    /// The record as text.
    #[must_use]
    pub fn write(&self) -> String {
        serde_json::to_string(self).expect("maps with text keys and plain values")
    }

    /// Where the rollout is.
    ///
    /// # Errors
    ///
    /// [`RecordError::Contradiction`].
    pub fn machine(&self) -> Result<Machine<'_>, RecordError> {
        let contradiction = |(place, why): (usize, super::machine::Impossible)| {
            RecordError::Contradiction(place, why.to_string())
        };
        Machine::replay(&self.plan, &self.entries).map_err(contradiction)
    }

    /// Whether no event can be added but the end of what runs.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    /// Why everything is undone: the stage that has failed, or the person or the change that ended it.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let failed = self.entries.iter().rev().find_map(|it| match &it.event {
            Event::Failed { step: Step { stage, direction: Direction::Do }, failure } => {
                let name = self.plan.stages.get(*stage).map_or("?", |it| it.name.as_str());
                Some(format!("stage `{name}`: {}", failure.error))
            }
            _ => None,
        });
        failed.or_else(|| self.stop_reason())
    }

    /// Why everything is to be undone, if a person or another change is the cause.
    #[must_use]
    pub fn stop_reason(&self) -> Option<String> {
        self.entries.iter().rev().find_map(|it| match &it.event {
            Event::Cancelled { by, reason: Some(reason) } => {
                Some(format!("cancelled by {by}: {reason}"))
            }
            Event::Cancelled { by, reason: None } => Some(format!("cancelled by {by}")),
            Event::TakenBack { reason } => Some(reason.clone()),
            _ => None,
        })
    }

    /// The services that the plan promotes, with their colors.
    #[must_use]
    pub fn promoted_services(&self) -> Vec<(ServiceName, Color)> {
        let promotions =
            self.plan.stages.iter().filter(|it| matches!(it.action, Action::Promote(_)));
        let promotions: Vec<_> = promotions.collect();
        let is_promoted = |it: &ServiceName| {
            promotions
                .iter()
                .any(|stage| stage.services.as_ref().is_none_or(|all| all.contains(it)))
        };
        let services = self.services.iter().filter(|it| is_promoted(it.0));
        services.map(|(name, it)| (name.clone(), it.candidate)).collect()
    }

    /// The pools of these services that the rollout has set, as it has set them.
    #[must_use]
    pub fn set_pools<'n>(
        &self,
        services: impl Iterator<Item = &'n ServiceName>,
    ) -> BTreeMap<ServiceName, (Color, PoolSpec)> {
        let Ok(machine) = self.machine() else { return BTreeMap::new() };
        let is_set = |service: &ServiceName| {
            self.plan.stages.iter().zip(machine.stages()).any(|(stage, state)| {
                let covers = stage.services.as_ref().is_none_or(|it| it.contains(service));
                matches!(stage.action, Action::Pool(_)) && state.is_made && covers
            })
        };
        let spec = |service: &ServiceName| {
            let it = self.services.get(service)?;
            let spec = PoolSpec::new(it.version.clone(), it.endpoints.clone()).ok()?;
            Some((service.clone(), (it.candidate, spec)))
        };
        services.filter(|it| is_set(it)).filter_map(spec).collect()
    }

    /// Whether the plan promotes gradually.
    #[must_use]
    pub fn has_steps(&self) -> bool {
        let has = |it: &Action| matches!(it, Action::Promote(it) if !it.steps.is_empty());
        self.plan.stages.iter().any(|it| has(&it.action))
    }

    /// The values that the stages have saved for later ones.
    #[must_use]
    pub fn saved(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for Entry { event, .. } in &self.entries {
            if let Event::Done { step: Step { direction: Direction::Do, .. }, saved, .. } = event {
                all.extend(saved.clone());
            }
        }
        all
    }
}
