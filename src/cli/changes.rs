//! `promote`, `rollback` and `reload`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flipgate_api::{
    Call, CallError, Caller, CallerArguments, GATES_MAX, OutputArguments, escape,
    terminal::{print_error, print_line},
    wire::{
        DrainStatus, PoolStatus, ProblemReason, PromoteRequest, RollbackRequest, ServiceStatus,
        Status,
    },
};

use super::{
    arguments::{ChangeArguments, StepArguments, Verbosity},
    drain::{DrainGoal, holders, wait_for},
    exit::{self, CommandError},
    output::{ended, gates_spinner, print_or_ignore, show},
    pending::share_line,
    times::shown_time,
};

pub(super) async fn promote(
    services: Vec<(String, String)>,
    confirm_within: Option<Duration>,
    steps: StepArguments,
    arguments: &ChangeArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let mut colors = BTreeMap::new();
    for (service, color) in services {
        if let Some(before) = colors.insert(service.clone(), color.clone())
            && before != color
        {
            let text = format!("{service} is named with {before} and with {color}; name it once");
            return Err(CommandError::usage(text));
        }
    }
    let ChangeArguments { force, reason, .. } = arguments;
    let confirm_within = confirm_within.map(|it| format!("{} ms", it.as_millis()));
    let body = PromoteRequest {
        services: colors.clone(),
        force: *force,
        reason: reason.clone(),
        confirm_within,
        steps: steps.steps,
        step_for: steps.step_for.map(|it| format!("{} ms", it.as_millis())),
        first: steps.first,
    };
    let wanted = match body.steps.is_empty() {
        true => Wanted::Colors(colors),
        false => Wanted::Shares(colors),
    };
    let caller = arguments.admin.caller()?;
    change(Call::promote(&body), wanted, &caller, arguments, verbosity).await
}

pub(super) async fn rollback(
    services: Vec<String>,
    arguments: &ChangeArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let ChangeArguments { force, reason, .. } = arguments;
    let caller = arguments.admin.caller()?;
    // The reply does not say which services were rolled back; the state from before does.
    let before = caller.status().await?.services;
    let body = RollbackRequest { services, force: *force, reason: reason.clone() };
    change(Call::rollback(&body), Wanted::From(before), &caller, arguments, verbosity).await
}

/// What a change is for.
enum Wanted {
    /// These colors become active.
    Colors(BTreeMap<String, String>),
    /// These colors get a share of the clients.
    Shares(BTreeMap<String, String>),
    /// Other colors become active than these services have.
    From(BTreeMap<String, ServiceStatus>),
}

impl Wanted {
    /// What has happened to gradual promotions, in lines.
    fn shares(&self, status: &Status) -> Vec<String> {
        match self {
            Self::Colors(_) => Vec::new(),
            Self::Shares(colors) => {
                let services = colors.keys().filter_map(|it| Some((it, status.services.get(it)?)));
                services.filter_map(|(name, it)| share_line(&escape(name), it)).collect()
            }
            Self::From(before) => {
                let had = before.iter().filter_map(|(name, it)| Some((name, it.share.as_ref()?)));
                let has_ended =
                    |name: &str| status.services.get(name).is_some_and(|it| it.share.is_none());
                let ended = had.filter(|(name, _)| has_ended(name));
                ended
                    .map(|(name, share)| {
                        let (name, color) = (escape(name), escape(&share.color));
                        format!("{name}: the gradual promotion of {color} is taken back")
                    })
                    .collect()
            }
        }
    }

    /// Whether the change was for this service, of those with another active color or of others.
    fn is_for(&self, name: &str, made: &BTreeMap<String, String>) -> bool {
        let is_shared = match self {
            Self::Colors(_) => false,
            Self::Shares(colors) => colors.contains_key(name),
            Self::From(before) => before.get(name).is_some_and(|it| it.share.is_some()),
        };
        is_shared || made.contains_key(name)
    }

    /// The services that the change was made for, with the color that became active.
    fn made(&self, status: &Status) -> BTreeMap<String, String> {
        match self {
            Self::Colors(colors) => colors.clone(),
            // A gradual promotion with one step is an ordinary one.
            Self::Shares(colors) => {
                let is_active = |name: &String, color: &String| {
                    status.services.get(name).is_some_and(|it| it.active == *color)
                };
                colors.clone().into_iter().filter(|(name, color)| is_active(name, color)).collect()
            }
            Self::From(before) => {
                let has_changed = |name: &str, active: &str| {
                    before.get(name).is_some_and(|it| it.active != active)
                };
                let services = status.services.iter();
                let services = services.filter(|(name, it)| has_changed(name, &it.active));
                services.map(|(name, it)| (name.clone(), it.active.clone())).collect()
            }
        }
    }
}

/// Makes a change, and waits for the drain of the colors that it replaced if that is wanted.
async fn change(
    mut call: Call<'_>,
    wanted: Wanted,
    caller: &Caller,
    arguments: &ChangeArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let ChangeArguments {
        if_generation, wait_drain, wait_drained, idempotency_key, output, ..
    } = arguments;
    let wait = wait_drain.map(|it| (it, DrainGoal::SafeToStop));
    let wait = wait.or(wait_drained.map(|it| (it, DrainGoal::Drained)));
    if let Some(generation) = if_generation {
        call = call.if_generation(*generation);
    }
    if let Some(key) = idempotency_key {
        call = call.idempotency_key(key);
    }
    // The gates of the services may take up to their deadline.
    call.wait = GATES_MAX;
    let begin = Instant::now();
    let spinner = gates_spinner();
    let answered = caller.call(call).await;
    spinner.finish_and_clear();
    let status: Status = match answered {
        Ok(status) => status,
        Err(error) => {
            let is_of_gate = |it: &ProblemReason| it.code.starts_with("gate_");
            let is_rollback = matches!(wanted, Wanted::From(_));
            let offers_force = is_rollback
                && matches!(&error, CallError::Refused { problem: Some(problem), .. }
                    if problem.reasons.iter().any(is_of_gate));
            let mut error = refused(error, *output)?;
            if offers_force {
                error.text += "\n  To roll back anyway: flipgate rollback --force --reason TEXT";
            }
            return Err(error);
        }
    };
    let took = begin.elapsed();
    let made = wanted.made(&status);
    warn_of_unhealthy_pools(&status);
    if status.replayed
        && let Some(text) = superseded(&made, &status)
    {
        // The exit code says that the color is not active, whether or not the status can be printed.
        let _ = show(&status, *output, verbosity);
        return Err(CommandError::new(text));
    }
    let says_more = !output.is_json() && !verbosity.quiet;
    if says_more {
        for (name, color) in &made {
            print_or_ignore(&promoted(name, color, &status, took))?;
        }
        for line in wanted.shares(&status) {
            print_or_ignore(&line)?;
        }
    }
    let drained = match wait {
        Some(wait) => wait_for_drains(&made, wait, caller, &status, *output, says_more).await?,
        None => true,
    };
    let mut status = match wait {
        // The status from before the wait is better than none.
        Some(_) => caller.status().await.unwrap_or(status),
        None => status,
    };
    if !output.is_json() {
        status.services.retain(|name, _| wanted.is_for(name, &made));
    }
    let printed = match verbosity.quiet && !output.is_json() {
        true => Ok(()),
        false => show(&status, *output, verbosity),
    };
    ended(printed, if drained { 0 } else { exit::NOT_IN_TIME })
}

/// The error of a refused change. With JSON, the problem document is the output.
fn refused(error: CallError, output: OutputArguments) -> Result<CommandError, CommandError> {
    if let CallError::Refused { problem: Some(problem), .. } = &error
        && output.is_json()
    {
        print_or_ignore(&serde_json::to_string_pretty(problem).expect("strings and numbers only"))?;
    }
    Ok(error.into())
}

/// `web: blue 7.9 → green 8.0 (generation 42, 1.8 ms)`.
fn promoted(name: &str, color: &str, status: &Status, took: Duration) -> String {
    let named = |color: &str| {
        let pool = status.services.get(name).and_then(|it| it.pools.get(color));
        match pool.and_then(|it| it.version.as_deref()) {
            Some(version) => format!("{color} {}", escape(version)),
            None => escape(color).into_owned(),
        }
    };
    let (name, from, to) = (escape(name), named(other(color)), named(color));
    let (generation, took) = (status.generation, took.as_secs_f64() * 1000.0);
    match status.replayed {
        true => {
            format!("{name}: {to} was made active before, under this key (generation {generation})")
        }
        false => format!("{name}: {from} → {to} (generation {generation}, {took:.1} ms)"),
    }
}

/// Waits until every replaced color is drained, and says so. Returns whether all were drained in time.
async fn wait_for_drains(
    made: &BTreeMap<String, String>,
    (timeout, goal): (Duration, DrainGoal),
    caller: &Caller,
    status: &Status,
    output: OutputArguments,
    says_more: bool,
) -> Result<bool, CommandError> {
    let begin = Instant::now();
    let mut all = true;
    for (name, color) in made {
        let left = timeout.saturating_sub(begin.elapsed());
        let drain = wait_for(name, Some(other(color)), Some(left), goal, caller, output).await;
        let generation = status.generation;
        let drain = drain.map_err(|CommandError { text, code: _ }| CommandError {
            code: exit::NOT_IN_TIME,
            text: format!(
                "the change was made (generation {generation}), but the wait failed: {text}"
            ),
        })?;
        let is_reached = goal.is_reached(&drain);
        let held_by = holders(&drain.held_by, drain.until.as_deref());
        let DrainStatus { service, color, in_flight, drained, safe_to_stop, pins, .. } = drain;
        if drained && !is_reached {
            print_error(format_args!(
                "{service}: {color} is drained, but not safe to stop: {held_by}. The change stands. Wait on with: \
                 flipgate drain {service}={color} --safe-to-stop --wait 10m"
            ));
        } else if !drained {
            let pinned = pins.map(|it| {
                format!(", and transactions pinned to it until {}", shown_time(&it.until))
            });
            let (pinned, goal) = (pinned.unwrap_or_default(), goal.option());
            print_error(format_args!(
                "{service}: {color} has {in_flight} still in flight{pinned}. The change stands. Wait on with: flipgate \
                 drain {service}={color}{goal} --wait 10m"
            ));
        } else if says_more {
            let prefix = if made.len() > 1 { format!("{service}: ") } else { String::new() };
            let took = begin.elapsed();
            let took = match took.as_secs() {
                0 => format!("{} ms", took.as_millis()),
                _ => format!("{:.1} s", took.as_secs_f64()),
            };
            let text = match safe_to_stop {
                true => format!("it is safe to stop {color}"),
                false => format!("{color} is not safe to stop yet: {held_by}"),
            };
            print_or_ignore(&format!("{prefix}drained in {took}: {text}"))?;
        }
        all &= is_reached;
    }
    Ok(all)
}

/// Which of the colors are not active now, although the change was made before.
fn superseded(made: &BTreeMap<String, String>, status: &Status) -> Option<String> {
    let others = made.iter().filter_map(|(name, color)| {
        let active = status.services.get(name).map(|it| &it.active);
        match active {
            Some(active) if active == color => None,
            Some(active) => Some(format!("{} has {} active now", escape(name), escape(active))),
            None => Some(format!("{} is not configured now", escape(name))),
        }
    });
    let others: Vec<_> = others.collect();
    (!others.is_empty())
        .then(|| format!("the change was made before under this key, and {}", others.join(", ")))
}

fn other(color: &str) -> &'static str {
    if color == "green" { "blue" } else { "green" }
}

/// Warns if public requests go to a pool without a healthy endpoint.
fn warn_of_unhealthy_pools(status: &Status) {
    for (name, service) in &status.services {
        let (name, color) = (escape(name), escape(&service.active));
        let active = service.pools.get(&service.active);
        let is_down = |it: &PoolStatus| it.endpoints.iter().all(|it| it.health == "down");
        if active.is_some_and(is_down) {
            let style = anstyle::AnsiColor::Yellow.on_default().bold();
            print_error(format_args!(
                "{style}warning{style:#}: {name} has {color} active, and none of its endpoints is healthy: see `flipgate status {name}`"
            ));
        }
    }
}

pub(super) async fn reload(
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let status = admin.caller()?.reload().await?;
    if output.is_json() {
        return ended(show(&status, output, verbosity), 0);
    }
    let generation = status.generation;
    let printed = match verbosity.quiet {
        true => Ok(()),
        false => print_line(format_args!("configuration applied (generation {generation})")),
    };
    ended(printed, 0)
}
