//! `version("8.10.0")`: versions that compare by their numbers, not by their letters.
//!
//! The order is that of Semantic Versioning 2.0.0, for any number of segments: `8.9 < 8.10`, `8 == 8.0.0`, and
//! `8.0.0-rc.1 < 8.0.0-rc.2 < 8.0.0`. Mixed parts of a pre-release compare as texts, also there: `rc10 < rc2`. What
//! follows `+` does not count. A leading `v` and leading zeros are allowed. A version does not compare with a text: that
//! is an error, also for `==` and `!=`, if one side is a call of `version`.
//!
//! This module does not know which versions exist.

use std::{any::Any, cmp::Ordering, str::FromStr};

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        traits::Comparer,
        types::{CelBool, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};

use crate::release::masking::quoted;

/// The function that makes a version of a text.
pub(super) const FUNCTION: &str = "version";

/// The function that compares two versions. No source can call it: `@` is not part of a name.
pub(super) const EQUALS: &str = "@version_equals";

static VERSION_TYPE: Type = Type::new_unspecified_type("version");

/// A version.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Version {
    /// Without zeros at the end.
    segments: Vec<Number>,
    prerelease: Vec<Part>,
}

/// A part of a pre-release. Numbers come before texts.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Part {
    Number(Number),
    Text(String),
}

/// Digits without zeros at the beginning, so that no number is too large.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Number(String);

/// Adds the functions.
pub(super) fn add_to(environment: &mut Env) -> Result<(), DeclarationError> {
    let both = vec![VERSION_TYPE.to_owned(), VERSION_TYPE.to_owned()];
    environment.add_overload(FUNCTION, "version_string", vec![STRING_TYPE], version)?;
    environment.add_overload(EQUALS, "version_equals_version", both, equals)
}

fn version<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let argument = arguments.into_iter().next();
    let text = argument.as_ref().and_then(|it| it.downcast_ref::<CelString>());
    let text = text.ok_or_else(ExecutionError::missing_argument_or_target)?.inner();
    let version = text.parse::<Version>();
    version.map(CowVal::owned).map_err(|()| {
        let message = format!("\"{}\" is not a version such as 8.10.0", quoted(text));
        ExecutionError::function_error(FUNCTION, message)
    })
}

fn equals<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut arguments = arguments.into_iter();
    let (Some(one), Some(other)) = (arguments.next(), arguments.next()) else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    Ok(CowVal::owned(CelBool::from(one == other)))
}

// === impl Version ===

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |it| (it.0, Some(it.1)));
        let (core, prerelease) = text.split_once('-').map_or((text, None), |it| (it.0, Some(it.1)));
        let segments = core.split('.').map(|it| Number::of(it).ok_or(()));
        let mut segments = segments.collect::<Result<Vec<_>, ()>>()?;
        while segments.last().is_some_and(Number::is_zero) {
            segments.pop();
        }
        let parts = |it: Option<&str>| match it {
            Some(it) => it.split('.').map(|it| Part::of(it).ok_or(())).collect(),
            None => Ok(Vec::new()),
        };
        parts(build)?;
        Ok(Self { segments, prerelease: parts(prerelease)? })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let is_final = |it: &Self| it.prerelease.is_empty();
        (self.segments.cmp(&other.segments))
            .then_with(|| is_final(self).cmp(&is_final(other)))
            .then_with(|| self.prerelease.cmp(&other.prerelease))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Val for Version {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        &VERSION_TYPE
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        other.downcast_ref::<Self>().is_some_and(|it| it == self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Version {}

impl Comparer for Version {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        let types = || vec![FUNCTION.to_owned(), other.get_type().name().to_owned()];
        let other = other.downcast_ref::<Self>();
        // The interpreter replaces the name of the operator.
        other.map(|it| self.cmp(it)).ok_or_else(|| ExecutionError::no_such_overload("_<_", types()))
    }
}

// === impl Part ===

impl Part {
    fn of(text: &str) -> Option<Self> {
        let is_letter = |it: char| it.is_ascii_alphanumeric() || it == '-';
        if text.is_empty() || !text.chars().all(is_letter) {
            return None;
        }
        Some(Number::of(text).map_or_else(|| Self::Text(text.to_owned()), Self::Number))
    }
}

// === impl Number ===

impl Number {
    fn of(text: &str) -> Option<Self> {
        let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        is_number.then(|| Self(text.trim_start_matches('0').to_owned()))
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_ordered_by_their_numbers_and_a_pre_release_comes_first() {
        let ordered = [
            "0.9",
            "8.0.0-1",
            "8.0.0-2",
            "8.0.0-10",
            "8.0.0-alpha",
            "8.0.0-alpha.1",
            "8.0.0-rc.2",
            "8.0.0-rc.10",
            "8.0.0-rc1",
            "8.0.0-rc10",
            "8.0.0-rc2",
            "8.0.0",
            "8.0.0.1",
            "8.0.1",
            "8.9.0",
            "8.10.0",
            "10",
            "2024.1.31",
            "99999999999999999999999.1",
            "100000000000000000000000",
        ];
        for (place, one) in ordered.iter().enumerate() {
            for (other_place, other) in ordered.iter().enumerate() {
                let order = parsed(one).cmp(&parsed(other));
                assert_eq!(order, place.cmp(&other_place), "{one} and {other}");
            }
        }
    }

    #[test]
    fn spellings_of_the_same_version_are_equal() {
        for (one, other) in [
            ("8", "8.0.0"),
            ("v8.1", "8.1"),
            ("V8.1", "8.1.0.0"),
            ("08.01", "8.1"),
            ("0.0", "0"),
            ("8.1+build.7", "8.1+other-8"),
            ("8-rc.01", "8.0-rc.1"),
        ] {
            assert_eq!(parsed(one), parsed(other));
        }
    }

    #[test]
    fn a_text_that_is_not_a_version_is_refused() {
        for text in [
            "", "v", "vv1", "8.", ".8", "8..1", "8.x", "latest", "8.1-", "8.1-a..b", "8.1+",
            "8.1+a_b", " 8.1", "8.1 ", "1:8.1", "8,1", "-1", "+1", "٨", "8.1-é", "8.1+a+b",
        ] {
            assert_eq!(text.parse::<Version>(), Err(()), "{text}");
        }
    }
}
