//! The normal form of a path for routing.

use std::borrow::Cow;

/// Why a path is not routed: upstreams may read it in different ways.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// A percent sign without two hexadecimal digits (RFC 3986, section 2.1).
    #[error("the path has a percent sign without two hexadecimal digits")]
    Escape,
    /// An encoded NUL, which some programs take for the end of the path.
    #[error("the path has an encoded NUL")]
    Nul,
}

/// Normalizes a path (without its query) for routing: escapes of unreserved characters are decoded, then dot segments
/// are removed (RFC 3986, sections 6.2.2.2 and 5.2.4).
///
/// Only for the choice of a service; the path is forwarded as received. An encoded slash stays encoded, since it does
/// not separate segments. A plain path costs one scan and no copy.
///
/// # Errors
///
/// [`PathError`] if it cannot be normalized.
pub fn normalize_path(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    let has_escapes = memchr::memchr(b'%', path.as_bytes()).is_some();
    if !has_escapes && !path.contains("/.") {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = if has_escapes { decode_unreserved(path)? } else { path.to_owned() };
    Ok(Cow::Owned(remove_dot_segments(&decoded)))
}

fn decode_unreserved(path: &str) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escaped)) = rest.split_once('%') {
        decoded.push_str(plain);
        let digits = escaped.get(..2).ok_or(PathError::Escape)?;
        if !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(PathError::Escape);
        }
        match u8::from_str_radix(digits, 16).map_err(|_| PathError::Escape)? {
            0 => return Err(PathError::Nul),
            it if it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_' | b'~') => {
                decoded.push(char::from(it));
            }
            _ => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &escaped[2..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_dots = false;
    for segment in path.split('/').skip(1) {
        ends_in_dots = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    // `/a/.` and `/a/b/..` name the folder `/a/`, not the file `/a`.
    if ends_in_dots || normal.is_empty() {
        normal.push('/');
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_normal_form() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b", "/a//b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/../../a", "/a"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%61pi/x", "/api/x"),
            ("/a%2fb", "/a%2Fb"),
            ("/a/.well-known/..b", "/a/.well-known/..b"),
            ("/%c3%a4", "/%C3%A4"),
        ] {
            assert_eq!(normalize_path(raw).as_deref(), Ok(normal), "{raw}");
        }
    }

    #[test]
    fn an_ambiguous_path_is_rejected() {
        for (raw, error) in [
            ("", PathError::Relative),
            ("a", PathError::Relative),
            ("*", PathError::Relative),
            ("/%", PathError::Escape),
            ("/%4", PathError::Escape),
            ("/%zz", PathError::Escape),
            ("/%+1", PathError::Escape),
            ("/%ä", PathError::Escape),
            ("/a%00", PathError::Nul),
        ] {
            assert_eq!(normalize_path(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn normalization_is_idempotent() {
        let mut random = fastrand::Rng::with_seed(0x5eed);
        for round in 0..20_000 {
            let length = random.usize(0..12);
            let alphabet = ["/", ".", "..", "%2e", "%2F", "%25", "a", "%61"];
            let path: String = (0..length)
                .fold("/".to_owned(), |path, _| path + random.choice(alphabet).expect("not empty"));
            let once = normalize_path(&path).expect("well-formed").into_owned();
            assert_eq!(normalize_path(&once).as_deref(), Ok(once.as_str()), "{round}: {path}");
        }
    }
}
