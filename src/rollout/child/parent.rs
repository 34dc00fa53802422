//! Flipgate's side of a command: starts the helper, has it run the command, and waits for its report.

use std::{
    collections::BTreeMap, future::Future, io, path::PathBuf, process::Stdio, time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout},
};
use tracing::warn;

use super::{
    CommandReport, CommandSpec, HELPER,
    helper::GO,
    output::Output,
    processes::{descendants, identity, is_alive, send, with_variable},
};
use crate::{model::RolloutId, rollout::event::ChildId};

/// The variable in the environment of commands that names their rollout.
pub(in crate::rollout) const ROLLOUT_VARIABLE: &str = "FLIPGATE_ROLLOUT";

/// The program of the helper: this one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HelperProgram(pub PathBuf);

/// A helper that waits for the word to go.
#[derive(Debug)]
pub(in crate::rollout) struct StartedHelper {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    id: ChildId,
}

/// A command that has ended.
#[derive(Debug)]
pub(in crate::rollout) struct Executed {
    /// How.
    pub(in crate::rollout) outcome: ExecOutcome,
    /// What it printed: the beginning and the end.
    pub(in crate::rollout) output: Output,
    /// Processes that it left behind, which were ended.
    pub(in crate::rollout) left_behind: usize,
}

/// How a command has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::rollout) enum ExecOutcome {
    /// With exit code 0.
    Succeeded,
    /// With another exit code.
    Exited(i32),
    /// By a signal.
    Signalled(i32),
    /// It could not be started.
    NotStarted(String),
    /// Flipgate has stopped it.
    Stopped,
    /// The helper has ended without a report.
    Unknown(String),
}

/// The longest report.
const REPORT_MAX: u64 = 1024 * 1024;

/// The longest wait for a helper after the end of its input. It takes up to 15 seconds to end its command by force.
const END_TIME: Duration = Duration::from_secs(20);

/// How often a helper of an earlier process is looked for.
const POLL: Duration = Duration::from_millis(50);

// === impl HelperProgram ===

impl Default for HelperProgram {
    /// The running program, also if its file was replaced since.
    fn default() -> Self {
        Self("/proc/self/exe".into())
    }
}

/// Starts a helper for a command. It runs nothing yet.
///
/// # Errors
///
/// Why there is none. Nothing is left running.
pub(in crate::rollout) async fn start(
    program: &HelperProgram,
    command: Vec<String>,
    env: BTreeMap<String, String>,
    dir: Option<PathBuf>,
    output_max: usize,
) -> io::Result<StartedHelper> {
    let mut helper = tokio::process::Command::new(&program.0);
    helper.arg0("flipgate").arg(HELPER).env_clear().process_group(0);
    helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = helper.spawn()?;
    let gone = || io::Error::other("the helper has ended");
    let pid = child.id().and_then(|it| i32::try_from(it).ok()).ok_or_else(gone)?;
    let id = identity(pid).ok_or_else(gone)?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let (mut input, output) = input.zip(output).ok_or_else(gone)?;
    let spec = CommandSpec { command, env, dir, output_max };
    let mut line = serde_json::to_vec(&spec).expect("texts and numbers only");
    line.push(b'\n');
    input.write_all(&line).await?;
    Ok(StartedHelper { child, input, output, id })
}

// === impl StartedHelper ===

impl StartedHelper {
    /// Which process it is.
    #[must_use]
    pub(in crate::rollout) fn id(&self) -> &ChildId {
        &self.id
    }

    /// Has the helper run the command, and waits for its end. When `stop` is ready first, the command is ended, with all that
    /// it has started. Dropping the future has the same effect, but does not wait for the end.
    pub(in crate::rollout) async fn run(mut self, stop: impl Future<Output = ()>) -> Executed {
        if let Err(error) = self.input.write_all(&[GO]).await {
            let outcome = ExecOutcome::Unknown(format!("the helper has ended: {error}"));
            return Executed { outcome, output: Output::default(), left_behind: 0 };
        }
        let mut report = Vec::new();
        let mut output = (&mut self.output).take(REPORT_MAX);
        let mut reading = Box::pin(output.read_to_end(&mut report));
        let is_stopped = tokio::select! {
            _ = &mut reading => false,
            () = stop => true,
        };
        if is_stopped {
            // The end of its input tells the helper to stop.
            drop(self.input);
            let _ = tokio::time::timeout(END_TIME, &mut reading).await;
        }
        drop(reading);
        if tokio::time::timeout(END_TIME, self.child.wait()).await.is_err() {
            kill_with_descendants(&self.id);
            let _ = self.child.wait().await;
        }
        executed(&report)
    }
}

fn executed(report: &[u8]) -> Executed {
    let unknown = |what: String| Executed {
        outcome: ExecOutcome::Unknown(what),
        output: Output::default(),
        left_behind: 0,
    };
    if report.is_empty() {
        return unknown("the helper has ended without a report".to_owned());
    }
    let report: CommandReport = match serde_json::from_slice(report) {
        Ok(report) => report,
        Err(error) => return unknown(format!("the report of the helper cannot be read: {error}")),
    };
    let CommandReport { not_started, code, signal, stopped, output, left_behind } = report;
    let outcome = match (not_started, code, signal) {
        (Some(error), ..) => ExecOutcome::NotStarted(error),
        _ if stopped => ExecOutcome::Stopped,
        (None, Some(0), _) => ExecOutcome::Succeeded,
        (None, Some(code), _) => ExecOutcome::Exited(code),
        (None, None, Some(signal)) => ExecOutcome::Signalled(signal),
        (None, None, None) => ExecOutcome::Unknown("nothing is known of its end".to_owned()),
    };
    Executed { outcome, output, left_behind }
}

/// Waits until a helper of an earlier process has ended, with its command. Its input has ended with that process. After
/// some time it is ended by force. Dropping the future leaves it as it is.
pub(in crate::rollout) async fn end_helper(child: &ChildId) {
    let until = tokio::time::Instant::now() + END_TIME;
    while is_alive(child) {
        if tokio::time::Instant::now() >= until {
            kill_with_descendants(child);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Ends by force all that the commands of a rollout have left running, and waits for it. They have its id in their
/// environment. Usually a helper does that: this is for one that was killed. Dropping the future leaves them as they are.
pub(in crate::rollout) async fn end_processes_of(id: &RolloutId) {
    loop {
        let left = with_variable(ROLLOUT_VARIABLE, id.as_str());
        if left.is_empty() {
            return;
        }
        warn!(rollout = %id, processes = ?left, "ending what a command has left running");
        left.into_iter().for_each(|it| send(it, Signal::KILL));
        tokio::time::sleep(POLL).await;
    }
}

/// Ends a helper by force, after all that it has started.
fn kill_with_descendants(child: &ChildId) {
    // Not another process that has got the same number since: the descriptor is of one process, whatever its number.
    let Some(handle) =
        Pid::from_raw(child.pid).and_then(|it| pidfd_open(it, PidfdFlags::empty()).ok())
    else {
        return;
    };
    if !is_alive(child) {
        return;
    }
    descendants(child.pid).into_iter().for_each(|it| send(it, Signal::KILL));
    let _ = pidfd_send_signal(&handle, Signal::KILL);
}
