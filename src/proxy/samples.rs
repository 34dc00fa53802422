//! Heads for the tests of this room.

use crate::http1::{Fields, RequestHead, ResponseHead};

/// A request with these header lines, and its bytes. A `Host` is added if there is none.
pub(super) fn request(fields: &[(&str, &str)]) -> (RequestHead, Vec<u8>) {
    let mut text = "GET / HTTP/1.1\r\n".to_owned();
    if !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        text.push_str("Host: a\r\n");
    }
    text.push_str(&lines(fields));
    text.push_str("\r\n");
    let head = RequestHead::parse(text.as_bytes()).expect("a good head").expect("a whole one");
    (head, text.into_bytes())
}

/// A response with these header lines, and its bytes.
pub(super) fn response(fields: &[(&str, &str)]) -> (ResponseHead, Vec<u8>) {
    let text = format!("HTTP/1.1 200 OK\r\n{}\r\n", lines(fields));
    let head = ResponseHead::parse(text.as_bytes()).expect("a good head").expect("a whole one");
    (head, text.into_bytes())
}

/// Header lines as bytes.
pub(super) fn lines(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// Lower-case names and values of the lines up to the empty one.
pub(super) fn read(lines: &[u8]) -> Vec<(String, String)> {
    let end = memchr::memmem::find(lines, b"\r\n\r\n").map_or(lines.len(), |it| it + 2);
    let (fields, bytes) = Fields::of_trailers(&lines[..end]).expect("good lines");
    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    let each = fields.lines(&bytes);
    each.each().map(|(_, name, value)| (text(name).to_ascii_lowercase(), text(value))).collect()
}

/// The values of a name.
pub(super) fn values<'a>(lines: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    lines.iter().filter(|it| it.0 == name).map(|it| &*it.1).collect()
}
