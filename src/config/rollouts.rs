//! The plans of deployments: `[rollouts]` and `[rollout.NAME]`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Environment,
    reader::{Section, Value, flag, text, word},
    rollout_stages::{Placeholders, stage},
    settings::path,
};
use crate::{
    model::ServiceName,
    rollout::{
        Action, AfterPromotion, IfInterrupted, OF_ROLLOUT, OF_SERVICE, Plan, RolloutSettings,
        SECRET, SecretSource, Stage,
    },
};

/// The longest name of a plan.
const NAME_MAX: usize = 63;

/// All plans.
pub(super) fn rollouts(
    root: &Section<'_>,
    services: &[ServiceName],
    environment: &Environment,
) -> RolloutSettings {
    let common = root.section("rollouts");
    let exec = common.read("exec", false, flag);
    common.finish();
    let mut settings = RolloutSettings { exec, ..RolloutSettings::default() };
    for (name, place, section) in root.section("rollout").named() {
        if let Err(what) = check_name(name) {
            section.note_at(place.clone(), what);
        }
        let plan = plan(name, &section, services, environment, &mut settings.environment);
        if plan.runs_commands() && !exec {
            let what = "the plan runs commands, which are not allowed\nset `exec = true` in [rollouts]: who may begin a rollout may then run them";
            section.note_at(place, what);
        }
        settings.plans.insert(name.to_owned(), plan);
    }
    settings
}

fn check_name(name: &str) -> Result<(), String> {
    let is_valid =
        |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-' || it == b'_';
    match (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_valid) {
        true => Ok(()),
        false => {
            Err("the name of a plan has 1 to 63 lower-case letters, digits, `-` and `_`".to_owned())
        }
    }
}

fn plan(
    name: &str,
    section: &Section<'_>,
    services: &[ServiceName],
    environment: &Environment,
    variables: &mut BTreeMap<String, String>,
) -> Plan {
    let after_promotion = section.read("after_promotion", AfterPromotion::default(), |it| {
        word(it, &[("rollback", AfterPromotion::Rollback), ("keep", AfterPromotion::Keep)])
    });
    let if_interrupted = section.read("if_interrupted", IfInterrupted::default(), |it| {
        word(it, &[("undo", IfInterrupted::Undo), ("wait", IfInterrupted::Wait)])
    });
    let secrets = secrets(&section.section("secrets"), environment, variables);
    let mut known = Placeholders {
        values: OF_SERVICE.iter().chain(&OF_ROLLOUT).map(ToString::to_string).collect(),
        secrets: secrets.keys().map(|it| format!("{SECRET}{it}")).collect(),
    };
    let mut stages = Vec::new();
    let mut names = BTreeSet::new();
    let mut is_empty = true;
    for it in section.sections("stage") {
        is_empty = false;
        let Some(stage) = stage(&it, services, &mut known) else { continue };
        if !names.insert(stage.name.clone()) {
            it.note("name", "another stage of the plan has this name");
        }
        stages.push(stage);
    }
    if is_empty {
        section.note_missing("stage", "`name` and `kind`");
    }
    if stages.len() > Plan::STAGES_MAX {
        let most = Plan::STAGES_MAX;
        section.note("stage", format_args!("a plan has at most {most} stages"));
    }
    check_order(section, &stages);
    section.finish();
    Plan { name: name.to_owned(), stages, after_promotion, if_interrupted, secrets }
}

/// What a promotion leads to comes after it, and the pools are set before.
fn check_order(section: &Section<'_>, stages: &[Stage]) {
    let is_promotion = |it: &Stage| matches!(it.action, Action::Promote(_));
    let promotion = stages.iter().position(is_promotion);
    for (place, stage) in stages.iter().enumerate() {
        let is_before = promotion.is_none_or(|promotion| place < promotion);
        let what = match &stage.action {
            Action::Drain(_) | Action::Watch(_) if is_before => {
                "needs a stage of the kind \"promote\" before it"
            }
            Action::Pool(_) if !is_before => "has to come before the stage of the kind \"promote\"",
            Action::Pool(_)
                if stages[..place].iter().any(|it| matches!(it.action, Action::Pool(_))) =>
            {
                "sets the pools a second time\nremove it, or the first one"
            }
            Action::Promote(_) if promotion != Some(place) => {
                "is a second promotion\nname all services in the first one, so that they flip together"
            }
            _ => continue,
        };
        section.note("stage", format_args!("stage `{}` {what}", stage.name));
    }
}

fn secrets(
    section: &Section<'_>,
    environment: &Environment,
    variables: &mut BTreeMap<String, String>,
) -> BTreeMap<String, SecretSource> {
    let mut secrets = BTreeMap::new();
    for (name, place, secret) in section.named() {
        let is_valid = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_';
        if name.is_empty() || !name.bytes().all(is_valid) {
            secret.note_at(place, "the name of a secret has lower-case letters, digits and `_`");
        }
        let file = secret.read("file", None, |it| readable(it).map(Some));
        let env = secret.read("env", None, |it| {
            let variable = text(it)?;
            let value = environment.get(variable).filter(|it| !it.is_empty());
            let value =
                value.ok_or_else(|| format!("the environment variable {variable} is not set"))?;
            variables.insert(variable.to_owned(), value.to_owned());
            Ok(Some(SecretSource::Env(variable.to_owned())))
        });
        match (file, env) {
            (Some(_), Some(_)) => secret.note("env", "`file` is set, too\nremove one of them"),
            (Some(it), None) | (None, Some(it)) => drop(secrets.insert(name.to_owned(), it)),
            (None, None) => {
                if !secret.has("file") && !secret.has("env") {
                    secret.note(
                        "file",
                        "missing\nwrite `file = \"/etc/flipgate/token\"` or `env = \"TOKEN\"`",
                    );
                }
            }
        }
        secret.finish();
    }
    secrets
}

/// The file of a secret. It is read each time that it is used; now it is only checked that it can be.
fn readable(value: Value<'_>) -> Result<SecretSource, String> {
    let file = path(value)?;
    super::files::read_regular(&file, super::files::TOKEN_MAX)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(SecretSource::File(file))
}
