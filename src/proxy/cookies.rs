//! The preview cookie: read from a request, and taken out of what is forwarded.

use http::{HeaderMap, HeaderValue, header::COOKIE};
use memchr::memmem;

/// The cookie that wishes for a color.
const NAME: &[u8] = b"flipgate_preview";

/// The values of all preview cookies of a request.
pub(super) fn wishes(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter(|line| memmem::find(line.as_bytes(), NAME).is_some())
        .flat_map(|line| line.as_bytes().split(|it| *it == b';'))
        .filter_map(value_of_ours)
}

/// Takes the preview cookie out of a request that has one; all others stay as they are.
pub(super) fn strip(headers: &mut HeaderMap) {
    let lines = headers.get_all(COOKIE);
    if !lines.iter().any(|line| memmem::find(line.as_bytes(), NAME).is_some()) {
        return;
    }
    let kept: Vec<HeaderValue> = lines.iter().filter_map(without_ours).collect();
    headers.remove(COOKIE);
    for line in kept {
        headers.append(COOKIE, line);
    }
}

fn without_ours(line: &HeaderValue) -> Option<HeaderValue> {
    let cookies = line.as_bytes().split(|it| *it == b';');
    let others: Vec<&[u8]> =
        cookies.map(<[u8]>::trim_ascii).filter(|it| value_of_ours(it).is_none()).collect();
    let joined = others.join(&b"; "[..]);
    (!joined.is_empty())
        .then(|| HeaderValue::from_bytes(&joined).expect("parts of a valid value, joined by `; `"))
}

/// The value, if the cookie is ours. RFC 6265, section 5.4: `name=value`.
fn value_of_ours(cookie: &[u8]) -> Option<&[u8]> {
    let (name, value) = match cookie.iter().position(|it| *it == b'=') {
        Some(equals) => (&cookie[..equals], &cookie[equals + 1..]),
        None => (cookie, &b""[..]),
    };
    (name.trim_ascii() == NAME).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies(lines: &[&'static str]) -> HeaderMap {
        lines.iter().map(|it| (COOKIE, HeaderValue::from_static(it))).collect()
    }

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
            let headers = cookies(lines);
            let values: Vec<_> = wishes(&headers).map(String::from_utf8_lossy).collect();
            assert_eq!(values, found, "{lines:?}");
        }
    }

    #[test]
    fn only_the_preview_cookie_is_taken_out() {
        for (lines, left) in [
            (&["a=b; c=\"d\""][..], &["a=b; c=\"d\""][..]),
            (&["flipgate_preview=green"], &[]),
            (&["a=b; flipgate_preview=green; c=d"], &["a=b; c=d"]),
            (&["a=b", "flipgate_preview=green"], &["a=b"]),
            (&["a=flipgate_preview=green"], &["a=flipgate_preview=green"]),
        ] {
            let mut headers = cookies(lines);
            strip(&mut headers);
            let values: Vec<_> = headers.get_all(COOKIE).iter().collect();
            assert_eq!(values, left, "{lines:?}");
        }
    }
}
