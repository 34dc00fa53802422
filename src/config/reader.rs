//! Reading the tree of a configuration so that every mistake is found at once, each with its place.
//!
//! A derived reader stops at the first mistake. This one goes on with a default, and the configuration is
//! refused at the end if there was any.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::diagnostics::Diagnostics;
use crate::model::nearest;

/// A table, and the keys that were read from it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a DeTable<'a>>,
    place: Range<usize>,
    known: RefCell<BTreeSet<&'static str>>,
    diagnostics: &'a Diagnostics<'a>,
}

/// A value, with what its meaning depends on besides its text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a> {
    toml: &'a DeValue<'a>,
    /// Whether an environment variable was filled in. Variables are always text, so that the text of a number
    /// is taken for a number then.
    is_expanded: bool,
    /// The folder of the file that it is written in.
    folder: &'a Path,
}

/// An item of a list that may be a string or a table.
pub(super) enum StringOrTable<'a> {
    String(&'a str),
    Table(Section<'a>),
}

/// An entry of a table with names of the user's own.
pub(super) enum ValueOrTable<'a> {
    Value(Value<'a>),
    Table(Section<'a>),
}

// === impl Section ===

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a DeTable<'a>, diagnostics: &'a Diagnostics<'a>) -> Self {
        let (path, place, known) = (String::new(), 0..0, RefCell::default());
        Self { path, table: Some(table), place, known, diagnostics }
    }

    /// The full name of a key of this table.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The heading of a table inside this one: its full name without the indexes of lists.
    fn heading(&self, key: &str) -> String {
        let mut heading = String::new();
        let mut depth = 0;
        for letter in self.name(key).chars() {
            match letter {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ if depth == 0 => heading.push(letter),
                _ => {}
            }
        }
        heading
    }

    /// Notes that a required list of tables is missing.
    pub(super) fn note_missing(&self, key: &'static str, with: &str) {
        self.note(key, format_args!("missing\nwrite [[{}]] with {with}", self.heading(key)));
    }

    /// Whether the key is set.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Whether the key is set to an empty list.
    pub(super) fn is_empty_list(&self, key: &'static str) -> bool {
        let list = self.find(key).and_then(|it| it.get_ref().as_array());
        list.is_some_and(|it| it.is_empty())
    }

    /// Notes an error about a key, at its value or, if it is not set, at its table.
    pub(super) fn note(&self, key: &'static str, what: impl fmt::Display) {
        self.diagnostics.error(self.place_of_value(key), &self.name(key), what);
    }

    /// Notes a warning about a key, at the same place. Not after errors, which it may be a consequence of.
    pub(super) fn warn(&self, key: &'static str, what: impl fmt::Display) {
        if self.diagnostics.has_errors() {
            return;
        }
        self.diagnostics.warning(self.place_of_value(key), &self.name(key), what);
    }

    fn place_of_value(&self, key: &'static str) -> Range<usize> {
        self.find(key).map_or(self.place.clone(), Spanned::span)
    }

    /// Notes an error about this table itself.
    pub(super) fn note_at(&self, place: Range<usize>, what: impl fmt::Display) {
        self.diagnostics.error(place, &self.path, what);
    }

    /// The place of a key with a name of the user's own.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        let found = self.table.and_then(|it| it.get_key_value(key));
        found.map_or(self.place.clone(), |(key, _)| key.span())
    }

    /// The value of a key, or `default` if it is not set.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> T {
        let Some(found) = self.find(key) else { return default };
        match parse(self.value(found)) {
            Ok(value) => value,
            Err(what) => {
                self.diagnostics.error(found.span(), &self.name(key), what);
                default
            }
        }
    }

    /// The value of a required key.
    pub(super) fn need<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(Value<'a>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.note(key, format_args!("missing\nwrite {example}"));
            return None;
        }
        self.read(key, None, |value| parse(value).map(Some))
    }

    /// The strings of a list, each parsed. A mistake in one does not hide those in the others.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.find(key) else { return default };
        let Some(items) = value.get_ref().as_array() else {
            self.note_no_list(key, value);
            return default;
        };
        let read = |(place, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let name = format!("{}[{place}]", self.name(key));
            match text(self.value(item)).and_then(&parse) {
                Ok(item) => Some(item),
                Err(what) => {
                    self.diagnostics.error(item.span(), &name, what);
                    None
                }
            }
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    /// The items of a list, each a string or a table, parsed. A mistake in one does not hide those in the others.
    /// An empty error was noted already.
    pub(super) fn strings_or_tables<T>(
        &self,
        key: &'static str,
        parse: impl Fn(StringOrTable<'a>) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            self.note_no_list(key, value);
            return Vec::new();
        };
        let read = |(place, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let name = format!("{}[{place}]", self.name(key));
            let parsed = match item.get_ref().as_table() {
                Some(table) => {
                    parse(StringOrTable::Table(self.inner(name.clone(), Some(table), item.span())))
                }
                None => text(self.value(item)).and_then(|it| parse(StringOrTable::String(it))),
            };
            match parsed {
                Ok(item) => Some(item),
                Err(what) => {
                    if !what.is_empty() {
                        self.diagnostics.error(item.span(), &name, what);
                    }
                    None
                }
            }
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    /// The whole numbers of a list, each within bounds. A mistake in one does not hide those in the others.
    pub(super) fn numbers(
        &self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> Vec<usize> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.note(key, format_args!("expected a list of whole numbers, found {found}"));
            return Vec::new();
        };
        let read = |(place, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let name = format!("{}[{place}]", self.name(key));
            let number = whole(self.value(item), bounds.clone());
            number.map_err(|what| self.diagnostics.error(item.span(), &name, what)).ok()
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    fn note_no_list(&self, key: &'static str, value: &Spanned<DeValue<'_>>) {
        let found = value.get_ref().type_str();
        self.note(
            key,
            format_args!("expected a list of strings like [\"…\", \"…\"], found {found}"),
        );
    }

    /// A table inside this one. A table that is not written is empty.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let found = self.find(key);
        if let Some(value) = found
            && !value.get_ref().is_table()
        {
            let found = value.get_ref().type_str();
            let heading = self.heading(key);
            self.note(key, format_args!("expected a table, found {found}\nwrite [{heading}]"));
        }
        self.inner(
            self.name(key),
            found.and_then(|it| it.get_ref().as_table()),
            found.map_or(self.place.clone(), Spanned::span),
        )
    }

    /// The tables of a list of tables.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let name = self.name(key);
        let expected =
            || format!("expected a list of tables\nwrite [[{}]] for each", self.heading(key));
        let Some(items) = value.get_ref().as_array() else {
            self.note(key, expected());
            return Vec::new();
        };
        let inner = |(place, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let path = format!("{name}[{place}]");
            let table = item.get_ref().as_table();
            if table.is_none() {
                self.diagnostics.error(item.span(), &path, expected());
            }
            table.map(|table| self.inner(path, Some(table), item.span()))
        };
        items.iter().enumerate().filter_map(inner).collect()
    }

    /// The tables inside this one that have names of the user's own.
    pub(super) fn named(&self) -> Vec<(&'a str, Range<usize>, Self)> {
        let mut named = Vec::new();
        for (key, value) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            let path = self.name(name);
            match value.get_ref().as_table() {
                Some(table) => {
                    let section = self.inner(path, Some(table), value.span());
                    named.push((name, key.span(), section));
                }
                None => {
                    let found = value.get_ref().type_str();
                    let what = format!("expected a table, found {found}\nwrite [{path}]");
                    self.diagnostics.error(value.span(), &path, what);
                }
            }
        }
        named
    }

    /// The strings of a table with names of the user's own, each parsed. A mistake in one does not hide those in the
    /// others.
    pub(super) fn string_table<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&str, &str) -> Result<T, String>,
    ) -> Vec<T> {
        let inner = self.section(key);
        let entries = inner.table.into_iter().flatten();
        let read = |(name, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let name: &str = name.get_ref();
            match text(inner.value(value)).and_then(|it| parse(name, it)) {
                Ok(item) => Some(item),
                Err(what) => {
                    self.diagnostics.error(value.span(), &inner.name(name), what);
                    None
                }
            }
        };
        entries.filter_map(read).collect()
    }

    /// The entries of this table, with names of the user's own, each a value or a table, parsed. A mistake in one does not
    /// hide those in the others. An empty error was noted already.
    pub(super) fn values_or_tables<T>(
        &self,
        parse: impl Fn(&str, ValueOrTable<'a>) -> Result<T, String>,
    ) -> Vec<T> {
        let entries = self.table.into_iter().flatten();
        let read = |(key, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| {
            let name: &str = key.get_ref();
            let entry = match value.get_ref().as_table() {
                Some(table) => {
                    ValueOrTable::Table(self.inner(self.name(name), Some(table), value.span()))
                }
                None => ValueOrTable::Value(self.value(value)),
            };
            match parse(name, entry) {
                Ok(item) => Some(item),
                Err(what) => {
                    if !what.is_empty() {
                        self.diagnostics.error(key.span(), &self.name(name), what);
                    }
                    None
                }
            }
        };
        entries.filter_map(read).collect()
    }

    /// Whether a key that is not set is there under a similar name, which [`Self::finish`] reports.
    pub(super) fn is_misspelled(&self, key: &'static str) -> bool {
        self.unknown_entries().any(|(it, _)| nearest(it.get_ref(), &[key]).is_some())
    }

    /// Whether there is a table that was not read.
    pub(super) fn has_unknown_table(&self) -> bool {
        self.unknown_entries().any(|(_, value)| value.get_ref().as_table().is_some())
    }

    /// The keys that were not read so far.
    fn unknown_entries(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        let entries = self.table.into_iter().flatten();
        entries.filter(|(key, _)| !self.known.borrow().contains(&**key.get_ref()))
    }

    /// Notes every key that was not read.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (key, _) in self.unknown_entries() {
            let written: &str = key.get_ref();
            let all: Vec<_> = known.iter().copied().collect();
            let what = match nearest(written, &all) {
                Some(near) => format!("unknown key `{written}`\ndid you mean `{near}`?"),
                None => format!("unknown key `{written}`\nthe keys here are {}", all.join(", ")),
            };
            self.diagnostics.error(key.span(), &self.name(written), what);
        }
    }

    fn inner(&self, path: String, table: Option<&'a DeTable<'a>>, place: Range<usize>) -> Self {
        Self { path, table, place, known: RefCell::default(), diagnostics: self.diagnostics }
    }

    fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.borrow_mut().insert(key);
        self.table?.get(key)
    }

    fn value(&self, found: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        let start = found.span().start;
        Value {
            toml: found.get_ref(),
            is_expanded: self.diagnostics.expanded.borrow().contains(&start),
            folder: self.diagnostics.folder(start),
        }
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    fn type_str(self) -> &'static str {
        self.toml.type_str()
    }

    /// The folder of the file that it is written in.
    pub(super) fn folder(self) -> &'a Path {
        self.folder
    }
}

/// The text of a string.
pub(super) fn text(value: Value<'_>) -> Result<&str, String> {
    let found = value.toml.as_str();
    found.ok_or_else(|| format!("expected a string in quotes, found {}", value.type_str()))
}

/// A whole number within bounds.
pub(super) fn whole(
    value: Value<'_>,
    bounds: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    let (low, high) = (bounds.start(), bounds.end());
    let (digits, radix) = match (value.toml.as_integer(), value.toml.as_str()) {
        (Some(number), _) => (number.as_str(), number.radix()),
        (None, Some(text)) if value.is_expanded => (text, 10),
        _ => return Err(format!("expected a whole number, found {}", value.type_str())),
    };
    usize::from_str_radix(digits, radix)
        .ok()
        .filter(|it| bounds.contains(it))
        .ok_or_else(|| format!("expected a whole number from {low} to {high}, found {digits}"))
}

/// `true` or `false`.
pub(super) fn flag(value: Value<'_>) -> Result<bool, String> {
    match (value.toml.as_bool(), value.toml.as_str()) {
        (Some(flag), _) => Ok(flag),
        (None, Some(text)) if value.is_expanded => {
            text.parse().map_err(|_| format!("expected true or false, found `{text}`"))
        }
        _ => Err(format!("expected true or false, found {}", value.type_str())),
    }
}

/// One of some words, with what it stands for.
pub(super) fn word<T: Copy>(value: Value<'_>, words: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    let found = words.iter().find(|it| it.0 == text);
    found.map(|it| it.1).ok_or_else(|| {
        let quoted: Vec<_> = words.iter().map(|it| format!("\"{}\"", it.0)).collect();
        let (last, first) = quoted.split_last().expect("a list of words is never empty");
        match first {
            [] => format!("expected {last}, found \"{text}\""),
            first => format!("expected {} or {last}, found \"{text}\"", first.join(", ")),
        }
    })
}
