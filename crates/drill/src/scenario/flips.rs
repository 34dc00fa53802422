//! Flips, with the admin API or with a command, and their results.

use std::{
    io::{Read, Seek, SeekFrom},
    process::Stdio,
    time::Duration,
};

use flipgate_api::{
    Call, CallError, Caller,
    wire::{PromoteRequest, RollbackRequest, Status},
};
use rustix::process::Signal;
use tokio::{process::Command, time::timeout};

use super::{
    super::{
        options::Control,
        processes::signal,
        record::{Flip, FlipOutcome},
    },
    CHANGE_TIMEOUT, ScenarioRunner,
};
use crate::{color::Color, sample::now_ns};

impl ScenarioRunner {
    pub(super) async fn flip(&self, changes: Vec<(u8, Color)>) {
        if changes.is_empty() {
            return;
        }
        match &self.control {
            Control::None => {}
            Control::Command(command) => self.flip_with_command(command, changes).await,
            Control::Admin(caller) => {
                let named =
                    |it: &(u8, Color)| (self.target.name(it.0).to_owned(), it.1.to_string());
                let services = changes.iter().map(named).collect();
                let request = PromoteRequest { services, ..PromoteRequest::default() };
                self.change(caller, Call::promote(&request), changes).await;
            }
        }
    }

    pub(super) async fn rollback(&self, names: &[String]) {
        let Control::Admin(caller) = &self.control else { return };
        let request = RollbackRequest {
            services: names.to_vec(),
            force: true,
            reason: Some("a step of a drill".to_owned()),
        };
        // A rollback without names affects the services of the last promotion, which only the response shows.
        let changes = if names.is_empty() { Vec::new() } else { self.other_colors(names) };
        self.change(caller, Call::rollback(&request), changes).await;
    }

    /// Makes a change of the active colors, and records its result.
    async fn change(&self, caller: &Caller, call: Call<'_>, wanted: Vec<(u8, Color)>) {
        let called = now_ns();
        let response = caller.call::<Status>(call).await;
        let mut flip = Flip {
            changes: wanted.clone(),
            called,
            acknowledged: now_ns(),
            outcome: FlipOutcome::Acknowledged,
            generation: None,
            error: response.as_ref().err().map(ToString::to_string),
            lost_response: false,
            is_automatic: false,
        };
        match response {
            Ok(status) => self.apply_status(&mut flip, &status),
            Err(
                CallError::Refused { .. } | CallError::Unreachable { .. } | CallError::Malformed(_),
            ) => {
                flip.outcome = FlipOutcome::Refused;
            }
            Err(CallError::Lost { .. } | CallError::Silent { .. } | CallError::Foreign { .. }) => {
                self.resolve_lost_response(caller, &mut flip).await;
            }
        }
        let is_known = flip.outcome == FlipOutcome::Acknowledged && !wanted.is_empty();
        if is_known && !are_same_changes(&flip.changes, &wanted) {
            let text = format!(
                "a flip to {} was acknowledged, but changed {}",
                self.describe_changes(&wanted),
                self.describe_changes(&flip.changes)
            );
            self.record_failure(called, text);
        }
        self.log.borrow_mut().flips.push(flip);
    }

    fn describe_changes(&self, changes: &[(u8, Color)]) -> String {
        if changes.is_empty() {
            return "nothing".to_owned();
        }
        let words = changes.iter().map(|(it, color)| format!("{}={color}", self.target.name(*it)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Applies the status after a change.
    pub(super) fn apply_status(&self, flip: &mut Flip, status: &Status) {
        flip.generation = Some(status.generation);
        flip.changes = self.changed_by(status);
    }

    /// The services with another active color than the drill knew. Updates what the drill knows.
    fn changed_by(&self, status: &Status) -> Vec<(u8, Color)> {
        let mut active = self.active.borrow_mut();
        let mut changed = Vec::new();
        for index in self.target.indices() {
            let shown = status.services.get(self.target.name(index)).map(|it| it.active.parse());
            if let Some(Ok(color)) = shown
                && active[usize::from(index)] != color
            {
                active[usize::from(index)] = color;
                changed.push((index, color));
            }
        }
        changed
    }

    /// Finds out whether a change took effect after its response was lost: asks for the status until there is one. If it
    /// did not take effect, that is final only if the called process has ended.
    async fn resolve_lost_response(&self, caller: &Caller, flip: &mut Flip) {
        let wanted = match flip.changes.is_empty() {
            true => self.other_colors(&[]),
            false => flip.changes.clone(),
        };
        let found = timeout(CHANGE_TIMEOUT, async {
            loop {
                if let Ok(status) = caller.status().await {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        flip.lost_response = true;
        match found.await {
            Ok(status) => self.apply_status(flip, &status),
            Err(_) => flip.changes.clear(),
        }
        flip.acknowledged = now_ns();
        if flip.changes.is_empty() {
            flip.outcome = match self.last_proxy_end.get() >= flip.called {
                true => FlipOutcome::Refused,
                false => FlipOutcome::Unknown,
            };
            flip.changes = wanted;
        }
    }

    /// Flips with a command: one call for all services, or one for each if the command has `{service}`.
    async fn flip_with_command(&self, command: &str, changes: Vec<(u8, Color)>) {
        let calls: Vec<Vec<(u8, Color)>> = match command.contains("{service}") {
            true => changes.into_iter().map(|it| vec![it]).collect(),
            false => vec![changes],
        };
        for changes in calls {
            let Some((service, color)) = changes.first().copied() else { continue };
            let text = command
                .replace("{service}", self.target.name(service))
                .replace("{color}", color.as_str());
            let called = now_ns();
            let error = self.run_command(&text).await.err();
            let flip = Flip {
                changes,
                called,
                acknowledged: now_ns(),
                outcome: if error.is_none() {
                    FlipOutcome::Acknowledged
                } else {
                    FlipOutcome::Unknown
                },
                generation: None,
                error,
                lost_response: false,
                is_automatic: false,
            };
            if flip.outcome == FlipOutcome::Acknowledged {
                let mut active = self.active.borrow_mut();
                flip.changes.iter().for_each(|(it, color)| active[usize::from(*it)] = *color);
            }
            self.log.borrow_mut().flips.push(flip);
        }
    }

    /// Runs a command until it ends. Processes that it leaves behind go on. After the timeout, and when the drill stops,
    /// the command and all its processes are killed.
    async fn run_command(&self, command: &str) -> Result<(), String> {
        let cannot = |error: std::io::Error| format!("cannot run `{command}`: {error}");
        let stderr = tempfile::tempfile().map_err(cannot)?;
        let mut process = Command::new("sh");
        process.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null());
        process.stderr(stderr.try_clone().map_err(cannot)?).kill_on_drop(true).process_group(0);
        let mut child = process.spawn().map_err(cannot)?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(cannot)?,
            why = self.command_deadline() => {
                signal(&child, Signal::KILL);
                return Err(format!("`{command}` did not end {why}"));
            }
        };
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        let read = (&stderr)
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&stderr).take(500).read_to_end(&mut text));
        read.map_err(cannot)?;
        // Control characters could change the terminal.
        let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
        Err(format!("`{command}` ended with {status}: {}", text.trim()))
    }

    /// Waits until a command must end, and returns the reason.
    async fn command_deadline(&self) -> String {
        tokio::select! {
            () = tokio::time::sleep(CHANGE_TIMEOUT) => format!("within {CHANGE_TIMEOUT:?}"),
            () = self.halt.cancelled() => "before the end of the drill".to_owned(),
        }
    }
}

/// Whether two changes have the same services and colors.
fn are_same_changes(one: &[(u8, Color)], other: &[(u8, Color)]) -> bool {
    one.len() == other.len() && one.iter().all(|it| other.contains(it))
}
