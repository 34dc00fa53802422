//! `version("8.10.0")`: a value that compares as versions do.
//!
//! Numbers compare as numbers, and missing numbers at the end are 0. What follows a `-` is a pre-release and comes before
//! the release; its parts compare as Semantic Versioning 2.0.0, section 11, says. What follows a `+` does not count.

use std::{fmt::Write, sync::Arc};

use cel::{ExecutionError, ResolveResult, Value};

/// The function of CEL. Its result is a text that is only compared.
#[expect(
    clippy::needless_pass_by_value,
    reason = "functions of the crate take their arguments like this"
)]
pub(super) fn version(text: Arc<String>) -> ResolveResult {
    let key = order_key(&text).ok_or_else(|| {
        let shown = crate::release::masking::cut(&text, 40);
        ExecutionError::function_error("version", format!("\"{shown}\" is not a version"))
    })?;
    Ok(Value::String(Arc::new(key)))
}

/// Before a number, the end of a release, and the beginning of a pre-release, in the order in which they sort.
const PRE_RELEASE: char = '0';
const RELEASE: char = '1';
const NUMBER: char = '2';

/// A text that sorts as the version does.
fn order_key(text: &str) -> Option<String> {
    let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
    let text = text.split_once('+').map_or(text, |it| it.0);
    let (numbers, pre_release) = match text.split_once('-') {
        Some((numbers, pre_release)) => (numbers, Some(pre_release)),
        None => (text, None),
    };
    let mut numbers = numbers.split('.').map(significant).collect::<Option<Vec<_>>>()?;
    while numbers.last() == Some(&"") {
        numbers.pop();
    }
    let mut key = String::new();
    for number in numbers {
        key.push(NUMBER);
        put_number(&mut key, number)?;
    }
    let Some(pre_release) = pre_release else {
        key.push(RELEASE);
        return Some(key);
    };
    key.push(PRE_RELEASE);
    for part in pre_release.split('.') {
        // A number comes before a word, and fewer parts before more.
        match significant(part) {
            Some(number) => {
                key.push('1');
                put_number(&mut key, number)?;
            }
            None => {
                let is_word = !part.is_empty()
                    && part.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
                if !is_word {
                    return None;
                }
                key.push('2');
                key.push_str(part);
                // Sorts before every letter.
                key.push(' ');
            }
        }
    }
    key.push('0');
    Some(key)
}

/// The digits of a number without leading zeros: none for 0.
fn significant(text: &str) -> Option<&str> {
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| text.trim_start_matches('0'))
}

/// A longer number is a larger one.
fn put_number(key: &mut String, digits: &str) -> Option<()> {
    if digits.len() > 999 {
        return None;
    }
    write!(key, "{:03}{digits}", digits.len()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_by_their_numbers_and_pre_releases_come_first() {
        let sorted = [
            "0",
            "0.0.1",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1-rc1",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
            "8.9.0",
            "8.10.0",
            "8.10.0.1",
            "10.0",
            "2026.11.28",
        ];
        let keys: Vec<_> = sorted.iter().map(|it| order_key(it).expect(it)).collect();
        for (one, two) in keys
            .iter()
            .zip(&keys[1..])
            .zip(sorted.iter().zip(&sorted[1..]))
            .map(|it| (it.0, it.1))
            .map(|((a, b), names)| ((a, names.0), (b, names.1)))
        {
            assert!(one.0 < two.0, "{} < {}", one.1, two.1);
        }
    }

    #[test]
    fn missing_zeros_a_v_and_a_build_do_not_count() {
        for (one, other) in
            [("8.0", "8.0.0"), ("v8.0", "8"), ("8.0+abc", "8.0"), ("08.0", "8"), ("1-rc", "1.0-rc")]
        {
            assert_eq!(order_key(one), order_key(other), "{one} {other}");
        }
        for bad in
            ["", "v", "8.", ".8", "8.x", "latest", "8-", "8-a..b", "8-ä", "8 ", "-1", "8.0-a b"]
        {
            assert_eq!(order_key(bad), None, "{bad:?}");
        }
    }
}
