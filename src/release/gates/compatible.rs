//! `compatible`: the rules of the service hold for the manifests of both versions.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture, join};

use crate::{
    model::{Color, CompatibleGate},
    release::{
        candidate::{Candidate, Direction},
        compatibility::{ManifestPair, rules_for},
        gate::{Findings, Gate, GateName},
        manifest::Manifest,
    },
};

#[derive(Debug)]
pub(super) struct Compatible(pub(super) CompatibleGate);

impl Gate for Compatible {
    fn name(&self) -> GateName {
        GateName::Compatible
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        check(&self.0, candidate).boxed()
    }
}

async fn check(gate: &CompatibleGate, candidate: &Candidate) -> Findings {
    let rules = rules_for(gate, candidate.direction);
    if rules.is_empty() && candidate.direction == Direction::Rollback {
        return Findings::passed("no rule applies to rollbacks");
    }
    let color = candidate.color;
    let mut findings = Findings::default();
    // A version that is broken cannot serve its manifest, and must not prevent its own rollback.
    let prefers_stored = candidate.direction == Direction::Rollback;
    let (of_candidate, of_active) = join!(
        manifest(gate, candidate, color, prefers_stored, prefers_stored),
        manifest(gate, candidate, color.other(), prefers_stored, true),
    );
    let mut take = |read: Result<(Manifest, String), Vec<String>>| match read {
        Ok((manifest, evidence)) => {
            findings.evidence.push(evidence);
            Some(manifest)
        }
        Err(reasons) => {
            findings.reasons.extend(reasons);
            None
        }
    };
    let (of_candidate, of_active) = (take(of_candidate), take(of_active));
    let (Some(of_candidate), Some(of_active)) = (of_candidate, of_active) else { return findings };
    for (color, manifest) in [(color, &of_candidate), (color.other(), &of_active)] {
        findings.manifests.push((candidate.manifest_key(color), Arc::clone(&manifest.text)));
    }
    let pair = ManifestPair::new(candidate.direction, of_active.json, of_candidate.json);
    match candidate.evaluator.run(move || pair.judge(&rules)).await {
        Ok(judged) => findings.add(judged),
        Err(why) => findings.reasons.push(format!("the rules cannot be evaluated: {why}")),
    }
    findings
}

/// The manifest of a pool, and where it is from. A stored manifest belongs to the same version: a change of the pool
/// removes it.
async fn manifest(
    gate: &CompatibleGate,
    candidate: &Candidate,
    color: Color,
    prefers_stored: bool,
    may_be_stored: bool,
) -> Result<(Manifest, String), Vec<String>> {
    let stored = || {
        let text = candidate.stored_manifest(color).filter(|_| may_be_stored)?;
        let manifest = Manifest::stored(&text).ok()?;
        Some((manifest, format!("the manifest of {color} is the one of its last promotion")))
    };
    if let Some(stored) = prefers_stored.then(stored).flatten() {
        return Ok(stored);
    }
    let fetched = Manifest::fetch(candidate, color, gate).await;
    fetched
        .map(|it| (it, format!("every endpoint of {color} has the same manifest")))
        .or_else(|reasons| stored().ok_or(reasons))
}
