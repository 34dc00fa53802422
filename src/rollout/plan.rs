//! Plans: the stages of a deployment. A rollout keeps a copy of its plan, so that a reload changes no rollout in progress.
//!
//! These types are a format, because the record of a rollout contains them: a field is never renamed or removed, and a new
//! field has a default.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::durations;
use crate::model::ServiceName;

/// A plan.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// What a failure after the promotion leads to.
    pub after_promotion: AfterPromotion,
    /// What is done about a stage that was interrupted, so that it may have run, if it cannot be repeated.
    pub if_interrupted: IfInterrupted,
    /// The secrets that its stages use, by name.
    pub secrets: BTreeMap<String, SecretSource>,
}

/// What a failure after the promotion leads to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterPromotion {
    /// The promotion is rolled back, and all stages are undone.
    #[default]
    Rollback,
    /// The rollout stops, and everything stays as it is.
    Keep,
}

/// What is done about an interrupted stage that cannot be repeated.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IfInterrupted {
    /// It counts as failed, and everything is undone.
    #[default]
    Undo,
    /// A person decides.
    Wait,
}

/// Where a secret is read from, each time that it is used.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable of Flipgate.
    Env(String),
}

/// A stage.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stage {
    /// Its name, which no other stage of the plan has.
    pub name: String,
    /// What it does.
    pub action: Action,
    /// Its services; `None` for all services of the rollout.
    pub services: Option<Vec<ServiceName>>,
    /// The time for it, with all attempts.
    #[serde(with = "durations::optional")]
    pub deadline: Option<Duration>,
    /// How often it is tried.
    pub retry: Retry,
    /// A CEL expression: the stage is skipped unless it is true.
    pub only_if: Option<String>,
    /// Whether it may be repeated if it may have run.
    pub idempotent: bool,
    /// How it is undone.
    pub undo: Option<Undo>,
}

/// How a stage is undone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Undo {
    /// What is done: a call, the wait for a condition, a command, or the pools as they were.
    pub action: Action,
    /// The time for it, with all attempts.
    #[serde(with = "durations::optional")]
    pub deadline: Option<Duration>,
    /// How often it is tried.
    pub retry: Retry,
    /// Whether it may be repeated if it may have run.
    pub idempotent: bool,
    /// What its failure leads to.
    pub if_failed: IfFailed,
}

/// What the failure of an undo leads to.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IfFailed {
    /// Nothing else is undone until a person decides.
    #[default]
    Stop,
    /// The earlier stages are undone.
    Continue,
}

/// How often a stage is tried.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Retry {
    /// Attempts, at least 1.
    pub attempts: u32,
    /// Between two attempts.
    #[serde(with = "durations")]
    pub delay: Duration,
}

/// What a stage does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Action {
    /// Makes a request.
    Call(Call),
    /// Makes a request again and again, until its response is as expected.
    Until(Until),
    /// Runs a command.
    Exec(Exec),
    /// Sets the candidates' versions and endpoints.
    Pool(SetPool),
    /// Runs the gates.
    Gate,
    /// Waits for a person.
    Approve,
    /// Makes the candidates active, all in one step.
    Promote(Promote),
    /// Waits until the replaced colors are drained.
    Drain(Drain),
    /// Waits for the verdicts of the watches, and for the confirmation.
    Watch(Watch),
    /// Holds new requests.
    Hold(Hold),
    /// Lets held requests go.
    Release,
}

/// A request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Call {
    /// Where it goes.
    pub target: Target,
    /// The method.
    pub method: String,
    /// Headers. Values may contain placeholders.
    pub headers: Vec<(String, String)>,
    /// The body. It may contain placeholders.
    pub body: Option<String>,
    /// The statuses that are expected, such as `200-299`.
    pub status: Vec<String>,
    /// A CEL expression about the response that must be true.
    pub condition: Option<String>,
    /// Values of the response that later stages use: each name with its CEL expression.
    pub save: Vec<(String, String)>,
    /// The time for one request.
    #[serde(with = "durations")]
    pub timeout: Duration,
}

/// Where a request goes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// To a URL, which may contain placeholders.
    Url(String),
    /// To each endpoint of a pool.
    Pool {
        /// Which one.
        at: Side,
        /// The path, which may contain placeholders.
        path: String,
    },
}

/// A pool of a service in a rollout.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The color that becomes active.
    Candidate,
    /// The color that was active at the start of the rollout.
    Active,
}

/// A request that is repeated.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Until {
    /// The request.
    pub call: Call,
    /// Between two requests.
    #[serde(with = "durations")]
    pub interval: Duration,
}

/// A command.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Exec {
    /// The program and its arguments, which may contain placeholders.
    pub command: Vec<String>,
    /// Environment variables. Values may contain placeholders.
    pub env: Vec<(String, String)>,
    /// The working directory.
    pub dir: Option<PathBuf>,
}

/// What the pools of the candidates get.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct SetPool {
    /// For how long the stage waits until the endpoints are up; `None`: not at all.
    #[serde(with = "durations::optional")]
    pub healthy_within: Option<Duration>,
}

/// A promotion.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Promote {
    /// The promotion is taken back unless it is confirmed within this time.
    #[serde(with = "durations::optional")]
    pub confirm_within: Option<Duration>,
    /// The steps of a gradual promotion, in percent; empty for none.
    pub steps: Vec<u8>,
    /// How long each of these steps lasts.
    #[serde(with = "durations::optional")]
    pub step_for: Option<Duration>,
}

/// The wait for a drain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Drain {
    /// What it waits for.
    pub until: DrainGoal,
    /// How long; `None` for as long as it takes.
    #[serde(with = "durations::optional")]
    pub patience: Option<Duration>,
    /// What follows then.
    pub then: AfterPatience,
}

/// What the wait for a drain waits for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainGoal {
    /// No request of a client is in flight on the old color, and none can come.
    Drained,
    /// The same, and no watch, confirmation or preview needs the color.
    #[default]
    SafeToStop,
}

/// What follows when the patience of a drain is over.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterPatience {
    /// The stage has failed.
    #[default]
    Fail,
    /// The next stage.
    GoOn,
    /// The streams of the old color are ended, and the stage waits on.
    EndStreams,
    /// The stage waits on.
    Wait,
}

/// The wait for a verdict.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Watch {
    /// Whether too few requests for a verdict are enough.
    pub accept_inconclusive: bool,
}

/// A hold.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Hold {
    /// How long it lasts at most; `None` for the time that the service has configured.
    #[serde(with = "durations::optional")]
    pub length: Option<Duration>,
}

// === impl Plan ===

impl Plan {
    /// The name of the plan that Flipgate brings along.
    pub const DEFAULT: &str = "default";

    /// The most stages of a plan.
    pub const STAGES_MAX: usize = 50;

    /// The plan for deployments that name none: set the pools, wait until they are healthy, run the gates, promote, and wait
    /// for the drain and the watch.
    #[must_use]
    pub fn built_in() -> Self {
        let healthy_within = Some(Duration::from_secs(120));
        let drain = Drain { until: DrainGoal::Drained, patience: None, then: AfterPatience::Fail };
        let stages = [
            ("pool", Action::Pool(SetPool { healthy_within })),
            ("gates", Action::Gate),
            ("promote", Action::Promote(Promote::default())),
            ("drain", Action::Drain(drain)),
            ("watch", Action::Watch(Watch { accept_inconclusive: true })),
        ];
        Self {
            name: Self::DEFAULT.to_owned(),
            stages: stages.map(|(name, action)| Stage::new(name, action)).to_vec(),
            after_promotion: AfterPromotion::default(),
            if_interrupted: IfInterrupted::default(),
            secrets: BTreeMap::new(),
        }
    }
}

impl Plan {
    /// Whether a stage or an undo runs a command.
    #[must_use]
    pub fn runs_commands(&self) -> bool {
        let is_command = |it: &Action| matches!(it, Action::Exec(_));
        let of_undo = |it: &Stage| it.undo.as_ref().is_some_and(|it| is_command(&it.action));
        self.stages.iter().any(|it| is_command(&it.action) || of_undo(it))
    }

    /// Within which time the promotion has to be confirmed, if at all: within this time, else that of the plan.
    ///
    /// # Errors
    ///
    /// Why the promotion cannot be confirmed.
    pub fn confirmation(&self, within: Option<Duration>) -> Result<Option<Duration>, &'static str> {
        let promotion = self.stages.iter().find_map(|it| match &it.action {
            Action::Promote(promote) => Some(promote),
            _ => None,
        });
        let Some(within) = within.or_else(|| promotion?.confirm_within) else { return Ok(None) };
        match promotion {
            None => Err("it promotes nothing"),
            Some(promote) if !promote.steps.is_empty() => Err("it promotes gradually (`steps`)"),
            Some(_) => Ok(Some(within)),
        }
    }

    /// Has the plan wait for a confirmation at its end, if no stage does so already: it is not done before.
    pub(super) fn wait_for_confirmation(&mut self) {
        const NAME: &str = "confirmation";
        let is_watch = |it: &Stage| matches!(it.action, Action::Watch(_));
        if self.stages.iter().any(is_watch) {
            return;
        }
        let is_taken = |name: &str| self.stages.iter().any(|it| it.name == name);
        let name = match is_taken(NAME) {
            false => NAME.to_owned(),
            true => format!("{NAME} {}", self.stages.len() + 1),
        };
        self.stages.push(Stage::new(&name, Action::Watch(Watch { accept_inconclusive: true })));
    }
}

// === impl Stage ===

impl Stage {
    /// A stage with nothing but its action.
    #[must_use]
    pub fn new(name: &str, action: Action) -> Self {
        Self {
            name: name.to_owned(),
            services: None,
            deadline: action.default_deadline(),
            retry: Retry::default(),
            only_if: None,
            idempotent: action.is_idempotent(),
            undo: None,
            action,
        }
    }

    /// What undoes the stage, if it was done.
    #[must_use]
    pub fn undoing(&self) -> Option<&Action> {
        match &self.undo {
            Some(undo) => Some(&undo.action),
            None => self.action.is_undone_by_itself().then_some(&self.action),
        }
    }
}

// === impl Action ===

impl Action {
    /// Its kind, as the configuration names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Until(_) => "until",
            Self::Exec(_) => "exec",
            Self::Pool(_) => "pool",
            Self::Gate => "gate",
            Self::Approve => "approve",
            Self::Promote(_) => "promote",
            Self::Drain(_) => "drain",
            Self::Watch(_) => "watch",
            Self::Hold(_) => "hold",
            Self::Release => "release",
        }
    }

    /// The time for a stage that sets none; `None` for as long as it takes.
    #[must_use]
    pub fn default_deadline(&self) -> Option<Duration> {
        let seconds = match self {
            Self::Call(_) => 60,
            Self::Until(_) | Self::Exec(_) | Self::Pool(_) => 300,
            Self::Gate | Self::Hold(_) | Self::Release => 600,
            Self::Approve => 24 * 3600,
            Self::Promote(promote) if promote.steps.is_empty() => 600,
            Self::Promote(_) | Self::Drain(_) | Self::Watch(_) => return None,
        };
        Some(Duration::from_secs(seconds))
    }

    /// Whether a stage that may have run may be repeated, if its plan does not say.
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        match self {
            Self::Call(call) => matches!(&*call.method, "GET" | "HEAD" | "OPTIONS"),
            Self::Exec(_) => false,
            // Flipgate knows what it has done to its own state, and waiting can be done again.
            _ => true,
        }
    }

    /// Whether Flipgate undoes it without being told how.
    #[must_use]
    pub fn is_undone_by_itself(&self) -> bool {
        matches!(self, Self::Pool(_) | Self::Promote(_) | Self::Hold(_))
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, delay: Duration::from_secs(1) }
    }
}
