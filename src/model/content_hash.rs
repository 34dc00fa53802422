//! Which file names have a hash of their content, so that the name belongs to one version of the file only.
//!
//! Bundlers write the hash in different alphabets and places:
//!
//! ```text
//! main.3f2c9a7b.chunk.css               webpack, Rspack, Parcel, Create React App: hex
//! app-3f2c9a7b1d2e4f5a6b7c8d9e.js       esbuild plugins, Propshaft, Sprockets, Phoenix: hex
//! app.55e7cbb9ba48.css                  Django: hex
//! framework-2c79e2a64abdb08b.js         Next.js: hex
//! e4af272ccee01ff0-s.p.woff2            fonts of Next.js: hex first
//! main-5XGYVLKO.js                      Angular, esbuild: eight of A-Z and 2-7
//! index-BnNHzxs9.js, index-B_-x1dEf.js  Vite, Rollup: base64url, also with `-` and `_`
//! entry.BxJ1k3dZ.js, BnNHzxs9.js        SvelteKit, Nuxt: base64url, also alone
//! ```

/// The shortest hash that bundlers write by default.
const HASH_MIN: usize = 8;

/// The separators of the parts of a name.
const SEPARATORS: &[u8] = b".-_~";

/// Whether a file name has a hash of its content. In doubt, words are words: of the hashes of base64url, less than one in a
/// hundred is not found behind a separator, and three where the name is nothing else.
#[must_use]
pub fn has_content_hash(name: &str) -> bool {
    let Some((stem, _extension)) = name.rsplit_once('.') else { return false };
    let mut parts = stem.as_bytes().split(|it| SEPARATORS.contains(it));
    let first = parts.next().unwrap_or_default();
    let is_alone = first.len() == stem.len();
    is_hex_hash(first)
        || is_alone && first.len() == HASH_MIN && is_mixed(first) && !is_words(first)
        || parts.any(|it| is_hex_hash(it) || is_hash_of_part(it))
        || ends_in_base64url(stem.as_bytes())
}

/// Hexadecimal digits of one case. A number, such as a date, belongs to one version, too.
fn is_hex_hash(part: &[u8]) -> bool {
    let is_lower = part.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let is_upper = part.iter().all(|it| matches!(it, b'0'..=b'9' | b'A'..=b'F'));
    part.len() >= HASH_MIN && (is_lower || is_upper)
}

/// A hash behind a separator.
fn is_hash_of_part(part: &[u8]) -> bool {
    if part.len() < HASH_MIN || !part.iter().all(u8::is_ascii_alphanumeric) {
        return false;
    }
    let has = |is_kind: fn(&u8) -> bool| part.iter().any(is_kind);
    let is_base32 = part.iter().all(|it| matches!(it, b'A'..=b'Z' | b'2'..=b'7'));
    // A page loads many files, so a hash that happens to look like words must be found. Words of both cases with just this
    // length are rare there.
    let has_both_cases = has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase);
    part.len() == HASH_MIN && (is_base32 || has_both_cases) || is_mixed(part) && !is_words(part)
}

/// Whether the last eight characters are a hash of base64url with a `-` or `_` in it.
fn ends_in_base64url(stem: &[u8]) -> bool {
    let Some(start) = stem.len().checked_sub(HASH_MIN) else { return false };
    let (before, hash) = stem.split_at(start);
    let is_apart = before.last().is_none_or(|it| matches!(it, b'-' | b'.'));
    let is_base64url = hash.iter().all(|it| it.is_ascii_alphanumeric() || b"-_".contains(it));
    let has_separator = hash.iter().any(|it| b"-_".contains(it));
    // Words and numbers between separators, such as `Foo-Bar1`, are no hash.
    let are_plain = hash.split(|it| b"-_".contains(it)).all(is_plain_word);
    is_apart && is_base64url && has_separator && is_mixed(hash) && !are_plain
}

/// Whether a part is one word of one case, perhaps with a capital, one letter, or nothing, and a number: `Foo1`, `API`, `v2`.
fn is_plain_word(part: &[u8]) -> bool {
    let digits = part.iter().rev().take_while(|it| it.is_ascii_digit()).count();
    match &part[..part.len() - digits] {
        [] => true,
        [only] => only.is_ascii_alphabetic(),
        [first, rest @ ..] => {
            let is_lower = rest.iter().all(u8::is_ascii_lowercase);
            let is_upper = rest.iter().all(u8::is_ascii_uppercase);
            // A capital and one letter are no word.
            let is_word = is_lower && (first.is_ascii_lowercase() || rest.len() >= 2);
            first.is_ascii_alphabetic() && is_word || first.is_ascii_uppercase() && is_upper
        }
    }
}

/// Whether there are characters of two kinds: lower case, upper case, digits.
fn is_mixed(part: &[u8]) -> bool {
    let kinds: [fn(&u8) -> bool; 3] =
        [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    kinds.iter().filter(|is_kind| part.iter().any(is_kind)).count() >= 2
}

/// Whether a part is words and perhaps a short number: `bootstrap5`, `UserProfile`, `registerSW`.
fn is_words(part: &[u8]) -> bool {
    let digits = part.iter().rev().take_while(|it| it.is_ascii_digit()).count();
    let letters = &part[..part.len() - digits];
    if digits > 3 || !letters.iter().all(u8::is_ascii_alphabetic) {
        return false;
    }
    // Each word has a lower-case letter behind its upper-case ones, or is of upper case up to the end. A word of one
    // letter is none.
    let mut rest = letters;
    while !rest.is_empty() {
        let upper = rest.iter().take_while(|it| it.is_ascii_uppercase()).count();
        let lower = rest[upper..].iter().take_while(|it| it.is_ascii_lowercase()).count();
        let is_acronym = upper >= 2 && upper == rest.len();
        if !is_acronym && (upper > 1 || lower < 2) {
            return false;
        }
        rest = &rest[upper + lower..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_bundlers_write_them_have_a_hash() {
        for name in [
            "app.3f2c9a7b.js",
            "app-3f2c9a7b.js",
            "main.3f2c9a7b.chunk.css",
            "main.3f2c9a7b.js.map",
            "787.28cb0dcd.chunk.js",
            "main.5c8e0f0b2a6a7b9c1f34.js",
            "12345678.js",
            "app.20240115.js",
            "app.55e7cbb9ba48.css",
            "logo.3F2C9A7B.svg",
            "framework-2c79e2a64abdb08b.js",
            "2c79e2a64abdb08b.css",
            "e4af272ccee01ff0-s.p.woff2",
            "application-d41d8cd98f00b204e9800998ecf8427ed41d8cd98f00b204e9800998ecf8427e.css",
            "main-5XGYVLKO.js",
            "chunk-FFHMDTLX.js",
            "index-BnNHzxs9.js",
            "index-DiwrgTda.css",
            "index-mdoBym_w.js",
            "index-B_-x1dEf.js",
            "index--x1dEfB_.css",
            "vendor-C4mzR_2b.js",
            "entry.BxJ1k3dZ.js",
            "BnNHzxs9.js",
            "Bn_Hz-s9.js",
            "UserProfile-BnNHzxs9.js",
            "inter-latin.x8Kd92mQ.woff2",
        ] {
            assert!(has_content_hash(name), "{name}");
        }
    }

    #[test]
    fn names_of_files_that_stay_have_none() {
        for name in [
            "",
            "app",
            "3f2c9a7b",
            "app.js",
            "sw.js",
            "service-worker.js",
            "registerSW.js",
            "workbox-sw.js",
            "manifest.json",
            "manifest.webmanifest",
            "asset-manifest.json",
            "favicon.ico",
            "robots.txt",
            "jquery-3.6.0.min.js",
            "jquery-ui-1.13.2.custom.min.css",
            "bootstrap.bundle.min.js",
            "bootstrap5.min.js",
            "angular19.js",
            "app-settings.js",
            "app-UserSettings.js",
            "app.component.js",
            "UserProfile.js",
            "my-app-v2.js",
            "Foo-Bar1.js",
            "foo-bar-2024.js",
            "foo-3-v2-min.js",
            "apple-touch-icon-180x180.png",
            "fontawesome-webfont.woff2",
            "inter-latin-400-normal.woff2",
            "app.3f2c.js",
            "app-3f2c9a7.js",
            "polyfills.js",
            "UserData.js",
            "x.3f2c9a7b/app.js",
        ] {
            assert!(!has_content_hash(name.rsplit('/').next().unwrap_or_default()), "{name}");
        }
    }
}
