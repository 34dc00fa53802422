//! Whether a shared cache may keep a response: RFC 9111, sections 3 and 5.2.2.

use crate::http1::{FieldLines, FieldName};

/// Whether no shared cache may keep a response with these lines. `Set-Cookie` alone does not say so (section 7.3).
pub(in crate::proxy) fn is_private(lines: FieldLines<'_>) -> bool {
    let (mut is_private, mut is_not_stored, mut must_understand) = (false, false, false);
    for (name, own, value) in lines.each() {
        if name != FieldName::CacheControl {
            continue;
        }
        match own.len() {
            13 if own.eq_ignore_ascii_case(b"cache-control") => {
                // The qualified form, `private="set-cookie"`, lets a cache keep the rest.
                for directive in directives(value) {
                    is_private |= directive.eq_ignore_ascii_case(b"private");
                    is_not_stored |= directive.eq_ignore_ascii_case(b"no-store");
                    must_understand |= directive.eq_ignore_ascii_case(b"must-understand");
                }
            }
            7 if own.eq_ignore_ascii_case(b"expires") => {}
            // Some caches prefer these to `Cache-Control`.
            _ => return false,
        }
    }
    // A cache that understands the status ignores `no-store` beside `must-understand` (section 5.2.2.3).
    is_private || is_not_stored && !must_understand
}

/// Whether a response with these lines says for how long a cache may keep it, or that it may.
pub(in crate::proxy) fn is_stored_by_rule(lines: FieldLines<'_>) -> bool {
    lines.each().filter(|it| it.0 == FieldName::CacheControl).any(|(_, own, value)| {
        if !own.eq_ignore_ascii_case(b"cache-control") {
            // `Expires`, and what some caches prefer.
            return true;
        }
        directives(value).any(|it| {
            let name = it.split(|it| *it == b'=').next().unwrap_or_default().trim_ascii();
            [&b"public"[..], b"max-age", b"s-maxage"].iter().any(|it| name.eq_ignore_ascii_case(it))
        })
    })
}

/// Writes a `Cache-Control` that keeps shared caches away, and leaves what private ones may do.
pub(in crate::proxy) fn put_private(out: &mut Vec<u8>, lines: FieldLines<'_>) {
    /// What is said to private caches, too.
    const KEPT: [&[u8]; 6] = [
        b"max-age",
        b"no-cache",
        b"must-revalidate",
        b"no-transform",
        b"immutable",
        b"stale-while-revalidate",
    ];
    out.extend_from_slice(b"Cache-Control: private");
    let own = lines.each().filter(|(_, own, _)| own.eq_ignore_ascii_case(b"cache-control"));
    for directive in own.flat_map(|(_, _, value)| directives(value)) {
        let name = directive.split(|it| *it == b'=').next().unwrap_or_default().trim_ascii();
        if KEPT.iter().any(|it| name.eq_ignore_ascii_case(it)) {
            out.extend_from_slice(b", ");
            out.extend_from_slice(directive);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// The directives of a value. A comma within quotes separates none.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let split = move |it: &u8| {
        is_quoted ^= *it == b'"';
        *it == b',' && !is_quoted
    };
    value.split(split).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::samples;

    #[test]
    fn only_a_response_that_no_shared_cache_may_keep_is_private() {
        for (fields, expected) in [
            (&[][..], false),
            (&[("Cache-Control", "private")][..], true),
            (&[("cache-control", "max-age=60, No-Store")], true),
            (&[("Cache-Control", "max-age=60"), ("Cache-Control", "private")], true),
            (&[("Cache-Control", "no-cache")], false),
            (&[("Cache-Control", "no-store, must-understand, max-age=60")], false),
            (&[("Cache-Control", "must-understand"), ("Cache-Control", "no-store")], false),
            (&[("Cache-Control", "no-store, must-understand, private")], true),
            (&[("Cache-Control", "public, max-age=60")], false),
            (&[("Cache-Control", "private=\"set-cookie\"")], false),
            (&[("Cache-Control", "no-cache=\"set-cookie, private\"")], false),
            (&[("Cache-Control", "private"), ("CDN-Cache-Control", "max-age=60")], false),
            (&[("Cache-Control", "private"), ("Expires", "0")], true),
            (&[("Set-Cookie", "a=b")], false),
        ] {
            let (head, bytes) = samples::response(fields);
            assert_eq!(is_private(head.fields.lines(&bytes)), expected, "{fields:?}");
        }
    }

    #[test]
    fn what_private_caches_may_do_stays() {
        for (value, expected) in [
            ("public, max-age=60, s-maxage=9", "private, max-age=60"),
            ("No-Cache, proxy-revalidate", "private, No-Cache"),
            ("x=\"a, max-age=1\", must-revalidate", "private, must-revalidate"),
        ] {
            let (head, bytes) = samples::response(&[("Cache-Control", value)]);
            let mut out = Vec::new();
            put_private(&mut out, head.fields.lines(&bytes));
            assert_eq!(samples::read(&out)[0].1, expected);
        }
    }
}
