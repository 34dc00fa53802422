//! Rust source as words and signs, without comments, text and what is only there for tests.

/// A word or a sign, and its line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

/// Whether this is a name or a keyword.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|it: char| it.is_alphabetic() || it == '_')
}

/// The words and signs of a file. `::` is one sign; a literal is left out.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut left = text;
    while let Some(first) = left.chars().next() {
        let length = length(left, first);
        let text = &left[..length];
        let is_left_out =
            first.is_whitespace() || is_comment(left) || is_literal(text) || first == '\'';
        if !is_left_out {
            found.push(Token { line, text });
        }
        line += text.matches('\n').count();
        left = &left[length..];
    }
    found
}

/// How many bytes the next word, sign, comment or literal has.
fn length(left: &str, first: char) -> usize {
    let word = left.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(left.len());
    if left.starts_with("//") {
        return left.find('\n').unwrap_or(left.len());
    }
    if left.starts_with("/*") {
        return left.find("*/").map_or(left.len(), |it| it + 2);
    }
    if left.starts_with("::") {
        return 2;
    }
    if first == '"' || matches!(&left[..word], "b" | "c") && left[word..].starts_with('"') {
        let begin = left.find('"').unwrap_or_default() + 1;
        return begin + quoted(&left[begin..], '"');
    }
    if matches!(&left[..word], "r" | "br" | "cr") {
        let signs = left[word..].chars().take_while(|it| *it == '#').count();
        if left[word + signs..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(signs));
            let begin = word + signs + 1;
            return left[begin..].find(&end).map_or(left.len(), |it| begin + it + end.len());
        }
    }
    if first == '\'' || &left[..word] == "b" && left[word..].starts_with('\'') {
        let begin = left.find('\'').unwrap_or_default() + 1;
        let inside = left[begin..].chars().next().unwrap_or_default();
        // A lifetime has no quote behind its first character.
        if inside == '\\' || left[begin + inside.len_utf8()..].starts_with('\'') {
            return begin + quoted(&left[begin..], '\'');
        }
        return begin;
    }
    if word > 0 { word } else { first.len_utf8() }
}

/// How many bytes there are up to the end of a literal, with its last quote.
fn quoted(left: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (place, it) in left.char_indices() {
        match it {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            it if it == quote => return place + 1,
            _ => {}
        }
    }
    left.len()
}

fn is_comment(left: &str) -> bool {
    left.starts_with("//") || left.starts_with("/*")
}

fn is_literal(text: &str) -> bool {
    text.len() > 1 && text.ends_with(['"', '\'', '#']) || text.starts_with('"')
}

/// Takes every item under `#[cfg(test)]` away, and returns the names of modules among them.
pub(super) fn take_tests_away(code: &mut Vec<Token<'_>>) -> Vec<String> {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut modules = Vec::new();
    while let Some(begin) =
        code.windows(MARK.len()).position(|it| it.iter().map(|it| it.text).eq(MARK))
    {
        let mut depth = 0_usize;
        let mut end = code.len();
        for (place, token) in code.iter().enumerate().skip(begin + MARK.len()) {
            match token.text {
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 && token.text == "}" {
                        end = place + 1;
                        break;
                    }
                }
                ";" | "," if depth == 0 => {
                    end = place + 1;
                    break;
                }
                "mod" if depth == 0 => {
                    modules.extend(code.get(place + 1).map(|it| it.text.to_owned()));
                }
                _ => {}
            }
        }
        code.drain(begin..end);
    }
    modules
}
