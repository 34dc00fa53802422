//! Names and functions that exist, and those that do not.

use super::*;

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
