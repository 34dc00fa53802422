//! The cookies of Flipgate: read from a request, and removed from what is forwarded.

use crate::http1::{FieldLines, FieldName};

/// The cookies of one line, trimmed.
#[derive(Debug)]
struct Cookies<'a>(Option<&'a [u8]>);

/// The name of the preview cookie.
const NAME: &[u8] = b"flipgate_preview";

/// What the names of the cookies of pins begin with.
const PIN: &[u8] = b"flipgate_pin_";

/// The other cookies of Flipgate: what tells clients apart, and the token of those who go first.
const OTHERS: [&[u8]; 2] = [b"flipgate_share", b"flipgate_first"];

/// What the names of all of these begin with.
const COMMON: &[u8] = b"flipgate_";

/// Whether a request has cookies of Flipgate. Most have none, and then nothing has to be read or removed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct OwnCookies {
    exist: bool,
    has_preview: bool,
}

/// The values of all preview cookies of a request.
pub(super) fn preview_colors(lines: FieldLines<'_>) -> impl Iterator<Item = &[u8]> {
    lines.all(FieldName::Cookie).flat_map(|line| values(line, NAME))
}

/// Writes a line of cookies without those of Flipgate, unless there are no others. They stay unchanged.
pub(super) fn put_others(out: &mut Vec<u8>, line: &[u8]) {
    let mut begin: &[u8] = b"Cookie: ";
    let is_ours = |it: &[u8]| it.starts_with(COMMON) && is_ours(parts_of(it).0);
    for cookie in each(line).filter(|it| !it.is_empty() && !is_ours(it)) {
        out.extend_from_slice(begin);
        out.extend_from_slice(cookie);
        begin = b"; ";
    }
    if begin == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

/// The value of the first cookie with this name.
pub(super) fn value<'a>(line: &'a [u8], name: &'a [u8]) -> Option<&'a [u8]> {
    values(line, name).next()
}

/// The values of all cookies with this name.
pub(super) fn values<'a>(line: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let of_name = each(line).filter(move |it| it.starts_with(name));
    of_name.filter_map(move |cookie| {
        let (found, value) = parts_of(cookie);
        (found == name).then_some(value)
    })
}

fn each(line: &[u8]) -> Cookies<'_> {
    Cookies(Some(line))
}

fn is_ours(name: &[u8]) -> bool {
    name == NAME || name.starts_with(PIN) || OTHERS.contains(&name)
}

/// Name and value. RFC 6265, section 5.4: `name=value`.
fn parts_of(cookie: &[u8]) -> (&[u8], &[u8]) {
    let (name, value) = match memchr::memchr(b'=', cookie) {
        Some(equals) => (&cookie[..equals], &cookie[equals + 1..]),
        None => (cookie, &b""[..]),
    };
    (name.trim_ascii(), value.trim_ascii())
}

// === impl OwnCookies ===

impl OwnCookies {
    /// Looks at each cookie once.
    pub(super) fn of(lines: FieldLines<'_>) -> Self {
        match lines.has(FieldName::Cookie) {
            true => lines.all(FieldName::Cookie).fold(Self::default(), Self::with),
            false => Self::default(),
        }
    }

    /// Whether there may be any. False only if there are none.
    pub(super) fn exist(self) -> bool {
        self.exist
    }

    /// Whether the preview cookie may be there. False only if it is not.
    pub(super) fn have_preview(self) -> bool {
        self.has_preview
    }

    /// With those of another line.
    pub(super) fn with(mut self, line: &[u8]) -> Self {
        let mut rest = line;
        loop {
            let cookie = rest.trim_ascii_start();
            if cookie.starts_with(COMMON) {
                self.exist = true;
                self.has_preview |= cookie.starts_with(NAME);
            }
            match memchr::memchr(b';', cookie) {
                Some(end) => rest = &cookie[end + 1..],
                None => return self,
            }
        }
    }
}

// === impl Cookies ===

impl<'a> Iterator for Cookies<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.0?;
        let cookie = match memchr::memchr(b';', line) {
            Some(end) => {
                self.0 = Some(&line[end + 1..]);
                &line[..end]
            }
            None => {
                self.0 = None;
                line
            }
        };
        Some(cookie.trim_ascii())
    }
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
            ("flipgate_share=0; c=d; flipgate_first=1", Some("c=d")),
            ("flipgate_shares=0; flipgate_f=1", Some("flipgate_shares=0; flipgate_f=1")),
            ("a=b; flipgate_preview=green; c=d", Some("a=b; c=d")),
            ("a=flipgate_preview=green", Some("a=flipgate_preview=green")),
        ] {
            let mut out = Vec::new();
            put_others(&mut out, line.as_bytes());
            let left = left.map(|it| format!("Cookie: {it}\r\n")).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&out), left, "{line}");
            let own = OwnCookies::default().with(line.as_bytes());
            assert!(own.exist() || line.starts_with("a="), "{line}");
            assert_eq!(
                own.have_preview(),
                line.contains("flipgate_preview") && own.exist(),
                "{line}"
            );
        }
    }
}
