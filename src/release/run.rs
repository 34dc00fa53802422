//! Runs the gates of one service, one after the other, so that the load of one gate does not distort another.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{
    candidate::Candidate,
    duration_text::written,
    gate::{Findings, Gate, GateReport, GateResult, Verdict},
};

/// Runs `gates` until one refuses; the others are reported as not run. Cancel-safe, as the gates are.
pub(super) async fn run(gates: &[Box<dyn Gate>], candidate: &Candidate) -> GateReport {
    let began = Instant::now();
    let deadline = candidate.settings.deadline;
    let mut report = GateReport {
        service: candidate.service.clone(),
        color: candidate.color,
        verdicts: Vec::with_capacity(gates.len()),
        manifests: Vec::new(),
    };
    let mut refused_by = None;
    for gate in gates {
        let name = gate.name();
        if let Some(refused_by) = refused_by {
            report.verdicts.push(Verdict {
                gate: name,
                result: GateResult::NotRun,
                took: Duration::ZERO,
                reasons: vec![format!("not run, because {refused_by} refused")],
                evidence: Vec::new(),
            });
            continue;
        }
        let start = Instant::now();
        let left = deadline.saturating_sub(began.elapsed());
        let check = AssertUnwindSafe(gate.check(candidate)).catch_unwind();
        let found = match tokio::time::timeout(left, check).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => Findings::refused("the gate failed with an internal error: see the log"),
            Err(_elapsed) => Findings::refused(format!(
                "not finished within the deadline of {} for all gates (gate.deadline)",
                written(deadline)
            )),
        };
        let Findings { reasons, evidence, manifests } = found;
        let result = match reasons.is_empty() {
            true => GateResult::Passed,
            false => {
                refused_by = Some(name);
                GateResult::Refused
            }
        };
        let took = start.elapsed();
        report.verdicts.push(Verdict { gate: name, result, took, reasons, evidence });
        report.manifests.extend(manifests);
    }
    report
}
