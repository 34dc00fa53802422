//! `run`.

use std::{io::IsTerminal, path::PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{Failure, exit};
use crate::{
    app::App,
    config::{Config, ConfigError, Log},
};

pub(super) fn run(path: PathBuf) -> Result<u8, Failure> {
    let config = load(&path)?;
    start_logging(&config.log);
    raise_open_files(config.connections_max);
    refuse_huge_pages();
    let app = App::start(config, Some(path)).map_err(|error| Failure::new(error.to_string()))?;
    let ended = app.run().map_err(|error| Failure::new(error.to_string()))?;
    Ok(u8::from(ended.at_once))
}

pub(super) fn load(path: &std::path::Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|error| {
        let text = match &error {
            ConfigError::Unreadable { .. } => error.to_string(),
            ConfigError::Mistakes(mistakes) => {
                let count = mistakes.len();
                let what = if count == 1 { "a mistake" } else { "mistakes" };
                format!("{} has {what}:\n{error}", path.display())
            }
        };
        Failure::new(text).with_code(exit::USAGE)
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

fn start_logging(log: &Log) {
    let Log { filter, json } = log;
    let is_json = json.unwrap_or(!std::io::stderr().is_terminal());
    let mut targets: Targets = filter.parse().expect("checked when the configuration was read");
    for library in ["h2", "rustls", "hyper"] {
        // Every frame would be a line; whoever wants that asks for it by name.
        if !filter.contains(library) {
            targets = targets.with_target(library, LevelFilter::WARN);
        }
    }
    let lines = match is_json {
        true => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        false => {
            let is_colored = std::io::stderr().is_terminal();
            fmt::layer().with_ansi(is_colored).with_writer(std::io::stderr).boxed()
        }
    };
    // Already set only where several run in one process, as tests do.
    let _ = tracing_subscriber::registry().with(lines.with_filter(targets)).try_init();
}
