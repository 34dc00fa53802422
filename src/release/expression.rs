//! Boolean and other expressions over JSON values, in the Common Expression Language (CEL).
//!
//! An expression is compiled once: its names and functions are checked, since the crate has no type checker. An
//! evaluation is strict: an error in an operand that was evaluated is an error of the whole, also where CEL would let
//! another operand decide. Operands are evaluated from left to right, and only as far as needed, so that
//! `has(new.schema) && new.schema > 1` works. Keys of an object are visited in order, so that the same values always
//! give the same result.
//!
//! # Time
//!
//! An evaluation is synchronous and cannot be cancelled, and it has no cost limit. A macro inside of a macro multiplies
//! the work, and an expression can build lists and texts that are larger than its input. The caller evaluates on a
//! thread that may block, with a time limit of its own, and limits how many such threads there are. Parsing the longest
//! source takes tens of milliseconds. Both run on a thread of their own, because they need more stack than threads have.
//!
//! This module does not know what the names stand for, and not how long an evaluation takes.

use std::{
    fmt::{self, Debug, Formatter},
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Context, Env,
    common::{types::CelBool, value::Val},
    parser::Parser,
};
use serde_json::Value;

mod errors;
mod explain;
mod names;
mod strict;
#[cfg(test)]
mod tests;
mod values;
mod version;

/// The longest source, in bytes.
const SOURCE_BYTES_MAX: usize = 16 * 1024;

/// The deepest nesting of parentheses, lists, maps and calls that the parser follows.
const NESTING_MAX: u16 = 32;

/// The deepest tree that is evaluated. A chain such as `a + b + c` is as deep as it is long.
const DEPTH_MAX: usize = 256;

/// The stack of a thread that compiles or evaluates. The parser takes up to 16 MiB for the longest source in a build
/// without optimization, and the interpreter up to 16 MiB for the deepest tree. Only what is used takes memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// The functions and types of every expression. Without optional values, because they hide errors.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut environment = Env::default().with_optional_support(false).with_stdlib();
    let added = version::add_to(&mut environment).and_then(|()| strict::add_to(&mut environment));
    added.expect("no standard function has these names");
    Arc::new(environment)
});

/// A compiled expression. Cheap to clone. Two expressions are equal if their sources are.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    /// Rewritten by [`strict::rewrite`].
    tree: Arc<cel::IdedExpr>,
}

/// What is wrong with the source of an expression.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ExpressionError(String);

/// Why an evaluation has no result.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct EvaluationError(String);

// === impl Expression ===

impl Expression {
    /// Compiles an expression that may use the given names.
    ///
    /// # Errors
    ///
    /// What is wrong with it: its syntax, a name or a function that does not exist, or its size.
    pub fn parse(source: &str, names: &[&str]) -> Result<Self, ExpressionError> {
        if source.trim().is_empty() {
            return Err(ExpressionError("the expression is empty".to_owned()));
        }
        if source.len() > SOURCE_BYTES_MAX {
            return Err(ExpressionError(format!("longer than {SOURCE_BYTES_MAX} bytes")));
        }
        let compiled = on_large_stack(|| {
            let parser = Parser::new().max_recursion_depth(NESTING_MAX);
            let mut tree = parser.parse(source).map_err(|it| errors::of_parser(&it))?;
            if strict::is_deeper(&tree, DEPTH_MAX) {
                return Err(too_deep());
            }
            names::check(&tree, names, ENVIRONMENT.types())?;
            strict::rewrite(&mut tree);
            // Rewriting adds levels.
            if strict::is_deeper(&tree, DEPTH_MAX) { Err(too_deep()) } else { Ok(tree) }
        });
        let tree = compiled.map_err(ExpressionError)?;
        Ok(Self { source: source.into(), tree: Arc::new(tree) })
    }

    /// Evaluates it. Blocks until it has a result; see the module about time.
    ///
    /// Every integer is an `int`. An integer that is too large for it is refused, also in a part of a variable that the
    /// expression does not use.
    ///
    /// # Errors
    ///
    /// Why there is no result, or that it is neither true nor false.
    pub fn evaluate(&self, variables: &[(&str, &Value)]) -> Result<bool, EvaluationError> {
        self.run(variables, |result| match result.downcast_ref::<CelBool>() {
            Some(it) => Ok(*it.inner()),
            None => Err(format!("expected bool, got {}", errors::type_name(result))),
        })
    }

    /// Evaluates it to JSON. Blocks like [`Self::evaluate`].
    ///
    /// # Errors
    ///
    /// Why there is no result, or that JSON has no form for it.
    pub fn value(&self, variables: &[(&str, &Value)]) -> Result<Value, EvaluationError> {
        self.run(variables, values::to_json)
    }

    /// The values that it refers to, for a message: `new.schema = 14, old.schema is missing`. Values are cut, and so is
    /// the list.
    #[must_use]
    pub fn explain(&self, variables: &[(&str, &Value)]) -> String {
        on_large_stack(|| Ok(explain::of(&self.tree, variables))).unwrap_or_default()
    }

    fn run<T: Send>(
        &self,
        variables: &[(&str, &Value)],
        take: impl FnOnce(&dyn Val) -> Result<T, String> + Send,
    ) -> Result<T, EvaluationError> {
        let result = on_large_stack(|| {
            let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
            let references = self.tree.references();
            let is_used =
                |it: &str| references.has_variable(it) || references.has_variable(format!(".{it}"));
            for (name, value) in variables.iter().filter(|it| is_used(it.0)) {
                context.add_variable_as_val(*name, values::of_json(value, name)?);
            }
            let result = cel::Value::resolve_val(&self.tree, &context);
            take(&*result.map_err(|it| errors::of_interpreter(&it))?)
        });
        result.map_err(EvaluationError)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Expression {}

impl Debug for Expression {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Expression").field(&self.source).finish()
    }
}

fn too_deep() -> String {
    format!("nested too deeply: at most {NESTING_MAX} brackets and {DEPTH_MAX} operations")
}

/// Runs `work` on a thread with a stack that is large enough for every expression, and waits for it. Its panic is an
/// error; the panic hook has reported it by then.
fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("expression".to_owned()).stack_size(STACK_BYTES);
        match builder.spawn_scoped(scope, work).map(thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_panic)) => Err("the interpreter failed with an internal error".to_owned()),
            Err(error) => Err(format!("cannot start a thread: {error}")),
        }
    })
}
