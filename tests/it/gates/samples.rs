//! `flipgate check` runs the rules of the gate `compatible` with manifests from files.

use std::{path::Path, process::Output};

use serde_json::Value;

use crate::support::process;

/// Writes a configuration with one rule in two directions, and these samples, and two manifests. Checks it with more
/// arguments.
fn check(samples: &str, arguments: &[&str]) -> (Output, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    let config = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[service.web]\nblue.endpoints = [\"127.0.0.1:1\"]\n\
         [service.web.gate.compatible]\nmanifest = \"/m\"\nignore = [\"/host\"]\n\
         [[service.web.gate.compatible.rules]]\nname = \"schema\"\nrequire = \"new.schema <= old.schema + 1\"\n\
         help = \"go step by step\"\n\
         [[service.web.gate.compatible.rules]]\nname = \"no way back\"\nrequire = \"new.schema == old.schema\"\n\
         on = [\"rollback\"]\n{samples}"
    );
    write("flipgate.toml", &config).expect("written");
    write("1.json", r#"{"schema": 1, "host": "a"}"#).expect("written");
    write("2.json", r#"{"schema": 2}"#).expect("written");
    write("3.json", r#"{"schema": 3}"#).expect("written");
    write("twice.json", r#"{"schema": 3, "schema": 4}"#).expect("written");
    let file = folder.path().join("flipgate.toml").display().to_string();
    let at = |it: &&str| it.replace("DIR", &folder.path().display().to_string());
    let arguments: Vec<_> = arguments.iter().map(at).collect();
    let all = [&["check", &file], &*arguments.iter().map(String::as_str).collect::<Vec<_>>()];
    (process::run(&all.concat()), file)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn samples_that_are_judged_as_expected_are_no_mistake() {
    let sample = "[[service.web.gate.compatible.samples]]\nold = \"1.json\"\n";
    for expected in [
        "new = \"1.json\"",
        "new = \"2.json\"\nrollback = false",
        "new = \"3.json\"\npromote = false\nrollback = false",
    ] {
        let (output, _) = check(&format!("{sample}{expected}\n"), &[]);
        assert_eq!(output.status.code(), Some(0), "{expected}: {}", text(&output.stderr));
    }
}

#[test]
fn every_sample_that_is_judged_otherwise_is_a_mistake_with_its_reason() {
    let sample = "[[service.web.gate.compatible.samples]]\nold = \"1.json\"\n";
    for (more, key, expected) in [
        ("new = \"2.json\"", 0, "the rules refuse the rollback of "),
        ("new = \"2.json\"", 0, "(new.schema = 2, old.schema = 1)"),
        ("new = \"2.json\"", 0, "set `rollback = false`"),
        ("new = \"1.json\"\npromote = false", 0, "the rules allow the promotion of "),
        ("new = \"1.json\"\npromote = false", 0, "remove `promote = false`"),
        ("new = \"missing.json\"", 0, "cannot read "),
        ("new = \"twice.json\"", 0, "the manifest of the new version: "),
    ] {
        let (output, file) = check(&format!("{sample}{more}\n"), &[]);
        assert_eq!(output.status.code(), Some(2), "{more}");
        let error = text(&output.stderr);
        assert!(
            error.contains(&format!("service.web.gate.compatible.samples[{key}]: ")),
            "{error}"
        );
        assert!(error.contains(expected) && error.contains(&file), "{expected}: {error}");
    }
}

#[test]
fn manifests_on_the_command_line_are_judged_in_both_directions() {
    let arguments = |old: &'static str, new: &'static str| {
        [
            "--manifest".to_owned(),
            format!("old={old}"),
            "--manifest".to_owned(),
            format!("new={new}"),
        ]
    };
    for (new, code, lines) in [
        ("DIR/1.json", 0, ["the promotion is allowed", "the rollback is allowed"]),
        ("DIR/2.json", 3, ["the promotion is allowed", "no way back: `new.schema == old.schema`"]),
        ("DIR/3.json", 3, ["the promotion is refused:\n  schema: ", "go step by step"]),
    ] {
        let arguments = arguments("DIR/1.json", new);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (output, _) = check("", &arguments);
        let printed = text(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{printed}{}", text(&output.stderr));
        let has_all = lines.iter().all(|it| printed.contains(it));
        let (output, _) = check("", &[&arguments[..], &["--json"]].concat());
        assert_eq!(output.status.code(), Some(code));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(found.as_array().map(Vec::is_empty), Some(code == 0), "{found}");
        if code == 0 {
            assert_eq!(found, Value::Array(Vec::new()));
        } else {
            assert_eq!(found[0]["key"], "service.web.gate.compatible.rules", "{found}");
        }
        // The output of a test is no terminal, so `check` prints text all the same.
        assert!(has_all, "{new}: {printed}");
    }
}

#[test]
fn a_manifest_without_its_counterpart_or_rules_is_a_mistake() {
    for (arguments, expected) in [
        (&["--manifest", "old=DIR/1.json"][..], "give --manifest twice"),
        (&["--manifest", "DIR/1.json"], "expected old=FILE or new=FILE"),
        (&["--manifest", "old=DIR/1.json", "--manifest", "new=DIR/none.json"], "cannot read "),
        (&["--manifest", "old=DIR/twice.json", "--manifest", "new=DIR/1.json"], "the old version"),
    ] {
        let (output, _) = check("", arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let file = Path::new("config/minimal.toml").display().to_string();
    let manifest = "config/examples/manifests/7.9.json";
    let (old, new) = (format!("old={manifest}"), format!("new={manifest}"));
    let output = process::run(&["check", &file, "--manifest", &old, "--manifest", &new]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no service"), "{}", text(&output.stderr));
}

#[test]
fn the_example_is_good_with_its_samples() {
    let output = process::run(&["check", "config/examples/compatibility.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
