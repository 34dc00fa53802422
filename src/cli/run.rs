//! `run`.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{CommandError, exit};
use crate::{
    app::{App, ExitOutcome, Signals, StartSignals},
    config::{Config, ConfigError, LogSettings},
    log::{LogFormat, LogQueue},
};

/// How long the last log lines may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Registers the handlers of signals if the arguments of this process are those of `run`, before the
/// command line is parsed: that takes longer than everything else until the configuration is read.
pub(super) fn register_signals() -> Option<io::Result<StartSignals>> {
    let is_run = std::env::args_os().nth(1).is_some_and(|it| it == "run");
    is_run.then(StartSignals::register)
}

pub(super) fn run(path: PathBuf, signals: io::Result<StartSignals>) -> Result<u8, CommandError> {
    let signals =
        signals.map_err(|error| CommandError::new(format!("cannot handle signals: {error}")))?;
    let file = path.clone();
    let Some((config, signals)) = signals.unless_stopped(move || load(&file)) else {
        return Ok(0);
    };
    let config = config?;
    let (log, is_colored) = start_logging(&config.log)?;
    let code = serve(config, path, signals, &log).unwrap_or_else(|failure| {
        // Not written directly, which would block if standard error is not read.
        log.put(&failure.line(is_colored));
        failure.code
    });
    // Otherwise standard error is not read, and the lines are lost.
    let _ = log.flush(LOG_PATIENCE);
    Ok(code)
}

fn serve(
    config: Config,
    path: PathBuf,
    signals: Signals,
    log: &LogQueue,
) -> Result<u8, CommandError> {
    raise_open_files(config.connections_max);
    refuse_huge_pages();
    let app =
        App::start(config, Some(path)).map_err(|error| CommandError::new(error.to_string()))?;
    log.count_with(&app.log_dropped);
    Ok(code(app.run(signals)))
}

/// 0 if everything in progress was given its time and nothing had died.
fn code(ended: ExitOutcome) -> u8 {
    let ExitOutcome { cut: _, at_once, has_failed } = ended;
    u8::from(at_once || has_failed)
}

pub(super) fn load(path: &std::path::Path) -> Result<Config, CommandError> {
    Config::load(path).map_err(|error| {
        let text = match &error {
            ConfigError::Unreadable { .. } => error.to_string(),
            ConfigError::Mistakes(mistakes) => {
                let count = mistakes.len();
                let what = if count == 1 { "a mistake" } else { "mistakes" };
                format!("{} has {what}:\n{error}", path.display())
            }
        };
        CommandError::new(text).with_code(exit::USAGE)
    })
}

/// Takes as many open files as this process may have: a proxied connection needs two, and the usual
/// soft limit of 1024 is meant for programs that use `select`.
fn raise_open_files(connections_max: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let may_have = if raised.is_ok() { limit.maximum } else { limit.current };
    let needed = connections_max as u64 * 2;
    if let Some(may_have) = may_have.filter(|it| *it < needed) {
        warn!(
            may_have,
            needed,
            "fewer open files are allowed than limits.connections may need: raise `ulimit -n`, or \
             lower limits.connections"
        );
    }
}

/// What an edge keeps in memory is small and comes and goes: in pages of 2 MB, a few connections that
/// stay would hold on to the room of thousands that left.
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        debug!(%error, "huge pages cannot be refused; memory is given back later");
    }
}

/// Returns the queue of log lines, and whether they are colored.
fn start_logging(log: &LogSettings) -> Result<(LogQueue, bool), CommandError> {
    let LogSettings { filter, json } = log;
    let is_colored = io::stderr().is_terminal();
    let format = if json.unwrap_or(!is_colored) { LogFormat::Json } else { LogFormat::Text };
    let queue = LogQueue::start(format)
        .map_err(|error| CommandError::new(format!("cannot start threads: {error}")))?;
    let mut targets: Targets = filter.parse().expect("checked when the configuration was read");
    // These libraries log a line for each frame below these levels; name one in `log.level` to see them. The
    // warnings of `h2` lack the client's address, so Flipgate logs its own, at a limited rate.
    let libraries =
        [("h2", LevelFilter::ERROR), ("rustls", LevelFilter::WARN), ("hyper", LevelFilter::WARN)];
    for (library, level) in libraries {
        if !filter.contains(library) {
            targets = targets.with_target(library, level);
        }
    }
    let lines = fmt::layer().with_writer(queue.clone());
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(is_colored).boxed(),
    };
    // Already set only where several run in one process, as tests do.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
    LogQueue::log_panics();
    Ok((queue, is_colored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whether_the_end_was_a_good_one() {
        for (at_once, has_failed, expected) in
            [(false, false, 0), (true, false, 1), (false, true, 1), (true, true, 1)]
        {
            assert_eq!(code(ExitOutcome { cut: 3, at_once, has_failed }), expected);
        }
    }
}
