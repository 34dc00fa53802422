//! The status as text that fits a terminal: one line for each pool, and its endpoints below it.
//!
//! Addresses are never cut or wrapped. A line that is too long loses padding first, and then wraps between words.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use flipgate_api::{
    escape,
    wire::{EndpointStatus, PoolStatus, Status},
};

/// More healthy endpoints than this are folded into one line.
const SHOWN_MAX: usize = 4;

/// In front of the line of an endpoint.
const INDENT: usize = 4;

const HEADINGS: [&str; 5] = ["service", "color", "role", "version", "in flight"];

/// The status in lines of at most `width` columns where that is possible. Long pools are folded unless
/// `shows_all`.
pub(super) fn table(status: &Status, width: usize, shows_all: bool) -> String {
    let rows: Vec<PoolRow<'_>> = rows(status);
    let mut widths: [usize; 5] = HEADINGS.map(str::len);
    for row in &rows {
        for (widest, cell) in widths.iter_mut().zip(&row.cells) {
            *widest = (*widest).max(columns(cell));
        }
    }
    shrink(&mut widths, width);
    let mut text = String::new();
    let bold = Style::new().bold();
    let headings = HEADINGS.map(|it| (it.to_owned(), bold));
    line(&mut text, &headings, widths);
    for row in rows {
        let PoolRow { cells: [name, color, role, version, in_flight], pool } = row;
        let cells = [
            (name, bold),
            (color.clone(), paint(&color)),
            (role.clone(), role_style(&role)),
            (version, Style::new()),
            (in_flight, Style::new()),
        ];
        line(&mut text, &cells, widths);
        for (endpoint, style) in endpoints(pool, shows_all) {
            wrap(&mut text, &endpoint, style, width);
        }
    }
    text.truncate(text.trim_end().len());
    text
}

struct PoolRow<'a> {
    cells: [String; 5],
    pool: &'a PoolStatus,
}

fn rows(status: &Status) -> Vec<PoolRow<'_>> {
    let mut rows = Vec::new();
    for (name, service) in &status.services {
        let mut name = match service.damaged {
            true => format!("{} (damaged: promote a color)", escape(name)),
            false => escape(name).into_owned(),
        };
        if let Some(hold) = &service.hold {
            name.push_str(&format!(" (held: {} wait)", hold.waiting));
        }
        if service.maintenance.is_some() {
            name.push_str(" (maintenance)");
        }
        for (color, pool) in &service.pools {
            let version = escape(pool.version.as_deref().unwrap_or("–")).into_owned();
            let in_flight = pool.in_flight.to_string();
            let share = service.share.as_ref().filter(|it| it.color == *color);
            let role = match share {
                Some(share) => format!("candidate {} %", share.percent),
                None => escape(&pool.role).into_owned(),
            };
            let color = escape(color).into_owned();
            let cells = [std::mem::take(&mut name), color, role, version, in_flight];
            rows.push(PoolRow { cells, pool });
        }
    }
    rows
}

/// Takes columns from the version and then from the service, which have the longest texts.
fn shrink(widths: &mut [usize; 5], width: usize) {
    const NAME: usize = 0;
    const VERSION: usize = 3;
    for (column, least) in [(VERSION, 8), (NAME, 8)] {
        let whole: usize = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
        let excess = whole.saturating_sub(width);
        let spare = widths[column].saturating_sub(least);
        widths[column] -= excess.min(spare);
    }
}

/// One line of cells. A cell that is too long keeps its beginning; the last one is aligned to the right.
fn line(text: &mut String, cells: &[(String, Style); 5], widths: [usize; 5]) {
    let last = cells.len() - 1;
    for (place, ((cell, style), width)) in cells.iter().zip(widths).enumerate() {
        let cell = fit(cell, width);
        let padding = width - columns(&cell);
        let (before, after) = if place == last { (padding, 0) } else { (0, padding + 2) };
        let _ = write!(text, "{:before$}{style}{cell}{style:#}{:after$}", "", "");
    }
    text.push('\n');
}

fn fit(cell: &str, width: usize) -> String {
    if columns(cell) <= width {
        return cell.to_owned();
    }
    let mut kept: String = cell.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// How many columns a text takes: one for each character. Wide characters are rare in what is shown here, and only
/// disturb the alignment.
fn columns(text: &str) -> usize {
    text.chars().count()
}

/// The lines below a pool, each with its style.
fn endpoints(pool: &PoolStatus, shows_all: bool) -> Vec<(String, Style)> {
    let mut lines = Vec::new();
    let is_healthy = |it: &&EndpointStatus| it.health == "up" && it.ejected.is_none();
    let healthy = pool.endpoints.iter().filter(is_healthy).count();
    let mut left = if shows_all || healthy <= SHOWN_MAX { usize::MAX } else { SHOWN_MAX - 1 };
    let mut folded = 0;
    for it in &pool.endpoints {
        if is_healthy(&it) {
            if left == 0 {
                folded += 1;
                continue;
            }
            left -= 1;
        }
        lines.push(endpoint(it));
    }
    if folded > 0 {
        lines.push((format!("and {folded} more, all up"), Style::new().dimmed()));
    }
    let attention = AnsiColor::Yellow.on_default();
    if pool.queued > 0 {
        lines.push((format!("{} requests wait in the queue", pool.queued), attention));
    }
    if pool.panicking {
        let text = "panic mode: too few endpoints are usable, so unhealthy ones get requests too";
        lines.push((text.to_owned(), AnsiColor::Red.on_default().bold()));
    }
    lines
}

fn endpoint(it: &EndpointStatus) -> (String, Style) {
    let mut line = escape(&it.address).into_owned();
    if let Some(resolved) = &it.resolved {
        let _ = write!(line, " at {}", escape(resolved));
    }
    if it.weight != 1 {
        let _ = write!(line, " weight {}", it.weight);
    }
    let _ = write!(line, "  {}", escape(&it.health));
    let reason = match (&it.ejected, &it.reason) {
        (_, Some(reason)) => {
            let _ = write!(line, " for {}", ago(&it.since));
            Some(reason)
        }
        (Some(ejected), None) => {
            let (since, until) = (ago(&ejected.since), ahead(&ejected.until));
            let _ = write!(line, ", ejected {since} ago, back in {until}");
            Some(&ejected.reason)
        }
        (None, None) => None,
    };
    if it.in_flight > 0 {
        let _ = write!(line, ", {} in flight", it.in_flight);
    }
    if let Some(reason) = reason {
        let _ = write!(line, ": {}", escape(reason));
    }
    let style = match (it.health.as_str(), it.ejected.is_some()) {
        ("down", _) => AnsiColor::Red.on_default(),
        (_, true) => AnsiColor::Yellow.on_default(),
        ("unknown", _) => Style::new().dimmed(),
        _ => Style::new(),
    };
    (line, style)
}

/// Writes a text in lines that break between words. What follows the first line is indented further.
fn wrap(text: &mut String, words: &str, style: Style, width: usize) {
    let mut line = " ".repeat(INDENT);
    let mut is_empty = true;
    let mut flush = |line: &mut String| {
        let indent = line.len() - line.trim_start().len();
        let _ = writeln!(text, "{}{style}{}{style:#}", &line[..indent], line.trim());
        *line = " ".repeat(INDENT + 2);
    };
    for word in words.split(' ') {
        if !is_empty && columns(&line) + 1 + columns(word) > width && !word.is_empty() {
            flush(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    flush(&mut line);
}

fn role_style(role: &str) -> Style {
    match role {
        "active" => Style::new().bold(),
        "draining" => AnsiColor::Yellow.on_default(),
        "preview" => AnsiColor::Cyan.on_default(),
        _ => Style::new().dimmed(),
    }
}

fn paint(color: &str) -> Style {
    if color == "blue" { AnsiColor::Blue.on_default() } else { AnsiColor::Green.on_default() }
}

/// How long ago a time was.
fn ago(time: &str) -> String {
    from_to(time.parse().ok(), Some(jiff::Timestamp::now()))
}

/// How long it is to a time.
fn ahead(time: &str) -> String {
    from_to(Some(jiff::Timestamp::now()), time.parse().ok())
}

/// In its largest unit.
fn from_to(from: Option<jiff::Timestamp>, to: Option<jiff::Timestamp>) -> String {
    let Some((from, to)) = from.zip(to) else { return "some time".to_owned() };
    match to.duration_since(from).as_secs().max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// `2 up`, or `1 of 2 up`.
pub(super) fn health_summary(pool: &PoolStatus) -> String {
    let is_usable = |it: &&EndpointStatus| it.health == "up" && it.ejected.is_none();
    let (all, up) = (pool.endpoints.len(), pool.endpoints.iter().filter(is_usable).count());
    match all {
        0 => "no endpoints".to_owned(),
        _ if all == up => format!("{all} up"),
        _ => format!("{up} of {all} up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let endpoint = |address: &str, health: &str, reason: Option<&str>| {
            serde_json::json!({
                "address": address, "health": health, "in_flight": 7, "reason": reason, "since": "",
            })
        };
        let long = "a-long-name-of-a-host.internal.example.com:9001";
        let reason = "the connection was refused, and it was refused again, and again, and again";
        let many: Vec<_> =
            (0..12).map(|it| endpoint(&format!("10.0.0.{it}:9001"), "up", None)).collect();
        let mut blue = vec![endpoint(long, "down", Some(reason))];
        blue.extend(many);
        let status = serde_json::json!({"generation": 3, "services": {
            "a-service-with-a-rather-long-name": {"active": "blue", "previous": null, "pools": {
                "blue": {"role": "active", "version": "8.0.0-rc.1+a-build-with-a-long-name",
                    "source": "file", "in_flight": 12_345, "endpoints": blue},
                "green": {"role": "empty", "version": null, "source": "file", "in_flight": 0,
                    "endpoints": []},
            }},
        }});
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn control_characters_of_the_server_do_not_reach_the_terminal() {
        let bad = "a\u{1b}]0;b\u{7}";
        let status = serde_json::json!({"generation": 3, "services": {
            bad: {"active": bad, "previous": null, "pools": {
                bad: {"role": bad, "version": bad, "source": "file", "in_flight": 0, "endpoints": [
                    {"address": bad, "resolved": bad, "health": bad, "reason": bad, "in_flight": 0, "since": bad},
                ]},
            }},
        }});
        let status: Status = serde_json::from_value(status).expect("a status");
        let shown = plain(&table(&status, 200, true));
        let is_bad = |it: char| it.is_control() && it != '\n';
        assert!(!shown.contains(is_bad), "{shown:?}");
        let raw = table(&status, 200, true);
        assert!(!raw.contains('\u{7}') && !raw.contains("\u{1b}]"), "{raw:?}");
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn lines_fit_and_addresses_are_whole() {
        for width in [60, 80, 120] {
            let text = plain(&table(&status(), width, true));
            for line in text.lines() {
                assert!(columns(line) <= width, "{width}: {line}");
            }
            assert!(text.contains("a-long-name-of-a-host.internal.example.com:9001"), "{text}");
            assert_eq!(text.matches("10.0.0.").count(), 12, "{text}");
        }
        // Without room for an address, it is whole all the same.
        let narrow = plain(&table(&status(), 20, true));
        assert!(narrow.contains("a-long-name-of-a-host.internal.example.com:9001"), "{narrow}");
        assert!(!plain(&table(&status(), 0, true)).is_empty());
    }

    #[test]
    fn a_long_pool_is_folded_but_not_its_unhealthy_endpoints() {
        let text = plain(&table(&status(), 80, false));
        assert!(text.contains("and 9 more, all up"), "{text}");
        assert!(text.contains("example.com:9001  down for some time, 7 in"), "{text}");
        assert_eq!(text.matches("10.0.0.").count(), 3, "{text}");
    }
}
