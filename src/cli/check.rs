//! `check`.

use std::path::{Path, PathBuf};

use flipgate_api::{
    OutputArguments,
    terminal::{print_error, print_line},
};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::{
    arguments::{ConfigArguments, Verbosity, environment},
    check_samples::{self, ManifestArgument, check_samples, judge_arguments},
    exit::{self, CommandError},
};
use crate::{
    config::{ConfigError, ConfigSource, Diagnostic, Loaded, read_standard_input},
    release::SampleRefusals,
};

/// Standard input.
const STDIN: &str = "-";

pub(super) fn check(
    file: Option<PathBuf>,
    config: ConfigArguments,
    manifests: &[ManifestArgument],
    output: OutputArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let config = ConfigArguments { config: file.or(config.config) };
    let is_json = output.is_json_asked();
    let (source, loaded) = match config.config.as_deref() == Some(Path::new(STDIN)) {
        true => {
            let path = PathBuf::from("<stdin>");
            let source = ConfigSource { path, environment: environment() };
            let text = read_standard_input().map_err(|error| {
                CommandError::usage(format!("cannot read standard input: {error}"))
            })?;
            let loaded = source.check(text).map_err(ConfigError::Invalid);
            (source, loaded)
        }
        false => {
            let source = config.source()?;
            let loaded = source.load();
            (source, loaded)
        }
    };
    let loaded = match loaded {
        Ok(loaded) => match &*check_samples(&loaded.config, &source.path)? {
            [] => Ok(loaded),
            findings => Err(ConfigError::Invalid(findings.to_vec())),
        },
        failed => failed,
    };
    match loaded {
        Ok(loaded) => {
            let judged = judge_arguments(&loaded.config, manifests)?;
            let is_refused = judged.iter().any(|(_, it)| *it != SampleRefusals::default());
            if is_json {
                let mut all = loaded.warnings;
                let of = |(service, it)| check_samples::findings(&source.path, service, it);
                all.extend(judged.iter().map(|(service, it)| (service, it)).flat_map(of));
                print_line(json(&all))?;
            } else {
                for warning in &loaded.warnings {
                    print_error(warning);
                }
                if !verbosity.quiet {
                    print_line(summary(&source.path, &loaded))?;
                }
                for (service, refusals) in &judged {
                    print_line(check_samples::text(service, refusals))?;
                }
            }
            Ok(if is_refused { exit::REFUSED } else { 0 })
        }
        Err(ConfigError::Invalid(diagnostics)) if is_json => {
            print_line(json(&diagnostics))?;
            Ok(exit::USAGE)
        }
        Err(error) => Err(invalid(&source.path, &error)),
    }
}

/// The error of a configuration that cannot be used.
pub(super) fn invalid(path: &Path, error: &ConfigError) -> CommandError {
    let text = match error {
        ConfigError::Unreadable { .. } => error.to_string(),
        ConfigError::Invalid(diagnostics) => {
            let count = diagnostics.len();
            let what = if count == 1 { "a mistake" } else { "mistakes" };
            format!("{} has {what}:\n{error}", path.display())
        }
    };
    CommandError::usage(text)
}

fn summary(path: &Path, loaded: &Loaded) -> String {
    let Loaded { config, warnings: _, files } = loaded;
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let included = match files - 1 {
        0 => String::new(),
        more => format!(" with {}", counted(more, "included file")),
    };
    format!(
        "{}{included}: good: {}, {}; {}",
        path.display(),
        counted(config.catalog.services().len(), "service"),
        counted(config.listeners.len(), "listener"),
        internal(&config.catalog.internal)
    )
}

/// Which clients may preview.
fn internal(networks: &[IpNet]) -> String {
    if networks.is_empty() {
        return "no client is internal".to_owned();
    }
    let networks: Vec<_> = networks.iter().map(ToString::to_string).collect();
    format!("internal clients: {}", networks.join(", "))
}

fn json(diagnostics: &[Diagnostic]) -> String {
    let one = |it: &Diagnostic| {
        let Diagnostic { severity, file, line, column, key, message, help } = it;
        json!({
            "severity": severity.as_str(), "file": file, "line": line, "column": column,
            "key": key, "message": message, "help": help,
        })
    };
    let all: Value = diagnostics.iter().map(one).collect();
    format!("{all:#}")
}
