//! The page: what was promised, what was seen, and pictures of it, in one file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::super::{
    check::{Finding, Violation},
    measure::Figures,
    record::FlipOutcome,
};
use super::{LISTED_MAX, Report, as_millis, charts, late, state};

const STYLE: &str = "
:root { --ink: #1f2630; --soft: #5d6875; --line: #dfe3e8; --ground: #f4f6f8; --card: #fff;
  --good: #14915b; --bad: #c22f2f; --open: #a36200; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 16px; margin: 0 0 8px; }
p { margin: 0 0 8px; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px 20px; margin-top: 16px; overflow-x: auto; }
.verdict { border-left: 6px solid var(--good); }
.verdict.broken { border-left-color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 16px; }
.figures div { background: var(--ground); border-radius: 8px; padding: 10px 12px; }
.figures b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 13px; }
th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.held { color: var(--good); font-weight: 600; }
.broken td.state, td.broken { color: var(--bad); font-weight: 600; }
.unchecked { color: var(--open); font-weight: 600; }
small { color: var(--soft); }
svg { width: 100%; height: auto; display: block; }
.missing { color: var(--bad); }
";

pub(super) fn page(report: &Report) -> String {
    let Report { history, verdict, figures, .. } = report;
    let (class, word) = match report.is_clean() {
        true if report.unchecked_count() > 0 => {
            ("verdict", "Every promise held that was put to the test")
        }
        true => ("verdict", "Every promise held"),
        false if verdict.not_sent > 0 => ("verdict broken", "Not all was tried that was to be"),
        false => ("verdict broken", "Not every promise held"),
    };
    let svg = |svg: String| PreEscaped(svg);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Drill: " (word) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    section #verdict class=(class) {
                        h1 { (word) }
                        p { (report.mode()) " · " (report.plan.mix.to_string()) " · " (history.services.join(", "))
                            " · seed " (report.plan.seed) }
                        @if let Some(why) = &verdict.cut_short { p { "The drill was cut short: " (why) "." } }
                        (numbers(report))
                    }
                    section #promises { h2 { "What was promised" } (promises(&verdict.findings)) }
                    section #latency {
                        h2 { "Latency of short requests, and flips" }
                        p { "From when each was due to the end of its answer, over " (format!("{:.2} s", figures.slice))
                            " each." }
                        (svg(charts::latency(history, figures)))
                    }
                    section #percentiles {
                        h2 { "Percentiles of latency, near flips and away from them" }
                        (svg(charts::percentiles(figures)))
                    }
                    section #colors {
                        h2 { "Who answered" }
                        (svg(charts::colors(history, figures)))
                    }
                    section #drains {
                        h2 { "Who was still inside of what was not active" }
                        @match charts::drains(history) {
                            Some(picture) => (svg(picture)),
                            None => p { "This proxy does not tell who is still inside of what it has replaced." },
                        }
                    }
                    section #violations {
                        h2 { "Broken promises" }
                        (violations(report))
                    }
                }
            }
        }
    };
    page.into_string()
}

fn numbers(report: &Report) -> Markup {
    let Figures { rate, acknowledged, away_from_flips: steady, near_flips: near, .. } =
        &report.figures;
    let flips = &report.history.flips;
    let good = flips.iter().filter(|it| it.outcome == FlipOutcome::Acknowledged).count();
    let of = |it: &hdrhistogram::Histogram<u64>| match it.is_empty() {
        true => "–".to_owned(),
        false => format!("{:.1} ms", as_millis(it.value_at_quantile(0.99))),
    };
    let ratio = report.figures.ratio().map_or("–".to_owned(), |it| format!("{it:.2}"));
    let figure = |number: String, what: &str| html! { div { b { (number) } span { (what) } } };
    html! {
        div.figures {
            (figure(report.history.requests.len().to_string(), "requests"))
            (figure(format!("{rate:.0}"), "a second"))
            (figure(report.failed().to_string(), "did not end as they should"))
            (figure(report.explained().to_string(), "met what the drill had killed"))
            (figure(report.verdict.violations.len().to_string(), "violations"))
            (figure(format!("{good} of {}", flips.len()), "flips succeeded"))
            (figure(of(acknowledged), "p99 to the acknowledgement"))
            (figure(of(steady), "p99 away from flips"))
            (figure(of(near), "p99 within 100 ms of a flip"))
            (figure(ratio, "times as much"))
        }
    }
}

fn promises(findings: &[Finding]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th { "promise" } th { "" } th.number { "checked" } th.number { "broken" }
                    th.number { "explained by a kill" }
                }
            }
            tbody {
                @for finding in findings {
                    tr {
                        td {
                            (finding.promise.in_words())
                            @if let Some(why) = finding.unchecked_reason { br; small { (why) } }
                            @if let Some(late) = late(finding) { br; small { (late) } }
                        }
                        td class=(state(finding)) { (state(finding)) }
                        td.number { (finding.checked) }
                        td.number { (finding.broken) }
                        td.number { (finding.explained) }
                    }
                }
            }
        }
    }
}

fn violations(report: &Report) -> Markup {
    let all = &report.verdict.violations;
    if all.is_empty() {
        return html! { p { "None." } };
    }
    let seconds = |it: &Violation| it.at.saturating_sub(report.history.began) as f64 / 1e9;
    html! {
        @if all.len() > report.listed(LISTED_MAX).count() {
            p { "The first " (LISTED_MAX) " of each promise, of " (all.len()) " in all." }
        }
        table {
            thead { tr { th.number { "at" } th { "promise" } th { "what happened" } } }
            tbody {
                @for it in report.listed(LISTED_MAX) {
                    tr {
                        td.number { (format!("{:.4} s", seconds(it))) }
                        td { (it.promise.name()) }
                        td { (it.text) }
                    }
                }
            }
        }
    }
}
