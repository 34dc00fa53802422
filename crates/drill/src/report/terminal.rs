//! The report as text that fits a terminal.

use std::fmt::{Display, Write};

use anstyle::{AnsiColor, Style};

use super::{
    super::{
        check::{Finding, FlipCounts, Violation},
        measure::Figures,
    },
    Report, SHOWN_MAX, counted, delay_note, millis, result,
};

/// The widths of the columns, without the two blanks between them.
const COLUMNS: [usize; 5] = [12, 10, 8, 7, 8];

/// Texts are not wider than this, however wide the terminal is.
const WIDTH_MAX: usize = 100;

/// The columns of the terminal. A terminal of unknown width and a pipe have those of `COLUMNS`, or 80.
pub(super) fn width() -> usize {
    let known = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let set = || std::env::var("COLUMNS").ok()?.parse().ok();
    known.or_else(set).filter(|it| *it > 0).unwrap_or(80)
}

/// The report in lines of at most `width` columns, if that is at least 60.
pub(super) fn text(report: &Report, width: usize) -> String {
    let mut out = Lines { text: String::new(), width: width.min(WIDTH_MAX) };
    table(report, &mut out);
    figures(report, &mut out);
    violations(report, &mut out);
    let color = if report.is_clean() { AnsiColor::Green } else { AnsiColor::Red };
    out.text.push('\n');
    out.wrap(0, color.on_default().bold(), report.headline());
    for note in report.notes() {
        out.wrap(0, color.on_default().bold(), note);
    }
    out.text.truncate(out.text.trim_end().len());
    out.text
}

/// Text that breaks between words.
struct Lines {
    text: String,
    width: usize,
}

impl Lines {
    fn wrap(&mut self, indent: usize, style: Style, text: impl Display) {
        let (mut line, text) = (String::new(), text.to_string());
        for word in text.split_whitespace() {
            if !line.is_empty() && indent + columns(&line) + 1 + columns(word) > self.width {
                let _ = writeln!(self.text, "{:indent$}{style}{line}{style:#}", "");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        let _ = writeln!(self.text, "{:indent$}{style}{line}{style:#}", "");
    }

    /// Cells, of which the numbers are aligned to the right.
    fn row(&mut self, cells: [(String, Style); 5]) {
        let mut line = String::new();
        for (index, ((cell, style), width)) in cells.into_iter().zip(COLUMNS).enumerate() {
            let padding = width.saturating_sub(columns(&cell));
            let (before, after) = if index < 2 { (0, padding) } else { (padding, 0) };
            let _ = write!(line, "{:before$}{style}{cell}{style:#}{:after$}  ", "", "");
        }
        let _ = writeln!(self.text, "{}", line.trim_end());
    }
}

/// Columns of a text, in which styles take none.
fn columns(text: &str) -> usize {
    anstream::adapter::strip_str(text).map(|it| it.chars().count()).sum()
}

fn table(report: &Report, out: &mut Lines) {
    let (plain, bold, dim) = (Style::new(), Style::new().bold(), Style::new().dimmed());
    let headings = ["promise", "result", "tested", "broken", "excused"];
    out.row(headings.map(|it| (it.to_owned(), bold)));
    for finding in &report.verdict.findings {
        let Finding { promise, checked, broken, excused, .. } = finding;
        let (state, word) = result(finding);
        let color = match state {
            "held" => AnsiColor::Green.on_default(),
            "broken" => AnsiColor::Red.on_default().bold(),
            _ => AnsiColor::Yellow.on_default(),
        };
        out.row([
            (promise.name().to_owned(), bold),
            (word.to_owned(), color),
            (counted(finding, *checked), plain),
            (counted(finding, *broken), if *broken > 0 { color } else { plain }),
            (counted(finding, *excused), plain),
        ]);
        out.wrap(2, dim, promise.in_words());
        if let Some(why) = finding.unchecked_reason {
            out.wrap(2, AnsiColor::Yellow.on_default(), format_args!("not tested: {why}"));
        }
        if let Some(note) = delay_note(finding) {
            out.wrap(2, dim, note);
        }
    }
    if report.verdict.findings.iter().any(|it| it.excused > 0) {
        out.wrap(
            0,
            dim,
            "excused: the drill had killed the proxy or the endpoint, or had the color fail",
        );
    }
}

fn figures(report: &Report, out: &mut Lines) {
    let Figures { rate, acknowledged, away_from_flips, near_flips, drains, .. } = &report.figures;
    let plain = Style::new();
    out.text.push('\n');
    let total = report.history.requests.len();
    let mut line = format!("{total} requests, {rate:.0} per second, {} failed", report.failed());
    if report.excused() > 0 {
        let _ = write!(line, ", {} excused", report.excused());
    }
    out.wrap(0, plain, line);
    let plan = &report.plan;
    // With blanks, so that it can be wrapped.
    let mix = plan.mix.to_string().replace(',', ", ");
    out.wrap(2, plain, format_args!("load: {}", report.load()));
    out.wrap(2, plain, format_args!("mix: {mix}"));
    out.wrap(2, plain, format_args!("seed: {}", plan.seed));
    let FlipCounts { succeeded, failed, excused } = report.verdict.flips;
    if succeeded + failed + excused > 0 {
        let mut line = format!("{succeeded} of {} flips succeeded", succeeded + failed);
        if excused > 0 {
            let _ = write!(line, "; {excused} more were called while the proxy was stopped");
        }
        out.wrap(0, plain, line);
    }
    if !acknowledged.is_empty() {
        out.wrap(
            2,
            plain,
            format_args!(
                "from the call to the acknowledgement: p50 {}, p99 {}, maximum {}",
                millis(acknowledged.value_at_quantile(0.5)),
                millis(acknowledged.value_at_quantile(0.99)),
                millis(acknowledged.max()),
            ),
        );
    }
    let away = if succeeded + failed + excused == 0 { "" } else { " more than 100 ms from a flip" };
    let latencies = [(away, away_from_flips), (" within 100 ms of a flip", near_flips)];
    for (name, of) in latencies.into_iter().filter(|it| !it.1.is_empty()) {
        out.wrap(0, plain, format_args!("latency of {} short requests{name}:", of.len()));
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|it| millis(of.value_at_quantile(it)));
        out.wrap(2, plain, format_args!("p50 {p50}, p99 {p99}, p99.9 {p999}"));
    }
    if report.reconnects() > 0 {
        let text = format!(
            "{} WebSockets were closed by the proxy after a flip, and connected again",
            report.reconnects()
        );
        out.wrap(0, plain, text);
    }
    if let Some(events) = &report.history.drained
        && succeeded > 0
    {
        out.wrap(0, plain, format_args!("{} `drained` events", events.len()));
        if !drains.is_empty() {
            let (median, most) = (drains.value_at_quantile(0.5), drains.max());
            let text = format!("from the flip to the event: p50 {median} ms, maximum {most} ms");
            out.wrap(2, plain, text);
        }
    }
}

fn violations(report: &Report, out: &mut Lines) {
    let mut shown = 0;
    for Violation { promise, text, .. } in report.listed(SHOWN_MAX) {
        if shown == 0 {
            out.text.push('\n');
        }
        shown += 1;
        let red = AnsiColor::Red.on_default();
        let name = promise.name();
        out.wrap(2, Style::new(), format_args!("{red}{name}{red:#}: {text}"));
    }
    let more = report.verdict.violations.len().saturating_sub(shown);
    if more > 0 {
        out.wrap(2, Style::new(), format_args!("and {more} more"));
    }
}
