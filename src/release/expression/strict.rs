//! Logical operators that hide no error.
//!
//! In CEL, `error || true` is true, and `all` and `exists` skip an element with an error if a later one decides the
//! result. Here each `a || b` becomes `a ? true : (b ? true : false)`, and each `a && b` becomes
//! `a ? (b ? true : false) : false`: evaluated from left to right, with an error as soon as an operand has one.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
};

/// The same expression with operators that hide no error. Macros are loops with these operators.
pub(super) fn strict(tree: IdedExpr) -> IdedExpr {
    let IdedExpr { id, expr } = tree;
    let boxed = |it: Box<IdedExpr>| Box::new(strict(*it));
    let all = |them: Vec<IdedExpr>| them.into_iter().map(strict).collect::<Vec<_>>();
    let expr = match expr {
        Expr::Call(CallExpr { func_name, target, args }) => {
            let (target, args) = (target.map(boxed), all(args));
            match (&*func_name, <[IdedExpr; 2]>::try_from(args)) {
                (operators::LOGICAL_OR, Ok([left, right])) => {
                    conditional(id, left, boolean(id, true), as_boolean(id, right))
                }
                (operators::LOGICAL_AND, Ok([left, right])) => {
                    conditional(id, left, as_boolean(id, right), boolean(id, false))
                }
                (_, Ok(args)) => Expr::Call(CallExpr { func_name, target, args: args.into() }),
                (_, Err(args)) => Expr::Call(CallExpr { func_name, target, args }),
            }
        }
        Expr::Comprehension(mut it) => {
            for part in [
                &mut it.iter_range,
                &mut it.accu_init,
                &mut it.loop_cond,
                &mut it.loop_step,
                &mut it.result,
            ] {
                *part = strict(std::mem::take(part));
            }
            Expr::Comprehension(it)
        }
        Expr::List(mut it) => {
            it.elements = all(it.elements);
            Expr::List(it)
        }
        Expr::Map(mut it) => {
            it.entries.iter_mut().for_each(|it| strict_entry(&mut it.expr));
            Expr::Map(it)
        }
        Expr::Struct(mut it) => {
            it.entries.iter_mut().for_each(|it| strict_entry(&mut it.expr));
            Expr::Struct(it)
        }
        Expr::Select(mut it) => {
            it.operand = boxed(it.operand);
            Expr::Select(it)
        }
        plain @ (Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified) => plain,
    };
    IdedExpr { id, expr }
}

fn strict_entry(entry: &mut EntryExpr) {
    let parts = match entry {
        EntryExpr::StructField(it) => vec![&mut it.value],
        EntryExpr::MapEntry(it) => vec![&mut it.key, &mut it.value],
    };
    for part in parts {
        *part = strict(std::mem::take(part));
    }
}

/// `it ? true : false`: an error if it is no boolean.
fn as_boolean(id: u64, it: IdedExpr) -> IdedExpr {
    IdedExpr { id, expr: conditional(id, it, boolean(id, true), boolean(id, false)) }
}

fn conditional(_id: u64, condition: IdedExpr, then: IdedExpr, otherwise: IdedExpr) -> Expr {
    let func_name = operators::CONDITIONAL.to_owned();
    Expr::Call(CallExpr { func_name, target: None, args: vec![condition, then, otherwise] })
}

fn boolean(id: u64, value: bool) -> IdedExpr {
    IdedExpr { id, expr: Expr::Literal(LiteralValue::Boolean(value.into())) }
}
