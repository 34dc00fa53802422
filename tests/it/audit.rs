//! The audit log: every change and every refused call has its line, and no line can be lost or changed unnoticed.

mod completed;
mod full;
mod lines;
mod refused;
mod tampered;

use std::{fs, path::Path, process::Output};

use serde_json::Value;

use crate::support::{eventually, process};

/// The lines of the current audit file.
fn lines(state: &Path) -> Vec<Value> {
    let text = fs::read_to_string(state.join("audit.jsonl")).unwrap_or_default();
    // The last line may be written at this moment.
    let whole = text.rsplit_once('\n').map_or("", |it| it.0);
    whole.lines().map(|it| serde_json::from_str(it).expect("a line of JSON")).collect()
}

/// Waits for a line, and returns the first that is like this.
async fn line_where(state: &Path, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut found = None;
    eventually(what, async || {
        found = lines(state).into_iter().find(|it| is_it(it));
        found.is_some()
    })
    .await;
    found.expect("it was found")
}

/// Waits for the line of an action.
async fn line_of(state: &Path, action: &str) -> Value {
    line_where(state, action, |it| it["action"] == action).await
}

/// What `flipgate audit verify` says of a folder.
fn verify(state: &Path, form: &str) -> Output {
    process::run(&["audit", "verify", &state.display().to_string(), "--output", form])
}

/// The text and the exit code of `flipgate audit verify`.
fn verified(state: &Path) -> (String, Option<i32>) {
    let output = verify(state, "table");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text + &String::from_utf8_lossy(&output.stderr), output.status.code())
}

fn assert_good(state: &Path) {
    let (text, code) = verified(state);
    assert_eq!(code, Some(0), "{text}");
}
