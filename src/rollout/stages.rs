//! What stages do: the I/O of a rollout. Where it is, the machine says; what was done, the executor writes.
//!
//! # Cancellation
//!
//! A stage is stopped by dropping its future, except for commands: Flipgate ends them, and waits for their end.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures_util::FutureExt;

use super::{
    call::ReadyCall,
    child::{self, ExecOutcome, Executed},
    event::{Direction, Event, Failure},
    handle::{RolloutError, unix_millis},
    masking::Masked,
    own_state,
    plan::{Action, Call, Exec, Retry, Side, Target, Until},
    running::{Found, Running},
    values::{Place, Values},
};
use crate::{release::written, upstream::EndpointState};

/// Bytes of output of a command that are kept.
const OUTPUT_MAX: usize = 8 * 1024;

/// The search path of commands, if the plan sets none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

// === impl Running ===

impl Running<'_> {
    /// Runs the stage to its end, its failure, or its deadline. `stop` is ready when the rollout is to be undone.
    ///
    /// # Errors
    ///
    /// Why it has failed.
    pub(super) async fn run(&self, stop: impl Future<Output = String>) -> Result<Found, Failure> {
        let deadline = self.deadline();
        let left = deadline.map(|it| {
            let passed = Duration::from_millis(unix_millis().saturating_sub(self.since));
            it.saturating_sub(passed)
        });
        let over = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let end = async {
            tokio::select! {
                why = stop => why,
                () = over => {
                    let time = written(deadline.unwrap_or_default());
                    format!("not done within {time} (`deadline`)")
                }
            }
        };
        match self.action() {
            // A command is ended, and waited for.
            Action::Exec(exec) => self.exec(exec, end).await,
            action => tokio::select! {
                biased;
                found = self.act(action) => found,
                why = end => Err(Failure::maybe_done(why)),
            },
        }
    }

    async fn act(&self, action: &Action) -> Result<Found, Failure> {
        match action {
            Action::Call(call) => self.calls(call, None).await,
            Action::Until(Until { call, interval }) => self.calls(call, Some(*interval)).await,
            // `run` has taken it.
            Action::Exec(_) => Ok(Found::default()),
            own => own_state::run(self, own).await,
        }
    }

    /// Tries something as often as the plan says. What may have been done is only tried again if that is harmless.
    async fn attempts<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let Retry { attempts, delay } = self.retry();
        let mut tried = 1;
        loop {
            let failure = match attempt().await {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            let is_harmless = failure.nothing_done || self.is_idempotent();
            if tried >= attempts || !is_harmless {
                let error = match tried {
                    1 => failure.error,
                    tried => format!("{} (attempt {tried} of {attempts})", failure.error),
                };
                // An earlier attempt may have done something.
                let nothing_done = failure.nothing_done && tried == 1;
                return Err(Failure { error, nothing_done, ..failure });
            }
            tried += 1;
            tokio::time::sleep(delay).await;
        }
    }

    /// Makes the requests of a stage: to the URL, or to each endpoint of the pool, for each run.
    async fn calls(&self, call: &Call, interval: Option<Duration>) -> Result<Found, Failure> {
        let mut found = Found::default();
        let mut has_begun = false;
        for values in self.runs(texts_of(call), call.condition.as_deref()) {
            let targets = self.targets(call, &values).map_err(|failure| Failure {
                nothing_done: failure.nothing_done && !has_begun,
                ..failure
            })?;
            for (place, target) in targets.into_iter().enumerate() {
                let direction = match self.step.direction {
                    Direction::Do => "do",
                    Direction::Undo => "undo",
                };
                let stage = &self.record.plan.stages[self.step.stage].name;
                let service = values.service().map(|it| format!("/{it}")).unwrap_or_default();
                let key = format!("{}/{stage}/{direction}{service}/{place}", self.id);
                let ready = ReadyCall::new(call, &values, target, &key);
                let ready = ready.map_err(|error| {
                    // It may have what was filled in.
                    let error = Masked::new(values.secrets()).mask(&error);
                    match has_begun {
                        true => Failure::maybe_done(error),
                        false => Failure::before_anything(error),
                    }
                })?;
                let made = match interval {
                    None => self.attempts(|| ready.make(self.rollouts.release())).await,
                    Some(interval) => self.until(&ready, interval).await,
                };
                let saved = made.map_err(|failure| Failure {
                    nothing_done: failure.nothing_done && !has_begun,
                    ..failure
                })?;
                has_begun = true;
                for (name, value) in saved {
                    let name = match values.service() {
                        Some(service) if self.record.services.len() > 1 => {
                            format!("{service}/{name}")
                        }
                        _ => name,
                    };
                    found.saved.insert(name, value);
                }
            }
        }
        Ok(found)
    }

    /// Makes a request again and again, until its response is as expected. The last failure is what a deadline reports.
    async fn until(
        &self,
        ready: &ReadyCall,
        interval: Duration,
    ) -> Result<BTreeMap<String, String>, Failure> {
        loop {
            match ready.make(self.rollouts.release()).await {
                Ok(saved) => return Ok(saved),
                Err(failure) => self.rollouts.board().note(self.id, &failure.error),
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// The endpoints that a request goes to; one `None` for a URL.
    fn targets(
        &self,
        call: &Call,
        values: &Values,
    ) -> Result<Vec<Option<Arc<EndpointState>>>, Failure> {
        let Target::Pool { at, .. } = &call.target else { return Ok(vec![None]) };
        let applied = self.rollouts.control().applied();
        let services = match values.service() {
            Some(service) => vec![service.clone()],
            None => self.services(),
        };
        let mut targets = Vec::new();
        for service in services {
            let Some(deployment) = self.record.services.get(&service) else { continue };
            let color = match at {
                Side::Candidate => deployment.candidate,
                Side::Active => deployment.candidate.other(),
            };
            let pool = applied.pools.get(&service).map(|it| it.pool(color).endpoints());
            let endpoints = pool.filter(|it| !it.is_empty()).ok_or_else(|| {
                Failure::before_anything(format!("service `{service}` has no endpoint in {color}"))
            })?;
            targets.extend(endpoints.into_iter().map(Some));
        }
        Ok(targets)
    }

    /// Runs a command for each run of the stage. When `stop` is ready, the command is ended.
    async fn exec(
        &self,
        exec: &Exec,
        stop: impl Future<Output = String>,
    ) -> Result<Found, Failure> {
        if !self.rollouts.settings().exec {
            let error = "commands are not allowed any more: `rollouts.exec` is not set";
            return Err(Failure::before_anything(error));
        }
        let texts = exec.command.iter().map(String::as_str);
        let texts = texts.chain(exec.env.iter().map(|it| it.1.as_str()));
        // Ready for each command, once it is ready.
        let stop = Box::pin(stop).shared();
        let mut has_begun = false;
        let mut notes = Vec::new();
        for values in self.runs(texts, None) {
            let Retry { attempts, delay } = self.retry();
            let mut tried = 1;
            loop {
                if let Some(why) = stop.clone().now_or_never() {
                    let nothing_done = !has_begun;
                    return Err(Failure { nothing_done, ..Failure::maybe_done(why) });
                }
                let failure = match self.command(exec, &values, stop.clone()).await {
                    Ok(note) => {
                        notes.extend(note);
                        break;
                    }
                    Err(Ended::Stopped(failure)) => return Err(failure),
                    Err(Ended::Failed(failure)) => failure,
                };
                has_begun |= !failure.nothing_done;
                let is_harmless = failure.nothing_done || self.is_idempotent();
                if tried >= attempts || !is_harmless {
                    return Err(Failure { nothing_done: !has_begun, ..failure });
                }
                tried += 1;
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    why = stop.clone() => {
                        let error = format!("{why}; before: {}", failure.error);
                        return Err(Failure { error, nothing_done: !has_begun, ..failure });
                    }
                }
            }
            has_begun = true;
        }
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        Ok(Found { note, ..Found::default() })
    }

    /// Runs a command once. Returns a note for people.
    async fn command(
        &self,
        exec: &Exec,
        values: &Values,
        stop: impl Future<Output = String>,
    ) -> Result<Option<String>, Ended> {
        let masked = Masked::new(values.secrets());
        let before = |error: String| Ended::Failed(Failure::before_anything(masked.mask(&error)));
        let mut command = Vec::new();
        for argument in &exec.command {
            command.push(values.fill(argument, Place::Argument).map_err(before)?);
        }
        let shown = masked.mask(&command.join(" "));
        let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
        for (name, value) in &exec.env {
            env.insert(name.clone(), values.fill(value, Place::Text).map_err(before)?);
        }
        env.insert(child::ROLLOUT_VARIABLE.to_owned(), self.id.to_string());
        let helper = self.rollouts.settings().helper.clone();
        let started = child::start(&helper, command, env, exec.dir.clone(), OUTPUT_MAX).await;
        let started = started
            .map_err(|error| before(format!("{shown}: cannot start the helper: {error}")))?;
        // Before it may run anything: after a crash the helper is found by this.
        let event = Event::Child { step: self.step, child: started.id().clone() };
        if let Err(error) = self.rollouts.write(self.id, event, None).await {
            return Err(before(format!("{shown}: not run: {error}")));
        }
        let mut why = None;
        let executed = started
            .run(async {
                why = Some(stop.await);
            })
            .await;
        let Executed { outcome, output, left_behind } = executed;
        let output = masked.mask_cut(output);
        let failed = |error: String| Failure {
            output: (!output.is_empty()).then(|| output.clone()),
            ..Failure::maybe_done(format!("{shown}: {error}"))
        };
        match outcome {
            ExecOutcome::Succeeded => Ok((left_behind > 0).then(|| {
                format!("{shown}: {left_behind} processes that it left behind were ended")
            })),
            ExecOutcome::NotStarted(error) => Err(before(error)),
            ExecOutcome::Exited(code) => Err(Ended::Failed(failed(format!("exit code {code}")))),
            ExecOutcome::Signalled(signal) => {
                Err(Ended::Failed(failed(format!("ended by signal {signal}"))))
            }
            ExecOutcome::Unknown(error) => {
                // The command may still run.
                child::end_processes_of(self.id).await;
                Err(Ended::Failed(failed(error)))
            }
            ExecOutcome::Stopped => {
                Err(Ended::Stopped(failed(why.unwrap_or_else(|| "stopped".to_owned()))))
            }
        }
    }
}

/// Why a command has no success.
enum Ended {
    Failed(Failure),
    Stopped(Failure),
}

/// The texts of a request that may have placeholders.
fn texts_of(call: &Call) -> impl Iterator<Item = &str> {
    let target = match &call.target {
        Target::Url(url) => url.as_str(),
        Target::Pool { path, .. } => path.as_str(),
    };
    let headers = call.headers.iter().map(|it| it.1.as_str());
    std::iter::once(target).chain(headers).chain(call.body.as_deref())
}

impl From<RolloutError> for Failure {
    fn from(error: RolloutError) -> Self {
        Self::before_anything(error.to_string())
    }
}
