//! Environment variables in the strings of a configuration: `${NAME}` and `${NAME:-default}`.

use std::{collections::BTreeMap, ffi::OsString};

/// The environment variables that a configuration may refer to.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

// === impl Environment ===

impl FromIterator<(OsString, OsString)> for Environment {
    /// Leaves out what is not UTF-8.
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(variables.into_iter().filter_map(text).collect())
    }
}

impl Environment {
    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Fills in `${NAME}` and `${NAME:-default}`; `$${` is a literal `${`. `None` if there is nothing to fill in.
    pub(super) fn expand(&self, text: &str) -> Result<Option<String>, String> {
        if !text.contains("${") {
            return Ok(None);
        }
        let (mut expanded, mut rest) = (String::new(), text);
        while let Some(place) = rest.find("${") {
            let (before, after) = (&rest[..place], &rest[place + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                expanded.push_str(before);
                expanded.push_str("${");
                rest = after;
                continue;
            }
            expanded.push_str(before);
            let Some((reference, behind)) = after.split_once('}') else {
                return Err("`${` without `}`\nwrite `${NAME}`, or `$${` for a literal `${`".into());
            };
            expanded.push_str(self.value(reference)?);
            rest = behind;
        }
        expanded.push_str(rest);
        Ok(Some(expanded))
    }

    fn value<'a>(&'a self, reference: &'a str) -> Result<&'a str, String> {
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let is_name = name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
            && name.bytes().next().is_some_and(|it| !it.is_ascii_digit());
        if default.is_some_and(|it| it.contains("${")) {
            return Err(format!(
                "the default of `{name}` has a variable in it\nwrite a default without `${{`"
            ));
        }
        if !is_name {
            return Err(format!(
                "`{name}` is not the name of an environment variable\nwrite `${{NAME}}` or \
                 `${{NAME:-default}}`"
            ));
        }
        if self.0.get(name).is_some_and(|it| it.contains(char::is_control)) {
            return Err(format!(
                "environment variable `{name}` has a control character in it, such as a line feed"
            ));
        }
        match (self.0.get(name), default) {
            // As in a shell, an empty variable gets the default too.
            (Some(value), default) if !value.is_empty() || default.is_none() => Ok(value),
            (_, Some(default)) => Ok(default),
            (_, None) => Err(format!(
                "environment variable `{name}` is not set\nset it, or write `${{{name}:-default}}`"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Result<Option<String>, String> {
        let variables = [("HOST", "10.0.0.2"), ("EMPTY", "")];
        variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect::<Environment>()
            .expand(text)
    }

    #[test]
    fn variables_are_filled_in() {
        for (text, expected) in [
            ("${HOST}:80", "10.0.0.2:80"),
            ("a ${HOST} b ${HOST}", "a 10.0.0.2 b 10.0.0.2"),
            ("${MISSING:-x}", "x"),
            ("${MISSING:-}", ""),
            ("${EMPTY:-x}", "x"),
            ("${EMPTY}", ""),
            ("${HOST:-x}", "10.0.0.2"),
            ("$${HOST}", "${HOST}"),
        ] {
            assert_eq!(expand(text), Ok(Some(expected.to_owned())), "{text}");
        }
        for text in ["", "$HOST", "a$", "{HOST}"] {
            assert_eq!(expand(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_or_not_named_is_an_error() {
        for (text, named) in [
            ("${MISSING}", "MISSING"),
            ("${}", "``"),
            ("${a b}", "a b"),
            ("${1}", "1"),
            ("${HOST", "`}`"),
            ("${HOST:-${MISSING:-x}}", "the default of `HOST`"),
        ] {
            let error = expand(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
