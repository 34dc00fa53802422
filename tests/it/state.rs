//! Acknowledged changes survive a restart, and nothing else does.

use std::{fs, path::PathBuf};

use serde_json::json;

use crate::support::{Fault, Process, TestProxy, Upstream, eventually, process};

#[tokio::test]
async fn a_restart_has_every_acknowledged_change() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let new = Upstream::start("new").await;
    let proxy = TestProxy::of(&blue, &green);
    let body = json!({"version": "8.1", "endpoints": [new.address.to_string()]}).to_string();
    proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    proxy.promote(&[("web", "green")]).await;
    let before = proxy.status().await;
    let state = proxy.shut_down();
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&green]).start();
    let after = proxy.status().await;
    assert_eq!(after["generation"], before["generation"]);
    for field in ["active", "previous"] {
        assert_eq!(after["services"]["web"][field], before["services"]["web"][field]);
    }
    let pool = &after["services"]["web"]["pools"]["green"];
    assert_eq!((&pool["version"], &pool["source"]), (&json!("8.1"), &json!("runtime")));
    assert_eq!(after["services"]["web"]["pools"]["blue"]["role"], "standby");
    assert_eq!(proxy.get("/").await, "new");
    // Also the way back is known.
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    assert_eq!(proxy.get("/").await, "blue");
}

/// A file system of its own, until it is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// `None` if this process may not mount.
    pub(crate) fn at(folder: &std::path::Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(folder).output();
        mounted.is_ok_and(|it| it.status.success()).then(|| Self(folder.to_owned()))
    }

    /// Waits until nothing has a file open for writing: a process that another test is starting has a copy of
    /// each until it is another program.
    async fn make_read_only(&self) {
        eventually("the file system is not in use", async || {
            let mut mount = std::process::Command::new("mount");
            let output = mount.args(["-o", "remount,ro"]).arg(&self.0).output();
            output.is_ok_and(|it| it.status.success())
        })
        .await;
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A kernel that has found an error mounts a file system anew, read-only.
#[tokio::test]
async fn a_state_on_a_read_only_file_system_is_served() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let state = tempfile::tempdir().expect("a folder");
    let Some(mount) = Mount::at(state.path()) else {
        println!("left out: not allowed to mount");
        return;
    };
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&green]).start();
    proxy.promote(&[("web", "green")]).await;
    let state = proxy.shut_down();
    mount.make_read_only().await;
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&green]).start();
    assert_eq!(proxy.get("/").await, "green");
    let body = r#"{"services":{"web":"blue"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", body).await.status, 500);
    assert_eq!(proxy.get("/").await, "green");
    let state = proxy.shut_down();
    drop((mount, state));
}

#[tokio::test]
async fn a_changed_entry_of_the_file_outranks_what_was_set_before_it() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (new, newer) = (Upstream::start("new").await, Upstream::start("newer").await);
    let proxy = TestProxy::of(&blue, &green);
    let body = json!({"endpoints": [new.address.to_string()]}).to_string();
    proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
    proxy.promote(&[("web", "green")]).await;
    let state = proxy.shut_down();
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&newer]).start();
    // The endpoints are the file's; which color is active never is.
    assert_eq!(proxy.get("/").await, "newer");
    let status = proxy.status().await;
    assert_eq!(status["services"]["web"]["active"], "green");
    assert_eq!(status["services"]["web"]["pools"]["green"]["source"], "file");
}

#[tokio::test]
async fn a_change_that_waits_for_the_disk_is_not_stuck() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (proxy, faults) = TestProxy::build().service("web", &[&blue], &[&green]).start_faulty();
    faults.next(Fault::Hold);
    let promoted = async { proxy.promote(&[("web", "green")]).await };
    let checked = async {
        faults.held().await;
        assert_eq!(proxy.app().control().busy_for(), None, "only the disk is slow");
        assert_eq!(proxy.get("/").await, "blue", "it is not durable yet");
        faults.release();
    };
    tokio::join!(promoted, checked);
    assert_eq!(proxy.get("/").await, "green");
}

#[tokio::test]
async fn a_change_that_cannot_be_written_is_not_made() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (proxy, faults) = TestProxy::build().service("web", &[&blue], &[&green]).start_faulty();
    faults.next(Fault::Refuse);
    let body = r#"{"services":{"web":"green"}}"#;
    let answer = proxy.call("POST", "/v1/promote", "", body).await;
    assert_eq!(answer.status, 500);
    assert_eq!(answer.json()["type"], "urn:flipgate:problem:not-written");
    assert!(answer.json()["detail"].as_str().is_some_and(|it| it.contains("planted")));
    assert_eq!(proxy.status().await["services"]["web"]["active"], "blue");
    assert_eq!((proxy.get("/").await.as_str(), proxy.generation().await), ("blue", 0));
    // When the disk is well again, so is the next call.
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(proxy.get("/").await, "green");
    // What was refused does not come back with a restart.
    drop(faults);
    let state = proxy.shut_down();
    let proxy = TestProxy::build().state(state).service("web", &[&blue], &[&green]).start();
    assert_eq!(proxy.generation().await, 1);
}

#[tokio::test]
async fn after_an_unknown_outcome_the_state_is_read_only() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (proxy, faults) = TestProxy::build().service("web", &[&blue], &[&green]).start_faulty();
    eventually("ready", async || proxy.call("GET", "/readyz", "", "").await.status == 200).await;
    assert_eq!(proxy.metric("flipgate_state_writable").await, 1.0);
    faults.next(Fault::Forget);
    let body = r#"{"services":{"web":"green"}}"#;
    let answer = proxy.call("POST", "/v1/promote", "", body).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["type"], "urn:flipgate:problem:outcome-unknown");
    assert!(answer.json()["detail"].as_str().is_some_and(|it| it.contains("unknown")));
    // This process goes on with what it was sure of, and says that it is read-only.
    assert_eq!(proxy.get("/").await, "blue");
    let ready = proxy.call("GET", "/readyz", "", "").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("read-only"), "{}", ready.text());
    assert_eq!(proxy.metric("flipgate_state_writable").await, 0.0);
    assert!(proxy.status().await["read_only"].is_string());
    assert_eq!(proxy.call("GET", "/healthz", "", "").await.status, 200, "a disk is no dead task");
    let again = proxy.call("POST", "/v1/promote", "", body).await;
    assert_eq!(
        (again.status, again.json()["type"].clone()),
        (503, json!("urn:flipgate:problem:read-only"))
    );
    assert_eq!(proxy.get("/").await, "blue");
}

/// Another process that shares the state has been faster: its change is applied as our own are, and ours is
/// decided anew.
#[tokio::test]
async fn changes_of_others_are_applied_and_a_lost_race_is_run_again() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let services = || {
        TestProxy::build().service_at("api", "*", "/api", &[&blue], &[&green]).service(
            "web",
            &[&blue],
            &[&green],
        )
    };
    let (proxy, faults) = services().start_faulty();
    faults.flip_behind("api", 41).await;
    eventually("api is green", async || proxy.get("/api").await == "green").await;
    assert_eq!(proxy.generation().await, 41, "generations that were missed are skipped");
    let promoted = &proxy.events("promoted")[0];
    assert_eq!(promoted["services"], json!({"api": "green"}));
    assert_eq!(promoted["generation"], 41);
    // Another process flips api back between the plan and the commit: web is promoted all the same, and
    // no change is lost.
    faults.next(Fault::Overtake("api", 42));
    proxy.promote(&[("web", "green")]).await;
    assert_eq!((proxy.get("/").await, proxy.get("/api").await), ("green".into(), "blue".into()));
    assert_eq!(proxy.generation().await, 43);
    // One that was decided on the generation from before is refused.
    faults.next(Fault::Overtake("api", 44));
    let body = r#"{"services":{"web":"blue"}}"#;
    let stale = proxy.call("POST", "/v1/promote", "If-Match: \"43\"\r\n", body).await;
    assert_eq!((stale.status, stale.json()["generation"].clone()), (412, json!(44)));
    assert_eq!((proxy.get("/").await, proxy.get("/api").await), ("green".into(), "green".into()));
}

/// Every folder that a released version wrote starts, and keeps colors, pools of run time and keys.
#[tokio::test]
async fn the_folders_of_earlier_versions_start_with_all_that_they_hold() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (format, generation) in [(1, 4), (2, 5)] {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        fs::create_dir(&state).expect("made");
        let written = fs::read_dir(golden.join(format!("state-format-{format}"))).expect("golden");
        for file in written
            .map(|it| it.expect("readable").path())
            .filter(|it| it.extension().is_none_or(|it| it != "toml"))
        {
            fs::copy(&file, state.join(file.file_name().expect("a name"))).expect("copied");
        }
        let text = fs::read_to_string(golden.join("state-format-1/flipgate.toml")).expect("golden");
        let text = text
            .replace("\"state\"", &format!("{:?}", state.display().to_string()))
            .replace(
                "127.0.0.1:9971",
                &format!("unix:{}", folder.path().join("admin.sock").display()),
            )
            .replace("127.0.0.1:9972", "127.0.0.1:0");
        let config = folder.path().join("flipgate.toml");
        fs::write(&config, text).expect("written");
        let process = Process::start_with(folder.path(), &config).await;
        let status = process.status();
        assert_eq!(status["generation"], generation, "format {format}");
        let service = |it: &str| status["services"][it].clone();
        assert_eq!(
            (&service("api")["active"], &service("web")["active"]),
            (&json!("green"), &json!("green"))
        );
        let green = &service("web")["pools"]["green"];
        assert_eq!((&green["version"], &green["source"]), (&json!("8.0"), &json!("runtime")));
        assert_eq!(green["endpoints"][0]["address"], "127.0.0.1:9307");
        // The call that was accepted under this key is not made again.
        let promote = ["promote", "web=green", "api=green", "--idempotency-key", "deploy-77"];
        let repeated = process.cli(&promote);
        assert!(repeated.status.success(), "{}", String::from_utf8_lossy(&repeated.stderr));
        assert_eq!(process.status()["generation"], generation, "format {format}");
        // Another call under it is still refused, and one that was undone since is no success.
        let other = process.cli(&["promote", "web=blue", "--idempotency-key", "deploy-77"]);
        assert!(!other.status.success());
        assert_eq!(process.status()["generation"], generation, "format {format}");
        let shown = process::run(&["state", "show", &state.display().to_string(), "--json"]);
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        assert_eq!((&shown["format"], &shown["generation"]), (&json!(2), &json!(generation)));
        // After a rollback the replay says that the color asked for is not active.
        let back = process.cli(&["rollback", "web", "--force", "--reason", "test"]);
        assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
        let repeated = process.cli(&promote);
        let said = String::from_utf8_lossy(&repeated.stderr);
        assert_eq!(repeated.status.code(), Some(1), "{said}");
        let expected = "made before under this key, and web has blue active now";
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn one_damaged_entry_costs_no_other_service() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let services = || {
        TestProxy::build().service_at("api", "*", "/api", &[&blue], &[&green]).service(
            "web",
            &[&blue],
            &[&green],
        )
    };
    let proxy = services().start();
    proxy.promote(&[("api", "green"), ("web", "green")]).await;
    let state = proxy.shut_down();
    let file = state.path().join("state.jsonl");
    let text = fs::read_to_string(&file).expect("the state");
    // The second line is that of `api`.
    let damaged = text.replacen("\"active\":\"green\"", "\"active\":\"blue\"", 1);
    fs::write(&file, damaged).expect("written");
    let proxy = services().state(state).start();
    assert_eq!(proxy.get("/").await, "green", "web is as it was");
    // The active color of api is not known, so no color responds: not for public clients, not for
    // a tester.
    assert_eq!(proxy.public().await.get("/api", "").await.status, 503);
    let tester = proxy.internal().await.get("/api", "Flipgate-Preview: blue\r\n").await;
    assert_eq!(tester.status, 503);
    assert_eq!(proxy.status().await["services"]["api"]["damaged"], true);
    assert_eq!(proxy.call("GET", "/readyz", "", "").await.status, 503);
    // It stays so, also over changes of others, until an operator says which.
    proxy.promote(&[("web", "blue")]).await;
    let state = proxy.shut_down();
    let proxy = services().state(state).start();
    assert_eq!(proxy.public().await.get("/api", "").await.status, 503);
    proxy.promote(&[("api", "green")]).await;
    assert_eq!(proxy.get("/api").await, "green");
    assert_eq!(proxy.status().await["services"]["api"].get("damaged"), None);
}

#[tokio::test]
async fn a_damaged_file_stops_the_start_and_names_the_way_out() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green).display().to_string();
    let file = folder.path().join("state/state.jsonl");
    fs::create_dir(folder.path().join("state")).expect("made");
    for text in ["", "garbage", "00000000 {\"flipgate\":1}\n"] {
        fs::write(&file, text).expect("written");
        let output = process::run(&["run", "--config", &config]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(&file.display().to_string()) && error.contains("mv "), "{error}");
        assert_eq!(fs::read_to_string(&file).expect("still there"), text, "nothing is lost");
    }
}

/// A killed process comes back to the last state that it acknowledged, or to the one that it was
/// writing: never to one before, and never to none.
#[tokio::test]
async fn a_process_killed_among_flips_comes_back_to_the_last_one() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = 0;
    for round in 0..8 {
        let mut process = Process::start(&folder, &blue, &green).await;
        let found = process.status()["generation"].as_u64().expect("a number");
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "round {round}: {found} after {acknowledged}"
        );
        let color = if found.is_multiple_of(2) { "blue" } else { "green" };
        assert_eq!(process.status()["services"]["web"]["active"], color, "round {round}");
        assert_eq!(process.get("/").await, color, "round {round}");
        acknowledged = found;
        // Flips as fast as they go, by a program of its own; the kill comes in the middle of one.
        let socket = folder.path().join("admin.sock");
        let flipping = std::thread::spawn(move || {
            let mut last = acknowledged;
            while let Some(generation) = flip(&socket, last) {
                last = generation;
            }
            last
        });
        let want = acknowledged + 3 + round;
        eventually("some flips", async || process.status()["generation"].as_u64() >= Some(want))
            .await;
        process.kill().await;
        acknowledged = flipping.join().expect("no panic in the flipper");
    }
    assert!(acknowledged > 24, "{acknowledged} flips prove little");
}

/// One flip over the socket. The generation that was acknowledged; `None` if nothing was.
pub(crate) fn flip(socket: &std::path::Path, generation: u64) -> Option<u64> {
    use std::io::{Read, Write};
    let color = if generation.is_multiple_of(2) { "green" } else { "blue" };
    let body = format!("{{\"services\":{{\"web\":\"{color}\"}}}}");
    let request = format!(
        "POST /v1/promote HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200").then_some(generation + 1)
}
