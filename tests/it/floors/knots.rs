//! No import cycles among the files of a crate.
//!
//! Cargo forbids cycles between crates, and the floors forbid them between rooms. Inside a room this test
//! does: it reads the crate's modules and reports every cycle among modules that have the same parent. A
//! module stands for its own file and for all files of the modules inside it.
//!
//! Module A uses module B if A names an item that B *defines*: in a `use` or in a path in its code, by
//! `crate::`, `super::`, `self::` or the name of a child module. If the path leads to a re-export, the
//! test follows it to the file that defines the item. These are not uses:
//!
//! - a `mod` line;
//! - `pub use self::child::Item`, unless the code of that file names `Item` too;
//! - everything under `#[cfg(test)]`: tests may use every file of their room;
//! - a method call, since it names no path;
//! - what a parent uses of its children and they use of it. A `mod.rs` may define what all of its
//!   children use and also put them together, as the room's root. Two children that need each other
//!   are a cycle nevertheless, also if one reaches the other by an item that `mod.rs` re-exports.

mod modules;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use self::modules::{Modules, Use};

/// Modules of one folder that use each other in a cycle.
#[derive(Debug, Eq, PartialEq)]
struct Cycle {
    folder: String,
    /// Their names, sorted.
    modules: Vec<String>,
    /// The uses that make it a cycle.
    uses: Vec<Use>,
}

#[test]
fn no_modules_use_each_other_in_a_cycle() {
    let mut found = Vec::new();
    for folder in crate_folders() {
        let mut files = Vec::new();
        super::each_source(Path::new(&folder), &mut |path, text| {
            files.push((path.display().to_string(), text.to_owned()));
        });
        found.extend(cycles(&folder, &files));
    }
    let found: Vec<String> = found.iter().map(describe).collect();
    assert!(found.is_empty(), "modules that use each other:\n{}", found.join("\n"));
}

/// `src`, and the `src` of each crate in `crates`.
fn crate_folders() -> Vec<String> {
    let mut folders = vec!["src".to_owned()];
    if let Ok(crates) = fs::read_dir("crates") {
        let sources = crates.map(|it| it.expect("crates is readable").path().join("src"));
        folders.extend(sources.filter(|it| it.is_dir()).map(|it| it.display().to_string()));
    }
    folders
}

/// The cycles of a crate with its root in `folder`, given each file's path and text.
fn cycles(folder: &str, files: &[(String, String)]) -> Vec<Cycle> {
    let uses = Modules::of(folder, files).uses();
    let mut levels: BTreeMap<&[String], Vec<&Use>> = BTreeMap::new();
    for it in &uses {
        if let Some(parent) = it.common_parent() {
            levels.entry(parent).or_default().push(it);
        }
    }
    let mut found = Vec::new();
    for (parent, uses) in levels {
        let depth = parent.len();
        let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for it in &uses {
            graph.entry(&it.user[depth]).or_default().insert(&it.used[depth]);
        }
        for modules in knots(&graph) {
            let is_inside =
                |it: &Use| modules.contains(&*it.user[depth]) && modules.contains(&*it.used[depth]);
            found.push(Cycle {
                folder: [&[folder.to_owned()], parent].concat().join("/"),
                modules: modules.iter().map(ToString::to_string).collect(),
                uses: uses.iter().copied().filter(|it| is_inside(it)).cloned().collect(),
            });
        }
    }
    found
}

/// Each group of nodes in which every one leads to every other one.
fn knots<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<BTreeSet<&'a str>> {
    let reached = |from: &&'a str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![*from]);
        while let Some(node) = next.pop() {
            let used = graph.get(node).into_iter().flatten();
            next.extend(used.copied().filter(|it| seen.insert(*it)));
        }
        (*from, seen)
    };
    let reached: BTreeMap<&str, BTreeSet<&str>> = graph.keys().map(reached).collect();
    let leads = |from: &str, to: &str| reached.get(from).is_some_and(|it| it.contains(to));
    let group = |node: &&'a str| -> BTreeSet<&'a str> {
        reached[node].iter().copied().filter(|it| leads(it, node)).collect()
    };
    graph.keys().map(group).filter(|it| !it.is_empty()).collect()
}

/// One line for each use between the modules of a cycle.
fn describe(cycle: &Cycle) -> String {
    let mut text = format!("{}: {}", cycle.folder, cycle.modules.join(", "));
    for Use { user_file, line, used_file, .. } in &cycle.uses {
        text.push_str(&format!("\n  {user_file}:{line} uses {used_file}"));
    }
    text
}

/// The cycles among these files of a room, without their uses.
fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
    let file = |(name, text): &(&str, &str)| (format!("src/{name}"), (*text).to_owned());
    let files: Vec<_> = files.iter().map(file).collect();
    cycles("src", &files).into_iter().map(|it| it.modules).collect()
}

#[test]
fn a_cycle_of_two_files_is_found_however_it_is_written() {
    let root = "mod a;\nmod b;\npub use self::{a::A, b::{self, B}};";
    for (a, b) in [
        ("use super::b::B;", "use super::a::A;"),
        ("use super::B;", "use super::A;"),
        ("use crate::room::{b::B as C};", "use std::fmt;\nuse super::{a::{self, A}};"),
        ("fn f(b: super::b::B) {}", "fn f() -> crate::room::A { 1 }"),
        ("fn f() { use super::B; }", "mod inner { use super::super::A; }"),
        ("use self::super::b;", "impl B { fn f(a: &'static super::A) -> char { '\"' } }"),
    ] {
        let files = [("room/mod.rs", root), ("room/a.rs", a), ("room/b.rs", b)];
        assert_eq!(found(&files), [["a", "b"]], "{a} and {b}");
    }
}

#[test]
fn a_module_includes_the_modules_inside_it() {
    let files = [
        ("room.rs", "mod a; mod b; mod c;"),
        ("room/a.rs", "use super::b::Item;"),
        ("room/b.rs", "mod deep; pub use self::deep::Item;"),
        ("room/b/deep.rs", "use super::super::c; use crate::room::c::C;"),
        ("room/c.rs", "use super::a::A;"),
    ];
    assert_eq!(found(&files), [["a", "b", "c"]]);
}

#[test]
fn a_cycle_is_described_file_by_file() {
    let file = |name: &str, text: &str| (format!("src/room/{name}.rs"), text.to_owned());
    let files = [
        file("mod", "mod a;\nmod b;\npub use self::b::B;"),
        file("a", "//! A.\n\nuse super::B;"),
        file("b", "fn f() {\n    super::a::f();\n}"),
    ];
    let found: Vec<_> = cycles("src", &files).iter().map(describe).collect();
    let expected = "src/room: a, b\n  \
        src/room/a.rs:3 uses src/room/b.rs\n  \
        src/room/b.rs:2 uses src/room/a.rs";
    assert_eq!(found, [expected]);
}

#[test]
fn a_tree_of_files_has_no_cycle() {
    let files = [
        ("lib.rs", "pub mod other; pub mod room;"),
        ("other.rs", "pub struct Other;"),
        // It defines what its children use, and puts them together.
        (
            "room/mod.rs",
            "mod a; mod b; mod c;\npub use self::a::A;\nstruct Root(A);\nfn f() { b::f(); }",
        ),
        ("room/a.rs", "use super::{Root, b::B};\nuse crate::other::Other;"),
        (
            "room/b.rs",
            "//! Used by [`super::a::A`].\nconst TEXT: &str = \"super::a::A\"; // super::a::A\n\
            fn f<'a>(a: &'a str) -> impl Sized + use<'a> { r#\"use super::a::A;\"# }\n\
            #[cfg(test)]\nmod tests {\n    use super::*;\n    use super::super::a::A;\n}\n\
            #[cfg(test)]\nuse super::a::A;",
        ),
        ("room/c.rs", "mod deep;\nuse super::a::A;\nstruct C;"),
        // A child extends a type of its parent.
        ("room/c/deep.rs", "use super::C;\nimpl C { fn g(&self) { super::super::b::f(); } }"),
    ];
    assert_eq!(found(&files), Vec::<Vec<String>>::new());
}

#[test]
fn a_file_that_is_only_there_for_tests_may_use_every_other_one() {
    let files = [
        ("room/mod.rs", "mod a;\n#[cfg(test)]\nmod samples;"),
        ("room/a.rs", "struct A;\n#[cfg(test)]\nmod tests { use super::super::samples; }"),
        ("room/samples.rs", "use super::a::A;"),
    ];
    assert_eq!(found(&files), Vec::<Vec<String>>::new());
}
