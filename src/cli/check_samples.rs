//! `check` with the rules of the gate `compatible` and manifests: those of the configuration, and those of `--manifest`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::exit::CommandError;
use crate::{
    config::{Config, Diagnostic, Severity},
    model::{CompatibleGate, ManifestSample, ServiceName},
    release::{SampleRefusals, judge_sample},
};

/// The most bytes of a manifest that are read: a larger one is refused by the rules.
const FILE_MAX: u64 = 1024 * 1024;

/// `old=FILE` or `new=FILE` of `--manifest`.
#[derive(Clone, Debug)]
pub(super) struct ManifestArgument {
    is_old: bool,
    file: PathBuf,
}

impl FromStr for ManifestArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected old=FILE or new=FILE".to_owned();
        let (name, file) = text.split_once('=').ok_or_else(expected)?;
        let is_old = match name {
            "old" => true,
            "new" => false,
            _ => return Err(expected()),
        };
        match file {
            "" => Err(expected()),
            _ => Ok(Self { is_old, file: file.into() }),
        }
    }
}

/// The samples of the configuration that the rules do not judge as they should, with why.
pub(super) fn check_samples(config: &Config, path: &Path) -> Result<Vec<Diagnostic>, CommandError> {
    let mut findings = Vec::new();
    for (service, gate) in gates(config) {
        for (place, sample) in gate.samples.iter().enumerate() {
            let key = format!("service.{service}.gate.compatible.samples[{place}]");
            let judged = judge(gate, &sample.old, &sample.new)?;
            let differences = differences(sample, judged).into_iter();
            findings.extend(differences.map(|(message, help)| error(path, &key, message, help)));
        }
    }
    Ok(findings)
}

/// What the rules of each service say to the manifests of `--manifest`. Nothing without arguments.
pub(super) fn judge_arguments(
    config: &Config,
    arguments: &[ManifestArgument],
) -> Result<Vec<(ServiceName, SampleRefusals)>, CommandError> {
    if arguments.is_empty() {
        return Ok(Vec::new());
    }
    let of = |is_old| {
        let mut files = arguments.iter().filter(move |it| it.is_old == is_old).map(|it| &it.file);
        match (files.next(), files.next()) {
            (Some(file), None) => Ok(file),
            _ => Err(CommandError::usage(
                "give --manifest twice: --manifest old=FILE --manifest new=FILE",
            )),
        }
    };
    let (old, new) = (of(true)?, of(false)?);
    let judge = |(service, gate): (&ServiceName, &CompatibleGate)| {
        Ok((service.clone(), judge(gate, old, new)?.map_err(CommandError::usage)?))
    };
    let judged = gates(config).map(judge).collect::<Result<Vec<_>, CommandError>>()?;
    match judged.is_empty() {
        true => Err(CommandError::usage(
            "--manifest: no service of the configuration has a [service.NAME.gate.compatible]",
        )),
        false => Ok(judged),
    }
}

/// The same as findings, for programs.
pub(super) fn findings(
    path: &Path,
    service: &ServiceName,
    refusals: &SampleRefusals,
) -> Vec<Diagnostic> {
    let key = format!("service.{service}.gate.compatible.rules");
    let SampleRefusals { promote, rollback } = refusals;
    let of = |what: &str, reasons: &[String]| -> Vec<_> {
        let message = |it: &String| format!("the {what} is refused: {it}");
        reasons.iter().map(|it| error(path, &key, message(it), None)).collect()
    };
    [of("promotion", promote), of("rollback", rollback)].concat()
}

fn error(path: &Path, key: &str, message: String, help: Option<String>) -> Diagnostic {
    let (severity, file) = (Severity::Error, path.display().to_string());
    Diagnostic { severity, file, line: 1, column: 1, key: key.to_owned(), message, help }
}

/// A line for each direction.
pub(super) fn text(service: &ServiceName, refusals: &SampleRefusals) -> String {
    let SampleRefusals { promote, rollback } = refusals;
    let of = |(what, reasons): (&str, &Vec<String>)| match &**reasons {
        [] => format!("{service}: the {what} is allowed"),
        reasons => format!("{service}: the {what} is refused:\n  {}", reasons.join("\n  ")),
    };
    [("promotion", promote), ("rollback", rollback)].map(of).join("\n")
}

fn gates(config: &Config) -> impl Iterator<Item = (&ServiceName, &CompatibleGate)> {
    let services = config.catalog.services().iter();
    services.filter_map(|(name, it)| Some((name, it.gate.compatible.as_ref()?)))
}

/// What differs between the expected verdicts and those of the rules, with the remedy.
fn differences(
    sample: &ManifestSample,
    judged: Result<SampleRefusals, String>,
) -> Vec<(String, Option<String>)> {
    let ManifestSample { old, new, promote, rollback } = sample;
    let files = format!("{} and {}", old.display(), new.display());
    let SampleRefusals { promote: of_promote, rollback: of_rollback } = match judged {
        Ok(refusals) => refusals,
        Err(why) => return vec![(why, None)],
    };
    let mut found = Vec::new();
    for (key, what, is_allowed, reasons) in [
        ("promote", "promotion", *promote, of_promote),
        ("rollback", "rollback", *rollback, of_rollback),
    ] {
        match (is_allowed, reasons.is_empty()) {
            (true, false) => {
                let reasons = reasons.join("; ");
                let message = format!("the rules refuse the {what} of {files}: {reasons}");
                found.push((message, Some(format!("correct the rule, or set `{key} = false`"))));
            }
            (false, true) => {
                let message = format!("the rules allow the {what} of {files}");
                let help = format!("add a rule that refuses it, or remove `{key} = false`");
                found.push((message, Some(help)));
            }
            _ => {}
        }
    }
    found
}

fn judge(
    gate: &CompatibleGate,
    old: &Path,
    new: &Path,
) -> Result<Result<SampleRefusals, String>, CommandError> {
    let (old, new) = match (read(old), read(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(why), _) | (_, Err(why)) => return Ok(Err(why)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.map_err(|error| CommandError::new(error.to_string()))?;
    Ok(runtime.block_on(judge_sample(gate, &old, &new)))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let content = || -> io::Result<_> {
        let mut content = Vec::new();
        // The end of a pipe may never come.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        File::open(file)?.take(FILE_MAX).read_to_end(&mut content)?;
        Ok(content)
    };
    content().map_err(|error| format!("cannot read {}: {error}", file.display()))
}
