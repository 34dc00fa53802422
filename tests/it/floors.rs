//! A module uses only the floors below its own. Cargo keeps this between crates;
//! inside one crate nothing does, so this test does. Across rooms one writes `crate::room::`.

mod knots;

use std::{collections::BTreeSet, fs, path::Path};

/// Bottom first. Rooms on one line are neighbors and do not use each other.
const FLOORS: &[&[&str]] = &[
    &["model"],
    &["audit", "continuity", "http1", "http2", "metrics", "switch", "tls", "websocket"],
    &["log", "net", "store"],
    &["downstream", "upstream"],
    &["care", "control", "proxy"],
    &["release"],
    &["rollout"],
    &["admin"],
    &["config"],
    &["app"],
    &["demo"],
    &["cli"],
];

#[test]
fn every_use_goes_down() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    each_source(Path::new("src"), &mut |path, text| {
        let Some(own) = room(path) else { return };
        seen.insert(own.clone());
        wrong.extend(
            uses_that_go_up(&own, text)
                .into_iter()
                .map(|(line, used)| format!("{}:{line}: {own} uses {used}", path.display())),
        );
    });
    assert!(wrong.is_empty(), "uses that do not go down:\n{}", wrong.join("\n"));
    let known: BTreeSet<String> =
        FLOORS.iter().copied().flatten().map(ToString::to_string).collect();
    assert_eq!(seen, known, "every room has a floor, and every floor its rooms");
}

#[test]
fn a_use_that_goes_up_or_to_a_neighbor_is_found() {
    for (own, line, used) in [
        ("model", "use crate::switch::Switch;", "switch"),
        ("proxy", "    crate::control::Control,", "control"),
        ("upstream", "use crate::{model::Color, downstream::Handler};", "downstream"),
        ("switch", "use crate::{\n    model::Color,\n    proxy::{Proxy, Shared},\n};", "proxy"),
        ("admin", "let it = crate::app::App::start();", "app"),
    ] {
        let found = uses_that_go_up(own, line);
        assert_eq!(found.iter().map(|(_, it)| it.as_str()).collect::<Vec<_>>(), [used], "{line}");
    }
    for (own, line) in [
        ("proxy", "use crate::{model::Color, switch::Switch, upstream::Pool};"),
        ("proxy", "use crate::proxy::Refusal;"),
        ("model", "// see crate::switch::Switch"),
    ] {
        assert_eq!(uses_that_go_up(own, line), [], "{line}");
    }
}

/// The line and the room of each use that does not go down.
fn uses_that_go_up(own: &str, text: &str) -> Vec<(usize, String)> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| [line, "\n"])
        .collect();
    let mut found = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let line = code[..place].matches('\n').count() + 1;
        let rest = &code[place + "crate::".len()..];
        for used in used_rooms(rest) {
            if used != own && floor(&used) >= floor(own) {
                found.push((line, used));
            }
        }
    }
    found
}

/// The rooms of `room::…` or of `{room::…, room::{…}, …}`.
fn used_rooms(rest: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
    };
    let Some(inside) = rest.strip_prefix('{') else { return vec![word(rest)] };
    let (mut rooms, mut depth, mut is_start) = (Vec::new(), 0, true);
    for (place, it) in inside.char_indices() {
        match it {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            it if depth == 0 && is_start && !it.is_whitespace() => {
                rooms.push(word(&inside[place..]));
                is_start = false;
            }
            _ => {}
        }
    }
    rooms
}

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&room)).unwrap_or_else(|| {
        panic!("`{room}` has no floor: write `crate::room::item`, and give a new room its floor")
    })
}

fn room(path: &Path) -> Option<String> {
    let name = path.strip_prefix("src").ok()?.iter().next()?.to_str()?;
    let name = name.strip_suffix(".rs").unwrap_or(name);
    (name != "lib" && name != "main").then(|| name.to_owned())
}

fn each_source(folder: &Path, see: &mut dyn FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            each_source(&path, see);
        } else if path.extension().is_some_and(|it| it == "rs") {
            see(&path, &fs::read_to_string(&path).expect("source is UTF-8"));
        }
    }
}
