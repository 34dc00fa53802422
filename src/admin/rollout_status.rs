//! Rollouts as the API shows them.

use flipgate_api::wire::{RolloutService, RolloutStage, RolloutStatus, RolloutUndo};

use crate::{
    control::timestamp,
    model::RolloutId,
    rollout::{
        Cause, KnownRollout, Machine, Progress, Record, RecordError, Rollouts, StageState,
        left_to_do,
    },
    store::RolloutState,
};

/// A rollout. One with a record that cannot be read is shown as stuck.
pub(super) fn status_of(
    rollouts: &Rollouts,
    id: &RolloutId,
    known: &KnownRollout,
) -> RolloutStatus {
    let KnownRollout { state, record } = known;
    // It was checked when it was read.
    let machine = record.machine().unwrap_or_else(|_| Machine::new(&record.plan));
    let left_to_do = left_to_do(record, &machine, id.as_str());
    let waiting = machine.waits_for_approval();
    let waiting_for = match waiting {
        Some(_) => Some(format!("an approval: flipgate rollout approve {id}")),
        None => rollouts.board().get(id).filter(|_| state.is_running()),
    };
    let started = timestamp(record.began).to_string();
    let services = record.services.iter().map(|(name, it)| {
        let text = |it: &Option<crate::model::Version>| it.as_ref().map(ToString::to_string);
        let service = RolloutService {
            candidate: it.candidate.to_string(),
            version: text(&it.version),
            endpoints: it.endpoints.iter().map(|it| it.endpoint.to_string()).collect(),
            active_version: text(&it.active_version),
        };
        (name.to_string(), service)
    });
    RolloutStatus {
        id: id.to_string(),
        state: machine.state().to_owned(),
        over: !state.is_running(),
        version: state.version,
        plan: record.plan.name.clone(),
        owner: state.owner.to_string(),
        reason: record.reason.clone(),
        started,
        ended: state.ended_at.map(|it| timestamp(it).to_string()),
        services: services.collect(),
        stages: stages(record, &machine, waiting),
        cause: machine.cause().map(|it| cause(it).to_owned()),
        error: machine.cause().and_then(|_| record.error()),
        waiting_for,
        left_to_do,
    }
}

/// A rollout with a record that cannot be read: nothing is done with it, but it can be ended.
pub(super) fn status_of_unreadable(
    id: &RolloutId,
    state: &RolloutState,
    error: &RecordError,
) -> RolloutStatus {
    let over = !state.is_running();
    let service = RolloutService {
        candidate: "unknown".to_owned(),
        version: None,
        endpoints: Vec::new(),
        active_version: None,
    };
    let services = state.services.iter().map(|it| (it.to_string(), service.clone()));
    let left = format!(
        "use the version of Flipgate that began it, or end it as it is: flipgate rollout cancel {id}"
    );
    RolloutStatus {
        id: id.to_string(),
        state: if over { "cancelled" } else { "stuck" }.to_owned(),
        over,
        version: state.version,
        plan: "unknown".to_owned(),
        owner: state.owner.to_string(),
        reason: None,
        started: started_of(id),
        ended: state.ended_at.map(|it| timestamp(it).to_string()),
        services: services.collect(),
        stages: Vec::new(),
        cause: None,
        error: Some(error.to_string()),
        waiting_for: None,
        left_to_do: if over { Vec::new() } else { vec![left] },
    }
}

/// When a rollout began, by its id.
fn started_of(id: &RolloutId) -> String {
    let text = id.as_str().get(..15).unwrap_or_default();
    let time = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", text);
    let time = time.ok().and_then(|it| it.to_zoned(jiff::tz::TimeZone::UTC).ok());
    time.map_or_else(|| "unknown".to_owned(), |it| it.timestamp().to_string())
}

fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Gate => "gate",
        Cause::Failure => "failure",
        Cause::Cancelled => "cancelled",
        Cause::TakenBack => "taken_back",
    }
}

fn stages(record: &Record, machine: &Machine<'_>, waiting: Option<usize>) -> Vec<RolloutStage> {
    let stages = record.plan.stages.iter().zip(machine.stages()).enumerate();
    let stage = |(place, (stage, state)): (usize, (&crate::rollout::Stage, &StageState))| {
        let (started, ended) = times(&state.forward);
        let (note, error, output) = match &state.forward {
            Progress::Done { note, .. } => (note.clone(), None, None),
            Progress::Failed { failure, .. } => {
                (None, Some(failure.error.clone()), failure.output.clone())
            }
            _ => (None, None, None),
        };
        RolloutStage {
            name: stage.name.clone(),
            kind: stage.action.kind().to_owned(),
            state: stage_state(state, waiting == Some(place)).to_owned(),
            started,
            ended,
            note,
            error,
            output,
            undo: undo(&state.back),
        }
    };
    stages.map(stage).collect()
}

fn stage_state(state: &StageState, is_waiting: bool) -> &'static str {
    match (&state.back, &state.forward) {
        (Progress::Running { .. }, _) => "undoing",
        (Progress::Done { .. }, _) => "undone",
        (Progress::Failed { .. }, _) => "undo_failed",
        (_, Progress::Pending) => "pending",
        (_, Progress::Running { .. }) if is_waiting => "waiting",
        (_, Progress::Running { .. }) => "running",
        (_, Progress::Done { .. }) => "done",
        (_, Progress::Failed { .. }) => "failed",
        (_, Progress::Skipped) => "skipped",
    }
}

fn undo(progress: &Progress) -> Option<RolloutUndo> {
    let (started, ended) = times(progress);
    let (state, note, error, output) = match progress {
        Progress::Pending | Progress::Skipped => return None,
        Progress::Running { .. } => ("running", None, None, None),
        Progress::Done { note, .. } => ("done", note.clone(), None, None),
        Progress::Failed { failure, .. } => {
            ("failed", None, Some(failure.error.clone()), failure.output.clone())
        }
    };
    Some(RolloutUndo { state: state.to_owned(), started: started?, ended, note, error, output })
}

fn times(progress: &Progress) -> (Option<String>, Option<String>) {
    let text = |it: u64| Some(timestamp(it).to_string());
    match progress {
        Progress::Pending | Progress::Skipped => (None, None),
        Progress::Running { since, .. } => (text(*since), None),
        Progress::Done { time, .. } | Progress::Failed { time, .. } => (text(time.0), text(time.1)),
    }
}
