//! The cookies of Flipgate: read from a request, and removed from what is forwarded.

use memchr::memmem;

use crate::http1::{FieldLines, FieldName};

/// The name of the preview cookie.
const NAME: &[u8] = b"flipgate_preview";

/// What the names of the cookies of pins begin with.
const PIN: &[u8] = b"flipgate_pin_";

/// What the names of all of these begin with.
const COMMON: &[u8] = b"flipgate_p";

/// The values of all preview cookies of a request.
pub(super) fn preview_colors(lines: FieldLines<'_>) -> impl Iterator<Item = &[u8]> {
    lines
        .all(FieldName::Cookie)
        .filter(|line| has_ours(line))
        .flat_map(|line| line.split(|it| *it == b';'))
        .filter_map(value_of_ours)
}

/// Whether a line may have a cookie of Flipgate. False only if it has none.
pub(super) fn has_ours(line: &[u8]) -> bool {
    memmem::find(line, COMMON).is_some()
}

/// A line of cookies without those of Flipgate; all others stay unchanged. `None` if there are no others.
pub(super) fn without_ours(line: &[u8]) -> Option<Vec<u8>> {
    let cookies = line.split(|it| *it == b';');
    let others: Vec<&[u8]> =
        cookies.map(<[u8]>::trim_ascii).filter(|it| !is_ours(parts_of(it).0)).collect();
    let joined = others.join(&b"; "[..]);
    (!joined.is_empty()).then_some(joined)
}

/// The value of the first cookie with this name.
pub(super) fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    values(line, name).next()
}

/// The values of all cookies with this name.
pub(super) fn values<'a>(line: &'a [u8], name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    line.split(|it| *it == b';').filter_map(move |cookie| value_of(cookie, name))
}

fn is_ours(name: &[u8]) -> bool {
    name == NAME || name.starts_with(PIN)
}

fn value_of_ours(cookie: &[u8]) -> Option<&[u8]> {
    value_of(cookie, NAME)
}

/// The value, if the cookie has this name.
fn value_of<'a>(cookie: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let (name, value) = parts_of(cookie);
    (name == wanted).then_some(value)
}

/// Name and value. RFC 6265, section 5.4: `name=value`.
fn parts_of(cookie: &[u8]) -> (&[u8], &[u8]) {
    let (name, value) = match memchr::memchr(b'=', cookie) {
        Some(equals) => (&cookie[..equals], &cookie[equals + 1..]),
        None => (cookie, &b""[..]),
    };
    (name.trim_ascii(), value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    #[test]
    fn the_preview_cookie_is_found_among_others() {
        for (lines, found) in [
            (&["a=b"][..], &[][..]),
            (&["flipgate_preview=green"], &["green"][..]),
            (&["a=b; flipgate_preview=green;c=d"], &["green"]),
            (&["a=b", "flipgate_preview=blue; flipgate_preview=green"], &["blue", "green"]),
            (&["xflipgate_preview=green; flipgate_previews=blue"], &[]),
            (&["a=flipgate_preview=green"], &[]),
            (&["flipgate_preview"], &[""]),
        ] {
            let fields: Vec<_> = lines.iter().map(|it| ("Cookie", *it)).collect();
            let (head, bytes) = samples::request(&fields);
            let values: Vec<_> =
                preview_colors(head.fields.lines(&bytes)).map(String::from_utf8_lossy).collect();
            assert_eq!(values, found, "{lines:?}");
        }
    }

    #[test]
    fn only_cookies_of_flipgate_are_taken_out() {
        for (line, left) in [
            ("flipgate_pin_web=abc", None),
            ("flipgate_pin_web=abc; a=b; flipgate_pin_api=d", Some("a=b")),
            (
                "flipgate_pin=1; flipgate_px=2; a=flipgate_pin_web",
                Some("flipgate_pin=1; flipgate_px=2; a=flipgate_pin_web"),
            ),
            ("a=b; c=\"d\"", Some("a=b; c=\"d\"")),
            ("flipgate_preview=green", None),
            ("a=b; flipgate_preview=green; c=d", Some("a=b; c=d")),
            ("a=flipgate_preview=green", Some("a=flipgate_preview=green")),
        ] {
            let found = without_ours(line.as_bytes());
            assert_eq!(found.as_deref(), left.map(str::as_bytes), "{line}");
        }
    }
}
