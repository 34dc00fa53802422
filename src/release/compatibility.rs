//! Whether two versions are compatible: the rules of a service for the manifests of both.

use std::sync::Arc;

use serde_json::Value;

use super::{
    candidate::Direction,
    expression::Expression,
    gate::Findings,
    manifest::Manifest,
    rules::{Evaluator, MANIFEST_NAMES},
};
use crate::model::{CompatibilityRule, CompatibleGate};

/// Why rules refuse two manifests, by direction. An empty list: nothing refuses.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SampleRefusals {
    /// The promotion of the new version.
    pub promote: Vec<String>,
    /// The rollback from the new version to the old one.
    pub rollback: Vec<String>,
}

/// Judges two manifests by the rules of a service, as the gate would.
///
/// # Errors
///
/// Which of them is not a manifest, and why.
pub async fn judge_sample(
    gate: &CompatibleGate,
    old: &[u8],
    new: &[u8],
) -> Result<SampleRefusals, String> {
    let parse = |name, text| {
        let json = Manifest::parse(text, &gate.ignore);
        json.map(Arc::new).map_err(|why| format!("the manifest of the {name} version: {why}"))
    };
    let (old, new) = (parse("old", old)?, parse("new", new)?);
    let evaluator = Evaluator::new();
    let judge = async |direction, active: &Arc<Value>, candidate: &Arc<Value>| {
        let pair = ManifestPair::new(direction, Arc::clone(active), Arc::clone(candidate));
        let rules = rules_for(gate, direction);
        let judged = evaluator.run(move || pair.judge(&rules).reasons).await;
        judged.unwrap_or_else(|why| vec![format!("the rules cannot be evaluated: {why}")])
    };
    Ok(SampleRefusals {
        promote: judge(Direction::Promote, &old, &new).await,
        rollback: judge(Direction::Rollback, &new, &old).await,
    })
}

/// The rules that apply in this direction.
pub(super) fn rules_for(gate: &CompatibleGate, direction: Direction) -> Vec<CompatibilityRule> {
    let applies = |it: &&CompatibilityRule| match direction {
        Direction::Promote => it.on_promote,
        Direction::Rollback => it.on_rollback,
    };
    gate.rules.iter().filter(applies).cloned().collect()
}

/// The manifests of both versions, by their names in expressions.
pub(super) struct ManifestPair {
    old: Arc<Value>,
    new: Arc<Value>,
    active: Arc<Value>,
    candidate: Arc<Value>,
}

impl ManifestPair {
    pub(super) fn new(direction: Direction, active: Arc<Value>, candidate: Arc<Value>) -> Self {
        // In the order of release, also in a rollback.
        let (old, new) = match direction {
            Direction::Promote => (Arc::clone(&active), Arc::clone(&candidate)),
            Direction::Rollback => (Arc::clone(&candidate), Arc::clone(&active)),
        };
        Self { old, new, active, candidate }
    }

    /// Evaluates the rules. Takes as long as the expressions take.
    pub(super) fn judge(&self, rules: &[CompatibilityRule]) -> Findings {
        let Self { old, new, active, candidate } = self;
        let variables: [(&str, &Value); 4] =
            [("old", old), ("new", new), ("active", active), ("candidate", candidate)];
        let mut findings = Findings::default();
        for CompatibilityRule { name, require, help, .. } in rules {
            let help = help.as_ref().map(|it| format!("; {it}")).unwrap_or_default();
            let judged = match Expression::parse(require, &MANIFEST_NAMES) {
                Ok(expression) => match expression.evaluate(&variables) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(format!(
                        "{name}: `{require}` is false ({}){help}",
                        expression.explain(&variables)
                    )),
                    Err(error) => Err(format!("{name}: `{require}`: {error}{help}")),
                },
                Err(error) => Err(format!("{name}: `{require}`: {error}")),
            };
            match judged {
                Ok(()) => findings.evidence.push(format!("{name}: `{require}` is true")),
                Err(reason) => findings.reasons.push(reason),
            }
        }
        findings
    }
}
