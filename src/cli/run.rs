//! `run`.

use std::{
    io::{self, IsTerminal},
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

use super::{arguments::Verbosity, check::invalid, exit::CommandError};
use crate::{
    app::{App, ExitOutcome, Signals, StartSignals},
    config::{Config, ConfigSource, LogSettings},
    log::{LogFormat, LogQueue},
};

/// How long the last log lines may take to be written.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Registers the handlers of signals if this process is to `run`, before the command line is parsed: parsing takes
/// longer than everything else until the configuration is read.
pub(super) fn register_signals() -> Option<io::Result<StartSignals>> {
    let is_option = |it: &std::ffi::OsString| it.as_encoded_bytes().starts_with(b"-");
    let command = std::env::args_os().skip(1).find(|it| !is_option(it));
    (command? == "run").then(StartSignals::register)
}

pub(super) fn run(
    source: ConfigSource,
    verbosity: Verbosity,
    signals: io::Result<StartSignals>,
) -> Result<u8, CommandError> {
    let signals =
        signals.map_err(|error| CommandError::new(format!("cannot handle signals: {error}")))?;
    let reading = source.clone();
    let Some((loaded, signals)) = signals.unless_stopped(move || reading.load()) else {
        return Ok(0);
    };
    let loaded = loaded.map_err(|error| invalid(&source.path, &error))?;
    let (log, is_colored) = start_logging(&loaded.config.log, verbosity)?;
    loaded.log_warnings();
    let code = serve(loaded.config, source, signals, &log).unwrap_or_else(|error| {
        // Not written directly: that would block if standard error is not read.
        log.put(&error.line(is_colored));
        error.code
    });
    // Otherwise standard error is not read, and the lines are lost.
    let _ = log.flush(LOG_TIMEOUT);
    Ok(code)
}

fn serve(
    config: Config,
    source: ConfigSource,
    signals: Signals,
    log: &LogQueue,
) -> Result<u8, CommandError> {
    raise_open_files(config.connections_max);
    refuse_huge_pages();
    let app = App::start(config, Some(source));
    let app = app.map_err(|error| CommandError::new(error.to_string()))?;
    log.count_with(&app.log_dropped);
    Ok(code(app.run(signals)))
}

/// 0 if requests in flight had their time to complete and no task had died.
fn code(ended: ExitOutcome) -> u8 {
    let ExitOutcome { cut: _, at_once, has_failed } = ended;
    u8::from(at_once || has_failed)
}

/// Raises the limit of open files as far as it may be raised: a proxied connection needs two, and the usual soft
/// limit of 1024 is meant for programs that use `select`.
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

/// A proxy has many small allocations that come and go. In pages of 2 MB, a few connections that stay would keep the
/// memory of thousands that have closed.
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        debug!(%error, "huge pages cannot be refused; memory is given back later");
    }
}

/// Returns the queue of log lines, and whether they are colored.
fn start_logging(
    log: &LogSettings,
    verbosity: Verbosity,
) -> Result<(LogQueue, bool), CommandError> {
    let LogSettings { filter, json } = log;
    let is_colored = io::stderr().is_terminal();
    let format = if json.unwrap_or(!is_colored) { LogFormat::Json } else { LogFormat::Text };
    let queue = LogQueue::start(format)
        .map_err(|error| CommandError::new(format!("cannot start threads: {error}")))?;
    let filter = match verbosity {
        Verbosity { verbose: true, .. } => "debug",
        Verbosity { quiet: true, .. } => "error",
        Verbosity { .. } => filter,
    };
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
