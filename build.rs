//! Tells `flipgate --version` the commit that is built, and its date.
//!
//! `FLIPGATE_BUILD` in the environment wins: a package is built without the repository. Debug builds are all called
//! "debug", so that a commit does not make Cargo build everything anew.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=FLIPGATE_BUILD");
    println!("cargo:rerun-if-changed=build.rs");
    let build = env::var("FLIPGATE_BUILD").ok().filter(|it| !it.is_empty());
    let build = build.unwrap_or_else(|| match env::var("PROFILE").as_deref() {
        Ok("debug") => "debug".to_owned(),
        _ => commit().unwrap_or_else(|| "unknown commit".to_owned()),
    });
    println!("cargo:rustc-env=FLIPGATE_BUILD={build}");
}

/// Hash and date of the commit that is checked out.
fn commit() -> Option<String> {
    // Changes with every commit, also on a branch and in a worktree.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo:rerun-if-changed={log}");
    git(&["log", "-1", "--format=%h, %cs"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
