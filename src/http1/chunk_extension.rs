//! Chunk extensions (section 7.1.1). They are not forwarded, but must be parsed strictly: a recipient that parses them
//! differently would find another end of the chunk.

/// The state of the parser.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ChunkExtension {
    /// After a `;`.
    Begin,
    /// In a name.
    Name,
    /// In whitespace after a name.
    AfterName,
    /// After a `=`.
    Equals,
    /// In a token value.
    Token,
    /// In a quoted value.
    Quoted,
    /// After a backslash in a quoted value.
    Escaped,
    /// After the closing quote.
    Closed,
    /// In whitespace after a value.
    AfterValue,
}

// === impl ChunkExtension ===

impl ChunkExtension {
    /// After the first `;`.
    pub(super) const BEGIN: Self = Self::Begin;

    /// Whether the line may end here.
    pub(super) fn may_end(self) -> bool {
        matches!(self, Self::Name | Self::Token | Self::Closed)
    }

    /// The state after one more byte, if it is allowed here.
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

/// A token character (RFC 9110, section 5.6.2).
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
