//! Comments, messages and pages name their subjects.
//!
//! The phrases below make a reader ask "who?" or "what?". Name the subject instead: the client, Flipgate, the
//! upstream, an endpoint.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Words and phrases that are not used, in lower case.
const BANNED: &[&str] = &[
    "whoever",
    "whomever",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "whose",
    "wish",
    "wishes",
    "wished",
    "is told",
    "are told",
    "was told",
    "were told",
    "looked at",
    "looked after",
    "is to be had",
    "guest",
    "guests",
    "errand",
    "errands",
    "farewell",
    "farewells",
    "stranger",
    "strangers",
    "unruly",
];

/// Files and folders that are read.
const READ: &[&str] = &[
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Dockerfile",
    "README.md",
    "SECURITY.md",
    "benches",
    "config",
    "crates",
    "docs",
    "examples",
    "packaging",
    "src",
    "tests",
];

/// Files and folders that are not rewritten yet.
const PENDING: &[&str] = &[];

/// Places that may keep a phrase, with the reason. The text is the line, without blanks around it.
const ALLOWED: &[(&str, &str, &str)] = &[(
    "CHANGELOG.md",
    "- The kind `wish` of `flipgate drill --mix` is called `refused-preview`.",
    "it is the name of the past",
)];

/// Files that are not prose: recorded requests, and this list.
const NOT_PROSE: &[&str] = &["tests/corpus", "tests/golden", "tests/it/prose.rs"];

/// The words of a line in lower case, each with a blank before and behind. Parts of names are words, too.
fn words(line: &str) -> String {
    let mut words = " ".to_owned();
    let mut before = ' ';
    for it in line.chars() {
        let begins = !it.is_alphabetic() || it.is_uppercase() && before.is_lowercase();
        if begins && !words.ends_with(' ') {
            words.push(' ');
        }
        if it.is_alphabetic() {
            words.extend(it.to_lowercase());
        }
        before = it;
    }
    if !words.ends_with(' ') {
        words.push(' ');
    }
    words
}

fn banned(line: &str) -> impl Iterator<Item = &'static str> {
    let words = words(line);
    BANNED.iter().copied().filter(move |it| words.contains(&format!(" {it} ")))
}

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).expect("a folder") {
            files(&entry.expect("an entry").path(), found);
        }
    } else if path.exists() {
        found.push(path.to_owned());
    }
}

/// Each banned phrase of the files, with the lines that have it.
fn found(roots: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    roots.iter().for_each(|it| files(Path::new(it), &mut paths));
    paths.retain(|path| !NOT_PROSE.iter().any(|it| path.starts_with(it)));
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        // Pictures are not UTF-8.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (place, line) in text.lines().enumerate() {
            let is_allowed = |phrase: &str| {
                ALLOWED.iter().any(|it| {
                    path == Path::new(it.0) && line.trim() == it.1 && line.contains(phrase)
                })
            };
            found.extend(banned(line).filter(|it| !is_allowed(it)).map(|phrase| {
                format!("{}:{}: `{phrase}` in: {}", path.display(), place + 1, line.trim())
            }));
        }
    }
    found
}

#[test]
fn prose_names_its_subjects() {
    let roots: Vec<_> = READ.iter().copied().filter(|it| !PENDING.contains(it)).collect();
    let found = found(&roots);
    assert!(found.is_empty(), "name the subject instead:\n{}", found.join("\n"));
}

#[test]
fn a_banned_phrase_is_found_wherever_it_is() {
    for (line, phrase) in [
        ("// Whoever asks is answered.", "whoever"),
        ("fn nobody_waits() {", "nobody"),
        ("    Self::UnclearWish => {", "wish"),
        ("\"the client is told\"", "is told"),
        ("it is\tlooked  at.", "looked at"),
    ] {
        assert_eq!(banned(line).collect::<Vec<_>>(), [phrase], "{line}");
    }
    for line in ["an unwished word", "The list told of it: told", "fn is_toldable()"] {
        assert_eq!(banned(line).next(), None, "{line}");
    }
}

#[test]
fn pending_and_allowed_entries_exist() {
    for it in PENDING {
        assert!(READ.contains(it), "{it} is not read");
        assert!(!found(&[it]).is_empty(), "{it} is rewritten: take it from PENDING");
    }
    for (path, line, _) in ALLOWED {
        let text = fs::read_to_string(path).unwrap_or_default();
        assert!(
            text.lines().any(|it| it.trim() == *line),
            "{path} has no line `{line}`: take it from ALLOWED"
        );
    }
}
