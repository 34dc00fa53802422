//! Checks that every name and every function of an expression exists: the interpreter notices only when it gets there.
//!
//! This module does not know the fields of the values.

use cel::{
    IdedExpr, TypeRegistry,
    common::ast::{CallExpr, ComprehensionExpr, Expr, operators},
};

use super::{strict::children, version};
use crate::release::masking::quoted;

/// How a function or macro is written.
struct Function {
    name: &'static str,
    /// Written after what it is applied to.
    is_member: bool,
    arguments: usize,
    usage: &'static str,
}

const fn global(name: &'static str, arguments: usize, usage: &'static str) -> Function {
    Function { name, is_member: false, arguments, usage }
}

const fn member(name: &'static str, arguments: usize, usage: &'static str) -> Function {
    Function { name, is_member: true, arguments, usage }
}

/// All functions and macros. The parser has replaced a macro that is written correctly.
const FUNCTIONS: [Function; 23] = [
    member("all", 2, "list.all(item, condition)"),
    global("bool", 1, "bool(text)"),
    global("bytes", 1, "bytes(text)"),
    member("contains", 1, "text.contains(part)"),
    global("double", 1, "double(value)"),
    global("dyn", 1, "dyn(value)"),
    member("endsWith", 1, "text.endsWith(part)"),
    member("exists", 2, "list.exists(item, condition)"),
    member("existsOne", 2, "list.existsOne(item, condition)"),
    member("exists_one", 2, "list.exists_one(item, condition)"),
    member("filter", 2, "list.filter(item, condition)"),
    global("has", 1, "has(value.field)"),
    global("int", 1, "int(value)"),
    member("map", 2, "list.map(item, result)"),
    member("matches", 1, "text.matches(regex)"),
    global("matches", 2, "matches(text, regex)"),
    global("size", 1, "size(value)"),
    member("size", 0, "value.size()"),
    member("startsWith", 1, "text.startsWith(part)"),
    global("string", 1, "string(value)"),
    global("type", 1, "type(value)"),
    global("uint", 1, "uint(value)"),
    global(version::FUNCTION, 1, "version(text)"),
];

const OPERATORS: [&str; 19] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
    operators::NOT_STRICTLY_FALSE,
];

/// Checks an expression.
///
/// # Errors
///
/// The first name or function that does not exist.
pub(super) fn check(tree: &IdedExpr, names: &[&str], types: &TypeRegistry) -> Result<(), String> {
    Scope { names, types, locals: Vec::new() }.check(tree)
}

/// The names that an expression may use.
struct Scope<'a> {
    names: &'a [&'a str],
    types: &'a TypeRegistry,
    /// The variables of the macros around it.
    locals: Vec<&'a str>,
}

// === impl Scope ===

impl<'a> Scope<'a> {
    fn check(&mut self, tree: &'a IdedExpr) -> Result<(), String> {
        match &tree.expr {
            Expr::Ident(name) => return self.check_name(name),
            Expr::Comprehension(it) => return self.check_loop(it),
            Expr::Call(call) => check_function(call)?,
            Expr::Struct(it) => return Err(format!("unknown type \"{}\"", quoted(&it.type_name))),
            _ => {}
        }
        children(&tree.expr).into_iter().try_for_each(|it| self.check(it))
    }

    fn check_loop(&mut self, comprehension: &'a ComprehensionExpr) -> Result<(), String> {
        self.check(&comprehension.iter_range)?;
        let outer = self.locals.len();
        self.locals.extend([&*comprehension.iter_var, &*comprehension.accu_var]);
        self.locals.extend(comprehension.iter_var2.as_deref());
        self.check(&comprehension.loop_step)?;
        self.locals.truncate(outer);
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        // `.new` is `new`, also where a macro has a variable of that name.
        let (global, locals) = match name.strip_prefix('.') {
            Some(global) => (global, &[][..]),
            None => (name, &self.locals[..]),
        };
        if locals.contains(&name)
            || self.names.contains(&global)
            || self.types.find_type(global).is_some()
        {
            return Ok(());
        }
        let locals = locals.iter().filter(|it| !it.starts_with('@'));
        let known: Vec<_> = self.names.iter().chain(locals).copied().collect();
        Err(unknown("name", global, &known))
    }
}

fn check_function(call: &CallExpr) -> Result<(), String> {
    let CallExpr { func_name: name, target, args } = call;
    if OPERATORS.contains(&&**name) {
        return Ok(());
    }
    let mut same_name = FUNCTIONS.iter().filter(|it| it.name == name).peekable();
    if same_name.peek().is_none() {
        return Err(unknown("function", name, &FUNCTIONS.map(|it| it.name)));
    }
    let (is_member, count) = (target.is_some(), args.len());
    if same_name.clone().any(|it| it.is_member == is_member && it.arguments == count) {
        return Ok(());
    }
    let usages: Vec<_> = same_name.map(|it| it.usage).collect();
    Err(format!("\"{name}\" is written {}", usages.join(" or ")))
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let what = format!("unknown {kind} \"{}\"", quoted(name));
    if let Some(near) = nearest(name, known) {
        return format!("{what}; did you mean \"{near}\"?");
    }
    let mut known = known.to_vec();
    known.dedup();
    match known.is_empty() {
        true => what,
        false => format!("{what}; the {kind}s are {}", known.join(", ")),
    }
}

/// The name that takes the fewest changes, if these are few enough for a typing error.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distances = known.iter().map(|it| (distance(name, it), *it));
    let (changes, near) = distances.min_by_key(|it| it.0)?;
    (changes <= near.chars().count().div_ceil(3)).then_some(near)
}

/// The least number of characters to insert, remove, replace, or swap with the next one.
fn distance(one: &str, other: &str) -> usize {
    // A longer name is no typing error, and would take long.
    if one.len().abs_diff(other.len()) > other.len() {
        return usize::MAX;
    }
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut rows: [Vec<usize>; 3] = [Vec::new(), Vec::new(), (0..=other.len()).collect()];
    for (row, letter) in one.iter().enumerate() {
        rows.rotate_left(1);
        let [before_last, last, current] = &mut rows;
        *current = vec![row + 1];
        for (column, other_letter) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != other_letter);
            let mut changes = replaced.min(last[column + 1] + 1).min(current[column] + 1);
            let is_swapped = row > 0
                && column > 0
                && *letter == other[column - 1]
                && one[row - 1] == *other_letter;
            if is_swapped {
                changes = changes.min(before_last[column - 1] + 1);
            }
            current.push(changes);
        }
    }
    rows[2].last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_near_and_another_word_is_not() {
        let names = ["old", "new", "active", "candidate"];
        for (name, near) in [
            ("candidat", Some("candidate")),
            ("cnadidate", Some("candidate")),
            ("kandidaat", Some("candidate")),
            ("actvie", Some("active")),
            ("nwe", Some("new")),
            ("olds", Some("old")),
            ("foo", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, &names), near, "{name}");
        }
        assert_eq!(nearest("new", &[]), None);
    }

    #[test]
    fn a_distance_counts_the_changes() {
        for (one, other, changes) in [
            ("", "", 0),
            ("a", "", usize::MAX),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("abc", "abd", 1),
            ("äb", "äbc", 1),
        ] {
            assert_eq!(distance(one, other), changes, "{one} and {other}");
        }
    }
}
