//! The extensions of a chunk: RFC 9112, section 7.1.1. They are left out, but a recipient that reads them
//! otherwise would find another end of them, and so of the chunk.

/// Where in an extension the bytes so far have led.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ChunkExtension {
    /// Behind a `;`.
    Begin,
    /// In a name.
    Name,
    /// In the space behind a name.
    AfterName,
    /// Behind a `=`.
    Equals,
    /// In a value that is a token.
    Token,
    /// In a value in quotes.
    Quoted,
    /// Behind a backslash in it.
    Escaped,
    /// Behind its last quote.
    Closed,
    /// In the space behind a value.
    AfterValue,
}

// === impl ChunkExtension ===

impl ChunkExtension {
    /// Behind the first `;`.
    pub(super) const BEGIN: Self = Self::Begin;

    /// Whether the line may end here.
    pub(super) fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Token | Self::Closed)
    }

    /// Where one more byte leads, if it may stand here.
    pub(super) fn next(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Quoted, b'"') => Self::Closed,
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted | Self::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Self::Quoted,
            (Self::Quoted | Self::Escaped, _) => return None,
            (Self::Begin, b' ' | b'\t') => Self::Begin,
            (Self::Equals, b' ' | b'\t') => Self::Equals,
            (Self::Equals, b'"') => Self::Quoted,
            (Self::Name | Self::AfterName, b' ' | b'\t') => Self::AfterName,
            (Self::Name | Self::AfterName, b'=') => Self::Equals,
            (Self::Token | Self::Closed | Self::AfterValue, b' ' | b'\t') => Self::AfterValue,
            (Self::Begin | Self::Equals, b';') => return None,
            (_, b';') => Self::Begin,
            (Self::Begin | Self::Name, it) if is_token_byte(it) => Self::Name,
            (Self::Equals | Self::Token, it) if is_token_byte(it) => Self::Token,
            _ => return None,
        })
    }
}

/// RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_a_name_with_or_without_a_value() {
        let read = |text: &str| {
            let last = text.bytes().try_fold(ChunkExtension::BEGIN, ChunkExtension::next);
            last.is_some_and(ChunkExtension::may_end)
        };
        for valid in [
            "a",
            "a=b",
            "a=\"\"",
            "a=\"b;\\\" \u{e9}\"",
            " a",
            "a = b",
            "a\t;b",
            "a=b ;c=\"d\";e",
            "!=~",
        ] {
            assert!(read(valid), "{valid:?}");
        }
        for invalid in [
            "",
            " ",
            "=",
            "=b",
            "a=",
            "a= ",
            "a=\"",
            "a=\"b",
            "a=\"b\\",
            "a=\"b\"c",
            "a ",
            "a=b ",
            "a b",
            "a=b c",
            ";",
            "a;",
            "a;;b",
            "a(",
            "a=(",
            "\u{e9}",
            "a=\u{e9}",
            "a=\"\u{1}\"",
            "a\n",
        ] {
            assert!(!read(invalid), "{invalid:?}");
        }
    }
}
