use serde_json::json;

use super::*;

/// Evaluates on a stack that is large enough, as the gates do.
fn evaluate(source: &str, a: &Value, b: &Value) -> Result<bool, String> {
    let run = || {
        let expression = Expression::parse(source, &["a", "b"]).map_err(|it| it.to_string())?;
        expression.evaluate(&[("a", a), ("b", b)]).map_err(|it| it.to_string())
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, run).expect("a thread").join().expect("no panic")
    })
}

fn on_samples(source: &str) -> Result<bool, String> {
    let a = json!({"n": 13, "f": 1.5, "s": "x", "list": [1, 2], "map": {"k-1": 1}, "no": null, "t": true});
    let b = json!({"n": 12, "list": [1, 2, 3]});
    evaluate(source, &a, &b)
}

#[test]
fn whole_numbers_of_json_and_literals_can_be_compared_and_subtracted() {
    for source in [
        "a.n <= b.n + 1",
        "b.n - a.n == -1",
        "a.n == 13 && a.f > 1.0",
        "a.list.all(it, it in b.list)",
        "b.list.exists(it, it == 3)",
        "a.map['k-1'] == 1 && has(a.map) && !has(a.none)",
        "size(b.list) == a.list.size() + 1",
        "a.no == null && a.s.matches('^[a-z]$')",
        "type(a.n) == int",
        "a.list.map(it, it * 2) == [2, 4]",
        "b.list.filter(it, it > 2) == [3]",
    ] {
        assert_eq!(on_samples(source), Ok(true), "{source}");
    }
    let large = json!({"n": u64::MAX});
    let error = evaluate("a.n > 1", &large, &large).expect_err("too large");
    assert!(error.contains("18446744073709551615 is too large"), "{error}");
}

#[test]
fn an_error_is_never_hidden_by_another_operand() {
    for source in [
        "a.none == 1 || true",
        "a.none == 1 && false",
        "(a.none == 1 || true) && true",
        "!(a.none == 1 && false)",
        "a.none == 1 || a.none == 2 || true",
        "[a.n].all(it, it.none == 1 || true)",
        "[1, 2].all(it, a.none == it || true)",
        "[1, 2].exists(it, a.none == it || it == 2)",
        "['x', 3].exists(it, it > 2)",
        "['x', 1].all(it, it > 2)",
        "(a.none == 1 || true) ? true : false",
        "true ? (a.none == 1 || true) : true",
        "[(a.none == 1 || true)] == [true]",
        "{'k': a.none == 1 || true} == {'k': true}",
        "version('x') == version('1') || true",
        "a.n / 0 == 1 || true",
    ] {
        assert!(on_samples(source).is_err(), "{source}: {:?}", on_samples(source));
    }
}

#[test]
fn operands_that_are_not_needed_are_not_evaluated() {
    for source in [
        "true || a.none == 1",
        "!(false && a.none == 1)",
        "has(a.none) && a.none == 1 || a.n == 13",
        "[1, 2].exists(it, it == 1 || a.none == it)",
        "!has(a.none) || a.none.size() > 0",
    ] {
        assert_eq!(on_samples(source), Ok(true), "{source}");
    }
}

#[test]
fn a_result_or_operand_that_is_not_a_boolean_is_an_error() {
    for source in
        ["a.n", "a.s", "'true'", "a.n || true", "true && a.n", "false || a.s", "null", "!a.n"]
    {
        assert!(on_samples(source).is_err(), "{source}");
    }
    assert_eq!(
        on_samples("a.n"),
        Err("expected true or false, got a value of type int".to_owned())
    );
}

#[test]
fn unknown_names_and_functions_are_found_when_the_expression_is_read() {
    let error = |source: &str| {
        Expression::parse(source, &["old", "new", "candidate"]).expect_err(source).to_string()
    };
    assert_eq!(error("candidat.n == 1"), "unknown name `candidat`; did you mean `candidate`?");
    assert_eq!(
        error("true || other.n == 1"),
        "unknown name `other`; there are old, new, candidate, for example"
    );
    assert_eq!(
        error("new.list.all(it, item == 1)"),
        "unknown name `item`; there are old, new, candidate, for example"
    );
    assert_eq!(
        error("it == 1 && new.list.all(it, it == 1)"),
        "unknown name `it`; there are old, new, candidate, for example"
    );
    assert_eq!(
        error("versoin(new.v) == version('1')"),
        "unknown function `versoin`; did you mean `version`?"
    );
    assert!(error("new.frobnicate()").starts_with("unknown function `frobnicate`; there are size"));
    assert_eq!(error("Foo{a: 1} == 1"), "the type `Foo` is not known");
}

#[test]
fn a_syntax_error_has_its_place() {
    let error = |source: &str| Expression::parse(source, &["a"]).expect_err(source).to_string();
    assert!(error("a.n ==").starts_with("syntax error at line 1, column "), "{}", error("a.n =="));
    for source in [
        "", " ", "a.n = 1", "a b", "(a", "'a", "a.n ? 1", "\u{0}", "a..b", "@", "a[", "[1,", "{1",
        "`", "\"\\", "if",
    ] {
        assert!(!error(source).is_empty(), "{source:?}");
    }
}

#[test]
fn deep_and_long_expressions_are_errors_and_not_crashes() {
    for source in [
        "(".repeat(4000),
        "[".repeat(4000),
        "-".repeat(4000),
        "!".repeat(4000),
        format!("{}a{}", "(".repeat(2000), ")".repeat(2000)),
        "x".repeat(BYTES_MAX + 1),
        "a.b(".repeat(1000),
        "a ? ".repeat(1000),
        ["1"; 2000].join("+"),
        format!("a{}", ".b".repeat(2000)),
    ] {
        assert!(Expression::parse(&source, &["a"]).is_err(), "{}…", &source[..10]);
    }
    // As deep as it may be.
    let sum = format!("{} > 0", ["1"; DEPTH_MAX - 1].join("+"));
    assert_eq!(on_samples(&sum), Ok(true));
    let either = vec!["false"; DEPTH_MAX - 1].join("||");
    assert_eq!(on_samples(&either), Ok(false));
}

#[test]
fn versions_compare_as_versions() {
    let (a, b) = (json!({"v": "8.10.0"}), json!({"v": "8.9.0", "bad": "latest", "n": 8}));
    assert_eq!(evaluate("version(a.v) > version(b.v)", &a, &b), Ok(true));
    assert_eq!(evaluate("version(a.v) == version('v8.10')", &a, &b), Ok(true));
    let error = evaluate("version(a.v) > version(b.bad)", &a, &b).expect_err("not a version");
    assert!(error.contains("\"latest\" is not a version"), "{error}");
    assert!(evaluate("version(a.v) > version(b.n)", &a, &b).is_err(), "a number");
}

#[test]
fn an_explanation_has_the_values_that_the_expression_names() {
    let a = json!({"n": 13, "list": ["x".repeat(100)], "m": {"k-1": true}});
    let b = json!({"n": 12});
    let explain = |source: &str| {
        let expression = Expression::parse(source, &["a", "b"]).expect("valid");
        expression.explain(&[("a", &a), ("b", &b)])
    };
    assert_eq!(explain("a.n <= b.n + 1 && a.n > 0"), "a.n = 13, b.n = 12");
    assert_eq!(explain("a.m['k-1'] && b.none.x == 1"), "a.m.k-1 = true, b.none.x = not there");
    let long = explain("a.list.all(it, it in b.n)");
    assert!(long.starts_with("a.list = [\"xxx") && long.ends_with("…, b.n = 12"), "{long}");
}

#[test]
fn a_value_can_be_of_any_type_that_json_has() {
    let a = json!({"n": 13, "s": "x"});
    let value = |source: &str| {
        let expression = Expression::parse(source, &["a"]).expect("valid");
        expression.value(&[("a", &a)]).map_err(|it| it.to_string())
    };
    assert_eq!(value("a.s"), Ok(json!("x")));
    assert_eq!(value("a.n + 1"), Ok(json!(14)));
    assert_eq!(value("[a.s, a.s]"), Ok(json!(["x", "x"])));
    assert!(value("a.none").is_err());
}
