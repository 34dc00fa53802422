//! Tests of expressions as a whole. Those of a part are in its file.

mod errors;
mod explanations;
mod limits;
mod names;
mod values;
mod versions;

use cel::Program;
use serde_json::json;

use super::*;

const NAMES: [&str; 4] = ["old", "new", "active", "candidate"];

fn old() -> Value {
    json!({"schema": 12, "version": "8.9.0", "items": [1, 2]})
}

fn new() -> Value {
    json!({
        "schema": 14, "version": "8.10.0", "ratio": 1.5, "flag": true, "nothing": null, "a-b": "x",
        "items": [1, 2, 3], "mixed": [1, "x"], "empty": [], "map": {"a": 1, "b": "x"},
        "nested": {"deep": {"value": 7}},
    })
}

fn parse_error(source: &str) -> String {
    Expression::parse(source, &NAMES).expect_err(source).to_string()
}

fn evaluate(source: &str) -> Result<bool, String> {
    let expression = Expression::parse(source, &NAMES).map_err(|it| format!("parse: {it}"))?;
    expression.evaluate(&[("old", &old()), ("new", &new())]).map_err(|it| it.to_string())
}

fn value(source: &str) -> Result<Value, String> {
    let expression = Expression::parse(source, &NAMES).map_err(|it| format!("parse: {it}"))?;
    expression.value(&[("old", &old()), ("new", &new())]).map_err(|it| it.to_string())
}

fn explained(source: &str) -> String {
    Expression::parse(source, &NAMES).unwrap().explain(&[("old", &old()), ("new", &new())])
}

/// What the interpreter says without the module.
fn raw(source: &str) -> Result<cel::Value, cel::ExecutionError> {
    let mut context = Context::default();
    context.add_variable("new", new()).unwrap();
    Program::compile(source).unwrap().execute(&context)
}

/// A generator of pseudorandom numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
