//! The preview cookie: read from a request, and removed from what is forwarded.

use memchr::memmem;

use crate::http1::{FieldLines, FieldName};

/// The name of the preview cookie.
const NAME: &[u8] = b"flipgate_preview";

/// The values of all preview cookies of a request.
pub(super) fn preview_colors(lines: FieldLines<'_>) -> impl Iterator<Item = &[u8]> {
    lines
        .all(FieldName::Cookie)
        .filter(|line| has_ours(line))
        .flat_map(|line| line.split(|it| *it == b';'))
        .filter_map(value_of_ours)
}

/// Whether a line may have the preview cookie. False only if it has none.
pub(super) fn has_ours(line: &[u8]) -> bool {
    memmem::find(line, NAME).is_some()
}

/// A line of cookies without the preview cookie; all others stay unchanged. `None` if there are no others.
pub(super) fn without_ours(line: &[u8]) -> Option<Vec<u8>> {
    let cookies = line.split(|it| *it == b';');
    let others: Vec<&[u8]> =
        cookies.map(<[u8]>::trim_ascii).filter(|it| value_of_ours(it).is_none()).collect();
    let joined = others.join(&b"; "[..]);
    (!joined.is_empty()).then_some(joined)
}

/// The value of the first cookie with this name.
pub(super) fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.split(|it| *it == b';').find_map(|cookie| value_of(cookie, name))
}

fn value_of_ours(cookie: &[u8]) -> Option<&[u8]> {
    value_of(cookie, NAME)
}

/// The value, if the cookie has this name. RFC 6265, section 5.4: `name=value`.
fn value_of<'a>(cookie: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let (name, value) = match cookie.iter().position(|it| *it == b'=') {
        Some(equals) => (&cookie[..equals], &cookie[equals + 1..]),
        None => (cookie, &b""[..]),
    };
    (name.trim_ascii() == wanted).then(|| value.trim_ascii())
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
    fn only_the_preview_cookie_is_taken_out() {
        for (line, left) in [
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
