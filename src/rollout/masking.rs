//! Keeps secrets out of what is kept: messages, outputs and responses.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use super::values::percent_encoded;

/// Texts that must not be shown: secrets, and how they look in other encodings.
#[derive(Clone, Debug, Default)]
pub(super) struct Masked(Vec<String>);

/// A shorter text is a part of many others, so that masking it would hide nothing and garble all.
const LENGTH_MIN: usize = 4;

/// What stands in its place.
const MASK: &str = "***";

// === impl Masked ===

impl Masked {
    /// Masks these secrets, as they are, in base64 (also as a part of what was encoded), and percent-encoded.
    #[must_use]
    pub(super) fn new<'s>(secrets: impl IntoIterator<Item = &'s str>) -> Self {
        let mut all: Vec<String> = secrets.into_iter().flat_map(forms).collect();
        // The longest first: a secret may contain another one.
        all.sort_by_key(|it| std::cmp::Reverse(it.len()));
        all.dedup();
        Self(all)
    }

    /// The text without the secrets.
    #[must_use]
    pub(super) fn mask(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, it| text.replace(it.as_str(), MASK))
    }
}

/// The forms of a secret.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned(), percent_encoded(secret)];
    let quoted = serde_json::Value::from(secret).to_string();
    forms.push(quoted[1..quoted.len() - 1].to_owned());
    for before in 0..3 {
        // Base64 has four characters for three bytes: the secret may begin at any of the three. The characters at its ends
        // depend on what stands beside it.
        let bytes = [&vec![0; before][..], secret.as_bytes()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            let from = if before == 0 { 0 } else { before + 1 };
            let until = bytes.len() / 3 * 4 + [0, 1, 2][bytes.len() % 3];
            forms.extend(encoded.get(from..until).map(str::to_owned));
        }
    }
    forms.retain(|it| it.len() >= LENGTH_MIN);
    forms
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_secret_is_masked_in_every_encoding_and_at_every_place() {
        let secret = "s3same/stre?t+\"";
        let masked = Masked::new([secret, "abc"]);
        let encoded = percent_encoded(secret);
        let json = serde_json::json!({"token": secret}).to_string();
        for text in [secret.to_owned(), encoded.clone(), format!("?token={encoded}&x=1"), json] {
            let shown = masked.mask(&text);
            assert!(shown.contains(MASK) && !shown.contains("same"), "{shown}");
        }
        for before in ["", "u:", "user:", "a:b", "abcd"] {
            for after in ["", ":", "xyz", "\n"] {
                for encoded in [
                    STANDARD.encode(format!("{before}{secret}{after}")),
                    URL_SAFE_NO_PAD.encode(format!("{before}{secret}{after}")),
                ] {
                    let shown = masked.mask(&format!("Basic {encoded}"));
                    // At most the characters at its ends are left.
                    let left = shown.len() - "Basic ".len() - MASK.len();
                    let others = (before.len() + after.len()) * 4 / 3 + 6;
                    assert!(shown.contains(MASK) && left <= others, "{before}{after}: {shown}");
                }
            }
        }
        assert_eq!(masked.mask("abc is too short to be masked"), "abc is too short to be masked");
        assert_eq!(Masked::default().mask("nothing"), "nothing");
    }
}
