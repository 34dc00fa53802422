//! Values of manifests and of results.

use super::*;

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
