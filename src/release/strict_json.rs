//! JSON in which nothing is ambiguous: an object with the same key twice is refused, since programs disagree about
//! which of its values counts.
//!
//! The result is otherwise what `serde_json` reads: an integer that does not fit into 64 bits becomes a floating-point
//! number. This module does not know what the values stand for.

use std::fmt::{self, Formatter, Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::masking::quoted;

/// The deepest nesting of arrays and objects.
const DEPTH_MAX: usize = 64;

/// Parses one JSON value.
///
/// # Errors
///
/// What is wrong: the syntax, something after the value, text that is not UTF-8, a key that an object has twice, or
/// nesting deeper than 64 levels.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("not UTF-8 after {} bytes", error.valid_up_to()))?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Place::Root.deserialize(&mut deserializer);
    value.and_then(|it| deserializer.end().map(|()| it)).map_err(|error| error.to_string())
}

/// Where a value is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Member { key: &'a str, of: &'a Place<'a>, depth: usize },
    Element { index: usize, of: &'a Place<'a>, depth: usize },
}

// === impl Place ===

impl Place<'_> {
    fn depth(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::Member { depth, .. } | Self::Element { depth, .. } => *depth,
        }
    }

    /// The depth of the values in this one.
    fn inner_depth<E: Error>(&self) -> Result<usize, E> {
        match self.depth() {
            DEPTH_MAX => Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels"))),
            depth => Ok(depth + 1),
        }
    }

    fn write(&self, path: &mut String) {
        match self {
            Self::Root => path.push('$'),
            Self::Member { key, of, .. } => {
                of.write(path);
                write!(path, "[\"{}\"]", quoted(key)).expect("writing to memory cannot fail");
            }
            Self::Element { index, of, .. } => {
                of.write(path);
                write!(path, "[{index}]").expect("writing to memory cannot fail");
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.inner_depth()?;
        let mut elements = Vec::new();
        loop {
            let place = Place::Element { index: elements.len(), of: &self, depth };
            match access.next_element_seed(place)? {
                Some(element) => elements.push(element),
                None => return Ok(Value::Array(elements)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = self.inner_depth()?;
        let mut members = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if members.contains_key(&key) {
                let mut path = String::new();
                self.write(&mut path);
                return Err(A::Error::custom(format!(
                    "the object {path} has the key \"{}\" twice",
                    quoted(&key)
                )));
            }
            let value = access.next_value_seed(Place::Member { key: &key, of: &self, depth })?;
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn every_kind_of_value_is_read_as_serde_json_reads_it() {
        for text in [
            "null",
            "true",
            " false ",
            "0",
            "-1",
            "-0",
            "9223372036854775807",
            "18446744073709551615",
            "18446744073709551616",
            "1.5e3",
            "1e-400",
            r#""""#,
            r#""\u00e9\ud83c\udf89\n""#,
            "\"é\"",
            "[]",
            "{}",
            r#"[1, [2, {"a": [null]}], "x"]"#,
            r#"{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 2}]}"#,
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(serde_json::from_str(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn a_key_twice_is_refused_at_any_depth_with_its_place() {
        let at = |path: &str, key: &str| format!("the object {path} has the key \"{key}\" twice");
        assert!(error(r#"{"a": 1, "a": 1}"#).starts_with(&at("$", "a")));
        let deep = error(r#"{"a": [0, {"b c": {"x": 1, "y": 2, "x": 3}}]}"#);
        assert_eq!(deep, at(r#"$["a"][1]["b c"]"#, "x") + " at line 1 column 38");
        // The same key, spelled in two ways.
        assert!(error(r#"{"a": 1, "\u0061": 1}"#).starts_with(&at("$", "a")));
        assert!(error(r#"{"": 1, "": 1}"#).starts_with(&at("$", "")));
        assert!(error("{\"a\\u001b\": 1, \"a\\u001b\": 1}").starts_with(&at("$", "a\\u{1b}")));
    }

    #[test]
    fn nesting_is_limited_to_64_levels() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(64).as_bytes()).is_ok());
        assert!(error(&nested(65)).starts_with("nested deeper than 64 levels"));
        let objects = |depth| format!("{}0{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        assert!(parse(objects(64).as_bytes()).is_ok());
        assert!(error(&objects(65)).starts_with("nested deeper than 64 levels"));
        assert!(error(&"[".repeat(1_000_000)).starts_with("nested deeper than 64 levels"));
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_refused_also_in_a_key() {
        assert_eq!(parse(b"\"a\xff\""), Err("not UTF-8 after 2 bytes".to_owned()));
        assert_eq!(parse(b"{\"\xc3\": 1}"), Err("not UTF-8 after 2 bytes".to_owned()));
        // UTF-8, but not text.
        assert!(parse(br#""\ud800""#).is_err());
    }

    #[test]
    fn something_after_the_value_is_refused() {
        for text in ["1 2", "{} {}", "null,", "[]]", "{}\u{0}"] {
            assert!(error(text).starts_with("trailing characters"), "{text}");
        }
        assert_eq!(parse(b" {\"a\": 1}\r\n"), Ok(json!({"a": 1})));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "\u{feff}{}",
            "nul",
            "{a: 1}",
            "{'a': 1}",
            "[1,]",
            r#"{"a": 1,}"#,
            "01",
            "1.",
            ".5",
            "+1",
            "NaN",
            "Infinity",
            "1e400",
            "\"\n\"",
            "[1",
            "{",
            r#"{"a""#,
            "// c\n1",
            r#""\x41""#,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_quotes_only_the_beginning_of_a_key() {
        let key = "k".repeat(100_000);
        assert!(error(&format!(r#"{{"{key}": {{"{key}": 1, "{key}": 2}}}}"#)).len() < 600);
    }
}
