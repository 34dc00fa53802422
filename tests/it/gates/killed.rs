//! A process that is killed while gates run has changed nothing; what a promotion has begun goes on after the next start.

use std::{
    path::PathBuf,
    process::{Child, Stdio},
};

use crate::support::{Application, Process, Reply, eventually};

/// A configuration with this table for the service `web`.
fn config(
    folder: &tempfile::TempDir,
    blue: &Application,
    green: &Application,
    more: &str,
) -> PathBuf {
    let (path, folder) = (folder.path().join("flipgate.toml"), folder.path().display());
    let text = format!(
        "state_dir = \"{folder}/state\"\n[admin]\nlisten = \"unix:{folder}/admin.sock\"\n\
         [[listener]]\nlisten = \"127.0.0.1:0\"\n[service.web]\n\
         blue.endpoints = [\"{}\"]\ngreen.endpoints = [\"{}\"]\n{more}\n",
        blue.address, green.address
    );
    std::fs::write(&path, text).expect("written");
    path
}

fn spawn(process: &Process, arguments: &[&str]) -> Child {
    let mut command = process.cli_command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program is there")
}

#[tokio::test]
async fn a_process_that_is_killed_while_gates_run_has_changed_nothing_and_left_nothing() {
    let blue = Application::start(|_| Reply::ok("blue")).await;
    let green = Application::start(|request| match &*request.path {
        "/hangs" => Reply::Hang,
        _ => Reply::ok("green"),
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let gate = "gate.deadline = \"10m\"\n[[service.web.gate.smoke]]\npath = \"/hangs\"\n\
                expect = { within = \"10m\" }";
    let config = config(&folder, &blue, &green, gate);
    let mut process = Process::start_with(folder.path(), &config).await;
    let before = process.status();
    let mut promotion = spawn(&process, &["promote", "web=green", "--idempotency-key", "k"]);
    eventually("the gate runs", async || !green.requests_for("/hangs").is_empty()).await;
    process.kill().await;
    assert_ne!(promotion.wait().expect("our own child").code(), Some(0));
    eventually("its connections are gone", async || green.connections() == 0).await;

    let process = Process::start_with(folder.path(), &config).await;
    let after = process.status();
    assert_eq!(after["generation"], before["generation"]);
    assert_eq!(after["services"]["web"]["active"], "blue");
    assert_eq!(process.get("/").await, "blue");
    assert_eq!(green.requests_for("/hangs").len(), 1, "no gate goes on by itself");
    // The key was not used: a retry runs the gates again.
    let mut retry = spawn(&process, &["promote", "web=green", "--idempotency-key", "k"]);
    eventually("the gate runs", async || green.requests_for("/hangs").len() == 2).await;
    retry.kill().expect("our own child");
    retry.wait().expect("our own child");
    assert_eq!(process.status()["services"]["web"]["active"], "blue");
}

#[tokio::test]
async fn a_watch_and_a_confirmation_survive_a_kill() {
    let blue = Application::start(|_| Reply::ok("blue")).await;
    let green = Application::start(|_| Reply::ok("green")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = config(&folder, &blue, &green, "watch = { for = \"10m\" }");
    let mut process = Process::start_with(folder.path(), &config).await;
    let promoted = process.cli(&["promote", "web=green", "--confirm-within", "2s"]);
    assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    let of = |status: &serde_json::Value| {
        let web = &status["services"]["web"];
        (web["watch"]["until"].clone(), web["confirm_by"].clone(), web["active"].clone())
    };
    let before = of(&process.status());
    assert!(before.0.is_string() && before.1.is_string(), "{before:?}");
    process.kill().await;
    let process = Process::start_with(folder.path(), &config).await;
    let after = of(&process.status());
    if after.2 == "green" {
        assert_eq!(after, before);
    }
    eventually("it is taken back", async || process.get("/").await == "blue").await;
    let log = process.log();
    assert!(log.contains("\"by\":\"confirm\""), "{log}");
}
