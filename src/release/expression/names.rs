//! The names in an expression: which of them are unknown, and which values they have.

use cel::{
    IdedExpr,
    common::ast::{ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators},
};
use serde_json::Value;

use super::context;
use crate::{model::nearest, release::masking::cut};

/// Types, which CEL compares as values: `type(x) == int`.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The most values that an explanation has, and the most characters of each.
const EXPLAINED_MAX: usize = 8;
const VALUE_MAX: usize = 80;

/// Functions that a message lists: those that a rule most likely needs.
const USUAL: [&str; 6] = ["size", "contains", "startsWith", "endsWith", "matches", "version"];

/// Refuses names and functions that are not known.
///
/// # Errors
///
/// The first one, and what may be meant.
pub(super) fn check_names(tree: &IdedExpr, names: &[&str]) -> Result<(), String> {
    let mut scope: Vec<&str> = names.to_vec();
    check(tree, names, &mut scope)
}

fn check<'t>(tree: &'t IdedExpr, names: &[&str], scope: &mut Vec<&'t str>) -> Result<(), String> {
    match &tree.expr {
        Expr::Ident(name) => {
            let is_known = scope.contains(&name.as_str()) || TYPES.contains(&name.as_str());
            if is_known { Ok(()) } else { Err(unknown("name", name, names)) }
        }
        Expr::Call(call) => {
            if !is_function(&call.func_name) {
                return Err(unknown("function", &call.func_name, &USUAL));
            }
            let parts = call.target.iter().map(|it| &**it).chain(&call.args);
            parts.into_iter().try_for_each(|it| check(it, names, scope))
        }
        Expr::Comprehension(it) => {
            check(&it.iter_range, names, scope)?;
            check(&it.accu_init, names, scope)?;
            let depth = scope.len();
            scope.extend([it.iter_var.as_str(), it.accu_var.as_str()]);
            scope.extend(it.iter_var2.as_deref());
            let inner = [&it.loop_cond, &it.loop_step, &it.result];
            let checked = inner.into_iter().try_for_each(|it| check(it, names, scope));
            scope.truncate(depth);
            checked
        }
        Expr::List(it) => it.elements.iter().try_for_each(|it| check(it, names, scope)),
        Expr::Map(it) => {
            let mut parts = it.entries.iter().flat_map(|it| entry_parts(&it.expr));
            parts.try_for_each(|it| check(it, names, scope))
        }
        Expr::Select(it) => check(&it.operand, names, scope),
        Expr::Struct(it) => Err(format!("the type `{}` is not known", it.type_name)),
        Expr::Literal(_) | Expr::Unspecified => Ok(()),
    }
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let name = cut(name, 40);
    match nearest(&name, known) {
        Some(near) => format!("unknown {kind} `{name}`; did you mean `{near}`?"),
        None => format!("unknown {kind} `{name}`; there are {}, for example", known.join(", ")),
    }
}

/// Whether CEL has this operator or function, or it is ours. Operators have other characters in their names.
fn is_function(name: &str) -> bool {
    let is_operator = !name.starts_with(|it: char| it.is_ascii_alphabetic());
    // The crate refuses to replace a function that it has.
    is_operator || name == "version" || context().add_function(name, || true).is_err()
}

/// How deep the tree of an expression is.
pub(super) fn depth(tree: &IdedExpr) -> usize {
    let deepest = |parts: &mut dyn Iterator<Item = &IdedExpr>| parts.map(depth).max().unwrap_or(0);
    1 + match &tree.expr {
        Expr::Call(it) => deepest(&mut it.target.iter().map(|it| &**it).chain(&it.args)),
        Expr::Comprehension(it) => deepest(&mut comprehension_parts(it).into_iter()),
        Expr::List(it) => deepest(&mut it.elements.iter()),
        Expr::Map(it) => deepest(&mut it.entries.iter().flat_map(|it| entry_parts(&it.expr))),
        Expr::Struct(it) => deepest(&mut it.entries.iter().flat_map(|it| entry_parts(&it.expr))),
        Expr::Select(it) => depth(&it.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    }
}

fn comprehension_parts(it: &ComprehensionExpr) -> [&IdedExpr; 5] {
    [&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result]
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(it) => vec![&it.key, &it.value],
        EntryExpr::StructField(it) => vec![&it.value],
    }
}

/// The values of the paths in an expression, each once, in their order.
pub(super) fn explain(tree: &IdedExpr, variables: &[(&str, &Value)]) -> String {
    let mut paths = Vec::new();
    collect(tree, &mut paths);
    let mut explained: Vec<String> = Vec::new();
    for path in paths {
        let (root, inner) = path.split_first().expect("a path has a root");
        let Some((_, value)) = variables.iter().find(|it| it.0 == root) else { continue };
        let value = inner.iter().try_fold(*value, |value, name| value.get(name));
        let value =
            value.map_or_else(|| "not there".to_owned(), |it| cut(&it.to_string(), VALUE_MAX));
        let text = format!("{} = {value}", path.join("."));
        if !explained.contains(&text) {
            explained.push(text);
        }
    }
    let more = explained.len().saturating_sub(EXPLAINED_MAX);
    explained.truncate(EXPLAINED_MAX);
    if more > 0 {
        explained.push(format!("and {more} more"));
    }
    explained.join(", ")
}

/// The paths of names and fields in an expression, such as `["new", "schema"]`.
fn collect(tree: &IdedExpr, paths: &mut Vec<Vec<String>>) {
    if let Some(path) = path_of(tree) {
        paths.push(path);
        return;
    }
    match &tree.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|it| collect(it, paths));
            call.args.iter().for_each(|it| collect(it, paths));
        }
        Expr::Comprehension(it) => {
            for part in [&it.iter_range, &it.loop_step, &it.result] {
                collect(part, paths);
            }
        }
        Expr::List(it) => it.elements.iter().for_each(|it| collect(it, paths)),
        Expr::Select(it) => collect(&it.operand, paths),
        _ => {}
    }
}

/// The path that an expression spells, root first: `a.b["c"]` is `["a", "b", "c"]`.
fn path_of(tree: &IdedExpr) -> Option<Vec<String>> {
    match &tree.expr {
        Expr::Ident(name) => Some(vec![name.clone()]),
        Expr::Select(it) if !it.test => {
            let mut path = path_of(&it.operand)?;
            path.push(it.field.clone());
            Some(path)
        }
        Expr::Call(call) if call.func_name == operators::INDEX => {
            let [operand, key] = &*call.args else { return None };
            let Expr::Literal(LiteralValue::String(key)) = &key.expr else { return None };
            let mut path = path_of(operand)?;
            path.push(key.inner().to_owned());
            Some(path)
        }
        _ => None,
    }
}
