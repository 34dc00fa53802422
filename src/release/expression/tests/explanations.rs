//! Explanations of a result.

use super::*;

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
