//! `set` and `wait`.

use std::time::{Duration, Instant};

use flipgate_api::{
    CallError, Caller, CallerArguments, OutputArguments,
    terminal::{print_error, print_line},
    wire::{EndpointRequest, PoolRequest, PoolStatus, Status},
};

use super::{
    arguments::{PoolName, Verbosity},
    drain::holders,
    exit::{self, CommandError},
    output::{ended, show, spinner},
    table::health_summary,
};

/// Between two calls for the status.
const POLL: Duration = Duration::from_millis(100);

/// The least time for a call, so that a short wait finds out how things are.
const CALL_MIN: Duration = Duration::from_secs(1);

/// The new content of a pool, and the generation that it was decided on.
pub(super) struct PoolContent {
    pub(super) version: Option<String>,
    pub(super) endpoints: Vec<String>,
    pub(super) force: bool,
    pub(super) if_generation: Option<u64>,
}

pub(super) async fn set(
    pool: &PoolName,
    content: PoolContent,
    wait_healthy: Option<Duration>,
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let PoolName { service, color } = pool;
    let PoolContent { version, endpoints, force, if_generation } = content;
    let endpoints = endpoints.into_iter().map(EndpointRequest::Plain).collect();
    let body = PoolRequest { version, endpoints, force };
    let caller = admin.caller()?;
    let before = caller.status().await.ok();
    let mut status = caller.set_pool_if(service, color, &body, if_generation).await?;
    if let Some(held) = before.and_then(|it| find(&it, pool).and_then(way_back)) {
        print_error(format_args!(
            "warning: {service}.{color} was the way back of the last promotion ({held}): now the promotion stays, \
             whatever comes"
        ));
    }
    let mut code = 0;
    if let Some(timeout) = wait_healthy {
        let last = wait_for(&caller, pool, timeout, false, output).await;
        let (last, is_healthy) = last.map_err(|CommandError { text, code: _ }| CommandError {
            code: exit::NOT_IN_TIME,
            text: format!("{service}.{color} was set, but the wait failed: {text}"),
        })?;
        if !is_healthy {
            print_error(format_args!("{}. It was set", not_healthy(pool, &last, timeout)));
            code = exit::NOT_IN_TIME;
        }
        // The generation of the change is what the next change is decided on.
        status = Status { generation: status.generation, ..last };
    }
    if !output.is_json() {
        if verbosity.quiet {
            return Ok(code);
        }
        status.services.retain(|name, _| name == service);
    }
    ended(show(&status, output, verbosity), code)
}

/// Why a promotion may be rolled back to this pool by itself, if so.
fn way_back(pool: &PoolStatus) -> Option<String> {
    let is_way_back = pool.held_by.iter().any(|it| matches!(it.as_str(), "watch" | "confirm"));
    is_way_back.then(|| holders(&pool.held_by, pool.until.as_deref()))
}

pub(super) async fn wait(
    pool: &PoolName,
    timeout: Duration,
    admin: &CallerArguments,
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let caller = admin.caller()?;
    let (status, is_healthy) = wait_for(&caller, pool, timeout, true, output).await?;
    if !is_healthy {
        print_error(not_healthy(pool, &status, timeout));
    }
    let code = if is_healthy { 0 } else { exit::NOT_IN_TIME };
    let PoolName { service, color } = pool;
    if output.is_json() {
        return ended(show(&status, output, verbosity), code);
    }
    let printed = match find(&status, pool) {
        Some(found) if is_healthy && !verbosity.quiet => {
            print_line(format_args!("{service}.{color} is healthy: {}", health_summary(found)))
        }
        _ => Ok(()),
    };
    ended(printed, code)
}

/// Asks for the status until the pool is healthy or the time is up. Returns the last status, and whether the pool
/// is healthy. With `waits_for_start`, an admin API that cannot be reached is asked again, too.
async fn wait_for(
    caller: &Caller,
    pool: &PoolName,
    timeout: Duration,
    waits_for_start: bool,
    output: OutputArguments,
) -> Result<(Status, bool), CommandError> {
    let until = Instant::now() + timeout;
    let spinner = (!output.is_json()).then(spinner);
    let result = loop {
        let is_over = Instant::now() >= until;
        let rest = until.saturating_duration_since(Instant::now()).max(CALL_MIN);
        let Ok(found) = tokio::time::timeout(rest, caller.status()).await else {
            let text = format!("the admin API did not answer within {timeout:?}");
            break Err(CommandError::new(text).with_code(exit::NOT_IN_TIME));
        };
        match found {
            Ok(status) => {
                let Some(found) = find(&status, pool) else {
                    break Err(CommandError::unknown_service(&status, &pool.service));
                };
                let is_healthy = is_healthy(found);
                if let Some(spinner) = &spinner {
                    let PoolName { service, color } = pool;
                    spinner.set_message(format!("{service}.{color}: {}", health_summary(found)));
                }
                if is_healthy || is_over {
                    break Ok((status, is_healthy));
                }
            }
            Err(error @ (CallError::Unreachable { .. } | CallError::Silent { .. }))
                if waits_for_start =>
            {
                if is_over {
                    break Err(CommandError::from(error).with_code(exit::NOT_IN_TIME));
                }
            }
            Err(error) => break Err(error.into()),
        }
        tokio::time::sleep(POLL.min(until.saturating_duration_since(Instant::now()))).await;
    };
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    result
}

/// Whether every endpoint of a pool that has some is healthy.
fn is_healthy(pool: &PoolStatus) -> bool {
    let is_usable =
        |it: &flipgate_api::wire::EndpointStatus| it.health == "up" && it.ejected.is_none();
    !pool.endpoints.is_empty() && pool.endpoints.iter().all(is_usable)
}

fn find<'s>(status: &'s Status, pool: &PoolName) -> Option<&'s PoolStatus> {
    status.services.get(&pool.service)?.pools.get(&pool.color)
}

fn not_healthy(pool: &PoolName, status: &Status, timeout: Duration) -> String {
    let PoolName { service, color } = pool;
    let summary = find(status, pool).map_or_else(String::new, health_summary);
    format!("{service}.{color} is not healthy after {timeout:?}: {summary}")
}
