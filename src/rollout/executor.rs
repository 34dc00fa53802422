//! Drives one rollout: asks its machine what comes next, does it, and writes what has happened.
//!
//! # Crashes
//!
//! A stage is written down before it does anything, and again at its end. After a restart, a stage that had begun and has no end
//! may have run. It is repeated if that is harmless; otherwise the machine decides by the plan's word.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{
    child::{end_helper, end_processes_of},
    event::{Direction, Event, Failure, Step},
    handle::{KnownRollout, RolloutError, Rollouts},
    machine::{Next, Progress},
    plan::Action,
    record::Record,
    running::{Found, Running, names_service},
    values::Values,
};
use crate::{
    control::{Applied, ChangeError, still_promoted},
    model::{Generation, RolloutId},
    store::RolloutState,
};

/// Between two attempts to write, if the state cannot be written.
const RETRY: Duration = Duration::from_secs(1);

/// What a rollout does now.
enum Turn {
    /// The next one.
    Next,
    /// Nothing, until its state changes.
    Wait,
    /// Nothing with this version of its state.
    Over(Option<u64>),
}

/// Drives a rollout to its end. Dropping the future stops it where it is: the next process goes on. Returns the version
/// with which nothing can be done, if its state is still there.
pub(super) async fn drive(rollouts: Rollouts, id: RolloutId) -> Option<u64> {
    let mut changes = rollouts.control().changes();
    // What this process has begun itself goes on as it is. Anything else was interrupted.
    let mut own: Option<Step> = None;
    loop {
        changes.borrow_and_update();
        match turn(&rollouts, &id, &mut own).await {
            Turn::Next => {}
            Turn::Wait => {
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
            Turn::Over(version) => {
                rollouts.board().forget(&id);
                return version;
            }
        }
    }
}

async fn turn(rollouts: &Rollouts, id: &RolloutId, own: &mut Option<Step>) -> Turn {
    let Some(state) = rollouts.state(id) else { return Turn::Over(None) };
    let over = Turn::Over(Some(state.version));
    let KnownRollout { state, record } = match rollouts.read(id, state) {
        Ok(known) => known,
        Err(error) => {
            error!(rollout = %id, %error, "the rollout cannot go on; `flipgate rollout cancel {id}` ends it as it is");
            return over;
        }
    };
    let Ok(machine) = record.machine() else { return over };
    if let Next::Over(outcome) = machine.next() {
        info!(rollout = %id, ?outcome, "rollout ended");
        return over;
    }
    if let Some(reason) = taken_back(&record, &state, &rollouts.control().applied()) {
        warn!(rollout = %id, reason, "the promotion was taken back");
        write(rollouts, id, Event::TakenBack { reason }).await;
        return Turn::Next;
    }
    match machine.next() {
        Next::Over(_) => over,
        Next::Person(_) => Turn::Wait,
        Next::Begin(step) => {
            *own = begin(rollouts, id, &record, step).await.then_some(step);
            Turn::Next
        }
        Next::Continue(step) if *own == Some(step) => {
            *own = None;
            run(rollouts, id, &record, step).await;
            Turn::Next
        }
        Next::Continue(step) => {
            resume(rollouts, id, &record, step, own).await;
            Turn::Next
        }
        Next::Stop(step) => {
            // It does not run in this process: nothing but a helper of an earlier one may be left of it.
            end_child(id, &record, step).await;
            let error = record.stop_reason().unwrap_or_else(|| "stopped".to_owned());
            write(rollouts, id, Event::Failed { step, failure: Failure::maybe_done(error) }).await;
            Turn::Next
        }
    }
}

/// Begins a stage, or skips it. Returns whether it was begun.
async fn begin(rollouts: &Rollouts, id: &RolloutId, record: &Record, step: Step) -> bool {
    let stage = &record.plan.stages[step.stage];
    let event = match &stage.only_if {
        Some(condition) if step.direction == Direction::Do => {
            match holds(rollouts, id, record, condition).await {
                Ok(true) => Event::Began(step),
                Ok(false) => Event::Skipped { stage: step.stage },
                Err(error) => {
                    // As a stage that has failed: it has to begin for that.
                    if !write(rollouts, id, Event::Began(step)).await {
                        return false;
                    }
                    let error = format!("`only_if`: {error}");
                    let failure = Failure::before_anything(error);
                    write(rollouts, id, Event::Failed { step, failure }).await;
                    return false;
                }
            }
        }
        _ => Event::Began(step),
    };
    let direction = step.direction;
    info!(rollout = %id, stage = stage.name, ?direction, "stage begins");
    let begins = matches!(event, Event::Began(_));
    write(rollouts, id, event).await && begins
}

async fn holds(
    rollouts: &Rollouts,
    id: &RolloutId,
    record: &Record,
    condition: &str,
) -> Result<bool, String> {
    if record.services.len() > 1 && names_service(condition, record) {
        return Err(
            "it names a value of one service, but the rollout has several; use `values`".to_owned()
        );
    }
    let values = Values::of(record, id.as_str(), None, std::collections::BTreeMap::new());
    match rollouts.release().evaluate(condition, values.variables()).await? {
        serde_json::Value::Bool(it) => Ok(it),
        other => Err(format!("it is {other}, neither true nor false")),
    }
}

/// Goes on with a stage that an earlier process has begun.
async fn resume(
    rollouts: &Rollouts,
    id: &RolloutId,
    record: &Record,
    step: Step,
    own: &mut Option<Step>,
) {
    end_child(id, record, step).await;
    let stage = &record.plan.stages[step.stage];
    let is_harmless = match (step.direction, &stage.undo) {
        (Direction::Do, _) => stage.idempotent || is_of_own_state(&stage.action),
        (Direction::Undo, Some(undo)) => undo.idempotent || is_of_own_state(&undo.action),
        (Direction::Undo, None) => true,
    };
    info!(rollout = %id, stage = stage.name, repeated = is_harmless, "stage was interrupted");
    if is_harmless {
        if write(rollouts, id, Event::Repeated(step)).await {
            *own = Some(step);
        }
        return;
    }
    let failure = Failure {
        interrupted: true,
        ..Failure::maybe_done("Flipgate was stopped while it ran: it may have run or not")
    };
    write(rollouts, id, Event::Failed { step, failure }).await;
}

/// Whether Flipgate knows how far a stage came, since it is about its own state.
fn is_of_own_state(action: &Action) -> bool {
    !matches!(action, Action::Call(_) | Action::Until(_) | Action::Exec(_))
}

/// Waits for the end of the helper that an earlier process has started for a stage, and of all that its command has
/// started.
async fn end_child(id: &RolloutId, record: &Record, step: Step) {
    let Ok(machine) = record.machine() else { return };
    let Some(state) = machine.stages().get(step.stage) else { return };
    let progress = match step.direction {
        Direction::Do => &state.forward,
        Direction::Undo => &state.back,
    };
    if let Progress::Running { child: Some(child), .. } = progress {
        end_helper(child).await;
        end_processes_of(id).await;
    }
}

async fn run(rollouts: &Rollouts, id: &RolloutId, record: &Record, step: Step) {
    let Ok(machine) = record.machine() else { return };
    let state = &machine.stages()[step.stage];
    let (progress, is_made) = match step.direction {
        Direction::Do => (&state.forward, state.is_made),
        Direction::Undo => (&state.back, !state.is_made),
    };
    let Progress::Running { since, .. } = progress else { return };
    let running = Running { rollouts, id, record, step, since: *since, is_made };
    let stop = async {
        match step.direction {
            Direction::Do => stop_requested(rollouts, id, step).await,
            // What is undone is undone to its end.
            Direction::Undo => std::future::pending().await,
        }
    };
    // Large, and made once per stage.
    let ended = Box::pin(running.run(stop)).await;
    let stage = &record.plan.stages[step.stage].name;
    let direction = step.direction;
    let event = match ended {
        Ok(Found { saved, note }) => {
            info!(rollout = %id, stage, ?direction, note, "stage done");
            Event::Done { step, saved, note }
        }
        Err(failure) => {
            warn!(rollout = %id, stage, ?direction, error = failure.error, "stage failed");
            Event::Failed { step, failure }
        }
    };
    rollouts.board().forget(id);
    write(rollouts, id, event).await;
}

/// Waits until a stage has to end since everything is to be undone, and says why. Cancel-safe.
async fn stop_requested(rollouts: &Rollouts, id: &RolloutId, step: Step) -> String {
    let mut changes = rollouts.control().changes();
    loop {
        let applied = changes.borrow_and_update().clone();
        if let Ok(KnownRollout { state, record }) = rollouts.find(id)
            && let Ok(machine) = record.machine()
        {
            if machine.next() == Next::Stop(step) {
                return record.stop_reason().unwrap_or_else(|| "stopped".to_owned());
            }
            if let Some(reason) = taken_back(&record, &state, &applied) {
                // Then it has to stop.
                write(rollouts, id, Event::TakenBack { reason }).await;
                continue;
            }
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Why the promotion of a rollout does not stand any more, although the rollout has not taken it back.
fn taken_back(record: &Record, state: &RolloutState, applied: &Applied) -> Option<String> {
    let machine = record.machine().ok()?;
    if !machine.stands_promoted() {
        return None;
    }
    // With steps, the candidates become active later than the rollout has written.
    let promoted = match record.has_steps() {
        true => Generation(u64::MAX),
        false => state.promoted?,
    };
    let promoted_services = record.promoted_services();
    let fallen = promoted_services.iter().find(|(name, color)| {
        let service = applied.state.services.get(name);
        !service.is_some_and(|it| still_promoted(it, *color, promoted))
    });
    let (name, color) = fallen?;
    let service = applied.state.services.get(name);
    Some(match service.map(|it| it.active) {
        Some(active) if active != *color => {
            let last = &applied.state.promotion;
            let reason = last.reason.as_deref().filter(|_| last.services.contains(name));
            let reason = reason.map(|it| format!(": {it}")).unwrap_or_default();
            format!("`{name}` has {active} active again{reason}")
        }
        Some(_) => format!("`{name}` was promoted again by another call"),
        None => format!("the state of `{name}` is gone"),
    })
}

/// Writes an event, however long that takes. Returns whether it could happen.
async fn write(rollouts: &Rollouts, id: &RolloutId, event: Event) -> bool {
    loop {
        match rollouts.write(id, event.clone(), None).await {
            Ok(_) => return true,
            Err(RolloutError::Change(ChangeError::Store(error))) => {
                error!(rollout = %id, %error, "the rollout waits: the state cannot be written");
                tokio::time::sleep(RETRY).await;
            }
            Err(RolloutError::Change(ChangeError::Stopping)) => {
                return std::future::pending().await;
            }
            Err(error) => {
                info!(rollout = %id, %error, "the rollout has gone on otherwise");
                return false;
            }
        }
    }
}
