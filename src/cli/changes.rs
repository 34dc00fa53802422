//! `promote`, `rollback` and `drain`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use flipgate_api::{
    Call, Caller, CallerArguments,
    terminal::{OutputError, print_error, print_line},
    wire::{DrainStatus, PoolStatus, PromoteRequest, RollbackRequest, Status},
};
use indicatif::{ProgressBar, ProgressStyle};

use super::{ChangeArguments, CommandError, Output, exit, status::show};

/// The longest wait of one call; the API itself has a limit of an hour.
const SLICE: Duration = Duration::from_secs(1800);

pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((service, color)) if !service.is_empty() && !color.is_empty() => {
            Ok((service.to_owned(), color.to_owned()))
        }
        _ => Err("write SERVICE=COLOR, like web=green".to_owned()),
    }
}

pub(super) async fn promote(
    services: Vec<(String, String)>,
    terms: &ChangeArguments,
) -> Result<u8, CommandError> {
    let mut colors = BTreeMap::new();
    for (service, color) in services {
        if let Some(before) = colors.insert(service.clone(), color.clone())
            && before != color
        {
            let text = format!("{service} is to be {before} and {color}: say which");
            return Err(CommandError::new(text).with_code(exit::USAGE));
        }
    }
    let wanted = colors.clone();
    let body =
        PromoteRequest { services: colors, force: terms.force, reason: terms.reason.clone() };
    change(Call::promote(&body), Some(wanted), &[], terms).await
}

pub(super) async fn rollback(
    services: Vec<String>,
    terms: &ChangeArguments,
) -> Result<u8, CommandError> {
    let names = services.clone();
    let body = RollbackRequest { services, force: terms.force, reason: terms.reason.clone() };
    change(Call::rollback(&body), None, &names, terms).await
}

/// Makes a change, and waits for the drain of what it replaced if that is wanted: of what these colors replaced,
/// or else of those that are draining then, of the services that are named or of all.
async fn change(
    mut call: Call<'_>,
    wanted: Option<BTreeMap<String, String>>,
    names: &[String],
    terms: &ChangeArguments,
) -> Result<u8, CommandError> {
    let ChangeArguments {
        if_generation,
        wait_drain,
        reason: _,
        force: _,
        idempotency_key,
        admin,
        output,
    } = terms;
    if let Some(generation) = if_generation {
        call = call.if_generation(*generation);
    }
    if let Some(key) = idempotency_key {
        call = call.idempotency_key(key);
    }
    let caller = admin.caller()?;
    let status: Status = caller.call(call).await?;
    warn_of_dead_pools(&status);
    if status.replayed
        && let Some(wanted) = &wanted
        && let Some(text) = superseded(wanted, &status)
    {
        // That the color asked for is not active is what the exit code tells, whoever reads the rest.
        let _ = show(&status, *output);
        return Err(CommandError::new(text));
    }
    let Some(patience) = wait_drain else {
        return ended(show(&status, *output), 0);
    };
    let replaced = match wanted {
        Some(wanted) => {
            wanted.into_iter().map(|(name, color)| (name, other(&color).to_owned())).collect()
        }
        None => draining(&status, names),
    };
    let until = Instant::now() + *patience;
    let mut drained = true;
    for (name, color) in &replaced {
        let left = until.saturating_duration_since(Instant::now());
        let drain = wait_for(name, Some(color), Some(left), &caller, *output).await;
        let generation = status.generation;
        let drain = drain.map_err(|CommandError { text, code: _ }| CommandError {
            code: exit::NOT_DRAINED,
            text: format!(
                "the change was made (generation {generation}), but the wait failed: {text}"
            ),
        })?;
        if !drain.drained {
            let DrainStatus { service, color, in_flight, .. } = &drain;
            print_error(format_args!(
                "{service} {color}: {in_flight} still in flight. The change itself stands; go on \
                 waiting with: flipgate drain {service}={color} --wait 60s"
            ));
        }
        drained &= drain.drained;
    }
    // The picture from before the wait is better than none.
    let printed = show(&caller.status().await.unwrap_or(status), *output);
    ended(printed, if drained { 0 } else { exit::NOT_DRAINED })
}

/// What is active instead of the colors of a change that was made before.
fn superseded(wanted: &BTreeMap<String, String>, status: &Status) -> Option<String> {
    let others = wanted.iter().filter_map(|(name, color)| {
        let active = status.services.get(name).map(|it| &it.active);
        match active {
            Some(active) if active == color => None,
            Some(active) => Some(format!("{name} has {active} active now")),
            None => Some(format!("{name} is not configured now")),
        }
    });
    let others: Vec<_> = others.collect();
    (!others.is_empty())
        .then(|| format!("the change was made before under this key, and {}", others.join(", ")))
}

/// Each service with the color of it that is draining: of those `names`, or of all if there are none.
fn draining(status: &Status, names: &[String]) -> Vec<(String, String)> {
    let services = status.services.iter();
    let services = services.filter(|(name, _)| names.is_empty() || names.contains(name));
    let pools = services.flat_map(|(name, service)| {
        service.pools.iter().map(move |(color, pool)| (name, color, pool))
    });
    pools
        .filter(|(_, _, pool)| pool.role == "draining")
        .map(|(name, color, _)| (name.clone(), color.clone()))
        .collect()
}

/// The exit code of what was done, though the reader of the output may have gone.
fn ended(printed: Result<(), OutputError>, code: u8) -> Result<u8, CommandError> {
    match printed {
        Ok(()) | Err(OutputError::Closed) => Ok(code),
        Err(error) => Err(error.into()),
    }
}

fn other(color: &str) -> &str {
    if color == "green" { "blue" } else { "green" }
}

pub(super) async fn drain(
    service: &str,
    wait: Option<Duration>,
    admin: &CallerArguments,
    output: Output,
) -> Result<u8, CommandError> {
    let (service, color) = match service.split_once('=') {
        Some((service, color)) => (service, Some(color)),
        None => (service, None),
    };
    let caller = admin.caller()?;
    let drain = wait_for(service, color, wait, &caller, output).await?;
    let status = caller.status().await?;
    let active = status.services.get(service).map(|it| it.active.as_str());
    if active == Some(drain.color.as_str()) {
        let text = format!("{service} has {} active: promote the other color first", drain.color);
        return Err(CommandError::new(text).with_code(exit::REFUSED));
    }
    let printed = match output.is_json() {
        true => print_line(serde_json::to_string_pretty(&drain).expect("texts and numbers")),
        false => print_line(sentence(&drain)),
    };
    ended(printed, if drain.drained { 0 } else { exit::NOT_DRAINED })
}

/// Asks what holds a service's inactive color until nothing does or the time is up; meanwhile
/// whoever looks at a terminal sees what is left.
async fn wait_for(
    service: &str,
    color: Option<&str>,
    wait: Option<Duration>,
    caller: &Caller,
    output: Output,
) -> Result<DrainStatus, CommandError> {
    let now = || caller.drain(service, color, Duration::ZERO);
    let Some(wait) = wait else { return Ok(now().await?) };
    let until = Instant::now() + wait;
    let answer = async {
        loop {
            let wait = until.saturating_duration_since(Instant::now()).min(SLICE);
            let drain = caller.drain(service, color, wait).await?;
            if drain.drained || Instant::now() >= until || wait < SLICE {
                return Ok(drain);
            }
        }
    };
    if output.is_json() {
        return answer.await;
    }
    let spinner = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {msg}").expect("a template of known words"),
    );
    spinner.enable_steady_tick(Duration::from_millis(120));
    let mut answer = std::pin::pin!(answer);
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let drain = loop {
        tokio::select! {
            drain = &mut answer => break drain,
            _ = look.tick() => {
                if let Ok(drain) = now().await {
                    spinner.set_message(sentence(&drain));
                }
            }
        }
    };
    spinner.finish_and_clear();
    drain
}

fn sentence(drain: &DrainStatus) -> String {
    let DrainStatus { service, color, in_flight, oldest_ms, kinds, previews, drained } = drain;
    let previews = match previews {
        0 => String::new(),
        some => format!("; besides, {}", counted(*some, "preview")),
    };
    if *drained {
        return format!("{service} {color} is drained: it may be stopped{previews}");
    }
    let kinds = [(kinds.request, "request"), (kinds.tunnel, "tunnel")];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
    let held: Vec<String> = kinds.map(|(count, what)| counted(count, what)).collect();
    let held = if *in_flight == 0 { "nobody".to_owned() } else { held.join(" and ") };
    let oldest = Duration::from_millis(*oldest_ms).as_secs_f64();
    format!("{service} {color} is held by {held}, the oldest for {oldest:.1} s{previews}")
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Says so if the public is now sent where nobody answered when last asked.
fn warn_of_dead_pools(status: &Status) {
    for (name, service) in &status.services {
        let active = service.pools.get(&service.active);
        let is_down = |it: &PoolStatus| it.endpoints.iter().all(|it| it.health == "down");
        if active.is_some_and(is_down) {
            let style = anstyle::AnsiColor::Yellow.on_default().bold();
            print_error(format_args!(
                "{style}warning{style:#}: {name} has {} active, and none of its endpoints is up",
                service.active
            ));
        }
    }
}
