//! What a rollout publishes, to the log and the subscribers.

use super::{
    event::{Direction, Event, Step},
    machine::{Machine, Next},
    record::Record,
};
use crate::control::RolloutEvent;

/// The events that follow from the last entry of a record. `before` is where the rollout was.
pub(super) fn of_last_entry(id: &str, record: &Record, before: &Machine<'_>) -> Vec<RolloutEvent> {
    let mut events = Vec::new();
    let Some(last) = record.entries.last() else { return events };
    let rollout = || id.to_owned();
    let name = |stage: usize| record.plan.stages.get(stage).map(|it| it.name.clone());
    let stage = |step: &Step, states: [&'static str; 2], error: Option<String>| {
        let state = match step.direction {
            Direction::Do => states[0],
            Direction::Undo => states[1],
        };
        let stage = name(step.stage).unwrap_or_default();
        RolloutEvent::RolloutStage { rollout: rollout(), stage, state, error }
    };
    match &last.event {
        Event::Began(step) => events.push(stage(step, ["running", "undoing"], None)),
        Event::Done { step, .. } => events.push(stage(step, ["done", "undone"], None)),
        Event::Failed { step, failure } => {
            let error = Some(failure.error.clone());
            events.push(stage(step, ["failed", "undo_failed"], error));
        }
        Event::Skipped { stage: place } => {
            events.push(stage(&Step::forward(*place), ["skipped", "skipped"], None));
        }
        Event::Repeated(step) => events.push(stage(step, ["running", "undoing"], None)),
        Event::Child { .. }
        | Event::Made(_)
        | Event::Approved { .. }
        | Event::Cancelled { .. }
        | Event::Retried { .. }
        | Event::TakenBack { .. } => {}
    }
    // It was checked before it was written.
    let Ok(machine) = record.machine() else { return events };
    let state = machine.state();
    if matches!(state, "stuck" | "waiting") && before.state() != state {
        events.push(RolloutEvent::RolloutNeedsPerson { rollout: rollout(), state });
    }
    if let Next::Over(outcome) = machine.next() {
        let state = outcome.word();
        let error = machine.cause().and_then(|_| record.error());
        events.push(RolloutEvent::RolloutEnded { rollout: rollout(), state, error });
    }
    events
}
