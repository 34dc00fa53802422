//! Flipgate is killed and started again while a rollout is in progress.

use serde_json::{Value, json};

use crate::support::{Process, Upstream, eventually, process};

struct Crash {
    folder: tempfile::TempDir,
    config: std::path::PathBuf,
    _upstreams: (Upstream, Upstream),
}

impl Crash {
    /// A configuration with plans. `FOLDER` in them is a folder.
    async fn with(plans: &str) -> Self {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let folder = tempfile::tempdir().expect("a folder");
        let config = process::write_config(folder.path(), 0, &blue, &green);
        let text = std::fs::read_to_string(&config).expect("it is readable");
        let plans = plans.replace("FOLDER", &folder.path().display().to_string());
        std::fs::write(&config, format!("{text}\n[rollouts]\nexec = true\n{plans}"))
            .expect("writable");
        Self { folder, config, _upstreams: (blue, green) }
    }

    async fn start(&self) -> Process {
        Process::start_with(self.folder.path(), &self.config).await
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }
}

fn begin(process: &Process, plan: &str) -> String {
    let output =
        process.cli(&["deploy", "web", "--version", "8.0", "--plan", plan, "--detach", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let begun: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    begun["id"].as_str().expect("an id").to_owned()
}

fn settled(process: &Process, id: &str) -> Value {
    let output = process.cli(&["rollout", id, "--wait", "60s", "--json"]);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn exec(plan: &str, name: &str, command: &str, more: &str) -> String {
    format!(
        "[[rollout.{plan}.stage]]\nname = {name:?}\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {command:?}]\n{more}\n"
    )
}

const SLOW: &str = "echo run >> FOLDER/steps; setsid sleep 600 & echo $! > FOLDER/pid.tmp; mv FOLDER/pid.tmp FOLDER/pid; sleep 600";

#[tokio::test]
async fn a_command_of_a_killed_flipgate_is_ended_and_everything_is_undone() {
    let undo = |what: &str| {
        format!(
            "undo = {{ kind = \"exec\", command = [\"sh\", \"-c\", \"echo {what} >> FOLDER/steps\"] }}"
        )
    };
    let plans = [
        exec("slow", "first", "echo first >> FOLDER/steps", &undo("undo-first")),
        exec("slow", "slow", SLOW, &undo("undo-slow")),
    ];
    let crash = Crash::with(&plans.concat()).await;
    let mut process = crash.start().await;
    let id = begin(&process, "slow");
    eventually("it runs", async || !crash.read("pid").is_empty()).await;
    process.kill().await;
    let process = crash.start().await;
    let undone = settled(&process, &id);
    assert_eq!(
        (&undone["state"], &undone["cause"]),
        (&json!("undone"), &json!("failure")),
        "{undone}"
    );
    assert_eq!(crash.read("steps"), "first\nrun\nundo-slow\nundo-first\n");
    let pid = crash.read("pid").trim().to_owned();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "it goes on: {stat}");
}

#[tokio::test]
async fn an_idempotent_stage_is_run_again_after_its_helper_has_ended() {
    let command = "echo run >> FOLDER/steps; [ -e FOLDER/second ] && exit 0; touch FOLDER/second; echo x > FOLDER/pid; sleep 600";
    let plan = exec("again", "slow", command, "idempotent = true");
    let crash = Crash::with(&plan).await;
    let mut process = crash.start().await;
    let id = begin(&process, "again");
    eventually("it runs", async || !crash.read("pid").is_empty()).await;
    process.kill().await;
    let process = crash.start().await;
    let done = settled(&process, &id);
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(crash.read("steps"), "run\nrun\n");
}

#[tokio::test]
async fn a_plan_can_have_a_person_decide_about_an_interrupted_stage() {
    let plan =
        format!("[rollout.ask]\nif_interrupted = \"wait\"\n{}", exec("ask", "slow", SLOW, ""));
    let crash = Crash::with(&plan).await;
    let mut process = crash.start().await;
    let id = begin(&process, "ask");
    eventually("it runs", async || !crash.read("pid").is_empty()).await;
    process.kill().await;
    let process = crash.start().await;
    let stuck = settled(&process, &id);
    assert_eq!(stuck["state"], "stuck", "{stuck}");
    let left = stuck["left_to_do"][0].as_str().expect("a text");
    assert!(left.contains("find out whether stage `slow` has run"), "{left}");
    assert_eq!(process.cli(&["rollout", "cancel", &id]).status.code(), Some(0));
    assert_eq!(settled(&process, &id)["state"], "cancelled");
}

/// A flip that was committed is known, and not made again.
#[tokio::test]
async fn a_promotion_and_its_position_are_one_commit() {
    let plan = "[[rollout.flip.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                [[rollout.flip.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let crash = Crash::with(plan).await;
    let mut process = crash.start().await;
    let id = begin(&process, "flip");
    for _ in 0..3 {
        eventually("it waits", async || settled(&process, &id)["state"] == "waiting").await;
        assert_eq!(process.get("/").await, "green");
        process.kill().await;
        process = crash.start().await;
    }
    let status = process.status();
    assert_eq!(status["generation"], 1, "one flip: {status}");
    assert_eq!(process.cli(&["rollout", "cancel", &id]).status.code(), Some(0));
    assert_eq!(settled(&process, &id)["state"], "cancelled");
    assert_eq!(process.get("/").await, "blue");
}

/// The golden folder is what the first version with rollouts has written: see its README.
#[tokio::test]
async fn a_rollout_that_an_earlier_version_began_goes_on() {
    let crash = Crash::with("").await;
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/rollout-1");
    let state = crash.folder.path().join("state");
    std::fs::create_dir(&state).expect("made");
    for file in std::fs::read_dir(golden).expect("golden") {
        let file = file.expect("readable").path();
        std::fs::copy(&file, state.join(file.file_name().expect("a name"))).expect("copied");
    }
    let (done, waiting) = ("20261129-100807-s952", "20261129-100810-f6z7");
    // It was over long ago, so that the next change may forget it.
    let folder = state.display().to_string();
    let written = process::run(&["state", "show", &folder, "--json"]);
    let written: Value = serde_json::from_slice(&written.stdout).expect("JSON");
    assert!(written["rollout"][done]["ended_at"].is_u64(), "{written}");
    let process = crash.start().await;
    let shown = |id: &str| -> Value {
        serde_json::from_slice(&process.cli(&["rollout", id, "--json"]).stdout).expect("JSON")
    };
    // The other one waits as it did, and its plan, which no file holds any more, goes on.
    let before = shown(waiting);
    assert_eq!((&before["state"], &before["reason"]), (&json!("waiting"), &json!("golden 2")));
    assert_eq!(before["stages"][0]["state"], "done", "{before}");
    let approved = process.cli(&["rollout", "approve", waiting]);
    assert!(approved.status.success(), "{}", String::from_utf8_lossy(&approved.stderr));
    let settled = settled(&process, waiting);
    assert_eq!((&settled["state"], &settled["over"]), (&json!("done"), &json!(true)), "{settled}");
}

/// A watch that nothing continues comes to no verdict, and the rollout does not wait for it.
#[tokio::test]
async fn a_watch_without_settings_is_not_waited_for() {
    const WATCH: &str = "[service.web.watch]\nfor = \"10m\"\nrequests = 1\n";
    let plan = "[[rollout.watched.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                [[rollout.watched.stage]]\nname = \"watch\"\nkind = \"watch\"\n";
    let crash = Crash::with(&format!("{plan}{WATCH}")).await;
    let mut process = crash.start().await;
    let id = begin(&process, "watched");
    eventually("it watches", async || {
        let shown = process.cli(&["rollout", &id, "--json"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        shown["stages"][1]["state"] == "running"
    })
    .await;
    process.kill().await;
    let text = std::fs::read_to_string(&crash.config).expect("it is readable");
    std::fs::write(&crash.config, text.replace(WATCH, "")).expect("writable");
    let process = crash.start().await;
    let done = settled(&process, &id);
    assert_eq!(done["state"], "done", "{done}");
    assert!(done.to_string().contains("has come to no verdict"), "{done}");
    assert_eq!(process.get("/").await, "green");
}
