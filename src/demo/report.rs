//! The result of the demo as a table and as JSON.

use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets};
use serde_json::{Value, json};

/// The result of the demo.
#[derive(Clone, Debug, Default)]
pub(super) struct DemoReport {
    pub(super) rows: Vec<Row>,
    /// From the call of each flip to its acknowledgement, over HTTP and with the write to disk.
    pub(super) flips: Vec<Duration>,
    /// From the promotion to the end of the drain.
    pub(super) drain: Duration,
}

/// A kind of requests.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) blue: u64,
    pub(super) green: u64,
    /// Requests that Flipgate refused, as it should.
    pub(super) refused: u64,
    pub(super) failed: u64,
}

impl DemoReport {
    /// Whether all requests had the right result.
    pub(super) fn is_clean(&self) -> bool {
        self.rows.iter().all(|it| it.failed == 0)
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        let heads = ["", "requests", "blue", "green", "refused", "failed"];
        table.set_header(heads.map(|it| Cell::new(it).add_attribute(Attribute::Bold)));
        for Row { what, blue, green, refused, failed } in &self.rows {
            let number = |count: u64, color| {
                let cell = Cell::new(count).set_alignment(CellAlignment::Right);
                if count > 0 { cell.fg(color) } else { cell }
            };
            let failed = match failed {
                0 => Cell::new("0").set_alignment(CellAlignment::Right).fg(Color::Green),
                some => number(*some, Color::Red),
            };
            let all = blue + green + refused;
            table.add_row(vec![
                Cell::new(what),
                number(all, Color::Reset),
                number(*blue, Color::Blue),
                number(*green, Color::Green),
                number(*refused, Color::Yellow),
                failed,
            ]);
        }
        table
    }

    pub(super) fn verdict(&self) -> String {
        let (p50, p99) = (self.flip_us(0.5), self.flip_us(0.99));
        let (count, drain) = (self.flips.len(), self.drain);
        let times = format!(
            "{count} flips, each written to disk: p50 {p50} µs, p99 {p99} µs from call to acknowledgement\n\
             longest drain: {drain:.1?}, until the end of the last download"
        );
        let style = match self.is_clean() {
            true => anstyle::AnsiColor::Green.on_default().bold(),
            false => anstyle::AnsiColor::Red.on_default().bold(),
        };
        let word = if self.is_clean() { "No request failed." } else { "Requests failed." };
        format!("{times}\n{style}{word}{style:#}")
    }

    pub(super) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|Row { what, blue, green, refused, failed }| {
                json!({"what": what, "blue": blue, "green": green, "refused": refused, "failed": failed})
            })
            .collect();
        json!({
            "clean": self.is_clean(),
            "traffic": rows,
            "flips": {
                "count": self.flips.len(),
                "p50_us": self.flip_us(0.5),
                "p99_us": self.flip_us(0.99),
            },
            "drain_ms": u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// A quantile of the flips, in microseconds.
    fn flip_us(&self, share: f64) -> u128 {
        let mut times: Vec<u128> = self.flips.iter().map(Duration::as_micros).collect();
        times.sort_unstable();
        // Nearest rank. A share of a length is at most the length.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let rank = (share * times.len() as f64).ceil() as usize;
        times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_failure_is_not_clean() {
        let row = Row { what: "x", blue: 1, green: 1, refused: 0, failed: 0 };
        let mut report = DemoReport { rows: vec![row.clone(), row], ..DemoReport::default() };
        assert!(report.is_clean());
        report.rows[1].failed = 1;
        assert!(!report.is_clean());
    }

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let flips = (1..=100).map(Duration::from_micros).collect();
        let report = DemoReport { flips, ..DemoReport::default() };
        assert_eq!((report.flip_us(0.5), report.flip_us(0.99)), (50, 99));
        assert_eq!(DemoReport::default().flip_us(0.5), 0);
    }
}
