//! Expressions of CEL, the Common Expression Language, over JSON values.
//!
//! Three things differ from the language as the crate implements it, because a rule that decides about a promotion must
//! not be met by accident: `&&`, `||`, `all` and `exists` never hide an error of an operand that they evaluate; an unknown name or function is
//! an error when the expression is read; and whole numbers are signed, so that `new.schema <= old.schema + 1` works.

mod names;
mod strict;
mod values;
mod versions;

use std::{panic::AssertUnwindSafe, sync::Arc};

use cel::{Context, IdedExpr, Value as CelValue, parser::Parser};
use serde_json::Value;

use self::{names::check_names, strict::strict, values::to_cel};

/// An expression with known names and functions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Expression {
    source: Arc<str>,
    tree: Arc<IdedExpr>,
}

/// Why an expression cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(String);

/// The most bytes of an expression. Each operator may nest the tree by one level.
const BYTES_MAX: usize = 4096;

/// The deepest nesting of parentheses, lists and calls.
const NESTING_MAX: u16 = 32;

/// The deepest tree: `a + b + c` has two levels of operators.
const DEPTH_MAX: usize = 256;

/// The stack for reading and evaluating: both are recursive.
pub(super) const STACK_BYTES: usize = 32 * 1024 * 1024;

/// Characters of an error of the interpreter, which may quote whole values.
const ERROR_MAX: usize = 200;

// === impl Expression ===

impl Expression {
    /// Reads an expression. `names` are its variables.
    ///
    /// # Errors
    ///
    /// [`ExpressionError`]: the syntax is wrong, or it uses an unknown name or function.
    pub fn parse(source: &str, names: &[&str]) -> Result<Self, ExpressionError> {
        if source.len() > BYTES_MAX {
            return Err(ExpressionError(format!("an expression has at most {BYTES_MAX} bytes")));
        }
        if source.trim().is_empty() {
            return Err(ExpressionError("the expression is empty".to_owned()));
        }
        // The parser is generated code that has panicked on odd input, and it is recursive.
        let read = std::thread::scope(|scope| {
            let parse = || {
                let parsed = Parser::new().max_recursion_depth(NESTING_MAX).parse(source);
                let tree = parsed.map_err(|errors| syntax_error(&errors))?;
                if names::depth(&tree) > DEPTH_MAX {
                    return Err(format!(
                        "more than {DEPTH_MAX} operators are nested; write it shorter"
                    ));
                }
                check_names(&tree, names)?;
                Ok(strict(tree))
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let thread = thread.spawn_scoped(scope, parse).map_err(|error| error.to_string())?;
            thread
                .join()
                .unwrap_or_else(|_| Err("the parser has failed; write it simpler".to_owned()))
        });
        let tree = read.map_err(ExpressionError)?;
        Ok(Self { source: source.into(), tree: Arc::new(tree) })
    }

    /// Evaluates the expression, which must give true or false. Takes as long as the expression takes, and needs a stack
    /// of [`STACK_BYTES`].
    ///
    /// # Errors
    ///
    /// [`ExpressionError`]: an error of an operand, or a result of another type.
    pub fn evaluate(&self, variables: &[(&str, &Value)]) -> Result<bool, ExpressionError> {
        match self.resolve(variables)? {
            CelValue::Bool(result) => Ok(result),
            other => {
                let kind = other.type_of();
                Err(ExpressionError(format!("expected true or false, got a value of type {kind}")))
            }
        }
    }

    /// Evaluates the expression to a JSON value, as [`Self::evaluate`] does.
    ///
    /// # Errors
    ///
    /// [`ExpressionError`]: an error of an operand, or a result that JSON does not have.
    pub fn value(&self, variables: &[(&str, &Value)]) -> Result<Value, ExpressionError> {
        let result = self.resolve(variables)?;
        let json = result.json();
        json.map_err(|_| ExpressionError("the result cannot be written as JSON".to_owned()))
    }

    /// The values that the expression refers to, such as `new.schema = 14, old.schema = 12`.
    #[must_use]
    pub fn explain(&self, variables: &[(&str, &Value)]) -> String {
        names::explain(&self.tree, variables)
    }

    fn resolve(&self, variables: &[(&str, &Value)]) -> Result<CelValue, ExpressionError> {
        let evaluate = || {
            let mut context = context();
            for (name, value) in variables {
                context.add_variable_from_value(*name, to_cel(value)?);
            }
            let result = CelValue::resolve(&self.tree, &context);
            result.map_err(|error| shortened(&error.to_string()))
        };
        let result = std::panic::catch_unwind(AssertUnwindSafe(evaluate));
        result
            .unwrap_or_else(|_| Err("the interpreter has failed".to_owned()))
            .map_err(ExpressionError)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

/// The functions of CEL, and `version`.
fn context<'a>() -> Context<'a, 'a> {
    let mut context = Context::default();
    let added = context.add_function("version", versions::version);
    added.expect("CEL has no function of this name");
    context
}

fn syntax_error(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else { return "a syntax error".to_owned() };
    let (line, column) = first.pos;
    let what = first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg);
    format!("syntax error at line {line}, column {column}: {}", shortened(what))
}

fn shortened(text: &str) -> String {
    super::masking::cut(text, ERROR_MAX)
}

#[cfg(test)]
mod tests;
