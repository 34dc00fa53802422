//! Text of others, which may hold more than what it shows.

use std::borrow::Cow;

/// Text of others as it can be shown: control characters, and characters that change the direction or are
/// invisible (Unicode Technical Report 36, section 3.1), appear as `\u{…}`.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_deceptive) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::new();
    for it in text.chars() {
        match is_deceptive(it) {
            true => escaped.extend(it.escape_unicode()),
            false => escaped.push(it),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character does something else than to show itself: controls, line and paragraph separators,
/// marks and overrides of direction, what is invisible, and tags.
#[must_use]
pub fn is_deceptive(it: char) -> bool {
    it.is_control()
        || matches!(it,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_change_the_text_around_them_are_escaped() {
        assert_eq!(escape("8.0\u{202e}0.9"), "8.0\\u{202e}0.9");
        assert_eq!(escape("a\x1b[2Jb\r\n"), "a\\u{1b}[2Jb\\u{d}\\u{a}");
        for plain in ["8.0-rc.1+build", "größer", "版本 8", "e\u{301}"] {
            assert!(matches!(escape(plain), Cow::Borrowed(it) if it == plain));
        }
        for it in ["\u{2066}", "\u{200b}", "\u{2029}", "\u{9b}", "\u{7f}", "\u{feff}"] {
            assert!(escape(it).starts_with("\\u{"), "{it:?}");
        }
    }
}
