//! Whether the lines of the audit files are all there, unchanged and in order.

use std::{collections::HashMap, fmt};

use super::chain::{LineDamage, LineHash, LineLinks, links};

/// One audit file.
#[derive(Clone, Copy, Debug)]
pub struct AuditFile<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// What the state knows of the lines.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditAnchor {
    /// Lines that may be missing at the beginning: rotation has removed their file.
    pub removed: u64,
    /// The lines that the files may end with, by number: the last one of all, and those before it that are still in
    /// the state. Number 0 stands for no line at all.
    pub ends: Vec<(u64, LineHash)>,
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verification {
    /// The lines that the files have.
    pub lines: u64,
    /// The number of the first line, counted from the beginning of the log; 0 if unknown.
    pub first: u64,
    /// Lines that are only in the state yet.
    pub waiting: u64,
    /// A last line that is not complete: the next start completes it.
    pub incomplete: Option<LinePlace>,
    /// What is wrong.
    pub damages: Vec<AuditDamage>,
}

/// Where a line is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LinePlace {
    /// The name of the file.
    pub file: String,
    /// The number of the line in the file, from 1 on.
    pub line: usize,
}

/// A line that is not as it was written, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditDamage {
    /// The line.
    pub place: LinePlace,
    /// What is wrong.
    pub what: String,
}

/// A line with its place.
struct PlacedLine<'a> {
    file: &'a str,
    line: usize,
    links: Result<LineLinks, LineDamage>,
}

/// Checks files, the oldest first.
#[must_use]
pub fn verify(files: &[AuditFile<'_>], anchor: &AuditAnchor) -> Verification {
    let mut found = Verification::default();
    let mut lines = Vec::new();
    for (place, file) in files.iter().enumerate() {
        let mut rest = file.bytes;
        let mut line = 0;
        while !rest.is_empty() {
            line += 1;
            let Some(end) = rest.iter().position(|it| *it == b'\n') else {
                let at = LinePlace { file: file.name.to_owned(), line };
                if place + 1 == files.len() {
                    found.incomplete = Some(at);
                } else {
                    found.damages.push(AuditDamage { place: at, what: "is not complete".into() });
                }
                break;
            };
            lines.push(PlacedLine { file: file.name, line, links: links(&rest[..end]) });
            rest = &rest[end + 1..];
        }
    }
    found.lines = lines.len() as u64;
    check_chain(&lines, &mut found.damages);
    check_ends(&lines, files, anchor, &mut found);
    found
}

/// Whether each line follows on the one before it.
fn check_chain(lines: &[PlacedLine<'_>], damages: &mut Vec<AuditDamage>) {
    let mut places = HashMap::new();
    for (place, line) in lines.iter().enumerate() {
        if let Ok(links) = line.links {
            places.entry(links.hash).or_insert(place);
        }
    }
    let mut expected = None;
    for (place, line) in lines.iter().enumerate() {
        let mut wrong = |what| damages.push(AuditDamage { place: line.place(), what });
        let links = match line.links {
            Ok(links) => links,
            Err(damage) => {
                wrong(damage.to_string());
                expected = match damage {
                    // The line behind it follows on the hash that still stands here.
                    LineDamage::Changed(links) => Some(links.hash),
                    LineDamage::Unreadable => None,
                };
                continue;
            }
        };
        let first = places.get(&links.hash).map(|it| &lines[*it]);
        if let Some(first) = first.filter(|it| (it.file, it.line) != (line.file, line.line)) {
            wrong(format!("is a copy of {}", first.place()));
            continue;
        }
        if expected.is_some_and(|it| it != links.previous) {
            wrong(match places.get(&links.previous) {
                Some(before) if before + 1 != place => {
                    format!("is out of order: it follows on {}", lines[*before].place())
                }
                _ => "does not follow on the line before it: lines between them are missing, or were changed"
                    .to_owned(),
            });
        }
        expected = Some(links.hash);
    }
}

/// Whether lines are missing at the beginning or at the end.
fn check_ends(
    lines: &[PlacedLine<'_>],
    files: &[AuditFile<'_>],
    anchor: &AuditAnchor,
    found: &mut Verification,
) {
    let last_known = anchor.ends.iter().map(|it| it.0).max().unwrap_or_default();
    let nothing =
        || LinePlace { file: files.last().map_or("audit.jsonl", |it| it.name).to_owned(), line: 1 };
    let end = match lines.last().map(|it| it.links) {
        // Without any line, all of them were removed by rotation, or there never was one.
        None => anchor.ends.iter().find(|it| it.0 <= anchor.removed).map(|it| it.0),
        Some(Ok(links) | Err(LineDamage::Changed(links))) => {
            anchor.ends.iter().find(|it| it.1 == links.hash && it.0 > 0).map(|it| it.0)
        }
        // It was reported.
        Some(Err(LineDamage::Unreadable)) => return,
    };
    let Some(end) = end else {
        let place = lines.last().map_or_else(nothing, PlacedLine::place);
        let what = match lines.is_empty() {
            true => format!("is missing: the state knows of {last_known} lines"),
            false => format!(
                "is not the last line that the state knows of (number {last_known}): later lines were cut off, or \
                 the file belongs to another state"
            ),
        };
        found.damages.push(AuditDamage { place, what });
        return;
    };
    found.waiting = last_known - end;
    if lines.is_empty() || !found.damages.is_empty() {
        return;
    }
    let place = lines[0].place();
    match (end + 1).checked_sub(found.lines) {
        Some(first) if first > 0 => {
            found.first = first;
            let missing = (first - 1).saturating_sub(anchor.removed);
            if missing > 0 {
                let what =
                    format!("is line {first} of the log: {missing} lines before it are missing");
                found.damages.push(AuditDamage { place, what });
            }
        }
        _ => {
            let what = format!(
                "the files have {} lines, more than the {end} that the state knows of",
                found.lines
            );
            found.damages.push(AuditDamage { place, what });
        }
    }
}

// === impl PlacedLine ===

impl PlacedLine<'_> {
    fn place(&self) -> LinePlace {
        LinePlace { file: self.file.to_owned(), line: self.line }
    }
}

// === impl LinePlace ===

impl fmt::Display for LinePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl fmt::Display for AuditDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.what)
    }
}

#[cfg(test)]
mod tests;
