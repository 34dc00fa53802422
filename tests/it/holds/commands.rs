//! The command line of holds and maintenance.

use std::process::Output;

use super::*;
use crate::support::{Process, Upstream};

fn json(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

#[tokio::test]
async fn the_commands_hold_release_and_maintain() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let held = process.cli(&["hold", "web", "--for", "60s", "--requests", "3"]);
    let hold = json(&held)["services"]["web"]["hold"].clone();
    assert_eq!((held.status.code(), &hold["requests"]), (Some(0), &json!(3)));
    let shown = process.cli(&["status", "--output", "table"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("(held: 0 wait)"), "{shown}");
    let id = hold["id"].as_u64().expect("a number");
    let other =
        process.cli(&["release", "web", "--id", &(id + 1).to_string(), "--output", "table"]);
    let other = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(other.contains("is still held"), "{other}");
    let released = process.cli(&["release", "web"]);
    assert_eq!(released.status.code(), Some(0));
    assert_eq!(process.get("/").await, "blue");

    let page = folder.path().join("page.html");
    std::fs::write(&page, "<p>soon</p>").expect("a file");
    let page = page.display().to_string();
    let begun = process.cli(&["maintenance", "web", "--page", &page, "--retry-after", "2m"]);
    let maintenance = &json(&begun)["services"]["web"]["maintenance"];
    assert_eq!(
        (&maintenance["retry_after_s"], &maintenance["page_bytes"]),
        (&json!(120), &json!(11))
    );
    assert_eq!(process.get("/").await, "<p>soon</p>");
    assert_eq!(process.cli(&["maintenance", "web", "--end"]).status.code(), Some(0));
    assert_eq!(process.get("/").await, "blue");

    std::fs::write(folder.path().join("large"), "x".repeat(256 * 1024 + 1)).expect("a file");
    let large = folder.path().join("large").display().to_string();
    for mistake in [
        &["hold", "shop"][..],
        &["hold", "web", "--for", "6m"],
        &["hold", "web", "--requests", "0"],
        &["hold", "web", "--force"],
        &["maintenance", "web", "--page", "/nowhere/page"],
        &["maintenance", "web", "--page", &large],
        &["maintenance", "web", "--end", "--except-internal"],
    ] {
        let output = process.cli(mistake);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{mistake:?}: {stderr}");
    }
    assert!(process.status()["services"]["web"]["hold"].is_null());
}
