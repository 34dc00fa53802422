//! Errors of the parser and of the interpreter in plain English, without the values that they hold: a message must not
//! contain a whole manifest, or a secret of a response.
//!
//! This module does not know the expressions that the errors are about.

use cel::{ExecutionError, ParseErrors, Value, common::value::Val};

use super::{too_deep, version};
use crate::release::masking::quoted;

/// The first error of the parser.
pub(super) fn of_parser(errors: &ParseErrors) -> String {
    let Some(error) = errors.errors.first() else { return "not an expression".to_owned() };
    if errors.errors.iter().any(|it| it.msg.contains("Recursion limit")) {
        return too_deep();
    }
    let message = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
    let message = message.split(" expecting ").next().unwrap_or(message);
    let unexpected = ["mismatched input ", "extraneous input ", "token recognition error at: "];
    let what = match unexpected.iter().find_map(|it| message.strip_prefix(it)) {
        Some("'<EOF>'") => "unexpected end".to_owned(),
        Some(token) => format!("unexpected {}", quoted(token)),
        None => of_syntax(message),
    };
    match error.pos {
        (line @ 1.., column @ 1..) => format!("line {line}, column {column}: {what}"),
        _ => what,
    }
}

fn of_syntax(message: &str) -> String {
    if let Some(word) = message.strip_prefix("reserved identifier: ") {
        return format!("\"{}\" is a reserved word", quoted(word));
    }
    match message {
        "invalid argument to has() macro" => {
            "has() takes a field, as in has(new.schema)".to_owned()
        }
        "argument must be a simple name" => {
            "the first argument is the name of an element, as in list.all(item, item > 0)"
                .to_owned()
        }
        "invalid int literal" => format!("the largest integer is {}", i64::MAX),
        // The rest of it names types of the crate.
        _ if message.starts_with("invalid string literal") => "invalid string literal".to_owned(),
        _ => quoted(message),
    }
}

/// An error of an evaluation.
pub(super) fn of_interpreter(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("\"{}\" is missing", quoted(key)),
        ExecutionError::UndeclaredReference(name) => format!("\"{}\" has no value", quoted(name)),
        ExecutionError::NoSuchOverload(it) => of_overload(it.function(), it.argument_types()),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            of_operator(operator, left, right)
        }
        ExecutionError::UnexpectedType { got, want } if want == "iterable" => {
            format!("expected list or map, got {}", plain(got))
        }
        ExecutionError::UnexpectedType { got, want } => {
            format!("expected {}, got {}", plain(want), plain(got))
        }
        ExecutionError::IndexOutOfBounds(Value::Int(index)) => {
            format!("the list has no element {index}")
        }
        ExecutionError::IndexOutOfBounds(_) => "the list has no such element".to_owned(),
        ExecutionError::UnsupportedIndex(..) => "an index is an integer".to_owned(),
        ExecutionError::UnsupportedKeyType(_) => {
            "a key is a string, an int, a uint or a bool".to_owned()
        }
        ExecutionError::DuplicateKey(_) => "a map has a key twice".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(operator, ..) => {
            format!("the result of {} is out of range", symbol(operator))
        }
        ExecutionError::FunctionError { function, message } => of_function(function, message),
        _ => "the evaluation failed".to_owned(),
    }
}

/// The name of the type of a value.
pub(super) fn type_name(value: &dyn Val) -> &str {
    plain(value.get_type().name())
}

fn plain(name: &str) -> &str {
    if name == "null_type" { "null" } else { name }
}

fn of_overload(function: &str, types: &[String]) -> String {
    let types: Vec<_> = types.iter().map(|it| plain(it)).collect();
    match (function, &*types) {
        ("_._", [operand, ..]) => format!("a value of type {operand} has no fields"),
        ("_[_]", [operand, index]) => {
            format!("a value of type {operand} has no element at an index of type {index}")
        }
        (version::FUNCTION, [argument]) => format!("version() takes a string, got {argument}"),
        (_, [left, right]) if symbol(function) != function => {
            format!("cannot apply {} to {left} and {right}", symbol(function))
        }
        (_, [operand]) if symbol(function) != function => {
            format!("cannot apply {} to {operand}", symbol(function))
        }
        _ => format!("cannot apply {function}() to {}", types.join(" and ")),
    }
}

fn of_operator(operator: &str, left: &Value, right: &Value) -> String {
    let (left, right) = (left.type_of().to_string(), right.type_of().to_string());
    let is_number = |it: &str| ["int", "uint", "double", "float"].contains(&it);
    let hint = match is_number(&left) && is_number(&right) {
        true => "; convert one of them with int() or double()",
        false => "",
    };
    let name = |it: &str| if it == "float" { "double".to_owned() } else { plain(it).to_owned() };
    format!("cannot apply {} to {} and {}{hint}", symbol(operator), name(&left), name(&right))
}

fn of_function(function: &str, message: &str) -> String {
    match function {
        version::FUNCTION => message.to_owned(),
        // The last line says what is wrong with the regular expression.
        _ => format!("{function}(): {}", quoted(message.lines().last().unwrap_or_default())),
    }
}

/// How an operator is written, or the name of a function.
fn symbol(function: &str) -> &str {
    match function {
        "add" => "+",
        "sub" => "-",
        "mul" => "*",
        "div" => "/",
        "rem" => "%",
        "@in" => "in",
        version::EQUALS => "==",
        _ => function.trim_matches('_'),
    }
}
