//! The commands of stages: child processes that end with their stage, and with Flipgate.
//!
//! Flipgate does not start a command itself. It starts a helper, which is Flipgate's own program, and writes down which
//! process that is. Only then does it tell the helper to run the command. So a Flipgate that was killed and is started again
//! knows which process may still be running.
//!
//! The helper is a subreaper (`prctl(2)`): processes that the command leaves behind become its children, also those that have
//! a session of their own, so it finds and ends all of them. The end of its standard input tells it to stop: also when
//! Flipgate is killed. If the helper itself is killed, Flipgate ends what has the rollout's id in its environment.

mod helper;
mod output;
mod parent;
mod processes;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use self::output::{Output, Tail};
pub(super) use self::parent::{
    ExecOutcome, Executed, ROLLOUT_VARIABLE, end_helper, end_processes_of, start,
};
pub use self::{helper::run_helper, parent::HelperProgram};

/// The name of the helper among the commands of Flipgate.
pub const HELPER: &str = "run-command";

/// The command for the helper, as one line of JSON.
#[derive(Debug, Deserialize, Serialize)]
struct CommandSpec {
    command: Vec<String>,
    env: BTreeMap<String, String>,
    dir: Option<std::path::PathBuf>,
    output_max: usize,
}

/// What the helper says at the end, as one line of JSON.
#[derive(Debug, Default, Deserialize, Serialize)]
struct CommandReport {
    /// Why the command could not be started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_started: Option<String>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// Whether Flipgate has stopped it.
    #[serde(default)]
    stopped: bool,
    /// What it printed, to standard output and to standard error.
    output: Output,
    /// Processes that it left behind, which were ended.
    #[serde(default)]
    left_behind: usize,
}
