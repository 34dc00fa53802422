//! `drain`.

use std::time::{Duration, Instant};

use flipgate_api::{
    Caller, CallerArguments, OutputArguments, escape,
    terminal::print_line,
    wire::{DrainStatus, DrainStreams},
};

use super::{
    exit::{self, CommandError},
    output::{ended, spinner},
    times::shown_time,
};

/// The longest wait of one call; the API itself has a limit of an hour.
const SLICE: Duration = Duration::from_secs(1800);

/// What a wait is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum DrainGoal {
    /// No request is in flight.
    Drained,
    /// The same, and nothing else may need the color.
    SafeToStop,
}

/// What `drain` does.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainTerms {
    /// How long it waits.
    pub(super) wait: Option<Duration>,
    /// Whether it waits until it is safe to stop the color.
    pub(super) safe_to_stop: bool,
    /// Whether it ends the streams of the color first.
    pub(super) end_streams: bool,
}

impl DrainGoal {
    pub(super) fn is_reached(self, drain: &DrainStatus) -> bool {
        match self {
            Self::Drained => drain.drained,
            Self::SafeToStop => drain.safe_to_stop,
        }
    }

    /// The option of `flipgate drain` for it.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Drained => "",
            Self::SafeToStop => " --safe-to-stop",
        }
    }
}

/// What may still need a color, such as `the watch may roll back to it, until 12:00`.
pub(super) fn holders(held_by: &[String], until: Option<&str>) -> String {
    let in_words = |it| match it {
        "watch" => "the watch may roll back to it".into(),
        "pins" => "transactions are pinned to it".into(),
        "confirm" => "the promotion may not be confirmed in time".into(),
        "previews" => "previews are in flight".into(),
        "assets" => "requests for assets that the active color does not have are in flight".into(),
        "share" => "it is promoted gradually".into(),
        "rescue" => "rescued requests are in flight".into(),
        other => escape(other),
    };
    let held_by: Vec<_> = held_by.iter().map(String::as_str).map(in_words).collect();
    let until = until.map(|it| format!(", until {}", shown_time(it)));
    format!("{}{}", held_by.join(" and "), until.unwrap_or_default())
}

pub(super) async fn drain(
    service: &str,
    color: Option<&str>,
    terms: DrainTerms,
    admin: &CallerArguments,
    output: OutputArguments,
) -> Result<u8, CommandError> {
    let DrainTerms { wait, safe_to_stop, end_streams } = terms;
    let caller = admin.caller()?;
    if end_streams {
        caller.end_streams(service, color).await?;
    }
    let goal = if safe_to_stop { DrainGoal::SafeToStop } else { DrainGoal::Drained };
    let drain = wait_for(service, color, wait, goal, &caller, output).await?;
    let status = caller.status().await?;
    let active = status.services.get(service).map(|it| it.active.as_str());
    if active == Some(drain.color.as_str()) {
        let text = format!(
            "{service} has {} active; promote the other color before you drain it",
            drain.color
        );
        return Err(CommandError::new(text).with_code(exit::REFUSED));
    }
    let printed = match output.is_json() {
        true => print_line(serde_json::to_string_pretty(&drain).expect("strings and numbers")),
        false => print_line(sentence(&drain)),
    };
    ended(printed, if goal.is_reached(&drain) { 0 } else { exit::NOT_IN_TIME })
}

/// Asks for the progress of a drain until it is complete or the time is up. In a terminal, a line shows the
/// progress meanwhile.
pub(super) async fn wait_for(
    service: &str,
    color: Option<&str>,
    wait: Option<Duration>,
    goal: DrainGoal,
    caller: &Caller,
    output: OutputArguments,
) -> Result<DrainStatus, CommandError> {
    let now = || caller.drain(service, color, Duration::ZERO);
    let Some(wait) = wait else { return Ok(now().await?) };
    let until = Instant::now() + wait;
    let answer = async {
        loop {
            let wait = until.saturating_duration_since(Instant::now()).min(SLICE);
            let drain = match goal {
                DrainGoal::Drained => caller.drain(service, color, wait).await?,
                DrainGoal::SafeToStop => {
                    caller.wait_until_safe_to_stop(service, color, wait).await?
                }
            };
            if goal.is_reached(&drain) || Instant::now() >= until || wait < SLICE {
                return Ok(drain);
            }
        }
    };
    if output.is_json() {
        return answer.await;
    }
    let spinner = spinner();
    let mut answer = std::pin::pin!(answer);
    let mut refresh = tokio::time::interval(Duration::from_millis(500));
    let drain = loop {
        tokio::select! {
            drain = &mut answer => break drain,
            _ = refresh.tick() => {
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
    let DrainStatus {
        service,
        color,
        in_flight,
        oldest_ms,
        kinds,
        previews,
        streams,
        drained,
        safe_to_stop,
        ..
    } = drain;
    let streams = streams.as_ref().map(|it| streams_sentence(it, *drained)).unwrap_or_default();
    let previews = match previews {
        0 => String::new(),
        some => format!(" ({} in flight, not counted)", counted(*some, "preview")),
    };
    if *drained && !safe_to_stop {
        let held_by = holders(&drain.held_by, drain.until.as_deref());
        return format!(
            "{service}: {color} is drained, but not safe to stop: {held_by}{previews}{streams}"
        );
    }
    if *drained {
        return format!("{service}: {color} is drained; it is safe to stop it{previews}{streams}");
    }
    let kinds = [(kinds.request, "request"), (kinds.tunnel, "tunnel")];
    let kinds = kinds.into_iter().filter(|(count, _)| *count > 0);
    let held: Vec<String> = kinds.map(|(count, what)| counted(count, what)).collect();
    let held = if *in_flight == 0 { counted(0, "request") } else { held.join(" and ") };
    let pinned = drain.pins.as_ref().map(|pins| {
        let until = shown_time(&pins.until);
        match pins.count {
            Some(count) => {
                format!(
                    "; {} pinned to it, until {until} at the latest",
                    counted(count, "transaction")
                )
            }
            None => format!("; transactions may be pinned to it until {until}"),
        }
    });
    let pinned = pinned.unwrap_or_default();
    let oldest = Duration::from_millis(*oldest_ms).as_secs_f64();
    let oldest = match in_flight {
        0 => String::new(),
        _ => format!(", the oldest for {oldest:.1} s"),
    };
    let shared = match drain.held_by.iter().any(|it| it == "share") {
        true => format!(
            "; it is promoted gradually and gets new requests: `flipgate rollback {service}` takes that back"
        ),
        false => String::new(),
    };
    format!("{service}: {color} has {held} in flight{oldest}{pinned}{shared}{previews}{streams}")
}

/// How streams are ended, as the rest of a sentence: `; ended 12 websocket (closed); streams end within 28.1 s`.
fn streams_sentence(streams: &DrainStreams, drained: bool) -> String {
    let DrainStreams { ending, left_ms, ended } = streams;
    let all = ended.iter().flat_map(|(kind, ways)| ways.iter().map(move |it| (kind, it)));
    let ended: Vec<String> = all
        .map(|(kind, (how, count))| format!("{count} {} ({})", escape(kind), escape(how)))
        .collect();
    let ended = match &*ended {
        [] => String::new(),
        some => format!("; ended {}", some.join(", ")),
    };
    let left = match (*ending, *left_ms) {
        _ if drained => String::new(),
        (false, _) => "; streams that are left stay".to_owned(),
        (true, 0) => String::new(),
        (true, left_ms) => {
            format!("; streams end within {:.1} s", Duration::from_millis(left_ms).as_secs_f64())
        }
    };
    format!("{ended}{left}")
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
