//! A stage that runs: what it is for, and how often and how long it may be tried.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    event::{Direction, Step},
    handle::Rollouts,
    plan::{Action, Retry},
    record::Record,
    values::{OF_SERVICE, Values, placeholders},
};
use crate::model::{Color, RolloutId, ServiceName};

/// What a stage has found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) saved: BTreeMap<String, String>,
    pub(super) note: Option<String>,
}

/// A stage that runs.
pub(super) struct Running<'r> {
    pub(super) rollouts: &'r Rollouts,
    pub(super) id: &'r RolloutId,
    pub(super) record: &'r Record,
    pub(super) step: Step,
    /// When it began, in milliseconds of Unix time.
    pub(super) since: u64,
    /// Whether its change of Flipgate's own state was made.
    pub(super) is_made: bool,
}

// === impl Running ===

impl Running<'_> {
    pub(super) fn action(&self) -> &Action {
        let stage = &self.record.plan.stages[self.step.stage];
        match (self.step.direction, &stage.undo) {
            (Direction::Undo, Some(undo)) => &undo.action,
            (Direction::Undo, None) | (Direction::Do, _) => &stage.action,
        }
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        let stage = &self.record.plan.stages[self.step.stage];
        match (self.step.direction, &stage.undo) {
            (Direction::Undo, Some(undo)) => undo.deadline,
            // It undoes itself, which takes no time but that of gates.
            (Direction::Undo, None) => None,
            (Direction::Do, _) => stage.deadline,
        }
    }

    pub(super) fn retry(&self) -> Retry {
        let stage = &self.record.plan.stages[self.step.stage];
        match (self.step.direction, &stage.undo) {
            (Direction::Undo, Some(undo)) => undo.retry,
            (Direction::Undo, None) | (Direction::Do, _) => stage.retry,
        }
    }

    pub(super) fn is_idempotent(&self) -> bool {
        let stage = &self.record.plan.stages[self.step.stage];
        match (self.step.direction, &stage.undo) {
            (Direction::Undo, Some(undo)) => undo.idempotent,
            (Direction::Undo, None) => true,
            (Direction::Do, _) => stage.idempotent,
        }
    }

    /// The services of the stage.
    pub(super) fn services(&self) -> Vec<ServiceName> {
        let wanted = self.record.plan.stages[self.step.stage].services.as_ref();
        let all = self.record.services.keys();
        all.filter(|it| wanted.is_none_or(|wanted| wanted.contains(it))).cloned().collect()
    }

    /// The services of the stage with their candidates.
    pub(super) fn candidates(&self) -> Vec<(ServiceName, Color)> {
        let candidate = |it: ServiceName| {
            let color = self.record.services.get(&it)?.candidate;
            Some((it, color))
        };
        self.services().into_iter().filter_map(candidate).collect()
    }

    /// The runs of a stage with these texts and this expression: one for each of its services, if they use a value of one
    /// service.
    pub(super) fn runs<'t>(
        &self,
        texts: impl Iterator<Item = &'t str>,
        expression: Option<&str>,
    ) -> Vec<Values> {
        let secrets = self.rollouts.settings().secrets(&self.record.plan);
        let values = |service| Values::of(self.record, self.id.as_str(), service, secrets.clone());
        let of_service = names_of_service(self.record);
        let uses_service = texts.flat_map(placeholders).any(|it| of_service.contains(it))
            || expression.is_some_and(|it| names_service(it, self.record));
        let mut services = self.services();
        if self.step.direction == Direction::Undo {
            services.reverse();
        }
        match uses_service {
            true => services.iter().map(|it| values(Some(it))).collect(),
            false => vec![values(None)],
        }
    }
}

/// The names of values that each service of a rollout has its own of.
fn names_of_service(record: &Record) -> BTreeSet<String> {
    let saved = record.saved().into_keys();
    let saved = saved.filter_map(|it| it.split_once('/').map(|it| it.1.to_owned()));
    saved.chain(OF_SERVICE.map(str::to_owned)).collect()
}

/// Whether an expression names a value of one service.
pub(super) fn names_service(expression: &str, record: &Record) -> bool {
    let names = names_of_service(record);
    let mut words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.any(|it| names.contains(it))
}
