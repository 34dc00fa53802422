//! The command line: output, exit codes and errors.

use std::process::{Output, Stdio};

use serde_json::Value;

use crate::support::{Client, Process, Upstream, eventually, process};

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[tokio::test]
async fn exit_codes_tell_a_pipeline_what_happened() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let promoted = process.cli(&["promote", "web=green", "--if-generation", "0", "--reason", "r8"]);
    assert_eq!(code(&promoted), Some(0), "{}", stderr(&promoted));
    assert_eq!(json(&promoted)["services"]["web"]["active"], "green");
    assert_eq!(process.get("/").await, "green");

    let stale = process.cli(&["promote", "web=blue", "--if-generation", "0"]);
    assert_eq!(code(&stale), Some(4));
    assert!(stderr(&stale).contains("1 is current"), "{}", stderr(&stale));
    let already = process.cli(&["promote", "web=green"]);
    assert_eq!(code(&already), Some(1));
    assert!(stderr(&already).contains("already"));
    let unknown = process.cli(&["promote", "shop=green"]);
    assert_eq!(code(&unknown), Some(2), "a mistake on the command line");
    assert!(stderr(&unknown).contains("shop") && stderr(&unknown).contains("flipgate status"));
    let twice = process.cli(&["promote", "web=green", "web=blue"]);
    assert_eq!(code(&twice), Some(2));
    for mistake in [
        &["promote", "web"][..],
        &["promote", "web=gren"],
        &["drain", "web=gren"],
        &["drain", "web.green"],
        &["promote", "web=green", "--steps", "10%,100"],
        &["promote", "web=green", "--steps", "0,100"],
        &["promote", "web=green", "--steps", ""],
        &["drain", "shop"],
        &["status", "shop"],
        &["wait", "shop.green"],
        &["wait", "web"],
        &["set", "web.gren", "--endpoint", "a:1"],
        &["set", "shop.green", "--endpoint", "a:1"],
        &["set", "web.green", "--endpoint", "a"],
        &["promote", "web=green", "--wait-drain", "3"],
        &["wait", "web.green", "--timeout", "2562047788015215h 30m 7s"],
        &["status", "--token-file", "/nowhere/token"],
        &["status", "--output", "xml"],
    ] {
        let output = process.cli(mistake);
        assert_eq!(code(&output), Some(2), "{mistake:?}: {}", stderr(&output));
    }
    assert_eq!(process.status()["generation"], 1);

    assert_eq!(code(&process.cli(&["rollback"])), Some(0));
    assert_eq!(process.get("/").await, "blue");
    assert_eq!(code(&process.cli(&["drain", "web"])), Some(0));
}

#[tokio::test]
async fn a_refused_change_is_exit_code_3() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let refused = process.cli(&["rollback"]);
    assert_eq!(code(&refused), Some(3));
    assert!(stderr(&refused).contains("nothing was promoted yet"), "{}", stderr(&refused));
}

#[tokio::test]
async fn a_wait_for_the_drain_ends_with_the_download_or_with_exit_code_5() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let mut early = process.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    let in_vain = process.cli(&["promote", "web=green", "--wait-drain", "100ms"]);
    assert_eq!(code(&in_vain), Some(5));
    assert!(stderr(&in_vain).contains("1 still in flight"), "{}", stderr(&in_vain));
    assert_eq!(process.get("/").await, "green", "the promotion itself was made");
    let drain = process.cli(&["drain", "web"]);
    assert_eq!((code(&drain), &json(&drain)["in_flight"]), (Some(5), &Value::from(1)));

    let mut waiting = process
        .cli_command(&["drain", "web", "--wait", "60s"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program is there");
    // It waits while requests are in flight.
    assert_eq!(code(&process.cli(&["drain", "web", "--wait", "200ms"])), Some(5));
    assert!(waiting.try_wait().expect("our own child").is_none());
    blue.release();
    early.until("0\r\n\r\n").await;
    let mut done = None;
    eventually("the wait ends", async || {
        done = waiting.try_wait().expect("our own child");
        done.is_some()
    })
    .await;
    assert_eq!(done.and_then(|it| it.code()), Some(0));
    assert_eq!(code(&process.cli(&["promote", "web=blue", "--wait-drain", "30s"])), Some(0));
}

#[tokio::test]
async fn events_are_lines() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let events = folder.path().join("events");
    let file = std::fs::File::create(&events).expect("a writable folder");
    let mut following = process
        .cli_command(&["events", "--json", "--after", "0"])
        .stdout(file)
        .spawn()
        .expect("the program is there");
    process.cli(&["promote", "web=green"]);
    let lines = || -> Vec<Value> {
        let text = std::fs::read_to_string(&events).expect("the file");
        text.lines().filter_map(|it| serde_json::from_str(it).ok()).collect()
    };
    eventually("three events", async || lines().iter().any(|it| it["event"] == "drained")).await;
    following.kill().expect("our own child");
    following.wait().expect("our own child");
    let names: Vec<String> = lines()
        .iter()
        .filter(|it| it["event"] != "health_changed")
        .map(|it| it["event"].as_str().expect("a word").to_owned())
        .collect();
    assert_eq!(names, ["started", "promoted", "drained"]);
    let numbers: Vec<u64> = lines().iter().filter_map(|it| it["seq"].as_u64()).collect();
    assert!(numbers.windows(2).all(|it| it[0] < it[1]), "{numbers:?}");
}

#[test]
fn a_check_finds_every_mistake_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("wrong.toml");
    let text = "statedir = \"x\"\nworkers = -1\n[[listener]]\nlisten = \"8080\"\npreview = \"red\"\n\
                [service.Web]\n[service.api]\nhosts = [\"a:1\"]\npath = \"api\"\nactve = \"blue\"\n\
                [service.api.blue]\nendpoints = [\"127.0.0.1\", 7]\n";
    std::fs::write(&path, text).expect("written");
    let name = path.display().to_string();
    let output = process::run(&["check", "--config", &name]);
    assert_eq!(code(&output), Some(2));
    let error = stderr(&output);
    for mistake in [
        ":1:1: statedir: unknown key `statedir`; did you mean `state_dir`?",
        ":2:11: workers: ",
        ":4:10: listener[0].listen: ",
        ":5:11: listener[0].preview: ",
        ":6:10: service.Web: ",
        ":8:10: service.api.hosts[0]: ",
        ":9:8: service.api.path: ",
        ":10:1: service.api.actve: unknown key `actve`; did you mean `active`?",
        ":12:14: service.api.blue.endpoints[0]: ",
        ":12:27: service.api.blue.endpoints[1]: ",
    ] {
        assert!(error.contains(&format!("{name}{mistake}")), "{mistake} is not in\n{error}");
    }
    let run = process::run(&["run", "--config", &name]);
    assert_eq!(code(&run), Some(2), "what cannot be checked is not run");
    let missing = process::run(&["check", "--config", "/nowhere/flipgate.toml"]);
    assert_eq!(code(&missing), Some(2));
    assert!(stderr(&missing).contains("/nowhere/flipgate.toml"));
}

#[test]
fn without_a_flipgate_the_error_has_a_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let unreachable = format!("unix:{}", folder.path().join("missing.sock").display());
    for command in [&["status"][..], &["promote", "web=green"], &["rollback"], &["drain", "web"]] {
        let output = process::flipgate(command)
            .env("FLIPGATE_ADMIN", &unreachable)
            .output()
            .expect("the program is there");
        assert_eq!(code(&output), Some(1));
        let error = stderr(&output);
        assert!(error.contains(&unreachable) && error.contains("--admin URL"), "{error}");
    }
}

#[test]
fn help_and_completions_are_there() {
    let help = process::run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for command in ["run", "check", "status", "promote", "rollback", "drain", "events", "demo"] {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is not in\n{text}");
        let help = process::run(&[command, "--help"]);
        assert!(String::from_utf8_lossy(&help.stdout).contains("Example"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = process::run(&["completions", shell]);
        assert!(code(&output) == Some(0) && output.stdout.len() > 1000, "{shell}");
    }
}

/// A server that never answered held `wait --timeout 1s` for 10 seconds, and the exit code was 1.
#[tokio::test]
async fn a_wait_ends_in_time_if_the_admin_api_does_not_answer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let admin = format!("http://{}", listener.local_addr().expect("bound"));
    let begin = std::time::Instant::now();
    let output =
        process::flipgate(&["wait", "web.green", "--timeout", "1s", "--admin", &admin]).output();
    let output = output.expect("the program is there");
    assert_eq!(code(&output), Some(5), "{}", stderr(&output));
    assert!(stderr(&output).contains("did not answer within 1s"), "{}", stderr(&output));
    assert!(begin.elapsed().as_secs() < 9, "before the time limit of a call");
}

#[tokio::test]
async fn a_token_file_is_taken_for_the_callers_token() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let path = process::write_config(folder.path(), 0, &blue, &green);
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123\n").expect("written");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let more = format!(
        "\n[[admin.token]]\nname = \"t\"\nscope = \"read\"\nfile = {token:?}\n[[listener]]"
    );
    std::fs::write(&path, text.replacen("\n[[listener]]", &more, 1)).expect("written");
    let process = Process::start_with(folder.path(), &path).await;
    let file = token.display().to_string();
    assert_eq!(code(&process.cli(&["status", "--token-file", &file])), Some(0));
    let refused = process.cli(&["promote", "web=green", "--token-file", &file]);
    assert_eq!(code(&refused), Some(1));
    assert!(stderr(&refused).contains("scope"), "{}", stderr(&refused));
    let wrong = process.cli_command(&["status"]).env("FLIPGATE_TOKEN", "wrong").output();
    let wrong = wrong.expect("the program is there");
    assert_eq!(code(&wrong), Some(1));
    assert!(stderr(&wrong).contains("unknown token\n  Give a token with --token-file FILE"));
    std::fs::write(&token, "\n").expect("written");
    let empty = process.cli(&["status", "--token-file", &file]);
    assert_eq!(code(&empty), Some(2));
    assert!(stderr(&empty).contains("it has no token"), "{}", stderr(&empty));
    drop(Client::connect("127.0.0.1", process.public).await);
}

/// `flipgate status > /dev/full` ended in a panic with a backtrace, and so did a closed pipe.
#[tokio::test]
async fn output_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_not() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let config = folder.path().join("flipgate.toml").display().to_string();
    let offline = |arguments: &[&str]| process::flipgate(arguments);
    let commands: [(&str, std::process::Command); 7] = [
        ("status", process.cli_command(&["status"])),
        ("promote", process.cli_command(&["promote", "web=green"])),
        ("rollback", process.cli_command(&["rollback", "--wait-drain", "10s"])),
        ("drain", process.cli_command(&["drain", "web"])),
        ("events", process.cli_command(&["events", "--after", "0"])),
        ("check", offline(&["check", "--config", &config])),
        ("completions", offline(&["completions", "bash"])),
    ];
    for (name, mut command) in commands {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let output = command.stdout(full).stderr(Stdio::piped()).output().expect("it runs");
        let error = stderr(&output);
        assert_eq!(code(&output), Some(1), "{name}: {error}");
        assert!(error.starts_with("error: cannot write the output: No space"), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");

        let (reader, writer) = std::io::pipe().expect("descriptors");
        drop(reader);
        // What was promoted and rolled back above is refused the second time.
        if !matches!(name, "promote" | "rollback") {
            let output = command.stdout(writer).output().expect("it runs");
            assert_eq!((code(&output), stderr(&output).as_str()), (Some(0), ""), "{name}");
        }
    }
    // A full standard error does not change the exit code.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let output = process.cli_command(&["promote", "shop=green"]).stderr(full).output();
    assert_eq!(code(&output.expect("it runs")), Some(2));
}

#[tokio::test]
async fn names_and_versions_cannot_deceive_a_reader() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let caller = process.caller();
    let pool = |version: &str| flipgate_api::wire::PoolRequest {
        version: Some(version.to_owned()),
        endpoints: vec![flipgate_api::wire::EndpointRequest::Plain(green.address.to_string())],
        force: false,
    };
    for bad in ["8.0\u{202e}", "8\u{200b}.0", "8\u{2066}", "a\nb", "\u{1b}[2J"] {
        let error = caller.set_pool("web", "green", &pool(bad)).await.expect_err("deceptive");
        assert!(error.to_string().contains("visible characters"), "{error}");
    }
    caller.set_pool("web", "green", &pool("größer-8.0")).await.expect("plain");
    let unknown = process.cli(&["promote", "\u{202e}\u{1b}[2J=green"]);
    let error = stderr(&unknown);
    assert!(error.contains("\\u{202e}\\u{1b}[2J"), "{error}");
    let reason = process.cli(&["promote", "web=green", "--reason", "line\none \u{202e}"]);
    assert_eq!(code(&reason), Some(0), "{}", stderr(&reason));
}

#[tokio::test]
async fn a_check_and_the_start_say_who_may_preview() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let check = || {
        let output = process::run(&["check", "--config", &config.display().to_string()]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(check().contains("internal clients: 127.0.0.1/32"), "{}", check());
    let process = Process::start_with(folder.path(), &config).await;
    assert!(process.log().contains("\"internal\":\"127.0.0.1/32\""), "{}", process.log());
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let line = "clients.internal = [\"127.0.0.1/32\"]\n";
    std::fs::write(&config, text.replace(line, "")).expect("written");
    assert!(check().contains("internal clients: 127.0.0.0/8, ::1/128"), "{}", check());
    std::fs::write(&config, text.replace(line, "clients.internal = []\n")).expect("written");
    assert!(check().contains("no client is internal"), "{}", check());
}
