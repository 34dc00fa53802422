//! Rewrites an expression so that no operator hides an error, and so that it always gives the same result.
//!
//! The interpreter absorbs an error in three places: `error || true`, `error && false`, and in the same way over the
//! elements of `all` and `exists`, which are loops of these operators. A conditional hides nothing: an error of its
//! condition is its result, and it evaluates one branch only. So every `||` and `&&` becomes a conditional:
//!
//! - `a || b` becomes `a ? true : (b ? true : false)`,
//! - `a && b` becomes `a ? (b ? true : false) : false`.
//!
//! The inner conditional makes sure that `b` is a boolean. The loop of `all` or `exists` that is made of a conditional
//! ends with its first error: the interpreter defers errors only for loops that are made of `&&` or `||`.
//!
//! This module does not know the names and functions of an expression.

use std::{cmp::Ordering, mem};

use cel::{
    DeclarationError, Env, ExecutionError, IdedExpr,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        types::{CelList, DYN_TYPE, Kind},
        value::{CowVal, Val},
    },
};

use super::version;

/// The function around what may be a map that is gone through. No source can call it: `@` is not part of a name.
const ORDERED: &str = "@ordered";

/// Adds the functions that rewritten expressions call.
pub(super) fn add_to(environment: &mut Env) -> Result<(), DeclarationError> {
    environment.add_overload(ORDERED, "ordered_dyn", vec![DYN_TYPE], ordered)
}

/// Rewrites an expression.
pub(super) fn rewrite(tree: &mut IdedExpr) {
    for child in children_mut(&mut tree.expr) {
        rewrite(child);
    }
    tree.expr = match mem::take(&mut tree.expr) {
        Expr::Call(call) => rewritten_call(call),
        Expr::Comprehension(mut comprehension) => {
            comprehension.iter_range = in_order(mem::take(&mut comprehension.iter_range));
            Expr::Comprehension(comprehension)
        }
        other => other,
    };
}

fn rewritten_call(CallExpr { func_name, target, args }: CallExpr) -> Expr {
    let is_operator = target.is_none();
    match (func_name.as_str(), <[IdedExpr; 2]>::try_from(args)) {
        (operators::LOGICAL_OR, Ok([left, right])) if is_operator => {
            conditional(left, node(boolean(true)), checked(right))
        }
        (operators::LOGICAL_AND, Ok([left, right])) if is_operator => {
            conditional(left, checked(right), node(boolean(false)))
        }
        // The interpreter adds the keys of a map to a list. The loop of `map` and `filter` adds a list as it is written.
        (operators::ADD, Ok([left, right])) if is_operator && !is_written(&right) => {
            call(operators::ADD, vec![left, in_order(right)])
        }
        // A version differs from every text. That must not be the result of a forgotten `version`.
        (operators::EQUALS, Ok(sides)) if sides.iter().any(is_version) => {
            call(version::EQUALS, sides.into())
        }
        (operators::NOT_EQUALS, Ok(sides)) if sides.iter().any(is_version) => {
            call(operators::LOGICAL_NOT, vec![node(call(version::EQUALS, sides.into()))])
        }
        (_, Ok(args)) => Expr::Call(CallExpr { func_name, target, args: args.into() }),
        (_, Err(args)) => Expr::Call(CallExpr { func_name, target, args }),
    }
}

fn is_version(tree: &IdedExpr) -> bool {
    matches!(&tree.expr, Expr::Call(it) if it.func_name == version::FUNCTION && it.target.is_none())
}

fn is_written(tree: &IdedExpr) -> bool {
    matches!(tree.expr, Expr::List(_) | Expr::Literal(_))
}

fn in_order(tree: IdedExpr) -> IdedExpr {
    node(call(ORDERED, vec![tree]))
}

/// Itself, if it is a boolean.
fn checked(tree: IdedExpr) -> IdedExpr {
    node(conditional(tree, node(boolean(true)), node(boolean(false))))
}

fn conditional(condition: IdedExpr, then: IdedExpr, otherwise: IdedExpr) -> Expr {
    call(operators::CONDITIONAL, vec![condition, then, otherwise])
}

fn call(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

fn boolean(value: bool) -> Expr {
    Expr::Literal(LiteralValue::Boolean(value.into()))
}

/// A part of a tree. Its number would lead to its place in the source, which is not needed any more.
fn node(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

/// Whether a tree has more levels than `max`.
pub(super) fn is_deeper(tree: &IdedExpr, max: usize) -> bool {
    max == 0 || children(&tree.expr).into_iter().any(|it| is_deeper(it, max - 1))
}

/// The parts of an expression, in the order of the source.
pub(super) fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(it) => it.target.as_deref().into_iter().chain(&it.args).collect(),
        Expr::Comprehension(it) => {
            vec![&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result]
        }
        Expr::List(it) => it.elements.iter().collect(),
        Expr::Select(it) => vec![&it.operand],
        Expr::Map(it) => it.entries.iter().flat_map(|it| entry_children(&it.expr)).collect(),
        Expr::Struct(it) => it.entries.iter().flat_map(|it| entry_children(&it.expr)).collect(),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entry_children(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(it) => vec![&it.key, &it.value],
        EntryExpr::StructField(it) => vec![&it.value],
    }
}

fn children_mut(expr: &mut Expr) -> Vec<&mut IdedExpr> {
    match expr {
        Expr::Call(it) => it.target.as_deref_mut().into_iter().chain(&mut it.args).collect(),
        Expr::Comprehension(it) => vec![
            &mut it.iter_range,
            &mut it.accu_init,
            &mut it.loop_cond,
            &mut it.loop_step,
            &mut it.result,
        ],
        Expr::List(it) => it.elements.iter_mut().collect(),
        Expr::Select(it) => vec![&mut it.operand],
        Expr::Map(it) => {
            it.entries.iter_mut().flat_map(|it| entry_children_mut(&mut it.expr)).collect()
        }
        Expr::Struct(it) => {
            it.entries.iter_mut().flat_map(|it| entry_children_mut(&mut it.expr)).collect()
        }
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entry_children_mut(entry: &mut EntryExpr) -> Vec<&mut IdedExpr> {
    match entry {
        EntryExpr::MapEntry(it) => vec![&mut it.key, &mut it.value],
        EntryExpr::StructField(it) => vec![&mut it.value],
    }
}

/// The sorted keys of a map: the interpreter would go through them in the order of a hash table, which differs from map
/// to map. Anything else is returned as it is.
fn ordered<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let argument = arguments.into_iter().next();
    let argument = argument.ok_or_else(ExecutionError::missing_argument_or_target)?;
    if argument.get_type().kind() != Kind::Map {
        return Ok(argument);
    }
    let mut keys: Vec<Box<dyn Val + 'v>> = Vec::new();
    if let Some(map) = argument.as_iterable() {
        let mut iterator = map.iter();
        while let Some(key) = iterator.next() {
            keys.push(key.clone_as_boxed());
        }
    }
    keys.sort_by(|one, other| compare(&**one, &**other));
    Ok(CowVal::owned(CelList::from(keys)))
}

/// Keys of the same type by their value, others by the name of their type.
fn compare(one: &dyn Val, other: &dyn Val) -> Ordering {
    one.get_type().name().cmp(other.get_type().name()).then_with(|| {
        let order = one.as_comparer().and_then(|it| it.compare(other).ok());
        order.unwrap_or(Ordering::Equal)
    })
}
