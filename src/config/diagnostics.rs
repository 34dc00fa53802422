//! What is wrong with a configuration, and where.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// One finding in a configuration file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// The file, by the path that it was opened with.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The key with its tables, such as `service.web.hosts`; empty for the file as a whole.
    pub key: String,
    /// The problem.
    pub message: String,
    /// The remedy, if there is more to say than the message does.
    pub help: Option<String>,
}

/// How serious a finding is. Errors sort before warnings.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but probably not what was meant.
    Warning,
}

/// A file of a configuration.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// The path that it was opened with.
    pub(super) name: String,
    /// The folder that its relative paths are relative to.
    pub(super) folder: PathBuf,
    pub(super) text: String,
    /// The offset of its first byte. Offsets of all files together are unique, so that a span says which file
    /// it belongs to.
    pub(super) start: usize,
}

/// The findings so far, and the files that they are in.
#[derive(Debug)]
pub(super) struct Diagnostics<'a> {
    /// Never empty; in the order of their offsets.
    files: &'a [SourceFile],
    /// Offsets of the strings that an environment variable is part of.
    pub(super) expanded: RefCell<BTreeSet<usize>>,
    /// Offsets of the strings that could not be filled in. Nothing is said about their text.
    pub(super) unknown: RefCell<BTreeSet<usize>>,
    found: RefCell<Vec<Diagnostic>>,
}

// === impl Diagnostics ===

impl<'a> Diagnostics<'a> {
    pub(super) fn new(files: &'a [SourceFile]) -> Self {
        assert!(!files.is_empty(), "a configuration has a main file");
        let (expanded, unknown) = (RefCell::default(), RefCell::default());
        Self { files, expanded, unknown, found: RefCell::default() }
    }

    /// Notes an error. The first line of `what` is the problem, the second one, if there is one, the remedy.
    pub(super) fn error(&self, place: Range<usize>, key: &str, what: impl fmt::Display) {
        self.note(Severity::Error, place, key, what);
    }

    /// Notes a warning, of the same form.
    pub(super) fn warning(&self, place: Range<usize>, key: &str, what: impl fmt::Display) {
        self.note(Severity::Warning, place, key, what);
    }

    fn note(&self, severity: Severity, place: Range<usize>, key: &str, what: impl fmt::Display) {
        if self.unknown.borrow().contains(&place.start) {
            return;
        }
        let what = what.to_string();
        let (message, help) = match what.split_once('\n') {
            Some((message, help)) => (message.to_owned(), Some(help.to_owned())),
            None => (what, None),
        };
        let (file, line, column) = self.locate(place.start);
        let (file, key) = (file.name.clone(), key.to_owned());
        let found = Diagnostic { severity, file, line, column, key, message, help };
        self.found.borrow_mut().push(found);
    }

    /// The file, line and column of an offset.
    fn locate(&self, offset: usize) -> (&'a SourceFile, usize, usize) {
        let file = self.file(offset);
        let before = file.text.get(..offset - file.start).unwrap_or(&file.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (file, line, column)
    }

    fn file(&self, offset: usize) -> &'a SourceFile {
        let after = self.files.partition_point(|it| it.start <= offset);
        &self.files[after.saturating_sub(1)]
    }

    /// A place as `FILE:LINE`.
    pub(super) fn name_of(&self, offset: usize) -> String {
        let (file, line, _) = self.locate(offset);
        format!("{}:{line}", file.name)
    }

    /// The folder of the file that an offset is in.
    pub(super) fn folder(&self, offset: usize) -> &'a Path {
        &self.file(offset).folder
    }

    pub(super) fn has_errors(&self) -> bool {
        self.found.borrow().iter().any(|it| it.severity == Severity::Error)
    }

    /// All findings: errors first, each kind in the order of the files.
    pub(super) fn into_sorted(self) -> Vec<Diagnostic> {
        let place = |name: &str| self.files.iter().position(|it| it.name == name);
        let mut found = self.found.take();
        let order = |it: &Diagnostic| (it.severity, place(&it.file), it.line, it.column);
        found.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.key.cmp(&b.key)));
        found.dedup();
        found
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, file, line, column, key, message, help } = self;
        write!(f, "{file}:{line}:{column}: ")?;
        if *severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(message)?;
        match help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl Severity {
    /// A word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}
