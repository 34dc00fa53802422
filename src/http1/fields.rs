//! The field lines of a head, as offsets into its bytes.

use std::mem::MaybeUninit;

use super::FieldName;

/// A part of the bytes of a head.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Span {
    start: u16,
    end: u16,
}

/// One field line: the meaning of its name, and the offsets of name and value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Field {
    /// The meaning of the name.
    pub name: FieldName,
    name_at: Span,
    value_at: Span,
    /// Where the next line begins.
    end: u16,
}

/// The field lines of a head, in order. Only valid together with the bytes that they were parsed from.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    all: Vec<Field>,
    /// A bit for each name that occurs.
    names: u64,
}

/// Field lines with the bytes of their head.
#[derive(Clone, Copy, Debug)]
pub struct FieldLines<'a> {
    fields: &'a Fields,
    head: &'a [u8],
}

/// One field line with the bytes of its head.
#[derive(Clone, Copy, Debug)]
pub struct FieldLine<'a> {
    field: Field,
    head: &'a [u8],
}

/// How the end of a message is found (section 6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Exact(u64),
    /// Chunked, with trailers.
    Chunked,
    /// Until the connection closes. Only for responses.
    UntilClose,
}

/// The largest declared length of a body or chunk, in bytes.
pub(super) const LENGTH_MAX: u64 = i64::MAX as u64;

/// The maximum number of field lines. RFC 9110 sets none; 100 is usual.
pub(super) const FIELDS_MAX: usize = 100;

/// Memory for the parser's result.
pub(super) type Scratch<'a> = [MaybeUninit<httparse::Header<'a>>; FIELDS_MAX];

/// The fields that concern framing and the connection, for both kinds of heads.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    /// The `Content-Length`, if there is one.
    pub(super) length: Option<u64>,
    /// The `Transfer-Encoding`, if there is one.
    pub(super) coding: Option<TransferCoding>,
    /// `Connection` contains `close`.
    pub(super) closes: bool,
    /// `Connection` contains `keep-alive`.
    pub(super) keeps_alive: bool,
    /// `Connection` contains `upgrade`.
    pub(super) upgrades: bool,
}

/// The value of `Transfer-Encoding`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TransferCoding {
    /// `chunked`, once, and nothing else.
    Chunked,
    /// Several codings, the last of which is `chunked`.
    ChunkedLast,
    /// Codings that do not end in `chunked`, so that the end of the body is unknown.
    Unterminated,
}

/// A `Content-Length` that is not exactly one number (section 6.3).
#[derive(Debug)]
pub(super) struct InvalidContentLength;

// === impl Span ===

impl Span {
    /// The offsets of `part`, which must be a subslice of `bytes`, in a head of less than 64 KiB.
    pub(super) fn of(bytes: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        Self::new(start, start + part.len())
    }

    pub(super) fn new(start: usize, end: usize) -> Self {
        let offset = |it: usize| u16::try_from(it).expect("heads are shorter than 64 KiB");
        Self { start: offset(start), end: offset(end) }
    }

    /// The bytes.
    #[must_use]
    pub(super) fn of_head(self, head: &[u8]) -> &[u8] {
        &head[usize::from(self.start)..usize::from(self.end)]
    }

    pub(super) fn start(self) -> usize {
        usize::from(self.start)
    }

    pub(super) fn end(self) -> usize {
        usize::from(self.end)
    }
}

// === impl Field ===

impl Field {
    fn of(head: &[u8], line: &httparse::Header<'_>) -> Self {
        let name_at = Span::of(head, line.name.as_bytes());
        let value_at = match line.value {
            [] => Span::new(name_at.end(), name_at.end()),
            value => Span::of(head, value),
        };
        // After the value there is only whitespace and the line end.
        let end = match head[value_at.end()..] {
            [b'\r', b'\n', ..] => value_at.end + 2,
            ref rest => {
                let spaces = memchr::memchr(b'\n', rest).map_or(0, |it| it + 1);
                Span::new(value_at.end(), value_at.end() + spaces).end
            }
        };
        Self { name: FieldName::of(line.name.as_bytes()), name_at, value_at, end }
    }

    /// The name as received.
    #[must_use]
    pub(super) fn name_in(self, head: &[u8]) -> &[u8] {
        self.name_at.of_head(head)
    }

    /// The value, trimmed.
    #[must_use]
    pub(super) fn value_in(self, head: &[u8]) -> &[u8] {
        self.value_at.of_head(head)
    }

    pub(super) fn value_at(self) -> Span {
        self.value_at
    }
}

// === impl Fields ===

impl Fields {
    /// The field lines that the parser found in `head`, or `None` if one of them, or the start line, does not end in
    /// CRLF.
    ///
    /// The parser accepts a bare LF as a line end, as section 2.2 allows; an upstream that does not would see other
    /// lines.
    pub(super) fn new(head: &[u8], found: &[httparse::Header<'_>]) -> Option<Self> {
        let ends_in_crlf = |at: usize| at >= 2 && head[at - 2..at] == *b"\r\n";
        let mut fields = Self { all: Vec::with_capacity(found.len()), names: 0 };
        for line in found {
            if !ends_in_crlf(Span::of(head, line.name.as_bytes()).start()) {
                return None;
            }
            fields.push(Field::of(head, line));
        }
        let is_valid = ends_in_crlf(head.len()) && ends_in_crlf(head.len() - 2);
        is_valid.then_some(fields)
    }

    /// The field lines, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Field> + '_ {
        self.all.iter().copied()
    }

    /// The field lines of a trailer section as received, without its final empty line, and their bytes. `None` if it is
    /// invalid.
    #[must_use]
    pub fn of_trailers(section: &[u8]) -> Option<(Self, Vec<u8>)> {
        if section.len() > usize::from(u16::MAX) - 2 {
            return None;
        }
        let whole = [section, b"\r\n"].concat();
        let mut found = [httparse::EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(&whole, &mut found) {
            Ok(httparse::Status::Complete((len, lines))) if len == whole.len() => {
                let mut fields = Self::default();
                lines.iter().for_each(|it| fields.push(Field::of(&whole, it)));
                Some((fields, whole))
            }
            _ => None,
        }
    }

    fn push(&mut self, field: Field) {
        self.names |= field.name.bit();
        self.all.push(field);
    }

    /// Whether a field with one of these names occurs.
    pub(super) fn has_any(&self, names: &[FieldName]) -> bool {
        names.iter().any(|it| self.names & it.bit() != 0)
    }

    /// The field lines with the bytes of their head.
    #[must_use]
    pub fn lines<'a>(&'a self, head: &'a [u8]) -> FieldLines<'a> {
        FieldLines { fields: self, head }
    }

    /// Evaluates the fields that concern framing and the connection.
    pub(super) fn framing_fields(
        &self,
        head: &[u8],
    ) -> Result<FramingFields, InvalidContentLength> {
        let mut framing = FramingFields::default();
        if !self.has_any(&[
            FieldName::ContentLength,
            FieldName::TransferEncoding,
            FieldName::Connection,
        ]) {
            return Ok(framing);
        }
        for field in self.iter() {
            match field.name {
                FieldName::ContentLength => {
                    let length = number(field.value_in(head)).ok_or(InvalidContentLength)?;
                    if framing.length.replace(length).is_some() {
                        return Err(InvalidContentLength);
                    }
                }
                FieldName::TransferEncoding => {
                    let coding = coding(field.value_in(head));
                    framing.coding = Some(match (framing.coding, coding) {
                        (None, coding) => coding,
                        (Some(_), TransferCoding::Unterminated) => TransferCoding::Unterminated,
                        (Some(_), _) => TransferCoding::ChunkedLast,
                    });
                }
                FieldName::Connection => {
                    for member in members(field.value_in(head)) {
                        framing.closes |= member.eq_ignore_ascii_case(b"close");
                        framing.keeps_alive |= member.eq_ignore_ascii_case(b"keep-alive");
                        framing.upgrades |= member.eq_ignore_ascii_case(b"upgrade");
                    }
                }
                _ => {}
            }
        }
        Ok(framing)
    }
}

// === impl FieldLine ===

impl<'a> FieldLine<'a> {
    /// The name as received.
    #[must_use]
    pub fn name(self) -> &'a [u8] {
        self.field.name_in(self.head)
    }

    /// The value, trimmed.
    #[must_use]
    pub fn value(self) -> &'a [u8] {
        self.field.value_in(self.head)
    }
}

// === impl FieldLines ===

impl<'a> FieldLines<'a> {
    /// The values of all fields with this name.
    pub fn all(self, name: FieldName) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |it| it.name == name).map(move |it| it.value_in(self.head))
    }

    /// The value of the first field with this name.
    #[must_use]
    pub fn first(self, name: FieldName) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Whether a field with this name occurs.
    #[must_use]
    pub fn has(self, name: FieldName) -> bool {
        self.fields.has_any(&[name])
    }

    /// Whether `Connection`, on any of its lines, contains this name.
    #[must_use]
    pub fn connection_lists(self, name: &[u8]) -> bool {
        let mut listed = self.all(FieldName::Connection).flat_map(members);
        listed.any(|it| it.eq_ignore_ascii_case(name))
    }

    /// Appends the lines that `is_kept` unchanged, contiguous ones at once.
    pub fn put_filtered(
        self,
        out: &mut Vec<u8>,
        mut is_kept: impl FnMut(FieldName, FieldLine<'a>) -> bool,
    ) {
        let mut run = 0..0;
        for field in self.fields.iter() {
            let line = field.name_at.start()..usize::from(field.end);
            match is_kept(field.name, FieldLine { field, head: self.head }) {
                true if run.end == line.start => run.end = line.end,
                true => {
                    out.extend_from_slice(&self.head[run]);
                    run = line;
                }
                false => {}
            }
        }
        out.extend_from_slice(&self.head[run]);
    }

    /// The field names that `Connection` lists, on all of its lines, without its own options. Usually empty.
    #[must_use]
    pub fn connection_listed(self) -> Vec<u8> {
        let words: [&[u8]; 4] = [b"close", b"keep-alive", b"upgrade", b"te"];
        let is_name = |it: &&[u8]| !words.iter().any(|word| it.eq_ignore_ascii_case(word));
        let names: Vec<&[u8]> =
            self.all(FieldName::Connection).flat_map(members).filter(is_name).collect();
        names.join(&b',')
    }

    /// All fields: the meaning of the name, the name as received, and the value.
    pub fn each(self) -> impl Iterator<Item = (FieldName, &'a [u8], &'a [u8])> {
        self.fields.iter().map(move |it| (it.name, it.name_in(self.head), it.value_in(self.head)))
    }
}

/// The members of a comma-separated list, trimmed, without empty ones (RFC 9110, section 5.6.1).
pub fn members(list: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    list.split(|it| *it == b',').map(<[u8]>::trim_ascii).filter(|it| !it.is_empty())
}

/// A number of decimal digits only; `parse` would accept a sign. It must fit into a signed 64-bit integer, as
/// applications use; otherwise they would read another length.
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let fold = || digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    is_number.then(fold).filter(|it| *it <= LENGTH_MAX)
}

fn coding(value: &[u8]) -> TransferCoding {
    if value.eq_ignore_ascii_case(b"chunked") {
        return TransferCoding::Chunked;
    }
    match members(value).next_back() {
        Some(last) if last.eq_ignore_ascii_case(b"chunked") => TransferCoding::ChunkedLast,
        _ => TransferCoding::Unterminated,
    }
}
