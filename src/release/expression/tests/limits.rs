//! Syntax, lengths, depths and other limits.

use super::*;

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
