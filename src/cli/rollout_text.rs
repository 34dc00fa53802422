//! Rollouts as text.

use std::{fmt::Write, time::Duration};

use anstyle::{AnsiColor, Style};
use flipgate_api::{
    escape,
    wire::{RolloutStage, RolloutStatus},
};

use super::exit;

/// The exit code for a rollout that is over, or needs a person.
pub(super) fn exit_code(status: &RolloutStatus) -> u8 {
    let is_undone = status.left_to_do.is_empty();
    match (&*status.state, is_undone) {
        ("done", _) => 0,
        ("undone" | "cancelled", true) if status.cause.as_deref() == Some("gate") => exit::REFUSED,
        ("undone" | "cancelled", true) => exit::UNDONE,
        ("undone" | "cancelled" | "stuck", _) => exit::NOT_UNDONE,
        _ => exit::NOT_IN_TIME,
    }
}

/// What is deployed, in a line.
pub(super) fn headline(status: &RolloutStatus) -> String {
    let services = status.services.iter().map(|(name, it)| {
        let version = |it: &Option<String>| it.as_deref().map(|it| escape(it).into_owned());
        let (name, color) = (escape(name), escape(&it.candidate));
        match (version(&it.active_version), version(&it.version)) {
            (Some(old), Some(new)) => format!("{name} {old} → {new} ({color})"),
            (None, Some(new)) => format!("{name} → {new} ({color})"),
            (_, None) => format!("{name} → {color}"),
        }
    });
    let services = services.collect::<Vec<_>>().join(", ");
    format!("rollout {} · plan {} · {services}", escape(&status.id), escape(&status.plan))
}

/// All stages, and what has become of them.
pub(super) fn report(status: &RolloutStatus) -> String {
    let mut text = String::new();
    for stage in &status.stages {
        let _ = writeln!(text, "{}", stage_line(stage, status));
        for line in details(stage) {
            let _ = writeln!(text, "{line}");
        }
    }
    text.push_str(&conclusion(status));
    text
}

/// A stage in a line.
pub(super) fn stage_line(stage: &RolloutStage, status: &RolloutStatus) -> String {
    let (mark, style) = mark(&stage.state);
    let width = status.stages.iter().map(|it| it.name.chars().count()).max().unwrap_or_default();
    let name = escape(&stage.name);
    let time = stage.undo.as_ref().map_or_else(
        || took(stage.started.as_deref(), stage.ended.as_deref()),
        |it| took(Some(&it.started), it.ended.as_deref()),
    );
    let note = match &stage.undo {
        Some(undo) => undo.note.as_ref(),
        None => stage.note.as_ref(),
    };
    let note = note.map(|it| format!("  {}", escape(it))).unwrap_or_default();
    let state = match &*stage.state {
        "done" | "running" => String::new(),
        state => format!("  {}", escape(&state.replace('_', " "))),
    };
    format!("  {style}{mark}{style:#} {name:width$}  {time:>8}{state}{note}")
}

/// Why a stage has failed, and what it printed.
pub(super) fn details(stage: &RolloutStage) -> Vec<String> {
    let mut lines = Vec::new();
    let undo = stage.undo.as_ref();
    let failures = [
        (stage.error.as_ref(), stage.output.as_ref()),
        (undo.and_then(|it| it.error.as_ref()), undo.and_then(|it| it.output.as_ref())),
    ];
    for (error, output) in failures {
        lines.extend(error.map(|it| format!("      {}", escape(it))));
        let output = output.into_iter().flat_map(|it| it.lines());
        lines.extend(output.map(|it| format!("      │ {}", escape(it))));
    }
    lines
}

/// How the rollout stands, and what to do next.
pub(super) fn conclusion(status: &RolloutStatus) -> String {
    let bold = |color: AnsiColor| color.on_default().bold();
    let (style, word) = match &*status.state {
        "done" => (bold(AnsiColor::Green), "done"),
        "running" => (Style::new().bold(), "running"),
        "waiting" => (bold(AnsiColor::Yellow), "waiting for a person"),
        "undoing" => (bold(AnsiColor::Yellow), "undoing"),
        "undone" => (bold(AnsiColor::Yellow), "failed, and everything is undone"),
        "cancelled" => (bold(AnsiColor::Yellow), "cancelled"),
        "stuck" => (bold(AnsiColor::Red), "stuck: a person has to decide"),
        other => (Style::new(), other),
    };
    let error = status.error.as_ref().map(|it| format!(": {}", escape(it))).unwrap_or_default();
    let mut text = format!("{style}{}{style:#}{error}", escape(word));
    if let Some(waiting) = status.waiting_for.as_ref().filter(|_| !status.over) {
        let _ = write!(text, "\nwaits for {}", escape(waiting));
    }
    if !status.left_to_do.is_empty() {
        text.push_str("\nleft to do:");
        for line in &status.left_to_do {
            let _ = write!(text, "\n  - {}", escape(line));
        }
        if !status.over {
            let id = escape(&status.id);
            let _ = write!(
                text,
                "\nthen: flipgate rollout retry {id}, or flipgate rollout cancel {id} if you have done it by hand"
            );
        }
    }
    text
}

fn mark(state: &str) -> (char, Style) {
    match state {
        "done" => ('✓', AnsiColor::Green.on_default()),
        "running" | "waiting" | "undoing" => ('…', AnsiColor::Cyan.on_default()),
        "failed" | "undo_failed" => ('✗', AnsiColor::Red.on_default().bold()),
        "undone" => ('↶', AnsiColor::Yellow.on_default()),
        "skipped" => ('–', Style::new().dimmed()),
        _ => ('·', Style::new().dimmed()),
    }
}

/// The time between two times, the second one by default now.
fn took(from: Option<&str>, until: Option<&str>) -> String {
    let parse = |it: &str| it.parse::<jiff::Timestamp>().ok();
    let Some(from) = from.and_then(parse) else { return String::new() };
    let until = until.and_then(parse).unwrap_or_else(jiff::Timestamp::now);
    let time = Duration::try_from(until.duration_since(from)).unwrap_or_default();
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        1..=119 => format!("{:.1} s", time.as_secs_f64()),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
