//! The keys of the configuration: as the parser knows them, as config/example.toml has them, and as the reference
//! describes them.

use std::{collections::BTreeSet, fs, path::Path};

use flipgate::config::Config;
use toml::{Table, Value};

use super::markdown;

/// A key that no table has, and that is not similar to any.
const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";

/// Tables with names of the user's own, which are one key here.
const OPEN: [&str; 4] = ["env", "errors", "headers", "save"];

/// A step from a table to one inside.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Table(&'a str),
    /// A list of tables.
    List(&'a str),
}

/// The keys of a table, which the parser names where it finds one that it does not know. `None` if there is no table.
fn known(steps: &[Step<'_>]) -> Option<Vec<String>> {
    let mut value = Value::Integer(0);
    for step in [&[][..], steps, &[Step::Table(UNKNOWN)]].concat().into_iter().rev() {
        value = match step {
            Step::Table(name) => Table::from_iter([(name.to_owned(), value)]).into(),
            Step::List(name) => Table::from_iter([(name.to_owned(), vec![value].into())]).into(),
        };
    }
    let text = toml::to_string(&value).expect("a table");
    let mistakes = Config::parse(Path::new("x.toml"), &text).expect_err("a key is unknown");
    let mistake = mistakes.iter().map(ToString::to_string).find(|it| it.contains(UNKNOWN))?;
    let (_, list) = mistake.rsplit_once(": ").expect("the keys that there are");
    let name = |it: &str| {
        let last = it.split(' ').next_back().unwrap_or_default();
        last.trim_matches('`').to_owned()
    };
    let names: Vec<_> = list.split(", ").map(name).collect();
    for name in &names {
        let is_key = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
        assert!(name.chars().all(is_key), "no list of keys: {mistake}");
    }
    Some(names)
}

/// Adds all keys below a table to `found`, by the names of the reference.
fn collect(steps: &[Step<'_>], name: &str, found: &mut BTreeSet<String>) {
    for key in known(steps).unwrap_or_else(|| panic!("`{name}` is no table")) {
        let path = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        if path == "service" {
            let inner = [steps, &[Step::Table("service"), Step::Table("web")]].concat();
            collect(&inner, "service.NAME", found);
            continue;
        }
        if path == "rollout" || path == "rollout.NAME.secrets" {
            let inner = [steps, &[Step::Table(&key), Step::Table("one")]].concat();
            collect(&inner, &format!("{path}.NAME"), found);
            continue;
        }
        // An undo has keys of stages, which are described once.
        if path.starts_with("rollout.NAME.stage.undo.")
            && path != "rollout.NAME.stage.undo.if_failed"
        {
            continue;
        }
        let path = match &*path {
            "service.NAME.blue" | "service.NAME.green" => "service.NAME.COLOR".to_owned(),
            _ => path,
        };
        if OPEN.contains(&&*key) {
            found.insert(path);
            continue;
        }
        let [table, list] = [Step::Table(&key), Step::List(&key)].map(|it| [steps, &[it]].concat());
        if known(&table).is_some() {
            collect(&table, &path, found);
        } else if known(&list).is_some() {
            // Endpoints may be texts, too.
            if key == "endpoints" {
                found.insert(path.clone());
            }
            collect(&list, &path, found);
        } else {
            found.insert(path);
        }
    }
}

/// The keys of config/example.toml, also those in comments.
fn of_example() -> BTreeSet<String> {
    let text = fs::read_to_string("config/example.toml").expect("the file");
    let (mut found, mut table) = (BTreeSet::new(), String::new());
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(heading) = line.strip_prefix('[') {
            let end = heading.find(']').expect("the end of a heading");
            table = heading[..end].trim_start_matches('[').to_owned() + ".";
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let (key, value) = (key.trim_end(), value.trim_start());
        if key.is_empty()
            || !key.chars().all(|it| it.is_ascii_lowercase() || "_0123456789".contains(it))
        {
            continue;
        }
        // Of the tables in one line there is one, and it has one key.
        let inner = value.strip_prefix("{ ").and_then(|it| it.split(' ').next());
        let inner = inner.filter(|_| !OPEN.contains(&key));
        let inner = inner.map(|it| format!(".{it}")).unwrap_or_default();
        found.insert(named(&format!("{table}{key}{inner}")));
    }
    // A comment beside `endpoints` shows the form with a weight.
    found.extend(["address", "weight"].map(|it| format!("service.NAME.COLOR.endpoints.{it}")));
    found
}

/// A key of the example by the name of the reference.
fn named(key: &str) -> String {
    if let Some(inner) = key.strip_prefix("rollout.nightly.") {
        let inner = inner.replace("secrets.token.", "secrets.NAME.");
        let inner = match inner.strip_prefix("stage.undo.").filter(|it| *it != "if_failed") {
            Some(inner) => format!("stage.{inner}"),
            None => inner,
        };
        return format!("rollout.NAME.{inner}");
    }
    let Some(inner) = key.strip_prefix("service.web.") else { return key.to_owned() };
    match inner.strip_prefix("blue.").or_else(|| inner.strip_prefix("green.")) {
        Some(inner) => format!("service.NAME.COLOR.{inner}"),
        None => format!("service.NAME.{inner}"),
    }
}

fn documented() -> BTreeSet<String> {
    let page = markdown::chapter("configuration");
    let headings = page.headings().into_iter().filter(|it| it.0 == 3);
    headings.map(|(_, text)| text.trim_matches('`').to_owned()).collect()
}

fn of_parser() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&[], "", &mut found);
    found
}

#[test]
fn the_reference_has_exactly_the_keys_that_there_are() {
    let (written, known) = (documented(), of_parser());
    assert!(known.len() > 90 && known.contains("listener.tls.certificates.cert"), "{known:?}");
    let missing: Vec<_> = known.difference(&written).collect();
    assert!(missing.is_empty(), "keys without a section in configuration.md: {missing:?}");
    let unknown: Vec<_> = written.difference(&known).collect();
    assert!(unknown.is_empty(), "sections of configuration.md without a key: {unknown:?}");
}

#[test]
fn the_example_has_exactly_the_keys_that_there_are() {
    let (written, known) = (of_example(), of_parser());
    let missing: Vec<_> = known.difference(&written).collect();
    assert!(missing.is_empty(), "keys that config/example.toml does not have: {missing:?}");
    let unknown: Vec<_> = written.difference(&known).collect();
    assert!(unknown.is_empty(), "not keys: {unknown:?}");
}

/// Keys that the example needs to run, although they have no default.
const REQUIRED: [&str; 3] =
    ["listener.listen", "service.NAME.COLOR.version", "service.NAME.COLOR.endpoints"];

#[test]
fn the_reference_has_the_defaults_of_the_example() {
    let text = fs::read_to_string("config/example.toml").expect("the file");
    let mut example = Vec::new();
    leaves("", &text.parse::<Table>().expect("TOML").into(), &mut example);
    let (page, mut key) = (markdown::chapter("configuration"), "");
    let mut compared = 0;
    for line in page.text.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            key = heading.trim_matches('`');
        }
        let Some((_, default)) = line.split_once("**Default:** ") else { continue };
        let value = example.iter().find(|it| named(&it.0) == key).map(|it| &it.1);
        let Some(value) = value.filter(|_| !REQUIRED.contains(&key)) else { continue };
        let code = default.split('`').nth(1).unwrap_or_else(|| panic!("{key}: {default}"));
        let written: Table =
            format!("it = {code}").parse().unwrap_or_else(|it| panic!("{key}: {it}"));
        assert_eq!(&written["it"], value, "{key}");
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
}

fn leaves(name: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                leaves(&inner, value, found);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_table) => {
            items.iter().for_each(|it| leaves(name, it, found));
        }
        value => found.push((name.to_owned(), value.clone())),
    }
}
