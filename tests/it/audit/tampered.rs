//! `flipgate audit verify` finds every kind of tampering, and names file and line.

use std::{fs, path::PathBuf};

use flipgate::store::FileStore;
use serde_json::Value;

use super::{verified, verify};
use crate::support::{TestProxy, Upstream};

#[tokio::test]
async fn changed_missing_moved_and_cut_lines_are_found() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    for color in ["green", "blue", "green", "blue"] {
        proxy.promote(&[("web", color)]).await;
    }
    let state = proxy.shut_down();
    let file = state.path().join("audit.jsonl");
    let whole = fs::read_to_string(&file).expect("lines");
    let (text, code) = verified(state.path());
    assert_eq!((code, text.trim()), (Some(0), "good: 5 lines, from the first one of the log on"));
    let lines: Vec<&str> = whole.lines().collect();
    let joined = |lines: &[&str]| lines.iter().map(|it| format!("{it}\n")).collect::<String>();
    let [a, b, c, d, e] = lines[..] else { panic!("five lines: {whole}") };
    let changed = c.replace("127.0.0.1", "127.0.0.9");
    for (what, text, expected) in [
        ("changed", joined(&[a, b, &changed, d, e]), "audit.jsonl:3 was changed"),
        ("missing", joined(&[a, b, d, e]), "audit.jsonl:3 does not follow on the line before it"),
        ("missing first", joined(&[b, c, d, e]), "audit.jsonl:1 is line 2 of the log"),
        ("moved", joined(&[a, c, b, d, e]), "audit.jsonl:2 is out of order"),
        ("cut", joined(&[a, b, c, d]), "audit.jsonl:4 is not the last line"),
        ("cut in a line", whole[..whole.len() - 10].to_owned(), "audit.jsonl:4 is not the last"),
        ("copied", joined(&[a, b, b, c, d, e]), "audit.jsonl:3 is a copy of audit.jsonl:2"),
        ("empty", String::new(), "audit.jsonl:1 is missing: the state knows of 5 lines"),
        ("garbage", joined(&[a, b, "x", d, e]), "audit.jsonl:3 is not a line of an audit log"),
    ] {
        fs::write(&file, text).expect("written");
        let (text, code) = verified(state.path());
        assert_eq!(code, Some(1), "{what}: {text}");
        assert!(text.starts_with(expected), "{what}: {text}");
    }
    fs::remove_file(&file).expect("it is there");
    assert_eq!(verified(state.path()).1, Some(1));
    fs::write(&file, &whole).expect("written");
    assert_eq!(verified(state.path()).1, Some(0), "as it was");
}

/// The golden folder is what the first version with an audit log has written: see its README.
#[test]
fn the_lines_of_earlier_versions_are_good() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/audit-1");
    let output = verify(&golden, "json");
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert_eq!((&shown["lines"], &shown["waiting"]), (&3.into(), &2.into()), "{shown}");
    // A start completes the file with the lines of the journal.
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(&golden).expect("golden") {
        let path = entry.expect("readable").path();
        fs::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    let before = fs::read_to_string(folder.path().join("audit.jsonl")).expect("lines");
    FileStore::open(folder.path()).expect("it is readable").close();
    let after = fs::read_to_string(folder.path().join("audit.jsonl")).expect("lines");
    let more = after.strip_prefix(&before).expect("what was there stays as it was");
    assert_eq!(more.lines().count(), 2);
    assert!(more.contains("rollback web=blue") && more.contains("set pool web.green"), "{more}");
    assert_eq!(verified(folder.path()).1, Some(0));
}
