//! A process that was killed, or that could not write the file, loses no line.

use std::fs;

use super::{assert_good, lines, verified};
use crate::{
    state::flip,
    support::{Process, TestProxy, Upstream, eventually},
};

/// The file cannot be written between the commit and the kill, so the kill always comes between both.
#[tokio::test]
async fn a_process_killed_between_commit_and_audit_file_completes_the_file_at_its_next_start() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let (state, file) = (folder.path().join("state"), folder.path().join("state/audit.jsonl"));
    let mut process = Process::start(&folder, &blue, &green).await;
    assert!(process.cli(&["promote", "web=green"]).status.success());
    eventually("two lines", async || lines(&state).len() == 2).await;
    let kept = fs::read(&file).expect("lines");
    fs::remove_file(&file).expect("it is there");
    fs::create_dir(&file).expect("made");
    assert!(process.cli(&["rollback"]).status.success(), "the reply does not need the file");
    eventually("it is reported", async || {
        process.status()["audit_refused"].as_str().is_some_and(|it| it.contains("audit.jsonl"))
    })
    .await;
    let ready = process.ready().await;
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("audit.jsonl"), "{ready}");
    process.kill().await;
    fs::remove_dir(&file).expect("it is empty");
    fs::write(&file, &kept).expect("written");
    // The line is in the state, where it is shown; nothing is cut off.
    let (text, code) = verified(&state);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("1 more lines wait"), "{text}");
    let process = Process::start(&folder, &blue, &green).await;
    eventually("three lines", async || lines(&state).len() == 3).await;
    assert_eq!(lines(&state)[2]["action"], "rollback web=blue");
    assert_good(&state);
    assert_eq!(process.status().get("audit_refused"), None);
}

#[tokio::test]
async fn a_process_killed_among_changes_has_each_change_once() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let mut last = 0;
    for round in 0..5 {
        let mut process = Process::start(&folder, &blue, &green).await;
        let generation = process.status()["generation"].as_u64().expect("a number");
        eventually("the lines are complete", async || {
            lines(&state).iter().any(|it| it["after"] == generation)
        })
        .await;
        assert_good(&state);
        let made = lines(&state);
        let mut generations: Vec<_> =
            made.iter().filter(|it| it["before"] != it["after"]).map(|it| &it["after"]).collect();
        let count = generations.len();
        generations.dedup();
        assert_eq!((count as u64, generations.len()), (generation, count), "round {round}");
        let socket = folder.path().join("admin.sock");
        let flipping = std::thread::spawn(move || {
            let mut last = generation;
            while let Some(generation) = flip(&socket, last) {
                last = generation;
            }
        });
        let want = generation + 5 + round;
        eventually("some flips", async || process.status()["generation"].as_u64() >= Some(want))
            .await;
        process.kill().await;
        flipping.join().expect("no panic in the flipper");
        last = generation;
    }
    assert!(last > 15, "{last} changes prove little");
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_is_written_again_and_the_loss_is_found() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("web", "blue")]).await;
    let state = proxy.state_folder().to_owned();
    eventually("three lines", async || lines(&state).len() == 3).await;
    fs::remove_file(state.join("audit.jsonl")).expect("it is there");
    proxy.promote(&[("web", "green")]).await;
    eventually("the next line", async || !lines(&state).is_empty()).await;
    let kept = proxy.shut_down();
    let (text, code) = verified(kept.path());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("audit.jsonl:1 ") && text.contains("before it are missing"), "{text}");
    assert_eq!(lines(&state).last().expect("a line")["action"], "promote web=green");
}

#[tokio::test]
async fn rotated_files_are_one_chain_and_the_oldest_is_removed_in_order() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[audit]\nmax_file = \"64KiB\"\nfiles = 1")
        .service("web", &[&blue], &[&green])
        .start();
    let reason = "r".repeat(1000);
    for number in 0..140 {
        let color = if number % 2 == 0 { "green" } else { "blue" };
        let body = format!("{{\"services\":{{\"web\":\"{color}\"}},\"reason\":\"{reason}\"}}");
        assert_eq!(proxy.call("POST", "/v1/promote", "", &body).await.status, 200);
    }
    let state = proxy.shut_down();
    let names = || {
        let entries = fs::read_dir(state.path()).expect("a folder");
        let names = entries.map(|it| it.expect("an entry").file_name().into_string());
        let mut names: Vec<_> = names.flatten().filter(|it| it.starts_with("audit")).collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["audit.jsonl", "audit.jsonl.1"]);
    let (text, code) = verified(state.path());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("rotation has removed those before"), "{text}");
    // That another file is missing is found.
    fs::remove_file(state.path().join("audit.jsonl.1")).expect("it is there");
    let (text, code) = verified(state.path());
    assert_eq!(code, Some(1), "{text}");
}
