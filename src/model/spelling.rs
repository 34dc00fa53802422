//! Suggestions for mistyped words.

/// The known word that a mistyped one most likely stands for.
#[must_use]
pub fn nearest<'k>(written: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, key) = known.iter().map(|it| (distance(written, it), *it)).min()?;
    // Half of a short word is another word.
    (distance <= 2.max(written.len() / 3) && distance < written.len().max(2)).then_some(key)
}

/// How many characters must be inserted, removed or replaced (Levenshtein).
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in two.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[two.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_suggested_only_if_it_is_near() {
        assert_eq!(nearest("hots", &["hosts", "path"]), Some("hosts"));
        assert_eq!(nearest("candidat", &["active", "candidate"]), Some("candidate"));
        assert_eq!(nearest("color", &["hosts", "path"]), None);
        assert_eq!(nearest("xy", &["ab"]), None);
    }
}
