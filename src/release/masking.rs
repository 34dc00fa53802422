//! Text of an application in messages: secrets masked, control characters escaped, cut to a sensible length.

/// The most characters of a text that a message quotes.
const QUOTED_MAX: usize = 200;

/// The shortest secret that is masked: shorter texts are parts of many words.
const SECRET_MIN: usize = 4;

/// The most secrets: each text is searched for each of them. A client chooses the headers of its requests.
const SECRETS_MAX: usize = 32;

/// Secrets that no message may contain. At most [`SECRETS_MAX`].
#[derive(Clone, Debug, Default)]
pub(super) struct Secrets(Vec<String>);

// === impl Secrets ===

impl Secrets {
    /// Adds a secret.
    pub(super) fn add(&mut self, secret: &str) {
        let is_new = secret.chars().count() >= SECRET_MIN && !self.0.iter().any(|it| it == secret);
        if is_new && self.0.len() < SECRETS_MAX {
            // The longest first: a secret may contain another one.
            let place = self.0.partition_point(|it| it.len() >= secret.len());
            self.0.insert(place, secret.to_owned());
        }
    }

    /// Adds the value of a header if its name says that it is a secret.
    pub(super) fn add_header(&mut self, name: &str, value: &str) {
        if is_secret(name) {
            self.add(value);
            // `Bearer sesame`: the token may stand alone in a response.
            if let Some((_, token)) = value.trim().rsplit_once(' ') {
                self.add(token);
            }
        }
    }

    /// The text without the secrets.
    pub(super) fn mask(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(&**secret, "***"))
    }
}

/// Whether a header or a key of this name has a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let words = ["auth", "cookie", "token", "secret", "key", "password", "session"];
    words.iter().any(|it| name.contains(it))
}

/// The beginning of a text in one line, with control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    cut(text, QUOTED_MAX)
}

/// The first `max` characters of a text, with control characters escaped.
#[must_use]
pub fn cut(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).flat_map(escaped).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

fn escaped(letter: char) -> Box<dyn Iterator<Item = char>> {
    match letter.is_control() {
        true => Box::new(letter.escape_default()),
        false => Box::new(std::iter::once(letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_wherever_it_stands() {
        let mut secrets = Secrets::default();
        secrets.add_header("Authorization", "Bearer sesame-street");
        secrets.add_header("Accept", "text/html");
        secrets.add("sesame");
        secrets.add("abc");
        let text = "Bearer sesame-street, sesame-street, sesame, text/html, abc";
        assert_eq!(secrets.mask(text), "***, ***, ***, text/html, abc");
    }

    #[test]
    fn a_client_cannot_make_the_search_long() {
        let mut secrets = Secrets::default();
        let words: Vec<_> = (0..5000).map(|it| format!("word{it}")).collect();
        secrets.add_header("X-Token", &words.join(" "));
        assert_eq!(secrets.0.len(), 2, "the value, and its last word");
        words.iter().for_each(|it| secrets.add(it));
        assert_eq!(secrets.0.len(), SECRETS_MAX);
        assert!(secrets.0.is_sorted_by(|one, next| one.len() >= next.len()));
    }

    #[test]
    fn a_long_text_is_cut_and_control_characters_are_escaped() {
        assert_eq!(quoted("a\r\nb\u{1b}[1m"), "a\\r\\nb\\u{1b}[1m");
        assert_eq!(quoted(&"x".repeat(QUOTED_MAX)).chars().count(), QUOTED_MAX);
        let cut = quoted(&"é".repeat(QUOTED_MAX + 1));
        assert!(cut.ends_with("é…") && cut.chars().count() == QUOTED_MAX + 1);
    }
}
