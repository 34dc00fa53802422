//! The other crates of the workspace build without the proxy.

use std::{fs, path::Path};

use toml::{Table, Value};

#[test]
fn the_drill_and_the_api_do_not_depend_on_the_proxy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (package, allowed) in [("api", &[][..]), ("drill", &["flipgate-api"])] {
        let path = root.join("crates").join(package).join("Cargo.toml");
        let text = fs::read_to_string(&path).expect("every crate has a manifest");
        let manifest: Table = text.parse().expect("cargo reads it too");
        let own: Vec<String> =
            dependencies(&manifest).into_iter().filter(|it| it.starts_with("flipgate")).collect();
        assert_eq!(own, allowed, "{}", path.display());
    }
}

/// The packages in every table of dependencies of a manifest, also those of one target and those under another name.
fn dependencies(manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for (key, value) in manifest {
        let Value::Table(table) = value else { continue };
        if key.ends_with("dependencies") {
            let package = |name: &String, it: &Value| {
                it.get("package").and_then(Value::as_str).unwrap_or(name).to_owned()
            };
            found.extend(table.iter().map(|(name, it)| package(name, it)));
        } else {
            found.extend(dependencies(table));
        }
    }
    found
}
