//! The stages that wait for something: an approval, a drain, a verdict. They can be repeated, and change
//! nothing but the streams that a drain ends.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    event::Failure,
    handle::unix_millis,
    plan::{AfterPatience, Drain, DrainGoal, Watch},
    running::{Found, Running},
};
use crate::{
    control::{Control, DrainGoal as Goal},
    model::{Color, ServiceName, WatchResult},
    release::written,
};

/// One wait of a drain, after which the stage reads again what holds the color.
const DRAIN_WAIT: Duration = Duration::from_secs(5);

/// How often a stage reads whether a watch is overdue.
const WATCH_POLL: Duration = Duration::from_secs(1);

/// A watch without an end so long after it is not continued, in milliseconds.
const OVERDUE_MS: u64 = 60_000;

/// Waits for the approval of a person.
pub(super) async fn approved(stage: &Running<'_>) -> Result<Found, Failure> {
    let mut changes = stage.rollouts.control().changes();
    loop {
        changes.borrow_and_update();
        let known = stage.rollouts.find(stage.id)?;
        let is_approved = known
            .record
            .machine()
            .is_ok_and(|it| it.stages().get(stage.step.stage).is_some_and(|it| it.is_approved));
        if is_approved {
            return Ok(Found::default());
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Waits until the old colors are drained, or safe to stop.
pub(super) async fn drain(stage: &Running<'_>, drain: &Drain) -> Result<Found, Failure> {
    let goal = match drain.until {
        DrainGoal::Drained => Goal::Drained,
        DrainGoal::SafeToStop => Goal::SafeToStop,
    };
    let control = stage.rollouts.control();
    // `None` after the patience, when it waits for as long as it takes.
    let mut until = drain.patience.map(|it| Instant::now() + it);
    let candidates = stage.candidates().into_iter();
    let mut open: Vec<_> = candidates.map(|(service, color)| (service, color.other())).collect();
    loop {
        let left = until.map(|it| it.saturating_duration_since(Instant::now()));
        let wait = left.unwrap_or(DRAIN_WAIT).min(DRAIN_WAIT);
        let held = open.iter().map(|it| holds(control, it, wait, goal));
        let held = join_all(held).await;
        let held: Vec<_> =
            open.into_iter().zip(held).filter_map(|(it, why)| Some((it, why?))).collect();
        let Some((_, first)) = held.first() else { return Ok(Found::default()) };
        stage.rollouts.board().note(stage.id, first);
        let (next, held): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        open = next;
        if until.is_none_or(|it| Instant::now() < it) {
            continue;
        }
        until = None;
        let held = held.join("; ");
        match drain.then {
            AfterPatience::GoOn => {
                let note = Some(format!("went on: {held}"));
                return Ok(Found { note, ..Found::default() });
            }
            AfterPatience::Fail => {
                let time = written(drain.patience.unwrap_or_default());
                let error = format!("not done within {time} (`patience`): {held}");
                return Err(Failure::maybe_done(error));
            }
            AfterPatience::EndStreams => {
                for (service, old) in &open {
                    // An active color has nothing to end.
                    let _ = control.end_streams(service, *old);
                }
            }
            AfterPatience::Wait => {}
        }
    }
}

/// What holds a color after this wait. `None` if the drain has reached its goal, or there is nothing to drain.
async fn holds(
    control: &Control,
    (service, color): &(ServiceName, Color),
    wait: Duration,
    goal: Goal,
) -> Option<String> {
    let state = control.wait_for_drain(service, Some(*color), wait, goal).await?;
    let is_reached = match goal {
        Goal::Drained => state.is_drained,
        Goal::SafeToStop => state.is_safe_to_stop(),
    };
    if is_reached || state.is_active {
        return None;
    }
    let by = match state.holds.by.is_empty() {
        true => "nothing else holds it".to_owned(),
        false => format!("held by {}", state.holds.by.join(", ")),
    };
    Some(format!("{service}.{color} has {} requests in flight; {by}", state.in_flight))
}

/// Waits for the verdict of the watches, and for the confirmation.
pub(super) async fn watch(stage: &Running<'_>, watch: &Watch) -> Result<Found, Failure> {
    let known = stage.rollouts.find(stage.id)?;
    let promoted = known.state.promoted;
    let candidates = stage.candidates();
    let mut changes = stage.rollouts.control().changes();
    loop {
        let applied = changes.borrow_and_update().clone();
        let (mut waits, mut notes) = (false, Vec::new());
        for (name, color) in &candidates {
            let Some(service) = applied.state.services.get(name) else { continue };
            // The executor notices that the promotion was taken back.
            if service.active != *color {
                waits = true;
                continue;
            }
            let has_settings =
                applied.catalog.services().get(name).is_some_and(|it| it.watch.is_some());
            let is_late = |until: u64| until.saturating_add(OVERDUE_MS) < unix_millis();
            if let Some(watched) = &service.watch
                && (!has_settings || is_late(watched.until))
            {
                let error = format!("the watch of `{name}` has come to no verdict");
                match watch.accept_inconclusive {
                    true => notes.push(error),
                    false => return Err(Failure::maybe_done(error)),
                }
            } else if let Some(watched) = &service.watch {
                waits = true;
                let until = crate::control::timestamp(watched.until);
                stage.rollouts.board().note(stage.id, &format!("{name} is watched until {until}"));
            }
            if let Some(confirmation) = &service.confirmation {
                waits = true;
                let until = crate::control::timestamp(confirmation.until);
                let text = format!("{name} waits for its confirmation until {until}");
                stage.rollouts.board().note(stage.id, &text);
            }
            let is_of_it = |it: &crate::store::WatchEnd| {
                promoted.is_some_and(|promoted| it.generation >= promoted)
            };
            match service.last_watch.filter(is_of_it).map(|it| it.result) {
                Some(WatchResult::Failed) => {
                    let error = format!("the watch of `{name}` has found {color} bad");
                    return Err(Failure::maybe_done(error));
                }
                Some(WatchResult::Inconclusive) if !watch.accept_inconclusive => {
                    let error = format!("the watch of `{name}` had too few requests for a verdict");
                    return Err(Failure::maybe_done(error));
                }
                Some(WatchResult::Inconclusive) => {
                    notes.push(format!("{name}: too few requests for a verdict"));
                }
                Some(WatchResult::Stopped) => {
                    notes.push(format!("{name}: the watch was ended by hand"));
                }
                Some(WatchResult::Passed) | None => {}
            }
        }
        if !waits {
            let note = (!notes.is_empty()).then(|| notes.join("; "));
            return Ok(Found { note, ..Found::default() });
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            () = tokio::time::sleep(WATCH_POLL) => {}
        }
    }
}
