//! Options that several commands share.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use flipgate_api::{CallerArguments, OutputArguments};

use super::exit::CommandError;
use crate::config::{ConfigSource, Environment};

/// The option `--config`.
#[derive(Args, Clone, Debug)]
pub(super) struct ConfigArguments {
    /// The configuration file [default: flipgate.toml, else /etc/flipgate/flipgate.toml]
    #[arg(short, long, value_name = "FILE", env = "FLIPGATE_CONFIG")]
    pub(super) config: Option<PathBuf>,
}

/// How much is printed on standard error.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Verbosity {
    /// Print errors and results only
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Print more; `run` logs at the level debug
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
}

/// The options of a change.
#[derive(Args, Clone, Debug)]
pub(super) struct ChangeArguments {
    /// Fail if this is not the current generation
    #[arg(long, value_name = "NUMBER")]
    pub(super) if_generation: Option<u64>,
    /// Return when it is safe to stop the replaced colors, at most after this time
    #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
    pub(super) wait_drain: Option<Duration>,
    /// Return when the replaced colors are drained, although a watch or a confirmation may still need them
    #[arg(long, value_name = "TIME", conflicts_with = "wait_drain", value_parser = flipgate_drill::parse_time)]
    pub(super) wait_drained: Option<Duration>,
    /// The reason, for the log and the events
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Skip the gates; needs the scope admin and --reason
    #[arg(long, requires = "reason")]
    pub(super) force: bool,
    /// Make it safe to repeat the call: a second call with this key changes nothing
    #[arg(long, value_name = "KEY")]
    pub(super) idempotency_key: Option<String>,
    #[command(flatten)]
    pub(super) admin: CallerArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
}

/// The options of a gradual promotion.
#[derive(Args, Clone, Debug)]
pub(super) struct StepArguments {
    /// Promote gradually: the shares of clients in percent, up to 100
    #[arg(
        long,
        value_name = "PERCENT,…",
        value_delimiter = ',',
        value_parser = parse_step,
        conflicts_with_all = ["confirm_within", "wait_drain", "wait_drained"]
    )]
    pub(super) steps: Vec<u8>,
    /// How long each step lasts at least [default: 2m]
    #[arg(long, value_name = "TIME", requires = "steps", value_parser = flipgate_drill::parse_time)]
    pub(super) step_for: Option<Duration>,
    /// Internal clients and holders of the printed token go first
    #[arg(long, requires = "steps")]
    pub(super) first: bool,
}

/// A pool, as `SERVICE.COLOR`.
#[derive(Clone, Debug)]
pub(super) struct PoolName {
    pub(super) service: String,
    pub(super) color: String,
}

/// Where the configuration is if no option says so, in this order.
const DEFAULTS: [&str; 2] = ["flipgate.toml", "/etc/flipgate/flipgate.toml"];

// === impl ConfigArguments ===

impl ConfigArguments {
    /// The configuration that these options name, with the environment of this process.
    ///
    /// # Errors
    ///
    /// If none is named and none is at a default place.
    pub(super) fn source(self) -> Result<ConfigSource, CommandError> {
        let path = match self.config {
            Some(path) => path,
            None => default_path().ok_or_else(|| {
                let [here, system] = DEFAULTS;
                CommandError::usage(format!(
                    "no configuration file: there is no ./{here} and no {system}; write --config FILE, or set \
                     FLIPGATE_CONFIG"
                ))
            })?,
        };
        Ok(ConfigSource { path, environment: environment() })
    }
}

/// The first default place that has a file.
pub(super) fn default_path() -> Option<PathBuf> {
    DEFAULTS.into_iter().map(PathBuf::from).find(|it| it.exists())
}

/// The environment variables of this process.
pub(super) fn environment() -> Environment {
    std::env::vars_os().collect()
}

/// `SERVICE=COLOR`.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((service, color)) if !service.is_empty() && !color.is_empty() => {
            Ok((service.to_owned(), parse_color(color)?))
        }
        _ => Err("write SERVICE=COLOR, like web=green".to_owned()),
    }
}

/// `SERVICE.COLOR`. Service names have no dots.
pub(super) fn parse_pool(text: &str) -> Result<PoolName, String> {
    match text.split_once('.') {
        Some((service, color)) if !service.is_empty() && !color.is_empty() => {
            Ok(PoolName { service: service.to_owned(), color: parse_color(color)? })
        }
        _ => Err("write SERVICE.COLOR, like web.green".to_owned()),
    }
}

/// `SERVICE` or `SERVICE=COLOR`.
pub(super) fn parse_service(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        None => match text.split_once('.') {
            Some((service, "blue" | "green")) => {
                let color = &text[service.len() + 1..];
                Err(format!("write {service}={color}: a dot is for `set` and `wait`"))
            }
            _ => Ok((text.to_owned(), None)),
        },
        Some(_) => parse_pair(text).map(|(service, color)| (service, Some(color))),
    }
}

/// A share of clients, in percent.
fn parse_step(text: &str) -> Result<u8, String> {
    let percent = text.parse().ok().filter(|it| (1..=100).contains(it));
    percent.ok_or_else(|| "write whole numbers from 1 to 100, like 1,10,50,100".to_owned())
}

fn parse_color(text: &str) -> Result<String, String> {
    match text {
        "blue" | "green" => Ok(text.to_owned()),
        _ => Err(format!("`{}` is not a color; write blue or green", flipgate_api::escape(text))),
    }
}

pub(super) fn count(from: usize, to: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|it| (from..=to).contains(it));
        number.ok_or_else(|| format!("write a number from {from} to {to}"))
    }
}
