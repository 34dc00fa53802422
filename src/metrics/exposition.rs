//! The text format of Prometheus, for gauges that are read at a scrape.
//!
//! They are written directly, service after service, without a registry: with ten thousand services, a registry would
//! take most of the time of a scrape.

use std::fmt::Write;

/// One family of series.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    lines: String,
    help: &'static str,
}

// === impl Family ===

impl Family {
    /// A family of gauges. `name` is without the prefix `flipgate_`.
    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, lines: String::new() }
    }

    /// Adds a series. Labels come in the order of their names, as a registry sorts them.
    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let lines = &mut self.lines;
        lines.push_str("flipgate_");
        lines.push_str(self.name);
        for (place, (name, value)) in labels.iter().enumerate() {
            lines.push(if place == 0 { '{' } else { ',' });
            lines.push_str(name);
            lines.push_str("=\"");
            push_escaped(lines, value);
            lines.push('"');
        }
        lines.push_str(if labels.is_empty() { " " } else { "} " });
        writeln!(lines, "{value}").expect("a String takes every write");
    }

    /// Writes the family; nothing if it has no series.
    pub(super) fn write(&self, text: &mut String) {
        let Self { name, help, lines } = self;
        if !lines.is_empty() {
            writeln!(text, "# HELP flipgate_{name} {help}\n# TYPE flipgate_{name} gauge")
                .expect("a String takes every write");
            text.push_str(lines);
        }
    }
}

fn push_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for it in value.chars() {
        match it {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            it => text.push(it),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_written_with_its_labels_escaped() {
        let mut family = Family::gauge("up", "Whether it is.");
        let mut text = String::new();
        family.write(&mut text);
        assert_eq!(text, "", "no series, no family");
        family.add(&[], 1);
        family.add(&[("a", "b\\c"), ("d", "e\"f\ng")], 2);
        family.write(&mut text);
        assert_eq!(
            text,
            "# HELP flipgate_up Whether it is.\n# TYPE flipgate_up gauge\nflipgate_up 1\n\
             flipgate_up{a=\"b\\\\c\",d=\"e\\\"f\\ng\"} 2\n"
        );
    }
}
