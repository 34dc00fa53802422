//! Keeps secrets out of what is kept: messages, outputs and responses.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use super::{
    child::{Output, Tail},
    values::percent_encoded,
};

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

    /// The output of a command without the secrets, also at the place where something of it was left out: the part of a
    /// secret that stands next to it.
    #[must_use]
    pub(super) fn mask_cut(&self, output: Output) -> String {
        let Output { head, tail } = output;
        let head = self.mask(&head);
        let Some(Tail { left_out, text }) = tail else { return head };
        let tail = self.mask(&text);
        // Half of a character.
        let head = head.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let tail = tail.trim_start_matches(char::REPLACEMENT_CHARACTER);
        let begin = self.parts().filter(|(begin, _)| head.ends_with(begin)).map(|it| it.0.len());
        let end = self.parts().filter(|(_, end)| tail.starts_with(end)).map(|it| it.1.len());
        let head = &head[..head.len() - begin.max().unwrap_or_default()];
        let tail = &tail[end.max().unwrap_or_default()..];
        format!("{head}\n… {left_out} bytes left out …\n{tail}")
    }

    /// All ways to cut a secret in two.
    fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        let cuts =
            |it: &String| (1..it.len()).filter(|at| it.is_char_boundary(*at)).collect::<Vec<_>>();
        self.0.iter().flat_map(move |it| cuts(it).into_iter().map(|at| it.split_at(at)))
    }
}

/// The forms of a secret.
fn forms(secret: &str) -> Vec<String> {
    let percent = percent_encoded(secret);
    let quoted = serde_json::Value::from(secret).to_string();
    let quoted = quoted[1..quoted.len() - 1].to_owned();
    let mut forms = vec![
        secret.to_owned(),
        // RFC 3986, section 2.1: both cases mean the same.
        with_small_hex(&percent),
        percent,
        // Some writers of JSON escape the slash, some all that HTML could read.
        quoted.replace('/', "\\/"),
        escaped(&quoted, |it| format!("\\u{it:04X}")),
        escaped(&quoted, |it| format!("\\u{it:04x}")),
        quoted,
    ];
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

/// The text with the digits behind each `%` in lower case.
fn with_small_hex(percent: &str) -> String {
    let mut parts = percent.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        text.extend(["%", &digits.to_ascii_lowercase(), rest]);
    }
    text
}

/// The text of a string of JSON with escapes for what HTML could read.
fn escaped(quoted: &str, escape: impl Fn(u32) -> String) -> String {
    let escaped = |it: char| match it {
        '+' | '&' | '<' | '>' | '\'' | '`' | '=' => escape(u32::from(it)),
        it => it.to_string(),
    };
    quoted.chars().map(escaped).collect()
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

    #[test]
    fn a_secret_is_masked_as_other_languages_write_it() {
        let masked = Masked::new(["a/b+c<d'e"]);
        for text in [
            r#"{"token":"a\/b+c<d'e"}"#,
            r#"{"token":"a/b\u002Bc\u003Cd\u0027e"}"#,
            r#"{"token":"a/b\u002bc\u003cd\u0027e"}"#,
            "token=a%2Fb%2Bc%3Cd%27e",
            "token=a%2fb%2bc%3cd%27e",
        ] {
            let shown = masked.mask(text);
            assert!(shown.contains(MASK) && !shown.contains('c'), "{shown}");
        }
    }

    #[test]
    fn nothing_of_a_secret_is_left_where_an_output_was_cut() {
        let secret = "0123456789abcdef";
        let masked = Masked::new([secret]);
        for cut in 1..secret.len() {
            let tail = Tail { left_out: 7, text: format!("{}the end", &secret[cut..]) };
            let head = format!("the begin {secret} and {}", &secret[..cut]);
            let shown = masked.mask_cut(Output { head, tail: Some(tail) });
            let digits = shown.replace("7 bytes", "").bytes().filter(u8::is_ascii_digit).count();
            assert_eq!(digits, 0, "{shown}");
            assert!(shown.contains("the begin ***"), "{shown}");
        }
        // Without secrets nothing is taken away.
        let tail = Some(Tail { left_out: 1, text: "b".to_owned() });
        let shown = Masked::default().mask_cut(Output { head: "a".to_owned(), tail });
        assert_eq!(shown, "a\n… 1 bytes left out …\nb");
    }
}
