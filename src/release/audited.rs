//! What the audit log says of gates.

use super::gate::{GateReport, GateResult, Verdict};
use crate::audit::{AuditVerdict, VerdictResult};

/// The verdicts of reports. Without their reasons, which can quote what an application has sent.
pub(super) fn audit_verdicts(reports: &[GateReport]) -> Vec<AuditVerdict> {
    let of_service = |report: &GateReport| {
        let service = report.service.to_string();
        let verdict = |it: &Verdict| AuditVerdict {
            service: service.clone(),
            gate: it.gate.to_string(),
            result: match it.result {
                GateResult::Passed => VerdictResult::Passed,
                GateResult::Refused => VerdictResult::Refused,
                GateResult::NotRun => VerdictResult::NotRun,
            },
        };
        report.verdicts.iter().map(verdict).collect::<Vec<_>>()
    };
    reports.iter().flat_map(of_service).collect()
}
