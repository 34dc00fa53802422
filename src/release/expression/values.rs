//! JSON as values of CEL, and back.
//!
//! Every integer becomes an `int`, because literals are of that type and arithmetic does not mix types. A number with a
//! fraction or an exponent becomes a `double`, and so does an integer that the JSON parser could not represent.
//!
//! This module does not know what the values stand for.

use std::{collections::HashMap, fmt::Write};

use cel::common::{
    types::{
        CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt, Kind,
    },
    value::Val,
};
use serde_json::{Map, Number, Value};

use super::errors;
use crate::release::masking::quoted;

/// The deepest value that is converted.
const DEPTH_MAX: usize = 128;

/// A value of CEL that borrows the texts of the JSON. `path` is how the expression refers to it.
///
/// # Errors
///
/// What cannot be represented, and where it is.
pub(super) fn of_json<'v>(value: &'v Value, path: &str) -> Result<Box<dyn Val + 'v>, String> {
    // Only a failure needs the whole path.
    convert(value, 0).map_err(|Refusal { steps, why }| {
        let mut place = path.to_owned();
        for step in steps.iter().rev() {
            add_step(&mut place, step);
        }
        format!("{place} {why}")
    })
}

struct Refusal<'v> {
    /// From the inside to the outside.
    steps: Vec<Step<'v>>,
    why: String,
}

/// A step from a value to a part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step<'a> {
    /// The value at a key.
    Key(&'a str),
    /// The element at an index.
    Index(usize),
}

/// Adds a step to a path, as an expression spells it.
pub(super) fn add_step(path: &mut String, step: &Step<'_>) {
    let is_name = |it: &str| {
        it.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
            && it.starts_with(|it: char| !it.is_ascii_digit())
    };
    let written = match step {
        Step::Key(key) if is_name(key) => write!(path, ".{}", quoted(key)),
        Step::Key(key) => write!(path, "[\"{}\"]", quoted(key)),
        Step::Index(index) => write!(path, "[{index}]"),
    };
    written.expect("writing to memory cannot fail");
}

fn convert(value: &Value, depth: usize) -> Result<Box<dyn Val + '_>, Refusal<'_>> {
    if depth > DEPTH_MAX {
        let why = format!("is nested deeper than {DEPTH_MAX} levels");
        return Err(Refusal { steps: Vec::new(), why });
    }
    Ok(match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(it) => Box::new(CelBool::from(*it)),
        Value::Number(it) => return number(it),
        Value::String(it) => Box::new(CelString::from(it.as_str())),
        Value::Array(elements) => {
            let mut list = Vec::with_capacity(elements.len());
            for (index, element) in elements.iter().enumerate() {
                list.push(convert(element, depth + 1).map_err(|it| it.inside(Step::Index(index)))?);
            }
            Box::new(CelList::from(list))
        }
        Value::Object(members) => {
            let mut map = HashMap::with_capacity(members.len());
            for (key, member) in members {
                let member = convert(member, depth + 1).map_err(|it| it.inside(Step::Key(key)))?;
                map.insert(CelMapKey::from(key.as_str()), member);
            }
            Box::new(CelMap::from(map))
        }
    })
}

fn number(number: &Number) -> Result<Box<dyn Val + '_>, Refusal<'_>> {
    if let Some(it) = number.as_i64() {
        return Ok(Box::new(CelInt::from(it)));
    }
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(it) => Ok(Box::new(CelDouble::from(it))),
        None => {
            let why = format!("is {number}, and the largest integer is {}", i64::MAX);
            Err(Refusal { steps: Vec::new(), why })
        }
    }
}

impl<'v> Refusal<'v> {
    fn inside(mut self, step: Step<'v>) -> Self {
        self.steps.push(step);
        self
    }
}

/// The JSON of a result.
///
/// # Errors
///
/// Which type JSON does not have.
pub(super) fn to_json(value: &dyn Val) -> Result<Value, String> {
    if let Some(it) = value.downcast_ref::<CelList>() {
        return it.inner().iter().map(|it| to_json(&**it)).collect();
    }
    if let Some(it) = value.downcast_ref::<CelMap>() {
        let members = it.inner().iter().map(|(key, value)| match key {
            CelMapKey::String(key) => Ok((key.inner().to_owned(), to_json(&**value)?)),
            _ => Err("a map with other keys than strings has no form in JSON".to_owned()),
        });
        return members.collect::<Result<Map<_, _>, _>>().map(Value::Object);
    }
    if let Some(it) = value.downcast_ref::<CelDouble>() {
        let number = Number::from_f64(*it.inner()).map(Value::Number);
        return number.ok_or_else(|| "a number that is not finite has no form in JSON".to_owned());
    }
    let simple = (value.downcast_ref::<CelString>().map(|it| it.inner().into()))
        .or_else(|| value.downcast_ref::<CelBool>().map(|it| (*it.inner()).into()))
        .or_else(|| value.downcast_ref::<CelInt>().map(|it| (*it.inner()).into()))
        .or_else(|| value.downcast_ref::<CelUInt>().map(|it| (*it.inner()).into()))
        .or_else(|| (value.get_type().kind() == Kind::NullType).then_some(Value::Null));
    simple.ok_or_else(|| format!("{} has no form in JSON", errors::type_name(value)))
}
