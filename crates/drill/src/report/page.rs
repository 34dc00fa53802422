//! The report as a page: promises, figures, charts and violations in one file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    super::{
        check::{Finding, FlipCounts, Violation},
        measure::Figures,
    },
    LISTED_MAX, Report, as_millis,
    charts::{self, since},
    counted, delay_note, result,
};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1f2630; --soft: #5d6875; --line: #dfe3e8; --ground: #f4f6f8; --card: #fff;
  --good: #14805b; --bad: #c22f2f; --open: #a36200;
  --blue: #1f6fd6; --green: #14915b; --p50: #333b45; --p99: #d07a0a; --maximum: #b43a8c; --flip: #c9ced5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --soft: #9aa5b1; --line: #333b45; --ground: #14181d; --card: #1d232a;
    --good: #4cc38a; --bad: #ff7b72; --open: #e0a030;
    --blue: #6aa8ff; --green: #4cc38a; --p50: #d5dbe2; --p99: #f0a23c; --maximum: #e07ac0; --flip: #4a5560; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 16px; margin: 0 0 6px; }
p { margin: 0 0 8px; color: var(--soft); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px;
  margin-top: 16px; }
code { font: 13px/1.5 ui-monospace, 'Cascadia Mono', Consolas, monospace; }
.command { display: block; background: var(--ground); border-radius: 8px; padding: 8px 12px; margin: 8px 0; color: var(--ink);
  white-space: pre-wrap; }
.verdict { border-left: 6px solid var(--good); }
.verdict.broken { border-left-color: var(--bad); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; margin-top: 12px; }
.figures div { background: var(--ground); border-radius: 8px; padding: 8px 12px; }
.figures b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: 13px; line-height: 1.3; display: block; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 13px; white-space: nowrap; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.name { white-space: nowrap; }
.held { color: var(--good); font-weight: 600; white-space: nowrap; }
td.broken { color: var(--bad); font-weight: 700; white-space: nowrap; }
.unchecked { color: var(--open); font-weight: 600; white-space: nowrap; }
small { color: var(--soft); display: block; }
svg { max-width: 100%; height: auto; display: block; }
svg.narrow { display: none; }
svg.key { display: inline-block; margin-right: 6px; vertical-align: baseline; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: 13px; }
.legend .unit { color: var(--ink); }
text.axis { fill: var(--soft); } path.grid { stroke: var(--line); } path.flip { stroke: var(--flip); }
path.blue { stroke: var(--blue); } path.green { stroke: var(--green); } path.p50 { stroke: var(--p50); }
path.p99 { stroke: var(--p99); } path.maximum { stroke: var(--maximum); }
path.mark { stroke: var(--bad); } text.mark-label { fill: var(--bad); stroke: var(--card); stroke-width: 4px; paint-order: stroke; } rect.band { fill: var(--bad); }
ol.steps { columns: 3 220px; margin: 8px 0 0; padding-left: 24px; font-size: 13px; color: var(--soft); }
ol.steps b { color: var(--ink); font-variant-numeric: tabular-nums; font-weight: 600; }
@media (max-width: 700px) {
  main { padding: 0 0 32px; }
  section { padding: 14px 12px; border-radius: 0; border-width: 1px 0; margin-top: 10px; }
  section.verdict { border-left-width: 6px; margin-top: 0; }
  h1 { font-size: 21px; }
  .figures { grid-template-columns: repeat(auto-fill, minmax(140px, 1fr)); }
  svg.wide { display: none; } svg.narrow { display: block; }
  .promises thead { display: none; }
  .promises tr { display: grid; grid-template-columns: 1.3fr 1fr 1fr 1fr; border-bottom: 1px solid var(--line);
    padding: 8px 0; }
  .promises td { border: 0; padding: 2px 0; text-align: left; }
  .promises td:first-child { grid-column: 1 / -1; }
  .promises td[data-label]::before { content: attr(data-label); display: block; font-size: 12px; color: var(--soft);
    font-weight: 400; }
}
";

pub(super) fn page(report: &Report) -> String {
    let Report { history, verdict, figures, about, .. } = report;
    let headline = report.headline();
    let class = if report.is_clean() { "verdict" } else { "verdict broken" };
    let date = about.started.strftime("%Y-%m-%d %H:%M UTC").to_string();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Drill of " (date) ": " (headline) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    section #verdict class=(class) {
                        h1 { (headline) }
                        p { "Drill of " (date) " · " (about.version) " · " (services(report)) }
                        code.command { (about.command) }
                        p { "Load: " (report.load()) ". Mix: " (report.plan.mix.to_string().replace(',', ", ")) ". Seed: " (report.plan.seed) "." }
                        @for note in report.notes() { p { (note) } }
                        (numbers(report))
                    }
                    section #promises {
                        h2 { "Promises" }
                        (promises(&verdict.findings))
                    }
                    section #latency {
                        h2 { "Latency of short requests" }
                        p { "From the time at which a request was due to the end of its response; one point for each "
                            (format!("{:.2} s", charts::latency_interval(figures))) ". A gap: no short request succeeded." }
                        (PreEscaped(charts::latency(history, figures)))
                        (steps(report))
                    }
                    section #percentiles {
                        h2 { "Latency near flips and far from them" }
                        (PreEscaped(charts::percentiles(figures)))
                    }
                    section #colors {
                        h2 { "Responses of each color" }
                        (PreEscaped(charts::colors(history, figures)))
                    }
                    section #drains {
                        h2 { "Requests that hold a replaced color" }
                        @match charts::drains(history) {
                            Some(chart) => (PreEscaped(chart)),
                            None => p { "Not known: only Flipgate's admin API reports requests in flight." },
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

fn services(report: &Report) -> String {
    let names = &report.history.services;
    format!("{} {}", if names.len() == 1 { "service" } else { "services" }, names.join(", "))
}

fn numbers(report: &Report) -> Markup {
    let Figures { rate, acknowledged, away_from_flips, near_flips, .. } = &report.figures;
    let FlipCounts { succeeded, failed, excused } = report.verdict.flips;
    let p99 = |it: &hdrhistogram::Histogram<u64>| match it.is_empty() {
        true => "–".to_owned(),
        false => format!("{:.1} ms", as_millis(it.value_at_quantile(0.99))),
    };
    let figure = |number: String, what: &str| html! { div { b { (number) } span { (what) } } };
    html! {
        div.figures {
            (figure(report.history.requests.len().to_string(), "requests"))
            (figure(format!("{rate:.0}"), "requests per second"))
            @if report.excused() == 0 {
                (figure(report.failed().to_string(), "requests failed"))
            } @else {
                (figure(report.failed().to_string(), "requests failed without an excuse"))
                (figure(report.excused().to_string(), "requests excused: the drill had killed their process, or had their color fail"))
            }
            (figure(report.verdict.violations.len().to_string(), "violations"))
            @if succeeded + failed + excused == 0 {
                (figure(p99(away_from_flips), "p99 latency"))
            } @else {
                (figure(format!("{succeeded} of {}", succeeded + failed), "flips succeeded"))
                @if excused > 0 {
                    (figure(excused.to_string(), "flips were called while the proxy was stopped"))
                }
                (figure(p99(acknowledged), "p99 from the call of a flip to its acknowledgement"))
                (figure(p99(away_from_flips), "p99 latency more than 100 ms from a flip"))
                (figure(p99(near_flips), "p99 latency within 100 ms of a flip"))
            }
            @if let Some(ratio) = report.figures.ratio() {
                (figure(format!("{ratio:.2} ×"), "p99 near flips, relative to far from them"))
            }
        }
    }
}

fn promises(findings: &[Finding]) -> Markup {
    let is_excused = findings.iter().any(|it| it.excused > 0);
    html! {
        table.promises {
            thead {
                tr {
                    th { "promise" } th { "result" } th.number { "tested" } th.number { "broken" }
                    th.number { "excused" }
                }
            }
            tbody {
                @for finding in findings {
                    tr {
                        td {
                            b { (finding.promise.name()) } ": " (finding.promise.in_words())
                            @if let Some(why) = finding.unchecked_reason { small { (why) } }
                            @if let Some(note) = delay_note(finding) { small { (note) } }
                        }
                        td class=(result(finding).0) data-label="result" { (result(finding).1) }
                        td.number data-label="tested" { (counted(finding, finding.checked)) }
                        td.number data-label="broken" { (counted(finding, finding.broken)) }
                        td.number data-label="excused" { (counted(finding, finding.excused)) }
                    }
                }
            }
        }
        @if is_excused {
            p { small { "Excused: the promise could not be kept, because the drill itself had killed the proxy or the "
                "endpoint of the request, or had its color fail. These cases count neither as tested nor as broken." } }
        }
    }
}

/// The numbered marks of the charts.
fn steps(report: &Report) -> Markup {
    let steps = &report.history.steps;
    html! {
        @if !steps.is_empty() {
            ol.steps {
                @for it in steps { li { b { (format!("{:.1} s", since(&report.history, it.at))) } " " (it.text) } }
            }
        }
    }
}

fn violations(report: &Report) -> Markup {
    let all = &report.verdict.violations;
    if all.is_empty() {
        return html! { p { "None." } };
    }
    let seconds = |it: &Violation| since(&report.history, it.at);
    html! {
        @if all.len() > report.listed(LISTED_MAX).count() {
            p { "The first " (LISTED_MAX) " of each promise; there are " (all.len()) " in all." }
        }
        table {
            thead { tr { th.number { "time" } th { "promise" } th { "what happened" } } }
            tbody {
                @for it in report.listed(LISTED_MAX) {
                    tr {
                        td.number { (format!("{:.3} s", seconds(it))) }
                        td.name { (it.promise.name()) }
                        td { (it.text) }
                    }
                }
            }
        }
    }
}
