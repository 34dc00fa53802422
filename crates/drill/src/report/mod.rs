//! The result of a drill as text for a terminal, as JSON for programs, and as a page with charts.

mod charts;
mod page;
mod svg;
mod terminal;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    check::{BOUND, Finding, FlipCounts, Promise, Verdict, Violation, check_history},
    load::LoadPlan,
    measure::Figures,
    options::LoadMode,
    record::History,
};

/// The result of a drill.
#[derive(Debug)]
pub struct Report {
    history: History,
    verdict: Verdict,
    figures: Figures,
    plan: LoadPlan,
    mode: LoadMode,
    about: RunInfo,
}

/// When a drill ran, and how to repeat it.
#[derive(Clone, Debug)]
pub(crate) struct RunInfo {
    pub(crate) started: jiff::Timestamp,
    /// The command line, for a shell.
    pub(crate) command: String,
    /// The name and the version of the tested Flipgate, or of the drill if it tests something else.
    pub(crate) version: String,
}

/// Violations of each promise in the JSON and on the page. More of one promise do not hide another.
const LISTED_MAX: usize = 100;

/// Violations of each promise in a terminal.
const SHOWN_MAX: usize = 5;

impl Report {
    pub(super) fn new(history: History, plan: LoadPlan, mode: LoadMode, about: RunInfo) -> Self {
        let verdict = check_history(&history);
        let figures = Figures::of(&history, &verdict.excused);
        Self { history, verdict, figures, plan, mode, about }
    }

    /// Whether every tested promise held, and the drill did all that it had to do.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && !self.history.requests.is_empty()
    }

    /// Which promises held.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The first violations of each promise, in order of time.
    fn listed(&self, of_each: usize) -> impl Iterator<Item = &Violation> {
        let mut counts: BTreeMap<Promise, usize> = BTreeMap::new();
        self.verdict.violations.iter().filter(move |it| {
            let count = counts.entry(it.promise).or_default();
            *count += 1;
            *count <= of_each
        })
    }

    fn failed(&self) -> u64 {
        self.figures.kinds.values().map(|(_, failed)| failed).sum()
    }

    /// Requests that failed because the drill had killed a process, or had a color fail.
    fn excused(&self) -> usize {
        self.verdict.excused.len()
    }

    /// WebSockets that the proxy closed so that their clients connect again.
    fn reconnects(&self) -> usize {
        self.history.requests.iter().filter(|it| it.moved != 0).count()
    }

    fn load(&self) -> String {
        match self.mode {
            LoadMode::Rate(rate) => format!("{rate:.0} transactions per second, at even intervals"),
            LoadMode::Clients(count) => format!("{count} clients, one request at a time each"),
        }
    }

    /// The result in one sentence.
    fn headline(&self) -> String {
        headline(&self.verdict.findings, self.history.requests.is_empty())
    }

    /// What else decides the exit code, or qualifies the result.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(why) = &self.verdict.incomplete {
            notes.push(format!("The drill is incomplete: {why}."));
        }
        if self.verdict.not_sent > 0 {
            notes.push(format!(
                "The drill could not send {} requests: it had too many in flight, or no ports or files left. Use a \
                 lower rate, or no --fresh.",
                self.verdict.not_sent
            ));
        }
        notes
    }

    /// For a terminal.
    #[must_use]
    pub fn summary(&self) -> String {
        terminal::text(self, terminal::width())
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let Figures {
            kinds, rate, colors, away_from_flips, near_flips, acknowledged, drains, ..
        } = &self.figures;
        let promises: Vec<Value> = self
            .verdict
            .findings
            .iter()
            .map(|it| {
                json!({
                    "name": it.promise.name(),
                    "what": it.promise.in_words(),
                    "state": result(it).0,
                    "checked": it.checked,
                    "broken": it.broken,
                    "excused": it.excused,
                    "why": it.unchecked_reason,
                    "cost": (it.promise == Promise::Guarded).then_some(it.cost),
                    "late_ms": (it.max_delay > 0).then(|| as_millis(it.max_delay / 1000)),
                    "bound_ms": (it.promise == Promise::Drained).then(|| as_millis(BOUND / 1000)),
                })
            })
            .collect();
        let by_kind: serde_json::Map<String, Value> = kinds
            .iter()
            .map(|(kind, (total, failed))| {
                (kind.name().to_owned(), json!({"total": total, "failed": failed}))
            })
            .collect();
        let violations: Vec<Value> = self
            .listed(LISTED_MAX)
            .map(|it| {
                let at = it.at.saturating_sub(self.history.began) as f64 / 1e6;
                json!({"promise": it.promise.name(), "at_ms": at, "text": it.text})
            })
            .collect();
        let FlipCounts { succeeded, failed, excused } = self.verdict.flips;
        let drain_events = self.history.drained.as_ref().map(|events| {
            json!({
                "events": events.len(),
                "p50_ms": drains.value_at_quantile(0.5),
                "max_ms": drains.max(),
            })
        });
        let steps: Vec<Value> = self
            .history
            .steps
            .iter()
            .map(|it| json!({"at_s": charts::since(&self.history, it.at), "step": it.text}))
            .collect();
        json!({
            "clean": self.is_clean(),
            "summary": self.headline(),
            "incomplete": self.verdict.incomplete,
            "started": self.about.started.to_string(),
            "version": self.about.version,
            "command": self.about.command,
            "promises": promises,
            "requests": {
                "total": self.history.requests.len(),
                "failed": self.failed(),
                "excused": self.excused(),
                "unsent": self.verdict.not_sent,
                "by_kind": by_kind,
            },
            "rate_per_second": (rate * 10.0).round() / 10.0,
            "load": self.load(),
            "mix": self.plan.mix.to_string(),
            "seed": self.plan.seed,
            "services": self.history.services,
            "colors": {"blue": colors[0], "green": colors[1]},
            "flips": {
                "count": self.history.flips.len(),
                "succeeded": succeeded,
                "failed": failed,
                "excused": excused,
                "ack_ms": latency(acknowledged),
            },
            "latency_ms": {
                "steady": latency(away_from_flips),
                "near_flips": latency(near_flips),
                "ratio_p99": self.figures.ratio(),
            },
            "drains": drain_events,
            "reconnects": self.reconnects(),
            "steps": steps,
            "kills": self.history.kills.len(),
            "violations": violations,
            "violations_total": self.verdict.violations.len(),
        })
    }

    /// A page that loads nothing else: styles and charts are in it.
    #[must_use]
    pub fn page(&self) -> String {
        page::page(self)
    }
}

fn headline(findings: &[Finding], is_empty: bool) -> String {
    if is_empty {
        return "No request was sent.".to_owned();
    }
    let count = |state: &str| findings.iter().filter(|it| result(it).0 == state).count();
    let (held, broken, untested) = (count("held"), count("broken"), count("unchecked"));
    let tested = held + broken;
    let mut text = match untested {
        0 => format!("{held} of {tested} promises held"),
        _ if tested == 0 => "No promise was tested".to_owned(),
        _ => format!("{held} of {tested} tested promises held"),
    };
    if broken > 0 {
        text.push_str(&format!("; {broken} {} broken", if broken == 1 { "is" } else { "are" }));
    }
    if untested > 0 && tested > 0 {
        let were = if untested == 1 { "was" } else { "were" };
        text.push_str(&format!("; {untested} {were} not tested"));
    }
    text.push('.');
    text
}

fn latency(of: &Histogram<u64>) -> Value {
    match of.is_empty() {
        true => Value::Null,
        false => json!({
            "count": of.len(),
            "p50": as_millis(of.value_at_quantile(0.5)),
            "p90": as_millis(of.value_at_quantile(0.9)),
            "p99": as_millis(of.value_at_quantile(0.99)),
            "p999": as_millis(of.value_at_quantile(0.999)),
            "max": as_millis(of.max()),
        }),
    }
}

/// The longest delay that belongs to a promise.
fn delay_note(finding: &Finding) -> Option<String> {
    let delay = (finding.max_delay > 0).then(|| millis(finding.max_delay / 1000))?;
    Some(match finding.promise {
        Promise::Guarded => format!(
            "rolled back {delay} after it had turned bad, at the latest; {} public requests failed",
            finding.cost
        ),
        Promise::Drained => {
            format!("the latest event came {delay} after the end of the last request")
        }
        _ => format!("the old color still got a request {delay} after the acknowledgement"),
    })
}

/// The result of a promise: a word for programs, and one for people.
fn result(finding: &Finding) -> (&'static str, &'static str) {
    match finding {
        Finding { broken: 1.., .. } => ("broken", "broken"),
        Finding { unchecked_reason: Some(_), .. } => ("unchecked", "not tested"),
        _ => ("held", "held"),
    }
}

/// A count of a promise, which means nothing if the promise was not tested.
fn counted(finding: &Finding, count: u64) -> String {
    if result(finding).0 == "unchecked" { "–".to_owned() } else { count.to_string() }
}

fn as_millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", as_millis(micros))
}

#[cfg(test)]
mod tests;
