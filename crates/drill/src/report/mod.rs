//! What a drill has found: a summary for a terminal, JSON for programs, and a page with pictures.

mod charts;
mod page;

use std::{collections::BTreeMap, fmt::Write};

use comfy_table::{Attribute, Cell, CellAlignment, Color as Paint, Table, presets};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::{
    check::{BOUND, Finding, Promise, Verdict, Violation, judge},
    load::LoadPlan,
    measure::Figures,
    options::LoadMode,
    record::{FlipOutcome, History},
};

/// What a drill has found.
#[derive(Debug)]
pub struct Report {
    history: History,
    verdict: Verdict,
    figures: Figures,
    plan: LoadPlan,
    mode: LoadMode,
}

/// Violations of each promise that are listed, so that many of one do not hide another; all are counted.
const LISTED_MAX: usize = 100;

/// Of each in a terminal.
const SHOWN_MAX: usize = 5;

impl Report {
    pub(super) fn new(history: History, plan: LoadPlan, mode: LoadMode) -> Self {
        let verdict = judge(&history);
        let figures = Figures::of(&history, &verdict.explained);
        Self { history, verdict, figures, plan, mode }
    }

    /// Whether every promise held that was put to the test, and there was something to test it with.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean() && !self.history.requests.is_empty()
    }

    /// Which promises held.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// The first violations of each promise, in order.
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

    /// Promises that were not put to the test.
    fn unchecked_count(&self) -> usize {
        self.verdict.findings.iter().filter(|it| state(it) == "unchecked").count()
    }

    fn explained(&self) -> usize {
        self.verdict.explained.len()
    }

    fn mode(&self) -> String {
        match self.mode {
            LoadMode::Rate(rate) => format!("{rate:.0} a second, whatever the answers do"),
            LoadMode::Clients(count) => {
                format!("{count} clients, one request after the other")
            }
        }
    }

    /// For a terminal.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = format!("{}\n", self.table());
        let Figures {
            rate, acknowledged, away_from_flips: steady, near_flips: near, drains, ..
        } = &self.figures;
        let total = self.history.requests.len();
        let _ = writeln!(
            text,
            "{total} requests ({}; {}), {rate:.0} a second, {} did not end as they should, seed {}",
            self.mode(),
            self.plan.mix,
            self.failed(),
            self.plan.seed,
        );
        if !acknowledged.is_empty() {
            let _ = writeln!(
                text,
                "{} flips, from call to acknowledgement: p50 {}, p99 {}, at most {}",
                self.history.flips.len(),
                millis(acknowledged.value_at_quantile(0.5)),
                millis(acknowledged.value_at_quantile(0.99)),
                millis(acknowledged.max()),
            );
        }
        for (name, of) in [("away from flips", steady), ("within 100 ms of a flip", near)] {
            if !of.is_empty() {
                let _ = writeln!(
                    text,
                    "short requests {name}: p50 {}, p99 {}, p99.9 {} ({} of them)",
                    millis(of.value_at_quantile(0.5)),
                    millis(of.value_at_quantile(0.99)),
                    millis(of.value_at_quantile(0.999)),
                    of.len(),
                );
            }
        }
        if let Some(events) = &self.history.drained {
            let _ = write!(text, "{} `drained` events were heard", events.len());
            let _ = match drains.is_empty() {
                true => writeln!(text),
                false => writeln!(
                    text,
                    ", {} ms after the flip at the median, {} ms at most",
                    drains.value_at_quantile(0.5),
                    drains.max()
                ),
            };
        }
        for Violation { promise, text: what, .. } in self.listed(SHOWN_MAX) {
            let _ = writeln!(text, "  {}: {what}", promise.name());
        }
        let more = self.verdict.violations.len().saturating_sub(self.listed(SHOWN_MAX).count());
        if more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
        let (style, word) = match (self.is_clean(), self.history.requests.is_empty()) {
            (true, _) if self.unchecked_count() > 0 => {
                (anstyle::AnsiColor::Green, "Every promise held that was put to the test.")
            }
            (true, _) => (anstyle::AnsiColor::Green, "Every promise held."),
            (_, true) => (anstyle::AnsiColor::Red, "Nothing was asked."),
            _ if self.verdict.findings.iter().all(|it| it.broken == 0) => {
                (anstyle::AnsiColor::Yellow, "Not all was tried that was to be.")
            }
            _ => (anstyle::AnsiColor::Red, "Not every promise held."),
        };
        let style = style.on_default().bold();
        let _ = write!(text, "{style}{word}{style:#}");
        if self.unchecked_count() > 0 {
            let _ = write!(text, " {} of {} were not.", self.unchecked_count(), Promise::ALL.len());
        }
        if let Some(why) = &self.verdict.cut_short {
            let _ = write!(text, " The drill was cut short: {why}.");
        }
        if self.verdict.not_sent > 0 {
            let unsent = self.verdict.not_sent;
            let _ = write!(
                text,
                " {unsent} requests were not sent: the drill has no more places, ports or files than that. Ask less \
                 often, or on kept connections."
            );
        }
        if self.explained() > 0 {
            let explained = self.explained();
            let _ = write!(text, " {explained} requests met what the drill itself had killed.");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let heads = ["promise", "", "checked", "broken", "explained"];
        table.set_header(heads.map(|it| Cell::new(it).add_attribute(Attribute::Bold)));
        for finding in &self.verdict.findings {
            let Finding { promise, checked, broken, explained, .. } = finding;
            let number = |it: &u64| Cell::new(it).set_alignment(CellAlignment::Right);
            let (word, paint) = match state(finding) {
                "held" => ("held", Paint::Green),
                "broken" => ("broken", Paint::Red),
                other => (other, Paint::Yellow),
            };
            let what = match (finding.unchecked_reason, late(finding)) {
                (Some(why), _) => format!("{}\n({why})", promise.in_words()),
                (None, Some(late)) => format!("{}\n({late})", promise.in_words()),
                (None, None) => promise.in_words().to_owned(),
            };
            table.add_row(vec![
                Cell::new(what),
                Cell::new(word).fg(paint),
                number(checked),
                number(broken),
                number(explained),
            ]);
        }
        table
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let Figures {
            kinds,
            rate,
            colors,
            away_from_flips: steady,
            near_flips: near,
            acknowledged,
            drains,
            ..
        } = &self.figures;
        let promises: Vec<Value> = self
            .verdict
            .findings
            .iter()
            .map(|it| {
                json!({
                    "name": it.promise.name(),
                    "what": it.promise.in_words(),
                    "state": state(it),
                    "checked": it.checked,
                    "broken": it.broken,
                    "explained": it.explained,
                    "why": it.unchecked_reason,
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
        let failed =
            self.history.flips.iter().filter(|it| it.outcome != FlipOutcome::Acknowledged).count();
        let events = self.history.drained.as_ref().map(|events| {
            json!({"told": events.len(), "p50_ms": drains.value_at_quantile(0.5), "max_ms": drains.max()})
        });
        let latency = |it: &Histogram<u64>| match it.is_empty() {
            true => Value::Null,
            false => json!({
                "count": it.len(),
                "p50": as_millis(it.value_at_quantile(0.5)),
                "p90": as_millis(it.value_at_quantile(0.9)),
                "p99": as_millis(it.value_at_quantile(0.99)),
                "p999": as_millis(it.value_at_quantile(0.999)),
                "max": as_millis(it.max()),
            }),
        };
        json!({
            "clean": self.is_clean(),
            "cut_short": self.verdict.cut_short,
            "promises": promises,
            "requests": {
                "total": self.history.requests.len(),
                "failed": self.failed(),
                "explained": self.explained(),
                "unsent": self.verdict.not_sent,
                "by_kind": by_kind,
            },
            "rate_per_second": (rate * 10.0).round() / 10.0,
            "pace": self.mode(),
            "mix": self.plan.mix.to_string(),
            "seed": self.plan.seed,
            "services": self.history.services,
            "colors": {"blue": colors[0], "green": colors[1]},
            "flips": {
                "count": self.history.flips.len(),
                "failed": failed,
                "ack_ms": latency(acknowledged),
            },
            "latency_ms": {
                "steady": latency(steady),
                "near_flips": latency(near),
                "ratio_p99": self.figures.ratio(),
            },
            "drains": events,
            "kills": self.history.kills.len(),
            "violations": violations,
            "violations_total": self.verdict.violations.len(),
        })
    }

    /// A page that needs nothing else: styles and pictures are in it.
    #[must_use]
    pub fn page(&self) -> String {
        page::page(self)
    }
}

/// How late something was at most, for people.
fn late(finding: &Finding) -> Option<String> {
    let late = (finding.max_delay > 0).then(|| millis(finding.max_delay / 1000))?;
    Some(match finding.promise {
        Promise::Drained => format!("it was told up to {late} after the last request had ended"),
        _ => format!("the old color was asked up to {late} later"),
    })
}

/// A word for programs.
fn state(finding: &Finding) -> &'static str {
    match finding {
        Finding { broken: 1.., .. } => "broken",
        Finding { unchecked_reason: Some(_), .. } => "unchecked",
        _ => "held",
    }
}

fn as_millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", as_millis(micros))
}
