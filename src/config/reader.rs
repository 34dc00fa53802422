//! Reading TOML so that every mistake of a file is found at once, each with its place.
//!
//! A derived reader stops at the first mistake. This one goes on with a default, and the file is
//! refused at the end if there was any.

use std::{cell::RefCell, collections::BTreeSet, fmt, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// One mistake in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The key, with the tables that it is in; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// The mistakes found so far.
#[derive(Debug)]
pub(super) struct Diagnostics<'a> {
    file: String,
    text: &'a str,
    found: RefCell<Vec<Diagnostic>>,
}

/// A table, and which of its keys were asked for.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a DeTable<'a>>,
    place: Range<usize>,
    asked: RefCell<BTreeSet<&'static str>>,
    mistakes: &'a Diagnostics<'a>,
}

/// An item of a list that may be a text or a table.
pub(super) enum StringOrTable<'a> {
    Text(&'a str),
    Table(Section<'a>),
}

// === impl Diagnostics ===

impl<'a> Diagnostics<'a> {
    pub(super) fn new(file: &Path, text: &'a str) -> Self {
        Self { file: file.display().to_string(), text, found: RefCell::default() }
    }

    pub(super) fn note(&self, place: Range<usize>, key: &str, what: impl fmt::Display) {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let (file, key, what) = (self.file.clone(), key.to_owned(), what.to_string());
        self.found.borrow_mut().push(Diagnostic { file, line, column, key, what });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut found = self.found.into_inner();
        found.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        found.dedup();
        found
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, key, what } = self;
        let colon = if key.is_empty() { "" } else { ": " };
        write!(f, "{file}:{line}:{column}: {key}{colon}{what}")
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a Spanned<DeTable<'a>>, mistakes: &'a Diagnostics<'a>) -> Self {
        let place = 0..0;
        Self {
            path: String::new(),
            table: Some(table.get_ref()),
            place,
            asked: RefCell::default(),
            mistakes,
        }
    }

    /// What to call a key of this table.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// How a table inside this one is written: without the places of those around it.
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

    /// Notes that a list of tables that has to be there is not.
    pub(super) fn note_missing(&self, key: &'static str, with: &str) {
        self.note(key, format_args!("is missing: write [[{}]] with {with}", self.heading(key)));
    }

    /// Whether the key is written.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Whether the key is written as a list of nothing.
    pub(super) fn is_empty_list(&self, key: &'static str) -> bool {
        let list = self.find(key).and_then(|it| it.get_ref().as_array());
        list.is_some_and(|it| it.is_empty())
    }

    /// Notes a mistake about a key, at its value or, if it is not written, at its table.
    pub(super) fn note(&self, key: &'static str, what: impl fmt::Display) {
        let place = self.find(key).map_or(self.place.clone(), Spanned::span);
        self.mistakes.note(place, &self.name(key), what);
    }

    /// Notes a mistake about this table itself.
    pub(super) fn note_at(&self, place: Range<usize>, what: impl fmt::Display) {
        self.mistakes.note(place, &self.path, what);
    }

    /// Where a key of the user's own is written.
    pub(super) fn place_of(&self, key: &str) -> Range<usize> {
        let found = self.table.and_then(|it| it.get_key_value(key));
        found.map_or(self.place.clone(), |(key, _)| key.span())
    }

    /// The value of a key, or `default` if it is not written.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> T {
        let Some(value) = self.find(key) else { return default };
        match parse(value.get_ref()) {
            Ok(value) => value,
            Err(what) => {
                self.mistakes.note(value.span(), &self.name(key), what);
                default
            }
        }
    }

    /// The value of a key that must be written.
    pub(super) fn need<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.note(key, format_args!("is missing: write {example}"));
            return None;
        }
        self.read(key, None, |value| parse(value).map(Some))
    }

    /// The texts of a list, each parsed; a mistake in one does not hide those in the others.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        default: Vec<T>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.find(key) else { return default };
        let Some(items) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.note(key, format_args!("is a list of texts, like [\"…\", \"…\"], not {found}"));
            return default;
        };
        let read = |(place, item): (usize, &Spanned<DeValue<'_>>)| {
            let name = format!("{}[{place}]", self.name(key));
            match text(item.get_ref()).and_then(&parse) {
                Ok(item) => Some(item),
                Err(what) => {
                    self.mistakes.note(item.span(), &name, what);
                    None
                }
            }
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    /// The items of a list, each a text or a table, parsed; a mistake in one does not hide those in the
    /// others. An empty mistake was noted already.
    pub(super) fn tables_or_texts<T>(
        &self,
        key: &'static str,
        parse: impl Fn(StringOrTable<'a>) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.find(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            let found = value.get_ref().type_str();
            self.note(key, format_args!("is a list of texts, like [\"…\", \"…\"], not {found}"));
            return Vec::new();
        };
        let read = |(place, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let name = format!("{}[{place}]", self.name(key));
            let parsed = match item.get_ref().as_table() {
                Some(table) => {
                    parse(StringOrTable::Table(self.inner(name.clone(), Some(table), item.span())))
                }
                None => text(item.get_ref()).and_then(|it| parse(StringOrTable::Text(it))),
            };
            match parsed {
                Ok(item) => Some(item),
                Err(what) => {
                    if !what.is_empty() {
                        self.mistakes.note(item.span(), &name, what);
                    }
                    None
                }
            }
        };
        items.iter().enumerate().filter_map(read).collect()
    }

    /// A table inside this one; one that is not written is empty.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let found = self.find(key);
        if let Some(value) = found
            && !value.get_ref().is_table()
        {
            let found = value.get_ref().type_str();
            let heading = self.heading(key);
            self.note(key, format_args!("is a table, written as [{heading}], not {found}"));
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
        let Some(items) = value.get_ref().as_array() else {
            let heading = self.heading(key);
            self.note(key, format_args!("is a list of tables, each written as [[{heading}]]"));
            return Vec::new();
        };
        let inner = |(place, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let path = format!("{name}[{place}]");
            let table = item.get_ref().as_table();
            if table.is_none() {
                let what = format!("is a table, written as [[{}]]", self.heading(key));
                self.mistakes.note(item.span(), &path, what);
            }
            table.map(|table| self.inner(path, Some(table), item.span()))
        };
        items.iter().enumerate().filter_map(inner).collect()
    }

    /// The tables inside this one, under names of the user's own.
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
                    let what = format!("is a table, written as [{path}]");
                    self.mistakes.note(value.span(), &path, what);
                }
            }
        }
        named
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let written: &str = key.get_ref();
            if asked.contains(written) {
                continue;
            }
            let nearest = asked.iter().map(|it| (distance(written, it), it)).min();
            let hint = match nearest {
                Some((distance, known)) if distance <= 2.max(written.len() / 3) => {
                    format!("is not a key here: did you mean `{known}`?")
                }
                _ => {
                    let known: Vec<_> = asked.iter().copied().collect();
                    format!("is not a key here: there are {}", known.join(", "))
                }
            };
            self.mistakes.note(key.span(), &self.name(written), hint);
        }
    }

    fn inner(&self, path: String, table: Option<&'a DeTable<'a>>, place: Range<usize>) -> Self {
        Self { path, table, place, asked: RefCell::default(), mistakes: self.mistakes }
    }

    fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.table?.get(key)
    }
}

/// The text of a value.
pub(super) fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| format!("is a text in quotes, not {}", value.type_str()))
}

/// A whole number within bounds.
pub(super) fn whole(
    value: &DeValue<'_>,
    bounds: std::ops::RangeInclusive<usize>,
) -> Result<usize, String> {
    let number =
        value.as_integer().ok_or_else(|| format!("is a whole number, not {}", value.type_str()))?;
    let (low, high) = (bounds.start(), bounds.end());
    usize::from_str_radix(number.as_str(), number.radix())
        .ok()
        .filter(|it| bounds.contains(it))
        .ok_or_else(|| format!("is a whole number from {low} to {high}, not {}", number.as_str()))
}

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("is true or false, not {}", value.type_str()))
}

/// How many characters must be put in, taken out or changed.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in two.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}
