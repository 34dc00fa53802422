//! The command line of `flipgate-drill`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_flipgate-drill");

fn drill(program: impl AsRef<Path>, arguments: &[&str]) -> Output {
    let mut command = Command::new(program.as_ref());
    command.args(arguments).env_remove("FLIPGATE_ADMIN").env_remove("FLIPGATE_TOKEN");
    command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command.output().expect("the program is there")
}

/// A folder on the file system of the program.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo makes this folder")
}

/// The program alone in a folder. A link, since a new copy can be busy.
fn link(folder: &Path) -> PathBuf {
    let path = folder.join("flipgate-drill");
    fs::hard_link(PROGRAM, &path).expect("the same file system");
    path
}

/// Writes a shell script that can be executed. Another process writes it: while a file is open to be written, here or in a
/// process that another test is just starting, it cannot be executed (ETXTBSY).
fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let write = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let written = Command::new("/bin/sh").args(["-c", write]).arg(&path).arg(text).status();
    assert!(written.expect("a shell").success());
    path.display().to_string()
}

#[test]
fn help_lists_the_options_and_has_examples_of_this_program() {
    let output = drill(PROGRAM, &["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for needed in ["--demo", "--url", "--flip-every", "--admin", "--flipgate", "sample"] {
        assert!(text.contains(needed), "{needed}: {text}");
    }
    assert!(text.contains("  flipgate-drill --demo --duration 30s"), "{text}");
    assert!(text.starts_with("Test a proxy: load, flips"), "{text}");
}

#[test]
fn a_demo_without_a_flipgate_ends_with_2_and_a_remedy() {
    let folder = folder();
    let alone = link(folder.path());
    let report = format!("--report={}", folder.path().join("report.html").display());
    let output = drill(&alone, &["--demo", &report]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for needed in ["no program `flipgate`", "cargo install", "--flipgate PATH"] {
        assert!(error.contains(needed), "{needed}: {error}");
    }
    assert!(!folder.path().join("report.html").exists());
}

#[test]
fn a_demo_starts_the_given_flipgate_or_the_one_in_the_same_folder() {
    let folder = folder();
    let given = script(folder.path(), "given", "echo this is given; exit 7");
    script(folder.path(), "flipgate", "echo this is beside; exit 7");
    let beside = link(folder.path());
    let report = format!("--report={}", folder.path().join("report.html").display());
    for (more, said) in
        [(&["--flipgate", given.as_str()][..], "this is given"), (&[], "this is beside")]
    {
        let arguments: Vec<&str> =
            ["--demo", "--duration=1s", &report].iter().chain(more).copied().collect();
        let output = drill(&beside, &arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("the proxy ended by itself") && error.contains(said), "{error}");
    }
    let output = drill(&beside, &["--demo", &report, "--flipgate", "/nowhere/flipgate"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("/nowhere/flipgate"), "{error}");
}

#[test]
fn the_sample_application_prints_its_address() {
    let mut child = Command::new(PROGRAM)
        .args(["sample", "--json", "--color", "green"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is there");
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    let ended = child.kill().and_then(|()| child.wait());
    assert!(ended.is_ok());
    let said: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(said["color"], "green");
    assert!(said["listening"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")), "{line}");
}
