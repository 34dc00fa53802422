//! The verdicts of gates as text.

use crate::{
    escape,
    wire::{GateStatus, GateVerdict},
};

/// The verdicts of one service, a line for each reason: what a person reads in a terminal.
#[must_use]
pub fn gate_text(status: &GateStatus) -> String {
    let GateStatus { service, color, passed, gates } = status;
    let result = if *passed { "every gate allows it" } else { "refused" };
    let mut lines = vec![format!("{} → {}: {result}", escape(service), escape(color))];
    let width = gates.iter().map(|it| it.gate.chars().count()).max().unwrap_or_default();
    for GateVerdict { gate, passed, not_run, took_ms: _, reasons, evidence } in gates {
        let (mark, texts) = match (passed, not_run) {
            (true, _) => ("✓", evidence),
            (false, true) => ("–", reasons),
            (false, false) => ("✗", reasons),
        };
        let first = texts.first().map(|it| escape(it)).unwrap_or_default();
        lines.push(format!("  {mark} {:width$}  {first}", escape(gate)).trim_end().to_owned());
        let more = texts.iter().skip(1);
        lines.extend(more.map(|it| format!("    {:width$}  {}", "", escape(it))));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gate_has_a_line_and_each_further_reason_its_own() {
        let verdict = |gate: &str, passed, not_run, texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|it| (*it).to_owned()).collect();
            let (reasons, evidence) = if passed { (vec![], texts) } else { (texts, vec![]) };
            GateVerdict { gate: gate.to_owned(), passed, not_run, took_ms: 1, reasons, evidence }
        };
        let status = GateStatus {
            service: "web".to_owned(),
            color: "green".to_owned(),
            passed: false,
            gates: vec![
                verdict("healthy", true, false, &["2 of 2 are up"]),
                verdict("smoke", false, false, &["one\u{1b}[2J", "two"]),
                verdict("hook", false, true, &["not run, because smoke refused"]),
            ],
        };
        let text = "web → green: refused\n  ✓ healthy  2 of 2 are up\n  ✗ smoke    one\\u{1b}[2J\n             two\n  \
                    – hook     not run, because smoke refused";
        assert_eq!(gate_text(&status), text);
    }
}
