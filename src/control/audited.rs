//! The audit entry of a change. Pure: the control task adds it to the state that it commits.

use std::{collections::BTreeMap, fmt::Write};

use super::{
    change::{Actor, Change, ChangeRequest},
    rollouts::RolloutChange,
};
use crate::{
    audit::{AuditEntry, AuditResult, AuditVerdict},
    model::{Color, Generation, ServiceName},
    store::State,
};

/// A call that changed nothing, for the audit log.
#[derive(Clone, Debug)]
pub struct RefusedCall {
    /// The caller; `None` for Flipgate itself.
    pub actor: Option<Actor>,
    /// The action with its services and colors.
    pub action: String,
    /// The reason, in the caller's words.
    pub reason: Option<String>,
    /// How it was refused, or that its outcome is unknown.
    pub result: AuditResult,
    /// The verdicts of gates, if any gate was run.
    pub verdicts: Vec<AuditVerdict>,
}

/// The most services that an action names.
const NAMES_MAX: usize = 50;

/// The entry of the change from `before` to `next`.
pub(super) fn entry_of(call: &ChangeRequest, before: &State, next: &State) -> AuditEntry {
    let ChangeRequest { change, reason, actor, terms, .. } = call;
    let by_itself = match change {
        Change::EndWatch { .. } => "watch",
        Change::GiveUpConfirmation { .. } => "confirm",
        Change::RaiseShare { .. } | Change::TakeBackShare { .. } => "share",
        Change::Reconfigure(_) => "signal",
        Change::Promote(_)
        | Change::Rollback { .. }
        | Change::SetPool { .. }
        | Change::Approve { .. }
        | Change::Confirm(_)
        | Change::RotatePinKeys { .. } => Actor::INTERNAL,
        Change::Intake { .. } => "hold",
        Change::Rollout(_) => "rollout",
    };
    let (actor, from) = caller(actor.as_ref(), by_itself);
    let mut action = match change {
        // A rollback need not name its services.
        Change::Rollback { .. } => {
            let services = next.promotion.services.iter();
            let colors = services.filter_map(|it| Some((it, next.services.get(it)?.active)));
            with_colors("rollback", colors)
        }
        Change::Promote(_) if terms.steps.is_some() => {
            let first = terms.steps.as_ref().and_then(|it| it.percents.first());
            format!("{} (share {} %)", change.action(), first.copied().unwrap_or_default())
        }
        change => change.action(),
    };
    if terms.skips_gates {
        action.push_str(" (gates skipped)");
    }
    AuditEntry {
        time: jiff::Timestamp::now(),
        actor,
        from,
        action,
        reason: reason.clone(),
        before: before.generation.0,
        after: next.generation.0,
        result: AuditResult::Done,
        verdicts: terms.verdicts.clone(),
    }
}

/// The entry of the configuration that is applied at a start.
pub(super) fn entry_of_start(before: &State, next: &State) -> AuditEntry {
    AuditEntry {
        time: jiff::Timestamp::now(),
        actor: Actor::INTERNAL.to_owned(),
        from: "start".to_owned(),
        action: "apply configuration".to_owned(),
        reason: None,
        before: before.generation.0,
        after: next.generation.0,
        result: AuditResult::Done,
        verdicts: Vec::new(),
    }
}

/// The entry of a call that changed nothing.
pub(super) fn entry_of_refusal(call: RefusedCall, generation: Generation) -> AuditEntry {
    let RefusedCall { actor, action, reason, result, verdicts } = call;
    let (actor, from) = caller(actor.as_ref(), Actor::INTERNAL);
    let (before, after) = (generation.0, generation.0);
    let time = jiff::Timestamp::now();
    AuditEntry { time, actor, from, action, reason, before, after, result, verdicts }
}

/// Who made a call, and from where. `by_itself` is the part of Flipgate that makes a change without a caller.
pub(super) fn caller(actor: Option<&Actor>, by_itself: &str) -> (String, String) {
    let Some(actor) = actor else {
        return (Actor::INTERNAL.to_owned(), by_itself.to_owned());
    };
    let from = if actor.is_internal() { &actor.name } else { &actor.address };
    (actor.shown(), from.clone())
}

/// A verb with services and their colors.
fn with_colors<'a>(
    verb: &str,
    colors: impl Iterator<Item = (&'a ServiceName, Color)> + Clone,
) -> String {
    with_names(verb, colors.map(|(name, color)| format!("{name}={color}")))
}

fn with_names(verb: &str, names: impl Iterator<Item = String> + Clone) -> String {
    let mut text = verb.to_owned();
    for name in names.clone().take(NAMES_MAX) {
        let _ = write!(text, " {name}");
    }
    let more = names.count().saturating_sub(NAMES_MAX);
    if more > 0 {
        let _ = write!(text, " (and {more} more services)");
    }
    text
}

// === impl Change ===

impl Change {
    /// The action of the change with its services and colors, such as `promote web=green`.
    #[must_use]
    pub fn action(&self) -> String {
        let colors = |it: &BTreeMap<ServiceName, Color>| {
            with_colors("promote", it.iter().map(|(name, color)| (name, *color)))
        };
        let named = |verb: &str, services: &[ServiceName]| {
            with_names(verb, services.iter().map(ToString::to_string))
        };
        match self {
            Self::Promote(it) => colors(it),
            Self::Rollback { services, force: _ } => named("rollback", services),
            Self::SetPool { service, color, spec, force } => {
                let version = spec.version.as_ref().map(|it| format!(" (version {it})"));
                let force = if *force { " (forced)" } else { "" };
                format!("set pool {service}.{color}{force}{}", version.unwrap_or_default())
            }
            Self::Approve { service, color, version } => {
                let version = version.as_ref().map(|it| format!(" (version {it})"));
                format!("approve {service}.{color}{}", version.unwrap_or_default())
            }
            Self::Confirm(services) => named("confirm", services),
            Self::EndWatch { service, generation: None, .. } => format!("watch stop {service}"),
            Self::EndWatch { service, generation: Some(_), .. } => format!("watch end {service}"),
            Self::GiveUpConfirmation { service, generation: _ } => {
                format!("give up confirmation {service}")
            }
            Self::RaiseShare { services, generation: _ } => named("raise share", services),
            Self::TakeBackShare { services, generation: _ } => named("take back share", services),
            Self::RotatePinKeys { .. } => "rotate pin keys".to_owned(),
            Self::Intake { service, change } => change.action(service),
            Self::Rollout(change) => change.action(),
            Self::Reconfigure(_) => "reload".to_owned(),
        }
    }
}

impl RolloutChange {
    fn action(&self) -> String {
        match self {
            Self::Begin { services, .. } => {
                with_names("rollout begin", services.iter().map(ToString::to_string))
            }
            Self::Advance => "rollout step".to_owned(),
            Self::SetPools(pools) => {
                let names = pools.iter().map(|(service, (color, spec))| {
                    let version = spec.version.as_ref().map(|it| format!("@{it}"));
                    format!("{service}.{color}{}", version.unwrap_or_default())
                });
                with_names("set pools", names)
            }
            Self::RestorePools(_) => "restore pools".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_actor_is_the_token_else_the_user_else_the_address() {
        let actor = |name: &str, address: &str, uid, is_authenticated| Actor {
            name: name.to_owned(),
            address: address.to_owned(),
            uid,
            is_authenticated,
        };
        for (actor, expected) in [
            (actor("pipeline", "10.0.0.1:5", None, true), ("pipeline", "10.0.0.1:5")),
            (actor("pipeline", "unix", Some(7), true), ("pipeline", "unix")),
            (actor("local", "unix", Some(7), false), ("uid 7", "unix")),
            (actor("local", "127.0.0.1:5", None, false), ("127.0.0.1", "127.0.0.1:5")),
            (Actor::internal("watch"), ("flipgate", "watch")),
        ] {
            let (found, from) = caller(Some(&actor), "x");
            assert_eq!((&*found, &*from), expected);
        }
        assert_eq!(caller(None, "watch"), ("flipgate".to_owned(), "watch".to_owned()));
    }

    #[test]
    fn an_action_names_a_limited_number_of_services() {
        let names: Vec<ServiceName> =
            (0..60).map(|it| format!("s{it}").parse().expect("a name")).collect();
        let action = Change::Confirm(names[..2].to_vec()).action();
        assert_eq!(action, "confirm s0 s1");
        let action = Change::Confirm(names).action();
        assert!(action.ends_with(" s49 (and 10 more services)"), "{action}");
    }
}
