//! The extensions that a handshake has negotiated, as far as they change frames.

/// What the extensions of a connection do to its frames (section 9).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extensions {
    /// There are none.
    None,
    /// `permessage-deflate` alone: RSV1 marks a compressed message, and frames are where they were (RFC 7692).
    Deflate,
    /// Others, which may use the reserved bits and opcodes in any way.
    Unknown,
}

// === impl Extensions ===

impl Extensions {
    /// The extensions that these values of `Sec-WebSocket-Extensions` in a response accept.
    pub fn of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Self::None;
        for value in values {
            // A parameter may be a quoted string (section 9.1), but those of this extension are numbers. A comma or
            // semicolon in a string makes a name that is not known.
            for extension in value.split(|it| *it == b',') {
                let name = extension.split(|it| *it == b';').next().unwrap_or_default();
                match name.trim_ascii() {
                    // An empty member of a list: RFC 9110, section 5.6.1.2.
                    [] if extension.trim_ascii().is_empty() => {}
                    name if name.eq_ignore_ascii_case(b"permessage-deflate") => {
                        // Twice would be twice compressed.
                        found = if found == Self::None { Self::Deflate } else { Self::Unknown };
                    }
                    _ => return Self::Unknown,
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Extensions {
        Extensions::of(values.iter().map(|it| it.as_bytes()))
    }

    #[test]
    fn only_permessage_deflate_is_known() {
        assert_eq!(of(&[]), Extensions::None);
        assert_eq!(of(&["", " , "]), Extensions::None);
        assert_eq!(of(&["permessage-deflate"]), Extensions::Deflate);
        let deflate =
            "Permessage-Deflate; server_no_context_takeover; client_max_window_bits=\"10\"";
        assert_eq!(of(&[deflate, ""]), Extensions::Deflate);
        for unknown in [
            &["x-webkit-deflate-frame"][..],
            &["permessage-deflate, bbf-usp-protocol"],
            &["permessage-deflate", "x"],
            &["permessage-deflate, permessage-deflate"],
            &["permessage-deflate-x"],
            &["permessage-deflate; a=\"b, c\""],
            &["; a"],
        ] {
            assert_eq!(of(unknown), Extensions::Unknown, "{unknown:?}");
        }
    }
}
