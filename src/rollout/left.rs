//! What a rollout leaves for a person to do.

use super::{
    event::Direction,
    machine::{Machine, Next, Outcome, Progress, Stuck},
    plan::{Action, Call, Exec, Target, Until},
    record::Record,
    values::{OF_SERVICE, Place, Values, placeholders},
};

/// What is left to do, in the order in which it is to be done. Empty if nothing is, or if the rollout does it itself.
#[must_use]
pub fn left_to_do(record: &Record, machine: &Machine<'_>, id: &str) -> Vec<String> {
    let needs_person = match machine.next() {
        Next::Person(stuck) => Some(stuck),
        Next::Over(Outcome::Cancelled) if machine.has_something_left() => Some(Stuck::Undo),
        _ => None,
    };
    match needs_person {
        None => Vec::new(),
        Some(Stuck::Interrupted) => interrupted(record, machine, id),
        Some(Stuck::Kept) => kept(record, machine, id),
        Some(Stuck::Undo) => undos(record, machine, id),
    }
}

fn interrupted(record: &Record, machine: &Machine<'_>, id: &str) -> Vec<String> {
    let stages = record.plan.stages.iter().zip(machine.stages());
    let failed = stages.filter(|it| it.1.forward.has_failed());
    let line = |(stage, _): (&super::plan::Stage, &super::machine::StageState)| {
        format!(
            "find out whether stage `{}` has run ({}); then `flipgate rollout retry {id}` to run it again, or \
             `flipgate rollout cancel {id}` to undo everything",
            stage.name,
            describe(record, &stage.action, Direction::Do, id)
        )
    };
    failed.map(line).collect()
}

fn kept(record: &Record, machine: &Machine<'_>, id: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for (stage, state) in record.plan.stages.iter().zip(machine.stages()) {
        let what = describe(record, &stage.action, Direction::Do, id);
        match &state.forward {
            Progress::Failed { failure, .. } => lines.push(format!(
                "stage `{}` has failed ({}): {what}; then `flipgate rollout retry {id}`, or `flipgate rollback` to undo everything",
                stage.name, failure.error
            )),
            Progress::Pending => lines.push(format!("stage `{}` was not run: {what}", stage.name)),
            _ => {}
        }
    }
    lines
}

fn undos(record: &Record, machine: &Machine<'_>, id: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for place in (0..record.plan.stages.len()).rev() {
        let (stage, state) = (&record.plan.stages[place], &machine.stages()[place]);
        let Some(action) = stage.undoing() else { continue };
        let what = describe(record, action, Direction::Undo, id);
        match &state.back {
            Progress::Failed { failure, .. } => lines.push(format!(
                "the undo of stage `{}` has failed ({}): {what}",
                stage.name, failure.error
            )),
            Progress::Pending if machine.needs_undo(place) => {
                lines.push(format!("stage `{}` is not undone yet: {what}", stage.name));
            }
            _ => {}
        }
    }
    lines
}

/// What a person would do to do or undo this.
fn describe(record: &Record, action: &Action, direction: Direction, id: &str) -> String {
    let services: Vec<String> = record.services.keys().map(ToString::to_string).collect();
    let all = services.join(" ");
    match (action, direction) {
        (Action::Call(call), _) => each(record, id, &texts_of_call(call), |it| request(call, it)),
        (Action::Until(Until { call, .. }), _) => {
            let wait = each(record, id, &texts_of_call(call), |it| request(call, it));
            format!("wait until the response is as expected: {wait}")
        }
        (Action::Exec(exec), _) => each(record, id, &exec.command, |it| command(exec, it)),
        (Action::Pool(_), Direction::Undo) => {
            let pools = record.services.iter().map(|(name, it)| format!("{name}.{}", it.candidate));
            let pools = pools.collect::<Vec<_>>().join(", ");
            format!("set the earlier version and endpoints of {pools} (`flipgate set`)")
        }
        (Action::Pool(_), Direction::Do) => "set the pools (`flipgate set`)".to_owned(),
        (Action::Promote(_), Direction::Undo) => format!("`flipgate rollback {all}`"),
        (Action::Promote(_), Direction::Do) => {
            let colors =
                record.services.iter().map(|(name, it)| format!("{name}={}", it.candidate));
            format!("`flipgate promote {}`", colors.collect::<Vec<_>>().join(" "))
        }
        (Action::Hold(_), Direction::Undo) | (Action::Release, _) => {
            let calls = services.iter().map(|it| format!("`flipgate release {it}`"));
            calls.collect::<Vec<_>>().join(", ")
        }
        (Action::Hold(_), Direction::Do) => "hold new requests (`flipgate hold`)".to_owned(),
        (Action::Gate, _) => "run the gates (`flipgate gate`)".to_owned(),
        (Action::Approve, _) => format!("`flipgate rollout approve {id}`"),
        (Action::Drain(_), _) => "wait for the drain (`flipgate drain`)".to_owned(),
        (Action::Watch(_), _) => "wait for the watch (`flipgate status`)".to_owned(),
    }
}

/// The same for each service, if a text has a value of one.
fn each(record: &Record, id: &str, texts: &[String], line: impl Fn(&Values) -> String) -> String {
    let values = |service| Values::of(record, id, service, std::collections::BTreeMap::new());
    let of_service =
        texts.iter().flat_map(|it| placeholders(it)).any(|it| OF_SERVICE.contains(&it));
    match of_service {
        true => {
            record.services.keys().map(|it| line(&values(Some(it)))).collect::<Vec<_>>().join(", ")
        }
        false => line(&values(None)),
    }
}

fn texts_of_call(call: &Call) -> Vec<String> {
    vec![match &call.target {
        Target::Url(url) => url.clone(),
        Target::Pool { path, .. } => path.clone(),
    }]
}

/// A request in words. Secrets stay placeholders.
fn request(call: &Call, values: &Values) -> String {
    let fill = |text: &str| values.fill(text, Place::Text).unwrap_or_else(|_| text.to_owned());
    match &call.target {
        Target::Url(url) => format!("{} {}", call.method, fill(url)),
        Target::Pool { at, path } => {
            let at = match at {
                super::plan::Side::Candidate => "new",
                super::plan::Side::Active => "old",
            };
            format!("{} {} at each endpoint of the {at} version", call.method, fill(path))
        }
    }
}

fn command(exec: &Exec, values: &Values) -> String {
    let fill = |text: &String| values.fill(text, Place::Text).unwrap_or_else(|_| text.clone());
    format!("run `{}`", exec.command.iter().map(fill).collect::<Vec<_>>().join(" "))
}
