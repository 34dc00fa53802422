//! The values that an expression refers to, for a message about its result.
//!
//! This module does not know the result, and not which of the values decided it.

use std::io::{self, Write};

use cel::{
    IdedExpr,
    common::ast::{CallExpr, Expr, LiteralValue, operators},
};
use serde_json::Value;

use super::{
    strict::children,
    values::{Step, add_step},
};
use crate::release::masking::quoted;

/// The most values in a message.
const VALUES_MAX: usize = 8;

/// The most characters of one value.
const LETTERS_MAX: usize = 80;

/// A path from a variable to a part of its value.
#[derive(Debug, Eq, PartialEq)]
struct Path<'a> {
    name: &'a str,
    steps: Vec<Step<'a>>,
}

/// The paths of an expression and their values: `new.schema = 14, old.schema is missing`.
pub(super) fn of(tree: &IdedExpr, variables: &[(&str, &Value)]) -> String {
    let mut paths = Vec::new();
    collect(tree, &mut Vec::new(), &mut paths);
    paths.retain(|path| variables.iter().any(|it| it.0 == path.name));
    let mut parts: Vec<_> =
        paths.iter().take(VALUES_MAX).map(|path| path.shown(variables)).collect();
    if paths.len() > VALUES_MAX {
        parts.push(format!("and {} more", paths.len() - VALUES_MAX));
    }
    parts.join(", ")
}

/// Adds the paths in an expression, each once, in the order of the source. `locals` are the variables of the macros
/// around it.
fn collect<'a>(tree: &'a IdedExpr, locals: &mut Vec<&'a str>, paths: &mut Vec<Path<'a>>) {
    if let Some(path) = Path::of(tree, locals) {
        if !paths.contains(&path) {
            paths.push(path);
        }
        return;
    }
    if let Expr::Comprehension(it) = &tree.expr {
        collect(&it.iter_range, locals, paths);
        locals.push(&it.iter_var);
        collect(&it.loop_step, locals, paths);
        locals.pop();
        return;
    }
    for child in children(&tree.expr) {
        collect(child, locals, paths);
    }
}

// === impl Path ===

impl<'a> Path<'a> {
    /// The path that an expression is, if it is one.
    fn of(tree: &'a IdedExpr, locals: &[&str]) -> Option<Self> {
        let (operand, step) = match &tree.expr {
            Expr::Ident(name) => {
                let is_local = locals.contains(&&**name) || name.starts_with('@');
                let name = name.strip_prefix('.').unwrap_or(name);
                return (!is_local).then(|| Self { name, steps: Vec::new() });
            }
            Expr::Select(it) => (&*it.operand, Step::Key(it.field.as_str())),
            Expr::Call(CallExpr { func_name, target: None, args }) => match &args[..] {
                [operand, index] if func_name == operators::INDEX => {
                    (operand, literal_step(index)?)
                }
                _ => return None,
            },
            _ => return None,
        };
        let mut path = Self::of(operand, locals)?;
        path.steps.push(step);
        Some(path)
    }

    fn shown(&self, variables: &[(&str, &Value)]) -> String {
        let mut written = self.name.to_owned();
        self.steps.iter().for_each(|it| add_step(&mut written, it));
        let root = variables.iter().find(|it| it.0 == self.name).map(|it| it.1);
        let value = self.steps.iter().try_fold(root, |value, step| match (value?, step) {
            (Value::Object(it), Step::Key(key)) => Some(it.get(*key)),
            (Value::Array(it), Step::Index(index)) => Some(it.get(*index)),
            _ => None,
        });
        match value.flatten() {
            Some(value) => format!("{written} = {}", cut(value)),
            None => format!("{written} is missing"),
        }
    }
}

fn literal_step(index: &IdedExpr) -> Option<Step<'_>> {
    match &index.expr {
        Expr::Literal(LiteralValue::String(it)) => Some(Step::Key(it.inner())),
        Expr::Literal(LiteralValue::Int(it)) => usize::try_from(*it.inner()).ok().map(Step::Index),
        _ => None,
    }
}

/// The beginning of a value as JSON.
fn cut(value: &Value) -> String {
    let mut head = Head::default();
    // It fails when it has enough.
    let _ = serde_json::to_writer(&mut head, value);
    let text = String::from_utf8_lossy(&head.0);
    match text.char_indices().nth(LETTERS_MAX) {
        Some((end, _)) => format!("{}…", quoted(&text[..end])),
        None => quoted(&text),
    }
}

/// Keeps as many bytes as a message can show, and fails after that.
#[derive(Default)]
struct Head(Vec<u8>);

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Characters have up to four bytes; one more shows that something is cut.
        let left = (4 * LETTERS_MAX + 4).saturating_sub(self.0.len());
        if left == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let taken = left.min(bytes.len());
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
