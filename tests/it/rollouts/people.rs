//! The calls of people and programs: idempotency, waiting, streams, scopes, dry runs.

use serde_json::{Value, json};

use super::{Host, act, application, begin, settled, show, story, try_begin, until_stage};
use crate::support::{Process, Upstream, process};

#[tokio::test]
async fn a_repeated_call_with_a_key_begins_one_rollout() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    // Its color is active after that, which would refuse another call.
    let body = json!({"plan": "story", "services": {"web": {"color": "green", "version": "8.0", "endpoints": [green.address.to_string()]}}});
    let call = async || {
        proxy.call("POST", "/v1/rollouts", "Idempotency-Key: k1\r\n", &body.to_string()).await
    };
    let first = call().await;
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.field("location"), Some(&*format!("/v1/rollouts/{id}")));
    assert_eq!(settled(&proxy, &id).await["state"], "done");
    let again = call().await;
    assert_eq!((again.status, again.json()["id"].as_str()), (200, Some(&*id)));
    assert_eq!(again.field("idempotent-replayed"), Some("true"));
    assert_eq!(host.calls().iter().filter(|it| *it == "/pause").count(), 1);
    assert_eq!(proxy.events("rollout_started").len(), 1, "a repeated call begins nothing");
}

#[tokio::test]
async fn a_call_waits_for_the_end_and_another_for_each_version() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let ask = "[[rollout.ask.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let proxy = story(&blue, &host, ask).start();
    let id = begin(&proxy, "ask", &green, json!({})).await;
    assert_eq!(settled(&proxy, &id).await["state"], "waiting", "that needs a person");
    let version = show(&proxy, &id).await["version"].as_u64().expect("a number");
    let path = format!("/v1/rollouts/{id}?wait=60s&since={version}");
    let (next, approved) =
        tokio::join!(proxy.call("GET", &path, "", ""), act(&proxy, &id, "approve"));
    assert_eq!(approved.status, 200);
    assert!(next.json()["version"].as_u64() > Some(version));
    assert_eq!(settled(&proxy, &id).await["state"], "done");
    let stream = format!("/v1/rollouts/{id}");
    let events = proxy.call("GET", &stream, "Accept: text/event-stream\r\n", "").await;
    assert_eq!(events.field("content-type"), Some("text/event-stream"));
    assert!(events.text().contains("event: rollout"), "{}", events.text());
    for unknown in ["/v1/rollouts/nothing", "/v1/rollouts/NO"] {
        assert_eq!(proxy.call("GET", unknown, "", "").await.status, 404);
    }
}

#[tokio::test]
async fn what_cannot_be_deployed_is_refused_before_anything_begins() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    let of = |version: &str| json!({"services": {"web": {"version": version, "endpoints": ["127.0.0.1:1"]}}});
    for (more, status, code) in [
        (of("8 0"), 422, "version"),
        (of("-8"), 422, "version"),
        (of(&"8".repeat(65)), 422, "version"),
        (of("8;rm"), 422, "version"),
        (json!({"services": {"shop": {"version": "8"}}}), 422, "unknown_service"),
        (json!({"services": {}}), 422, "nothing_named"),
        (json!({"services": {"web": {"version": "8", "color": "red"}}}), 422, "unknown_color"),
        (json!({"services": {"web": {"version": "8", "color": "blue"}}}), 422, "already_active"),
        (json!({"services": {"web": {"version": "8"}}}), 409, "no_endpoints"),
        (json!({"services": {"web": {"version": "8", "endpoints": ["nothing"]}}}), 422, "endpoint"),
        (json!({"plan": "other"}), 422, "unknown_plan"),
    ] {
        let answer = try_begin(&proxy, "story", &green, more.clone()).await;
        let found: Value = answer.json();
        assert_eq!(
            (answer.status, &found["reasons"][0]["code"]),
            (status, &json!(code)),
            "{more}: {found}"
        );
    }
    assert_eq!(proxy.call("GET", "/v1/rollouts", "", "").await.json()["rollouts"], json!([]));
    let dry = try_begin(&proxy, "story", &green, json!({"dry_run": true})).await;
    assert_eq!((dry.status, dry.json()["stages"].as_array().map(Vec::len)), (200, Some(8)));
    assert_eq!(proxy.call("GET", "/v1/rollouts", "", "").await.json()["rollouts"], json!([]));
    assert_eq!(host.calls(), [] as [String; 0]);
}

#[tokio::test]
async fn tokens_have_the_scopes_of_promotions_and_approvals() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let ask = "[[rollout.ask.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = ["read", "approve", "promote"].map(|scope| {
        let file = folder.path().join(scope);
        let secret = format!("{scope}-0123456789abcdef0123456789");
        std::fs::write(&file, &secret).expect("written");
        (format!("[[admin.token]]\nname = {scope:?}\nscope = {scope:?}\nfile = {file:?}\n"), secret)
    });
    let config = tokens.iter().map(|it| it.0.as_str()).collect::<String>();
    let proxy = story(&blue, &host, ask).admin(&format!("require_token = true\n{config}")).start();
    let body = json!({"plan": "ask", "services": {"web": {"version": "8.0", "endpoints": [green.address.to_string()]}}});
    let bearer = |place: usize| format!("Authorization: Bearer {}\r\n", tokens[place].1);
    let post = async |place: usize, path: &str, body: &str| {
        proxy.call("POST", path, &bearer(place), body).await
    };
    for (place, status) in [(0, 403), (1, 403), (2, 201)] {
        let begun = post(place, "/v1/rollouts", &body.to_string()).await;
        assert_eq!(begun.status, status, "{}", begun.text());
    }
    let list = proxy.call("GET", "/v1/rollouts", &bearer(0), "").await.json();
    let id = list["rollouts"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(list["rollouts"][0]["owner"], "promote");
    for (verb, place, status) in
        [("cancel", 1, 403), ("retry", 1, 403), ("approve", 0, 403), ("approve", 1, 200)]
    {
        let mut answer = post(place, &format!("/v1/rollouts/{id}/{verb}"), "{}").await;
        while answer.status == 409 {
            // The stage has not begun yet.
            answer = post(place, &format!("/v1/rollouts/{id}/{verb}"), "{}").await;
        }
        assert_eq!(answer.status, status, "{verb} {}", answer.text());
    }
}

#[tokio::test]
async fn deploy_follows_a_rollout_and_ends_with_its_exit_code() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let text = std::fs::read_to_string(&config).expect("it is readable");
    let plan = |name: &str, command: &str, undo: &str| {
        format!(
            "[[rollout.{name}.stage]]\nname = \"run\"\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", {command:?}]\n\
             undo = {{ kind = \"exec\", command = [\"sh\", \"-c\", {undo:?}] }}\n"
        )
    };
    let plans = [
        "\n[rollouts]\nexec = true\n".to_owned(),
        plan("good", "echo fine", "true"),
        plan("bad", "echo on; echo off >&2; exit 4", "true"),
        plan("worse", "exit 4", "exit 5"),
    ];
    std::fs::write(&config, format!("{text}{}", plans.concat())).expect("it is writable");
    let process = Process::start_with(folder.path(), &config).await;
    let deploy = |plan: &str| {
        let words = ["deploy", "web", "--version", "8.0", "--plan", plan, "--output", "table"];
        let output = process.cli(&words);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = deploy("good");
    assert!(code == Some(0) && text.contains("✓ run") && text.contains("done"), "{text}");
    let (code, text) = deploy("bad");
    assert!(code == Some(6) && text.contains("exit code 4") && text.contains("│ off"), "{text}");
    let (code, text) = deploy("worse");
    assert!(code == Some(7) && text.contains("left to do") && text.contains("exit 5"), "{text}");
    let list = process.cli(&["rollouts", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
    let id = list["rollouts"][0]["id"].as_str().expect("an id");
    assert_eq!(process.cli(&["rollout", "cancel", id]).status.code(), Some(0));
    // The default plan, with lines of JSON: the last one is the end.
    let words = ["deploy", "web", "--version", "8.0", "--json"];
    let output = process.cli(&words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!((output.status.code(), &last["state"]), (Some(0), &json!("done")), "{text}");
    assert_eq!(process.get("/").await, "green");
}

#[tokio::test]
async fn a_signal_detaches_and_the_rollout_goes_on() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let text = std::fs::read_to_string(&config).expect("it is readable");
    let ask = "\n[[rollout.ask.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    std::fs::write(&config, format!("{text}{ask}")).expect("it is writable");
    let process = Process::start_with(folder.path(), &config).await;
    let mut command = process.cli_command(&["deploy", "web", "--version", "8.0", "--plan", "ask"]);
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    crate::support::eventually("it waits", async || {
        let list = process.cli(&["rollouts", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).expect("JSON");
        list["rollouts"][0]["state"] == "waiting"
    })
    .await;
    process::send("INT", i32::try_from(child.id()).expect("a number"));
    let output = child.wait_with_output().expect("our own child");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{error}");
    assert!(error.contains("flipgate deploy --resume "), "{error}");
    let id = error.split("--resume ").nth(1).expect("an id").trim().to_owned();
    assert_eq!(process.cli(&["rollout", "approve", &id]).status.code(), Some(0));
    let resumed = process.cli(&["deploy", "--resume", &id, "--json"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", String::from_utf8_lossy(&resumed.stderr));
}

#[tokio::test]
async fn an_approval_is_possible_only_where_one_is_waited_for() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let ask = "[[rollout.ask.stage]]\nname = \"ask\"\nkind = \"approve\"\n";
    let proxy = story(&blue, &host, ask).start();
    let done = begin(&proxy, "story", &green, json!({})).await;
    assert_eq!(settled(&proxy, &done).await["state"], "done");
    assert_eq!(act(&proxy, &done, "approve").await.status, 409);
    let asks = begin(&proxy, "ask", &blue, json!({})).await;
    until_stage(&proxy, &asks, 0, "waiting").await;
    assert_eq!(act(&proxy, &asks, "approve").await.status, 200);
}

/// A repeated approval is not one of the next stage.
#[tokio::test]
async fn an_approval_of_a_stage_approves_no_other() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let ask = "[[rollout.ask.stage]]\nname = \"one\"\nkind = \"approve\"\n\
               [[rollout.ask.stage]]\nname = \"two\"\nkind = \"approve\"\n";
    let proxy = story(&blue, &host, ask).start();
    let id = begin(&proxy, "ask", &green, json!({})).await;
    until_stage(&proxy, &id, 0, "waiting").await;
    let call = async |verb: &str, stage: &str| {
        let path = format!("/v1/rollouts/{id}/{verb}");
        proxy.call("POST", &path, "", &json!({"stage": stage}).to_string()).await
    };
    assert_eq!(call("approve", "two").await.status, 409, "it does not wait yet");
    assert_eq!(call("approve", "three").await.status, 422);
    assert_eq!(call("cancel", "one").await.status, 400);
    assert_eq!(call("approve", "one").await.status, 200);
    until_stage(&proxy, &id, 1, "waiting").await;
    let again = call("approve", "one").await;
    assert_eq!(again.status, 409, "{}", again.text());
    assert_eq!(again.json()["type"], "urn:flipgate:problem:rollout-state");
    assert_eq!(show(&proxy, &id).await["state"], "waiting");
    assert_eq!(call("approve", "two").await.status, 200);
    assert_eq!(settled(&proxy, &id).await["state"], "done");
}

/// A version that was set by hand can be anything, and a command would take it for a part of itself.
#[tokio::test]
async fn a_version_that_was_set_by_hand_is_checked_too() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    let endpoints = [green.address.to_string()];
    let put = json!({"version": "$(touch x)", "endpoints": endpoints}).to_string();
    assert_eq!(proxy.call("PUT", "/v1/services/web/pools/green", "", &put).await.status, 200);
    let body = r#"{"plan":"story","services":{"web":{}}}"#;
    let refused = proxy.call("POST", "/v1/rollouts", "", body).await;
    assert_eq!((refused.status, &refused.json()["reasons"][0]["code"]), (422, &json!("version")));
    assert!(host.calls().is_empty());
    // Another version in the call is good.
    let id = begin(&proxy, "story", &green, json!({})).await;
    assert_eq!(settled(&proxy, &id).await["state"], "done");
}
