//! Errors are never absorbed.

use super::*;

#[test]
fn the_interpreter_itself_absorbs_errors() {
    for (source, result) in [
        ("new.missing || true", true),
        ("new.missing && false", false),
        ("1 || true", true),
        ("[new.missing].size() == 1 || true", true),
        ("['x', 1].exists(item, item > 0)", true),
        ("['x', 1].all(item, item > 1)", false),
    ] {
        assert_eq!(raw(source), Ok(result.into()), "{source}");
    }
}

#[test]
fn an_absorbed_error_is_an_error() {
    let missing = Err(r#""missing" is missing"#.to_owned());
    for source in [
        "new.missing || true",
        "new.missing && false",
        "false || new.missing",
        "true && new.missing",
        "(new.missing || true) && true",
        "!(new.missing && false)",
        "(new.missing || true) ? true : false",
        "true ? (new.missing || true) : true",
        "[1].all(item, new.missing || true)",
        "[1].exists(item, new.missing || true)",
        "[1].exists_one(item, new.missing || true)",
        "[1].map(item, new.missing || true) == [true]",
        "[1].filter(item, new.missing || true) == [1]",
        "[1].map(item, new.missing || true, item) == [1]",
        "[1, 2].all(item, item == 2 ? false : new.missing)",
        "[1, 2].exists(item, item == 2 ? true : new.missing)",
        "[[1]].all(items, items.exists(item, new.missing || true))",
        "[new.missing || true] == [true]",
        "{'a': new.missing || true}.a",
        "{new.missing || true: 1}[true] == 1",
        "new.items[(new.missing || true) ? 0 : 1] == 1",
        "string(new.missing || true) == 'true'",
        "string(new.missing || true).contains('t')",
        "'true'.contains(string(new.missing || true))",
        "has({'a': new.missing || true}.a)",
        "(new.missing || true) == true",
        "false || false || new.missing || true",
        "true && true && new.missing && false",
        "new.missing.all(item, false) || true",
    ] {
        assert_eq!(evaluate(source), missing, "{source}");
    }
    // A value that is no boolean is an error, too, also if nothing needs a boolean.
    for source in ["(false || 7) == 7", "(true && 7) == 7", "string(false || 'x') == 'x'"] {
        let error = evaluate(source).unwrap_err();
        assert!(error.starts_with("expected bool, got "), "{source}: {error}");
    }
    for source in
        ["1 || true", "true && 1", "false || 'x'", "[1].all(item, item)", "[1].exists(item, item)"]
    {
        let error = evaluate(source).unwrap_err();
        assert!(error.starts_with("expected bool, got "), "{source}: {error}");
    }
    let loops = [
        "new.mixed.all(item, item > 0)",
        "new.mixed.exists(item, item > 1)",
        "['x', 1].exists(item, item > 0)",
    ];
    for source in loops {
        assert_eq!(
            evaluate(source),
            Err("cannot apply > to string and int".to_owned()),
            "{source}"
        );
    }
}

#[test]
fn operands_that_are_not_needed_are_not_evaluated() {
    for (source, result) in [
        ("true || new.missing", true),
        ("false && new.missing", false),
        ("has(new.missing) && new.missing > 1", false),
        ("!has(new.missing) || new.missing > 1", true),
        ("has(new.schema) && new.schema > 1", true),
        ("has(new.nested) && has(new.nested.deep) && new.nested.deep.value == 7", true),
        ("true ? true : new.missing", true),
        ("new.empty.all(item, new.missing)", true),
        ("new.empty.exists(item, new.missing)", false),
        // Elements after the one that decides.
        ("new.mixed.exists(item, item > 0)", true),
        ("new.mixed.all(item, item > 1)", false),
    ] {
        assert_eq!(evaluate(source), Ok(result), "{source}");
    }
}

/// A random expression, and its result by the rules that the module promises. `None`: an error.
fn random_expression(random: &mut Random, depth: usize) -> (String, Option<bool>) {
    let choice = if depth == 0 { random.below(4) } else { 4 + random.below(8) };
    let mut operand = || random_expression(random, depth - 1);
    match choice {
        0 => ("true".to_owned(), Some(true)),
        1 => ("false".to_owned(), Some(false)),
        2 => ("new.missing".to_owned(), None),
        3 => ("7".to_owned(), None),
        4 | 5 => {
            let ((a, left), (b, right)) = (operand(), operand());
            (format!("({a} || {b})"), left.and_then(|it| if it { Some(true) } else { right }))
        }
        6 | 7 => {
            let ((a, left), (b, right)) = (operand(), operand());
            (format!("({a} && {b})"), left.and_then(|it| if it { right } else { Some(false) }))
        }
        8 => {
            let (a, value) = operand();
            (format!("!({a})"), value.map(|it| !it))
        }
        9 => {
            let ((a, condition), (b, then), (c, other)) = (operand(), operand(), operand());
            (
                format!("(({a}) ? ({b}) : ({c}))"),
                condition.and_then(|it| if it { then } else { other }),
            )
        }
        10 => {
            let ((a, one), (b, two)) = (operand(), operand());
            let result = one.and_then(|it| if it { two } else { Some(false) });
            (format!("[1, 2].all(i, i == 1 ? ({a}) : ({b}))"), result)
        }
        _ => {
            let ((a, one), (b, two)) = (operand(), operand());
            let result = one.and_then(|it| if it { Some(true) } else { two });
            (format!("[1, 2].exists(i, i == 1 ? ({a}) : ({b}))"), result)
        }
    }
}

#[test]
fn random_expressions_have_the_result_of_the_rules() {
    let mut random = Random(1);
    let (mut results, mut differing) = ([0, 0, 0], 0);
    for depth in [1, 2, 3].repeat(250) {
        let (source, expected) = random_expression(&mut random, depth);
        assert_eq!(evaluate(&source).ok(), expected, "{source}");
        results[expected.map_or(2, usize::from)] += 1;
        differing += usize::from(raw(&source).is_ok() && expected.is_none());
    }
    // Each of them occurs, and so do errors that the interpreter absorbs.
    assert!(results.iter().all(|it| *it > 75) && differing > 10, "{results:?}, {differing}");
}

#[test]
fn the_same_values_always_give_the_same_result() {
    // Which key is first decides between an error and a result.
    let keys: serde_json::Map<_, _> =
        (0..20).map(|it| (format!("key{it:02}"), json!(it))).collect();
    let manifest = json!({"map": keys, "first": "key00"});
    let variables = [("new", &manifest)];
    let first =
        Expression::parse("new.map.exists(key, key == 'key00' ? true : new.missing)", &NAMES)
            .unwrap();
    let last =
        Expression::parse("new.map.exists(key, key == 'key19' ? true : new.missing)", &NAMES)
            .unwrap();
    let all = Expression::parse("new.map.map(key, key)", &NAMES).unwrap();
    let sum = Expression::parse("[] + new.map", &NAMES).unwrap();
    for _ in 0..20 {
        assert_eq!(first.evaluate(&variables), Ok(true));
        assert!(last.evaluate(&variables).is_err());
        assert_eq!(all.value(&variables).unwrap()[19], "key19");
        assert_eq!(sum.value(&variables).unwrap()[19], "key19");
    }
    assert_eq!(
        value("{2: 'a', 10: 'b', true: 'c'}.map(key, string(key))"),
        Ok(json!(["true", "2", "10"]))
    );
    assert_eq!(value("{'b': 1, 'a': 2}.filter(key, true)"), Ok(json!(["a", "b"])));
}
