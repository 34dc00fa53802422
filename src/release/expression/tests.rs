//! Tests of expressions as a whole. Those of a part are in its file.

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

// === Names and functions ===

#[test]
fn an_unknown_name_is_refused_with_the_name_that_was_meant() {
    for (source, error) in [
        ("candidat.schema == 1", r#"unknown name "candidat"; did you mean "candidate"?"#),
        ("true || nwe.schema == 1", r#"unknown name "nwe"; did you mean "new"?"#),
        ("foo", r#"unknown name "foo"; the names are old, new, active, candidate"#),
        ("has(foo.bar)", r#"unknown name "foo"; the names are old, new, active, candidate"#),
        ("{'a': foo}.a", r#"unknown name "foo"; the names are old, new, active, candidate"#),
        ("new.items[foo]", r#"unknown name "foo"; the names are old, new, active, candidate"#),
        ("new.items.all(item, itme > 0)", r#"unknown name "itme"; did you mean "item"?"#),
        // A variable of a macro has no value outside of it, and not in what the macro goes through.
        (
            "new.items.all(item, item > 0) && item > 0",
            r#"unknown name "item"; the names are old, new, active, candidate"#,
        ),
        (
            "item.all(item, true)",
            r#"unknown name "item"; the names are old, new, active, candidate"#,
        ),
        (".item == 1", r#"unknown name "item"; the names are old, new, active, candidate"#),
        (
            "new.items.all(item, .item > 0)",
            r#"unknown name "item"; the names are old, new, active, candidate"#,
        ),
        ("Foo{a: 1}.a == 1", r#"unknown type "Foo""#),
        ("google.protobuf.Timestamp{}", r#"unknown type "google.protobuf.Timestamp""#),
    ] {
        assert_eq!(parse_error(source), error, "{source}");
    }
    assert_eq!(Expression::parse("a", &[]), Err(ExpressionError(r#"unknown name "a""#.to_owned())));
}

#[test]
fn an_unknown_function_is_refused_with_the_function_that_was_meant() {
    assert_eq!(
        parse_error("sise(new.items) > 0"),
        r#"unknown function "sise"; did you mean "size"?"#
    );
    assert_eq!(
        parse_error("new.version.startswith('8')"),
        r#"unknown function "startswith"; did you mean "startsWith"?"#
    );
    let error = parse_error("now() > 1");
    assert!(
        error.starts_with(r#"unknown function "now"; the functions are all, bool, "#),
        "{error}"
    );
    // Functions of features and of libraries that are not there.
    for source in [
        "duration('1s')",
        "timestamp('2026-01-01T00:00:00Z')",
        "optional.of(1)",
        "optional.none()",
        "math.greatest(1, 2)",
        "'A'.lowerAscii()",
        "base64.encode(b'a')",
        "[2, 1].sort()",
        "cel.bind(x, 1, x)",
        "new.items.optMap(x, x)",
        "_foo_(1)",
        "__not_strictly_false__(true)",
    ] {
        let error = parse_error(source);
        assert!(error.starts_with("unknown "), "{source}: {error}");
    }
}

#[test]
fn a_function_with_other_arguments_is_refused_with_its_usage() {
    for (source, error) in [
        ("contains('a', 'b')", r#""contains" is written text.contains(part)"#),
        ("new.version.contains('a', 'b')", r#""contains" is written text.contains(part)"#),
        ("size(1, 2)", r#""size" is written size(value) or value.size()"#),
        ("new.version.version()", r#""version" is written version(text)"#),
        // The interpreter takes a macro with other arguments for a function.
        ("new.items.all(true)", r#""all" is written list.all(item, condition)"#),
        ("has(new.schema, 1)", r#""has" is written has(value.field)"#),
    ] {
        assert_eq!(parse_error(source), error, "{source}");
    }
}

#[test]
fn the_interpreter_notices_an_unknown_name_only_when_it_evaluates_it() {
    assert!(Program::compile("candidat.shcema == 1 || foo(1)").is_ok());
    assert_eq!(raw("true || foo(candidat)"), Ok(true.into()));
}

#[test]
fn every_function_of_the_list_exists() {
    for source in [
        "[1].all(x, x > 0)",
        "bool('true')",
        "bytes('a') == b'a'",
        "'abc'.contains('b')",
        "double('1.5') == 1.5",
        "dyn(1) == 1",
        "'abc'.endsWith('c')",
        "[1].exists(x, x > 0)",
        "[1].existsOne(x, x > 0)",
        "[1].exists_one(x, x > 0)",
        "[1, 2].filter(x, x > 1) == [2]",
        "has(new.schema)",
        "int('1') == 1",
        "[1].map(x, x + 1) == [2]",
        "[1, 2].map(x, x > 1, x + 1) == [3]",
        "'abc'.matches('^a.c$')",
        "matches('abc', '^a.c$')",
        "size('é') == 1",
        "[1, 2].size() == 2",
        "'abc'.startsWith('a')",
        "string(1) == '1'",
        "type(1) == int",
        "uint(1) == 1u",
        "version('1') == version('1.0')",
    ] {
        assert_eq!(evaluate(source), Ok(true), "{source}");
    }
}

#[test]
fn a_name_may_be_a_type_or_a_variable_of_a_macro_around_it() {
    for source in [
        "type(new.schema) == int && type(new.ratio) == double && type(new.version) == string",
        "type(new.items) == list && type(new.map) == map && type(new.nothing) == null_type",
        "type(type(1)) == type && type(new.flag) == bool && type(1u) == uint && type(b'') == bytes",
        "new.items.all(item, old.items.all(other, item + other > 1))",
        "new.items.map(item, [item].exists(item, item > 0)).all(it, it)",
        ".new.schema == new.schema",
        // The name of a macro's variable hides the value; `.new` is the value.
        "[1].all(new, new == 1 && .new.schema == 14)",
    ] {
        assert_eq!(evaluate(source), Ok(true), "{source}");
    }
}

// === Errors are not absorbed ===

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

/// A generator of pseudorandom numbers, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
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

// === Values ===

#[test]
fn every_integer_is_an_int() {
    assert_eq!(evaluate("new.schema + 1 == 15 && new.schema - old.schema == 2"), Ok(true));
    assert_eq!(evaluate("new.schema - 20 == -6 && -new.schema == -14"), Ok(true));
    let expression = Expression::parse("new.a + 1 > 0", &NAMES).unwrap();
    assert_eq!(
        expression.evaluate(&[("new", &json!({"a": i64::MAX}))]).unwrap_err().to_string(),
        "the result of + is out of range"
    );
    // The interpreter makes a positive number unsigned, and arithmetic does not mix types.
    assert!(raw("new.schema + 1").is_err());
}

#[test]
fn an_integer_that_is_too_large_is_refused_with_its_place() {
    let expression = Expression::parse("new.a == 1", &NAMES).unwrap();
    let manifest = json!({"a": 1, "b": [0, {"c d": u64::MAX}]});
    let error = expression.evaluate(&[("new", &manifest)]).unwrap_err().to_string();
    assert_eq!(
        error,
        r#"new.b[1]["c d"] is 18446744073709551615, and the largest integer is 9223372036854775807"#
    );
    // Not in a variable that the expression does not use.
    assert_eq!(expression.evaluate(&[("new", &json!({"a": 1})), ("old", &manifest)]), Ok(true));
    let extremes = json!({"a": i64::MAX, "b": i64::MIN, "c": 1e300});
    let expression = Expression::parse(".new.a > new.b && new.c > 1", &NAMES).unwrap();
    assert_eq!(expression.evaluate(&[("new", &extremes)]), Ok(true));
}

#[test]
fn numbers_compare_by_value_and_other_types_are_never_equal() {
    for (source, result) in [
        ("new.schema == 14.0 && new.ratio > 1 && 14u == new.schema", true),
        ("new.schema == '14'", false),
        ("new.schema != '14'", true),
        ("new.nothing == null && has(new.nothing)", true),
        ("new.items == [1, 2, 3] && new.map == {'b': 'x', 'a': 1}", true),
        ("'a' in new.map && 2 in new.items && !('c' in new.map)", true),
        ("new['a-b'] == 'x'", true),
    ] {
        assert_eq!(evaluate(source), Ok(result), "{source}");
    }
}

#[test]
fn an_error_of_an_evaluation_is_in_plain_english() {
    for (source, error) in [
        ("new.shcema > 1", r#""shcema" is missing"#),
        ("has(new.missing.field)", r#""missing" is missing"#),
        ("has(new.version.field)", "a value of type string has no fields"),
        ("new.nothing.field == 1", "a value of type null has no fields"),
        ("new.schema", "expected bool, got int"),
        ("new.nothing", "expected bool, got null"),
        ("new", "expected bool, got map"),
        ("new.schema ? true : false", "expected bool, got int"),
        ("!new.schema", "cannot apply ! to int"),
        ("-new.version == 1", "cannot apply - to string"),
        ("new.version > 1", "cannot apply > to string and int"),
        (
            "new.ratio + 1 > 1.0",
            "cannot apply + to double and int; convert one of them with int() or double()",
        ),
        ("new.version + 1 == ''", "cannot apply + to string and int"),
        ("1 in new.version", "cannot apply in to int and string"),
        ("new.items[5] == 1", "the list has no element 5"),
        ("new.items['a'] == 1", "a value of type list has no element at an index of type string"),
        ("new.items[0.5] == 1", "an index is an integer"),
        ("1 / 0 == 1", "division by zero"),
        ("1 % 0 == 1", "division by zero"),
        ("new.schema.all(item, true)", "expected list or map, got int"),
        ("{new.items: 1} == {}", "a key is a string, an int, a uint or a bool"),
        ("{'a': 1, 'a': 2} == {}", "a map has a key twice"),
        ("int(new.version) > 1", "int(): string parse error: invalid digit found in string"),
        ("new.version.matches('(')", "matches(): error: unclosed group"),
        ("new.version.contains(1)", "cannot apply contains() to string and int"),
        ("size(1) == 1", "cannot apply size() to int"),
        ("candidate.schema == 1", r#""candidate" has no value"#),
    ] {
        assert_eq!(evaluate(source), Err(error.to_owned()), "{source}");
    }
}

#[test]
fn an_error_does_not_quote_the_values() {
    let manifest = json!({"secret": "sesame", "map": {"secret": "sesame"}, "list": ["sesame"]});
    for source in [
        "new.secret + 1 == 1",
        "new.map + 1 == 1",
        "new.list + 1 == 1",
        "new.map > 1",
        "new.list < new.map",
        "new.map[new.list] == 1",
        "new.list[new.map] == 1",
        "{new.map: 1} == 1",
        "{new.secret: 1, new.secret: 2} == 1",
        "int(new.secret) == 1",
        "bool(new.secret)",
        "double(new.secret) > 1.0",
        "-new.map",
        "new.list",
        "new.map",
        "new.map.all(key, new.map[key])",
        "string(new.map) == ''",
        "new.secret.contains(new.map)",
    ] {
        let expression = Expression::parse(source, &NAMES).unwrap();
        let error = expression.evaluate(&[("new", &manifest)]).unwrap_err().to_string();
        assert!(!error.contains("sesame"), "{source}: {error}");
    }
}

#[test]
fn a_result_is_written_as_json() {
    for (source, json) in [
        ("new.schema", json!(14)),
        ("new.ratio", json!(1.5)),
        ("new.version + '!'", json!("8.10.0!")),
        ("new.nothing", json!(null)),
        ("new.items.map(item, item > 1)", json!([false, true, true])),
        ("new.map", json!({"a": 1, "b": "x"})),
        ("7u", json!(7)),
    ] {
        assert_eq!(value(source), Ok(json), "{source}");
    }
    for (source, error) in [
        ("b'a'", "bytes has no form in JSON"),
        ("[type(1)]", "type has no form in JSON"),
        ("version('1')", "version has no form in JSON"),
        ("{1: 2}", "a map with other keys than strings has no form in JSON"),
        ("1.0 / 0.0", "a number that is not finite has no form in JSON"),
    ] {
        assert_eq!(value(source), Err(error.to_owned()), "{source}");
    }
}

// === Versions ===

#[test]
fn versions_compare_by_their_numbers() {
    for source in [
        "version(new.version) > version(old.version)",
        "version('8.10.0') >= version('8.9.0') && version('8.9.0') <= version('8.10.0')",
        "version('8.0') == version('8.0.0') && !(version('8.0') != version('8.0.0'))",
        "version('8.0.0-rc1') < version('8.0.0') && version('v8.0') == version('8')",
        "version('8.0') != version('8.1')",
        "version(new.version) in [version('8.10')]",
        "['8.9', '8.10'].map(it, version(it))[1] == version('8.10.0')",
        "['8.9', '8.10'].all(it, version(it) >= version('8.9'))",
        // Texts compare by their letters.
        "'8.9.0' > '8.10.0'",
    ] {
        assert_eq!(evaluate(source), Ok(true), "{source}");
    }
}

#[test]
fn what_is_not_a_version_is_an_error_that_names_it() {
    for (source, error) in [
        ("version('8.x') > version('8')", r#""8.x" is not a version such as 8.10.0"#),
        ("version('') == version('8')", r#""" is not a version such as 8.10.0"#),
        ("version(new.ratio) > version('1')", "version() takes a string, got double"),
        ("version(new.schema) > version('1')", "version() takes a string, got int"),
        ("version(new.nothing) > version('1')", "version() takes a string, got null"),
        // A forgotten `version`.
        ("version('8.10') > '8.9'", "cannot apply > to version and string"),
        ("'8.9' < version('8.10')", "cannot apply < to string and version"),
        ("version('8.10') == '8.10'", "cannot apply == to version and string"),
        ("new.version == version('8.10')", "cannot apply == to string and version"),
        ("version('8.10') != new.version", "cannot apply == to version and string"),
    ] {
        assert_eq!(evaluate(source), Err(error.to_owned()), "{source}");
    }
}

// === Explanations ===

#[test]
fn an_explanation_has_the_values_of_the_paths_in_their_order() {
    for (source, explanation) in [
        ("new.schema >= old.schema", "new.schema = 14, old.schema = 12"),
        ("new.schema > 1 && new.schema < 9", "new.schema = 14"),
        (
            "has(new.missing) && new.missing > 1 || has(old.a.b)",
            "new.missing is missing, old.a.b is missing",
        ),
        (
            "new.nested.deep.value == 7 && new.version.startsWith('8')",
            r#"new.nested.deep.value = 7, new.version = "8.10.0""#,
        ),
        (
            "new.items[1] == new['a-b'] && new.items[new.schema] == 1",
            r#"new.items[1] = 2, new["a-b"] = "x", new.items = [1,2,3], new.schema = 14"#,
        ),
        ("new.items.all(item, item > old.schema)", "new.items = [1,2,3], old.schema = 12"),
        (
            "[old].all(new, new.schema == 1 && .new.flag)",
            r#"old = {"items":[1,2],"schema":12,"version":"8.9.0"}, new.flag = true"#,
        ),
        (
            "new.items[9] == 1 || new.schema.field == 1",
            "new.items[9] is missing, new.schema.field is missing",
        ),
        (
            "version(new.version) != version(old.version)",
            r#"new.version = "8.10.0", old.version = "8.9.0""#,
        ),
        ("type(new.nothing) == int", "new.nothing = null"),
        // Only variables that are there.
        ("candidate.schema == 1 && true", ""),
        ("true", ""),
    ] {
        assert_eq!(explained(source), explanation, "{source}");
    }
}

#[test]
fn an_explanation_is_cut_and_in_one_line() {
    let manifest = json!({"text": "é".repeat(1000), "list": vec![1; 100_000], "lines": "a\r\n\u{1b}[1m\u{85}b"});
    let shown =
        |source: &str| Expression::parse(source, &NAMES).unwrap().explain(&[("new", &manifest)]);
    assert_eq!(shown("new.text == ''"), format!("new.text = \"{}…", "é".repeat(79)));
    assert_eq!(shown("new.list == []").chars().count(), "new.list = ".len() + 81);
    assert_eq!(shown("new.lines == ''"), r#"new.lines = "a\r\n\u001b[1m\u{85}b""#);
    let many = (0..10).map(|it| format!("has(new.a{it})")).collect::<Vec<_>>().join(" || ");
    assert!(shown(&many).ends_with("new.a7 is missing, and 2 more"), "{}", shown(&many));
}

// === Syntax and limits ===

#[test]
fn an_error_of_the_syntax_says_where_it_is() {
    for (source, error) in [
        ("", "the expression is empty"),
        (" \n", "the expression is empty"),
        ("// comment", "line 1, column 11: unexpected end"),
        ("1 +", "line 1, column 4: unexpected end"),
        ("new.a new.b", "line 1, column 7: unexpected 'new'"),
        ("true &&\n  && true", "line 2, column 3: unexpected '&&'"),
        ("new.a = 1", "line 1, column 7: unexpected '= '"),
        ("'abc", "line 1, column 1: unexpected ''abc'"),
        ("as == 1", "line 1, column 1: \"as\" is a reserved word"),
        ("has(new)", "line 1, column 5: has() takes a field, as in has(new.schema)"),
        (
            "new.items.all(1, true)",
            "line 1, column 15: the first argument is the name of an element, as in list.all(item, item > 0)",
        ),
        ("9223372036854775808 > 1", "line 1, column 1: the largest integer is 9223372036854775807"),
        ("'\\ud800'", "line 1, column 1: invalid string literal"),
        // Optional values hide errors.
        ("new.?a", "line 1, column 4: unsupported syntax '.?'"),
        ("new[?'a']", "line 1, column 4: unsupported syntax '[?'"),
        ("@result", "line 1, column 1: unexpected '@'"),
    ] {
        assert_eq!(parse_error(source), error, "{source}");
    }
}

#[test]
fn a_source_has_a_limited_length() {
    let source = |bytes: usize| format!("true //{}", "x".repeat(bytes - 7));
    assert_eq!(evaluate(&source(SOURCE_BYTES_MAX)), Ok(true));
    assert_eq!(parse_error(&source(SOURCE_BYTES_MAX + 1)), "longer than 16384 bytes");
}

#[test]
fn nesting_is_limited_and_no_input_overflows_the_stack() {
    let nested = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    for (open, close) in
        [("(", ")"), ("[true].all(x, ", ")"), ("true ? (", ") : true"), ("!(", ")"), ("dyn(", ")")]
    {
        assert_eq!(evaluate(&nested(open, "true", close, 30)), Ok(true), "{open}");
        assert_eq!(parse_error(&nested(open, "true", close, 40)), too_deep(), "{open}");
    }
    assert_eq!(value(&nested("[", "1", "]", 32)).map(|it| it.to_string().len()), Ok(65));
    for (open, inner, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("f(", "1", ")"),
        ("A{a:", "1", "}"),
        ("1?", "1", ":1"),
    ] {
        for count in [33, 100, 1000, 2700] {
            let _ = parse_error(&nested(open, inner, close, count));
            let _ = parse_error(&open.repeat(count));
        }
    }
    // What the parser itself does not limit.
    for (unit, end) in [("1+", "1"), ("1<", "1"), ("new.", "a"), ("1 in ", "[]"), ("1*", "1")] {
        let count = (SOURCE_BYTES_MAX - end.len()) / unit.len();
        assert_eq!(parse_error(&(unit.repeat(count) + end)), too_deep(), "{unit}");
    }
    for unit in [".a", "[0]", ".f()", ".size()"] {
        let count = (SOURCE_BYTES_MAX - 3) / unit.len();
        assert_eq!(parse_error(&("new".to_owned() + &unit.repeat(count))), too_deep(), "{unit}");
    }
    for unit in ["!", "-", "! ", "- "] {
        let source = unit.repeat(SOURCE_BYTES_MAX / unit.len() - 4) + "true";
        let _ = Expression::parse(&source, &NAMES);
    }
    // The deepest that are evaluated.
    assert_eq!(value(&("1+".repeat(254) + "1")), Ok(json!(255)));
    assert_eq!(
        value(&nested("[1].map(x, ", &("1+".repeat(100) + "1"), ")[0]", 20)),
        Ok(json!(101))
    );
    // Chains of these are balanced.
    assert_eq!(evaluate(&("true && ".repeat(1500) + "true")), Ok(true));
    assert_eq!(
        evaluate(&("false || ".repeat(1500) + "new.missing")),
        Err(r#""missing" is missing"#.to_owned())
    );
}

#[test]
fn a_deep_value_is_refused() {
    let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!({ "a": inner }));
    let expression = Expression::parse("new == new", &NAMES).unwrap();
    assert_eq!(expression.evaluate(&[("new", &nested(128))]), Ok(true));
    let error = expression.evaluate(&[("new", &nested(129))]).unwrap_err().to_string();
    assert!(
        error.starts_with("new.a.a.") && error.ends_with(" is nested deeper than 128 levels"),
        "{error}"
    );
}

#[test]
fn the_parser_overflows_the_stack_of_a_usual_thread_but_not_ours() {
    // 90 parentheses take more than 2 MiB without optimization; a stack overflow would end the process.
    assert_eq!(parse_error(&"(".repeat(96)), too_deep());
}

#[test]
fn a_panic_of_the_interpreter_is_an_error() {
    let result: Result<(), String> = on_large_stack(|| panic!("a test of the guard"));
    assert_eq!(result, Err("the interpreter failed with an internal error".to_owned()));
    // The interpreter panics here; the parser does not make such a tree without an error.
    let unspecified = Expression { source: "".into(), tree: Arc::new(cel::IdedExpr::default()) };
    assert!(unspecified.evaluate(&[]).is_err());
}

#[test]
fn random_sources_are_parsed_or_refused() {
    let tokens = [
        "new", ".", "(", ")", "[", "]", "{", "}", ",", ":", "?", "||", "&&", "!", "-", "+", "==",
        "in", "1", "1.5", "'a'", "\"", "'", "b'", "r\"", "\\", "x", ".all(", "has(", "size",
        "null", "true", "@", "`", "\n", "//", " ", "é", "\u{0}", "?.", "0x", "1u", "1e", "\\u",
        "'''", "as", "A{", "$",
    ];
    let mut random = Random(2);
    for _ in 0..1500 {
        let length = 1 + random.below(12);
        let source: String = (0..length)
            .map(|_| tokens[usize::try_from(random.below(tokens.len() as u64)).unwrap()])
            .collect();
        if let Ok(expression) = Expression::parse(&source, &NAMES) {
            let _ = expression.evaluate(&[("new", &new())]);
            let _ = expression.explain(&[("new", &new())]);
        }
    }
}

#[test]
fn expressions_with_the_same_source_are_equal_and_can_be_sent() {
    fn is_shared<T: Send + Sync + Clone>(_: &T) {}
    let parse = |source| Expression::parse(source, &NAMES).unwrap();
    is_shared(&parse("true"));
    assert_eq!(parse("new.a == 1"), parse("new.a == 1").clone());
    assert_ne!(parse("new.a == 1"), parse("new.a  == 1"));
    assert_eq!(format!("{:?}", parse("true")), r#"Expression("true")"#);
}
