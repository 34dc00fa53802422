//! The packages, the image and the examples fit the program.
//!
//! What needs other tools (a YAML parser, systemd, a clean Debian) is checked by the scripts in `packaging/`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use crate::support::{Authority, process};

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The configurations of the packages and of the examples.
fn configurations() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for parent in ["packaging", "examples"] {
        for folder in fs::read_dir(parent).expect("the folder") {
            let folder = folder.expect("an entry").path();
            if folder.is_dir() {
                let files = fs::read_dir(folder).expect("the folder");
                let files = files.map(|it| it.expect("an entry").path());
                found.extend(files.filter(|it| it.extension().is_some_and(|it| it == "toml")));
            }
        }
    }
    found
}

/// Runs `flipgate check` on a configuration, with certificates in place of those in /etc/flipgate.
fn check(text: &str) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let pair = authority.issue("example.com", &["example.com"]);
    for (from, to) in [
        (&pair.cert, "example.com.pem"),
        (&pair.key, "example.com.key"),
        (&authority.file, "apps.pem"),
    ] {
        fs::copy(from, folder.path().join(to)).expect("a writable folder");
    }
    let path = folder.path().join("flipgate.toml");
    let text = text.replace("/etc/flipgate", &folder.path().display().to_string());
    fs::write(&path, text).expect("a writable folder");
    process::run(&["check", "--config", &path.display().to_string()])
}

#[test]
fn every_configuration_is_good() {
    let found = configurations();
    assert!(found.len() >= 7, "{found:?}");
    for path in found {
        let text = fs::read_to_string(&path).expect("text");
        let good = check(&text);
        assert!(good.status.success(), "{path:?}: {}", String::from_utf8_lossy(&good.stderr));
        let wrong = check(&format!("unknown = 1\n{text}"));
        assert_eq!(wrong.status.code(), Some(2), "{path:?} with an unknown key");
    }
}

/// `shutdown.delay` and `shutdown.patience` of a configuration together.
fn shutdown(path: &str) -> Duration {
    let table: toml::Table = read(path).parse().expect("TOML");
    let of = |key: &str, default: &str| {
        let text = table.get("shutdown").and_then(|it| it.get(key)?.as_str()).unwrap_or(default);
        let span: jiff::SignedDuration = text.parse().expect("a duration");
        span.unsigned_abs()
    };
    of("delay", "0s") + of("patience", "30s")
}

/// The value behind a key at the beginning of a line, as a duration.
fn timeout(path: &str, key: &str) -> Duration {
    let text = read(path);
    let value =
        text.lines().find_map(|line| line.trim().strip_prefix(key)?.split_whitespace().next());
    let value = value.unwrap_or_else(|| panic!("{path}: no {key}"));
    value.parse::<jiff::SignedDuration>().expect("a duration").unsigned_abs()
}

#[test]
fn a_stop_leaves_time_to_complete_requests() {
    for (path, key, config) in [
        ("packaging/systemd/flipgate.service", "TimeoutStopSec=", "packaging/deb/flipgate.toml"),
        ("examples/systemd/override.conf", "TimeoutStopSec=", "examples/systemd/flipgate.toml"),
        ("compose.yaml", "stop_grace_period:", "packaging/container/flipgate.toml"),
        ("examples/compose/compose.yaml", "stop_grace_period:", "examples/compose/flipgate.toml"),
    ] {
        let (given, needed) = (timeout(path, key), shutdown(config));
        assert!(given >= needed + Duration::from_secs(10), "{path}: {given:?} for {needed:?}");
    }
}

/// The instructions of the Dockerfile, with continued lines joined.
fn instructions() -> Vec<(String, String)> {
    let text = read("Dockerfile");
    let lines = text.lines().filter(|it| !it.starts_with('#')).collect::<Vec<_>>().join("\n");
    let lines = lines.replace("\\\n", " ");
    let lines = lines.lines().filter(|it| !it.trim().is_empty());
    lines
        .map(|line| line.split_once(' ').expect("an instruction and its arguments"))
        .map(|(name, arguments)| (name.to_owned(), arguments.trim().to_owned()))
        .collect()
}

/// Whether `.dockerignore` keeps a path out of the build. The last pattern that matches decides.
fn is_ignored(path: &str) -> bool {
    let mut is_ignored = false;
    for pattern in read(".dockerignore").lines().filter(|it| !it.is_empty() && !it.starts_with('#'))
    {
        let (pattern, ignores) = match pattern.strip_prefix('!') {
            Some(pattern) => (pattern, false),
            None => (pattern, true),
        };
        if pattern == "*" || Path::new(path).starts_with(pattern) {
            is_ignored = ignores;
        }
    }
    is_ignored
}

#[test]
fn the_image_copies_what_is_there() {
    let mut count = 0;
    for (name, arguments) in instructions() {
        if name == "COPY" && !arguments.starts_with("--from=") {
            let words: Vec<_> = arguments.split_whitespace().collect();
            for source in &words[..words.len() - 1] {
                assert!(Path::new(source).exists(), "COPY {source}");
                assert!(!is_ignored(source), ".dockerignore excludes {source}");
                count += 1;
            }
        }
    }
    assert!(count >= 6, "{count}");
    for kept_out in [".git", "target", "state", "packaging/deb/build"] {
        assert!(is_ignored(kept_out), "{kept_out}");
    }
}

/// Whether the program knows a command line: with `--help` at its end, it does nothing else.
fn is_known(arguments: &[String]) -> bool {
    let mut arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    arguments.push("--help");
    process::run(&arguments).status.success()
}

/// A command in JSON, as the Dockerfile has it.
fn words(json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
}

#[test]
fn the_image_runs_commands_that_are_known() {
    let instructions: BTreeMap<_, _> = instructions().into_iter().collect();
    assert_eq!(words(&instructions["ENTRYPOINT"]), ["flipgate"]);
    let run = words(&instructions["CMD"]);
    assert!(is_known(&run), "{run:?}");
    let (_, health) = instructions["HEALTHCHECK"].split_once("CMD ").expect("a command");
    let health = words(health);
    assert_eq!(health[0], "flipgate");
    assert!(is_known(&health[1..]), "{health:?}");
    let unknown = ["ruin", "--config", "x"].map(str::to_owned);
    assert!(!is_known(&unknown));
    let unknown = ["run", "--conf", "x"].map(str::to_owned);
    assert!(!is_known(&unknown));

    let (user, group) = instructions["USER"].split_once(':').expect("a user and a group");
    for number in [user, group] {
        assert!(number.parse::<u32>().is_ok_and(|it| it > 0), "{number}");
    }
    assert_eq!(instructions["STOPSIGNAL"], "SIGTERM");
}

#[test]
fn units_run_commands_that_are_known() {
    let mut count = 0;
    for path in ["packaging/systemd/flipgate.service", "examples/systemd/app@.service"] {
        for line in read(path).lines() {
            let command = line.split_once('=').filter(|(key, _)| key.starts_with("Exec"));
            let Some((_, command)) = command else { continue };
            if let Some(arguments) = command.strip_prefix("/usr/bin/flipgate ") {
                let arguments =
                    arguments.replace("${ADDRESS}", "127.0.0.1:1").replace("%i", "blue");
                let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
                assert!(is_known(&arguments), "{path}: {line}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 3);
}

#[test]
fn the_image_is_open_to_the_network_and_the_package_is_not() {
    for (path, is_open) in
        [("packaging/container/flipgate.toml", true), ("packaging/deb/flipgate.toml", false)]
    {
        let table: toml::Table = read(path).parse().expect("TOML");
        assert_eq!(table["admin"]["listen"].as_str(), Some("127.0.0.1:9900"), "{path}");
        for listener in table["listener"].as_array().expect("listeners") {
            let address = listener["listen"].as_str().expect("an address");
            assert_eq!(address.starts_with("0.0.0.0:"), is_open, "{path}: {address}");
            assert_eq!(address.starts_with("127.0.0.1:"), !is_open, "{path}: {address}");
        }
        assert_eq!(table["state_dir"].as_str(), Some("/var/lib/flipgate"), "{path}");
    }
}

#[test]
fn the_packages_have_the_version_of_the_program_and_files_that_are_there() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(read("Dockerfile").contains(&format!("image.version=\"{version}\"")));
    assert!(read("packaging/deb/changelog").starts_with(&format!("flipgate ({version}-1) ")));

    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let deb = &manifest["package"]["metadata"]["deb"];
    for asset in deb["assets"].as_array().expect("assets") {
        let source = asset[0].as_str().expect("a path");
        let is_built = source.starts_with("target/package/deb/");
        let parent = Path::new(source).parent().expect("a folder");
        let is_there =
            if source.contains('*') { parent.is_dir() } else { Path::new(source).exists() };
        assert!(is_built || is_there, "{source}");
    }
    for key in ["extended-description-file", "changelog", "maintainer-scripts"] {
        let path = deb[key].as_str().expect("a path");
        assert!(Path::new(path).exists(), "{path}");
    }
}
