//! The files of a configuration: the main file and those that it includes, as one tree with the environment
//! variables filled in.
//!
//! Variables are filled into strings after parsing, so that the value of a variable can add no keys.

use std::{
    io,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    diagnostics::{Diagnostics, SourceFile},
    environment::Environment,
    files::{self, CONFIG_MAX},
};

/// The texts of a configuration, and what was wrong with reading them.
pub(super) struct Sources {
    pub(super) files: Vec<SourceFile>,
    errors: Vec<IncludeError>,
}

/// An `include` that could not be followed.
struct IncludeError {
    /// Where its pattern is.
    offset: usize,
    what: String,
}

/// More files are most likely a pattern that matches too much.
const FILES_MAX: usize = 4096;

/// The longest chain of files that include each other: each takes a part of the stack.
const DEPTH_MAX: usize = 16;

const INCLUDE: &str = "include";

/// What the parser says of a key that is set twice.
const DUPLICATE: &str = "duplicate key";

// === impl Sources ===

impl Sources {
    /// Reads the main file and all files that it includes.
    ///
    /// # Errors
    ///
    /// If the main file cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        files::read(path, CONFIG_MAX).map(|text| Self::with(path, text))
    }

    /// Takes the main file's text, and reads the files that it includes.
    pub(super) fn with(path: &Path, text: String) -> Self {
        let mut sources = Self { files: Vec::new(), errors: Vec::new() };
        let mut chain = vec![path.canonicalize().unwrap_or_else(|_| path.to_owned())];
        sources.add(path, text, &mut chain);
        sources
    }

    /// Adds a file, and then the files that it includes. `chain` has the canonical paths of this file and of all
    /// that led to it.
    fn add(&mut self, path: &Path, text: String, chain: &mut Vec<PathBuf>) {
        let start = self.files.last().map_or(0, |it| it.start + it.text.len() + 1);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        let included = includes(&text);
        let name = path.display().to_string();
        self.files.push(SourceFile { name, folder: folder.clone(), text, start });
        for (offset, pattern) in included {
            let found = pattern.and_then(|it| matches(&folder, &it));
            let paths = found.unwrap_or_else(|what| {
                self.errors.push(IncludeError { offset: start + offset, what });
                Vec::new()
            });
            for path in paths {
                if let Err(what) = self.include(&path, chain) {
                    self.errors.push(IncludeError { offset: start + offset, what });
                }
            }
        }
    }

    fn include(&mut self, path: &Path, chain: &mut Vec<PathBuf>) -> Result<(), String> {
        let unreadable = |error| format!("cannot read {}: {error}", path.display());
        let canonical = path.canonicalize().map_err(unreadable)?;
        if chain.contains(&canonical) {
            return Err(format!("{} includes itself", path.display()));
        }
        if chain.len() > DEPTH_MAX {
            return Err(format!("files are included through more than {DEPTH_MAX} others"));
        }
        if self.files.len() == FILES_MAX {
            return Err(format!("there are more than {FILES_MAX} files"));
        }
        let text = files::read_regular(path, CONFIG_MAX).map_err(unreadable)?;
        let all: usize = self.files.iter().map(|it| it.text.len()).sum();
        if all + text.len() > CONFIG_MAX {
            return Err(format!("all files together are larger than {} MiB", CONFIG_MAX >> 20));
        }
        chain.push(canonical);
        self.add(path, text, chain);
        chain.pop();
        Ok(())
    }

    /// Parses all files into one table, and notes what is wrong with them. `None` if a part of the configuration is
    /// missing, so that looking for more mistakes would find only consequences.
    pub(super) fn parse<'a>(
        &'a self,
        environment: &Environment,
        diagnostics: &Diagnostics<'_>,
    ) -> Option<DeTable<'a>> {
        let mut is_whole = self.errors.is_empty();
        for IncludeError { offset, what } in &self.errors {
            diagnostics.error(*offset..*offset, INCLUDE, what);
            // Nothing else is said about this place.
            diagnostics.unknown.borrow_mut().insert(*offset);
        }
        let mut root = DeTable::new();
        for file in &self.files {
            let (table, errors) = DeTable::parse_recoverable(&file.text);
            // The errors behind a syntax error are mostly its consequences. A key that is set twice has none.
            let (double, broken): (Vec<_>, Vec<_>) =
                errors.iter().partition(|it| it.message().contains(DUPLICATE));
            let first = broken.into_iter().min_by_key(|it| it.span().map(|it| it.start));
            for error in double.into_iter().filter(|_| first.is_none()).chain(first) {
                let span = error.span().unwrap_or(0..0);
                let offset = file.start + span.start;
                diagnostics.error(
                    offset..offset,
                    "",
                    syntax_error(error.message(), file.text.get(span)),
                );
            }
            if first.is_some() {
                is_whole = false;
                continue;
            }
            let tree = Tree { start: file.start, environment, diagnostics };
            let table = tree.table(table.into_inner(), "");
            merge(&mut root, table, "", diagnostics);
        }
        is_whole.then_some(root)
    }
}

/// What the parser says, with the key that it is about.
fn syntax_error(message: &str, found: Option<&str>) -> String {
    match found {
        Some(key) if message.contains(DUPLICATE) => {
            format!("duplicate key `{}`\nkeep one of them", key.trim())
        }
        // Numbers have no dots, colons or slashes: an address or a path was meant.
        _ if message.starts_with("invalid float") || message.starts_with("invalid integer") => {
            format!(
                "not valid TOML: {message}\nput text in double quotes, such as \"127.0.0.1:80\""
            )
        }
        _ => format!("not valid TOML: {message}"),
    }
}

/// The patterns of `include`, or what is wrong with them, with their offsets.
fn includes(text: &str) -> Vec<(usize, Result<String, String>)> {
    let (table, _) = DeTable::parse_recoverable(text);
    let Some(value) = table.get_ref().get(INCLUDE) else { return Vec::new() };
    let Some(list) = value.get_ref().as_array() else {
        let what = "expected a list of paths\nwrite [\"conf.d/*.toml\"]";
        return vec![(value.span().start, Err(what.to_owned()))];
    };
    let pattern = |it: &Spanned<DeValue<'_>>| match it.get_ref().as_str() {
        Some(pattern) if pattern.contains("${") => {
            Err("environment variables are not filled in here\nwrite a path without `${`"
                .to_owned())
        }
        Some(pattern) => Ok(pattern.to_owned()),
        None => Err(format!("expected a path, found {}", it.get_ref().type_str())),
    };
    list.into_iter().map(|it| (it.span().start, pattern(it))).collect()
}

/// The files that a pattern names, in the order of their names. A pattern with `*`, `?` or `[` may name none.
fn matches(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = folder.join(pattern);
    if !pattern.contains(['*', '?', '[']) {
        return Ok(vec![path]);
    }
    let whole = Path::new(&glob::Pattern::escape(&folder.to_string_lossy())).join(pattern);
    let found = glob::glob(&whole.to_string_lossy())
        .map_err(|error| format!("`{pattern}` is not a pattern of files: {error}"))?;
    found
        .map(|it| it.map_err(|error| error.to_string()))
        .filter(|it| it.as_ref().map_or(true, |it| it.is_file()))
        .collect()
}

/// Adds the keys of another file. Tables are merged, and lists of tables are joined.
fn merge<'a>(into: &mut DeTable<'a>, from: DeTable<'a>, path: &str, diagnostics: &Diagnostics<'_>) {
    for (key, value) in from {
        let name = match path {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        // Each file has its own.
        if name == INCLUDE {
            continue;
        }
        let Some(present) = into.get_mut(&*key.get_ref().clone()) else {
            into.insert(key, value);
            continue;
        };
        let before = present.span().start;
        match (present.get_mut(), value.into_inner()) {
            (DeValue::Table(into), DeValue::Table(from)) => merge(into, from, &name, diagnostics),
            (DeValue::Array(into), DeValue::Array(from))
                if is_of_tables(into) && is_of_tables(&from) =>
            {
                for item in from {
                    into.push(item);
                }
            }
            _ => diagnostics.error(
                key.span(),
                &name,
                format_args!("duplicate key; it is also set at {}", diagnostics.name_of(before)),
            ),
        }
    }
}

fn is_of_tables(list: &DeArray<'_>) -> bool {
    list.iter().all(|it| it.get_ref().is_table())
}

/// Makes the tree of one file part of the tree of all.
struct Tree<'d, 'f> {
    start: usize,
    environment: &'d Environment,
    diagnostics: &'d Diagnostics<'f>,
}

impl Tree<'_, '_> {
    fn table<'a>(&self, table: DeTable<'a>, path: &str) -> DeTable<'a> {
        let entry = |(key, value): (Spanned<_>, Spanned<DeValue<'a>>)| {
            let span = key.span();
            let key: std::borrow::Cow<'a, str> = key.into_inner();
            let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
            let value = self.value(value, &path);
            (Spanned::new(span.start + self.start..span.end + self.start, key), value)
        };
        table.into_iter().map(entry).collect()
    }

    fn value<'a>(&self, value: Spanned<DeValue<'a>>, path: &str) -> Spanned<DeValue<'a>> {
        let span = value.span();
        let span = span.start + self.start..span.end + self.start;
        let value = match value.into_inner() {
            DeValue::String(text) => match self.environment.expand(&text) {
                Ok(None) => DeValue::String(text),
                Ok(Some(expanded)) => {
                    self.diagnostics.expanded.borrow_mut().insert(span.start);
                    DeValue::String(expanded.into())
                }
                Err(what) => {
                    self.diagnostics.error(span.clone(), path, what);
                    self.diagnostics.unknown.borrow_mut().insert(span.start);
                    DeValue::String(text)
                }
            },
            DeValue::Array(items) => {
                let mut list = DeArray::new();
                for (place, item) in items.into_iter().enumerate() {
                    list.push(self.value(item, &format!("{path}[{place}]")));
                }
                DeValue::Array(list)
            }
            DeValue::Table(table) => DeValue::Table(self.table(table, path)),
            other => other,
        };
        Spanned::new(span, value)
    }
}
