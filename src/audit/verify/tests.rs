//! Every kind of tampering is found, and nothing else is reported.

use super::*;
use crate::audit::{AuditEntry, AuditResult, line};

/// Lines 1 to `count`, and the anchor that belongs to them.
fn log(count: u64) -> (Vec<String>, AuditAnchor) {
    let (mut lines, mut previous) = (Vec::new(), LineHash::START);
    for number in 1..=count {
        let entry = AuditEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            actor: "ada".to_owned(),
            from: "unix".to_owned(),
            action: "promote web=green".to_owned(),
            reason: None,
            before: number - 1,
            after: number,
            result: AuditResult::Done,
            verdicts: Vec::new(),
        };
        let (text, hash) = line(&entry, previous);
        lines.push(text);
        previous = hash;
    }
    (lines, AuditAnchor { removed: 0, ends: vec![(count, previous)] })
}

fn text(lines: &[String]) -> String {
    lines.iter().map(|it| format!("{it}\n")).collect()
}

/// What is wrong with lines in one file.
fn wrong(lines: &[String], anchor: &AuditAnchor) -> Vec<String> {
    let text = text(lines);
    let file = AuditFile { name: "audit.jsonl", bytes: text.as_bytes() };
    verify(&[file], anchor).damages.iter().map(ToString::to_string).collect()
}

#[test]
fn an_untouched_log_is_good_also_over_several_files() {
    let (lines, anchor) = log(6);
    assert_eq!(wrong(&lines, &anchor), [""; 0]);
    let (old, new) = (text(&lines[..4]), text(&lines[4..]));
    let files = [("audit.jsonl.1", &old), ("audit.jsonl", &new)];
    let files = files.map(|(name, it)| AuditFile { name, bytes: it.as_bytes() });
    let found = verify(&files, &anchor);
    assert_eq!((found.lines, found.first, found.damages), (6, 1, vec![]));
    // No line yet.
    let none = AuditAnchor { removed: 0, ends: vec![(0, LineHash::START)] };
    assert_eq!(verify(&[], &none), Verification::default());
}

#[test]
fn a_changed_line_is_named() {
    let (mut lines, anchor) = log(5);
    lines[2] = lines[2].replace("ada", "eve");
    let changed = "audit.jsonl:3 was changed: it does not match its hash";
    assert_eq!(wrong(&lines, &anchor), [changed]);
    // With another hash, too, the line behind it does not follow any more.
    let (mut lines, anchor) = log(5);
    let links = links(lines[2].as_bytes()).expect("a line");
    lines[2] = lines[2].replace("ada", "eve");
    let hash = LineHash::of(lines[2].split(",\"hash\"").next().unwrap_or_default().as_bytes());
    lines[2] = lines[2].replace(&links.hash.to_string(), &hash.to_string());
    let found = wrong(&lines, &anchor);
    assert!(found.len() == 1 && found[0].starts_with("audit.jsonl:4 does not follow"), "{found:?}");
    // So also for the last line, by the hash in the state.
    let (mut lines, anchor) = log(3);
    let (forged, _) = log(2);
    lines[2].clone_from(&forged[1]);
    let found = wrong(&lines, &anchor);
    assert!(found.iter().any(|it| it.starts_with("audit.jsonl:3 ")), "{found:?}");
}

#[test]
fn a_line_that_is_no_line_is_named() {
    let (mut lines, anchor) = log(5);
    lines[1] = "garbage".to_owned();
    assert_eq!(wrong(&lines, &anchor), ["audit.jsonl:2 is not a line of an audit log"]);
}

#[test]
fn a_missing_line_is_found_wherever_it_was() {
    for missing in 0..5 {
        let (mut lines, anchor) = log(5);
        lines.remove(missing);
        let wrong = wrong(&lines, &anchor);
        let expected = match missing {
            0 => "audit.jsonl:1 is line 2 of the log: 1 lines before it are missing".to_owned(),
            4 => "audit.jsonl:4 is not the last line".to_owned(),
            _ => format!("audit.jsonl:{} does not follow on the line before it", missing + 1),
        };
        assert!(wrong.len() == 1 && wrong[0].starts_with(&expected), "{wrong:?}");
    }
    let (_, anchor) = log(5);
    assert_eq!(wrong(&[], &anchor), ["audit.jsonl:1 is missing: the state knows of 5 lines"]);
}

#[test]
fn lines_in_another_order_and_copies_are_found() {
    let (mut lines, anchor) = log(5);
    lines.swap(1, 2);
    let found = wrong(&lines, &anchor);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], "audit.jsonl:2 is out of order: it follows on audit.jsonl:3");
    let (mut lines, anchor) = log(5);
    let copy = lines[1].clone();
    lines.insert(3, copy);
    assert_eq!(wrong(&lines, &anchor), ["audit.jsonl:4 is a copy of audit.jsonl:2"]);
}

#[test]
fn lines_that_rotation_has_removed_are_not_missing_and_no_others() {
    let (lines, mut anchor) = log(9);
    anchor.removed = 4;
    let text = text(&lines[4..]);
    let file = AuditFile { name: "audit.jsonl", bytes: text.as_bytes() };
    let found = verify(&[file], &anchor);
    assert_eq!((found.first, found.lines, found.damages), (5, 5, vec![]));
    // The file that may be removed can still be there.
    assert_eq!(wrong(&lines, &anchor), [""; 0]);
    let wrong = wrong(&lines[6..], &anchor);
    assert_eq!(wrong, ["audit.jsonl:1 is line 7 of the log: 2 lines before it are missing"]);
}

#[test]
fn lines_that_wait_in_the_state_are_not_cut_off() {
    let (lines, mut anchor) = log(5);
    for number in [3, 4] {
        let hash = links(lines[number - 1].as_bytes()).expect("a line").hash;
        anchor.ends.push((number as u64, hash));
    }
    assert_eq!(wrong(&lines, &anchor), [""; 0]);
    assert_eq!(wrong(&lines[..3], &anchor), [""; 0]);
    assert_eq!(wrong(&lines[..2], &anchor).len(), 1);
    // The process was killed while it wrote a line.
    let text = format!("{}{}", text(&lines[..3]), &lines[3][..50]);
    let found = verify(&[AuditFile { name: "audit.jsonl", bytes: text.as_bytes() }], &anchor);
    assert_eq!((found.waiting, found.damages), (2, vec![]));
    assert_eq!(found.incomplete, Some(LinePlace { file: "audit.jsonl".to_owned(), line: 4 }));
}
