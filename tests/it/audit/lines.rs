//! What a line says: who, from where, what, why, and what came of it.

use serde_json::{Value, json};

use super::{assert_good, line_of, line_where, lines};
use crate::{
    support::{Process, TestProxy, Upstream, client, process},
    watch::{Fragile, active, load_until, watched},
};

/// The fields of a line that are the same in each run.
fn told(line: &Value) -> Value {
    let mut told = line.clone();
    let fields = told.as_object_mut().expect("an object");
    for field in ["time", "previous", "hash"] {
        assert!(fields.remove(field).is_some_and(|it| it.is_string()), "{field}: {line}");
    }
    // Each call has a connection of its own, and so a port.
    if let Some((address, _)) = line["from"].as_str().and_then(|it| it.split_once(':')) {
        fields.insert("from".to_owned(), address.into());
    }
    told
}

#[tokio::test]
async fn every_change_has_one_line_that_says_who_what_and_why() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "token-of-ada-0123456789").expect("written");
    let token = format!("[[admin.token]]\nname = \"ada\"\nscope = \"admin\"\nfile = {file:?}\n");
    let proxy = TestProxy::build()
        .admin(&token)
        .service("web", &[&blue], &[&green])
        .services("gate.approval = { expires = \"1h\" }\nwatch = { for = \"1h\" }")
        .start();
    let fields = "Authorization: Bearer token-of-ada-0123456789\r\n";
    let pool = json!({"version": "8.1", "endpoints": [green.address.to_string()]}).to_string();
    for (method, path, body) in [
        ("PUT", "/v1/services/web/pools/green", &*pool),
        ("POST", "/v1/services/web/approve", r#"{"color":"green","version":"8.1"}"#),
        (
            "POST",
            "/v1/promote",
            r#"{"services":{"web":"green"},"reason":"release \"8.1\"\n","confirm_within":"1h"}"#,
        ),
        ("POST", "/v1/confirm", r#"{"services":["web"]}"#),
        ("POST", "/v1/services/web/watch/stop", "{}"),
        ("POST", "/v1/rollback", r#"{"reason":"broken"}"#),
    ] {
        let answer = proxy.call(method, path, fields, body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    // A call that changes nothing has no line.
    assert_eq!(proxy.call("POST", "/v1/services/web/gate", fields, "{}").await.status, 200);
    let state = proxy.shut_down();
    assert_good(state.path());
    let lines = lines(state.path());
    let line = |action: &str, reason: Value, before: u64, after: u64| {
        json!({
            "actor": "ada", "from": client::INTERNAL, "action": action, "reason": reason, "before": before,
            "after": after, "result": "done", "verdicts": [],
        })
    };
    let mut promoted = line("promote web=green", json!("release \"8.1\"\n"), 1, 2);
    promoted["verdicts"] = json!([
        {"service": "web", "gate": "healthy", "result": "passed"},
        {"service": "web", "gate": "approval", "result": "passed"},
    ]);
    let mut rolled_back = line("rollback web=blue", json!("broken"), 2, 3);
    rolled_back["verdicts"] = json!([{"service": "web", "gate": "healthy", "result": "passed"}]);
    let mut start = line("apply configuration", json!(null), 0, 0);
    (start["actor"], start["from"]) = (json!("flipgate"), json!("start"));
    let expected = [
        start,
        line("set pool web.green (version 8.1)", json!(null), 0, 1),
        line("approve web.green (version 8.1)", json!(null), 1, 1),
        promoted,
        line("confirm web", json!(null), 2, 2),
        line("watch stop web", json!(null), 2, 2),
        rolled_back,
    ];
    assert_eq!(lines.iter().map(told).collect::<Vec<_>>(), expected);
    let text = std::fs::read_to_string(state.path().join("audit.jsonl")).expect("lines");
    assert!(!text.contains("token-of-ada") && !text.contains(&green.address.to_string()), "{text}");
}

#[tokio::test]
async fn a_promotion_that_takes_itself_back_has_a_line_of_flipgate() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let body = r#"{"services":{"web":"green"},"confirm_within":"50ms"}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", body).await.status, 200);
    let state = proxy.state_folder();
    let line = line_of(state, "rollback web=blue").await;
    assert_eq!(
        (&line["actor"], &line["from"], &line["reason"], &line["result"]),
        (&json!("flipgate"), &json!("confirm"), &json!("not confirmed in time"), &json!("done"))
    );
    assert_eq!((&line["before"], &line["after"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn a_color_that_the_watch_rolls_back_has_a_line_of_flipgate() {
    let (blue, green) = (Fragile::start("blue").await, Fragile::start("green").await);
    let proxy = watched(&blue, &green, "for = \"10m\", requests = 10").start();
    proxy.promote(&[("web", "green")]).await;
    green.fail();
    load_until(&proxy, "the rollback", async || active(&proxy, "web").await == "blue").await;
    let line = line_of(proxy.state_folder(), "rollback web=blue").await;
    assert_eq!((&line["actor"], &line["from"]), (&json!("flipgate"), &json!("watch")));
    let reason = line["reason"].as_str().expect("what the watch has found");
    assert!(reason.contains(" requests failed ("), "{reason}");
    assert_eq!((&line["result"], &line["after"]), (&json!("done"), &json!(2)));
    let state = proxy.shut_down();
    let count = lines(state.path()).iter().filter(|it| it["from"] == "watch").count();
    assert_eq!(count, 1, "it is rolled back once");
}

#[tokio::test]
async fn a_caller_of_the_unix_socket_is_named_by_its_user_and_a_reload_by_its_caller() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let promoted = process.cli(&["promote", "web=green", "--reason", "release"]);
    assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    let state = folder.path().join("state");
    let line = line_of(&state, "promote web=green").await;
    let uid = format!("uid {}", rustix::process::getuid().as_raw());
    assert_eq!((&line["actor"], &line["from"]), (&json!(uid), &json!("unix")));
    assert_eq!(line["reason"], "release");
    let config = process::write_config(folder.path(), 0, &blue, &blue);
    assert!(process.cli(&["reload"]).status.success());
    let line = line_of(&state, "reload").await;
    assert_eq!((&line["actor"], &line["result"]), (&json!(uid), &json!("done")));
    // A signal has no caller.
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let text = text.replace(&blue.address.to_string(), &green.address.to_string());
    std::fs::write(&config, text).expect("written");
    process.signal("HUP");
    let line = line_where(&state, "the signal", |it| it["from"] == "signal").await;
    assert_eq!((&line["actor"], &line["action"]), (&json!("flipgate"), &json!("reload")));
    assert_good(&state);
}

#[tokio::test]
async fn the_command_shows_lines_as_json_in_a_pipe_and_chooses_among_them() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .service_at("api", "*", "/api", &[&blue], &[&green])
        .service("web", &[&blue], &[&green])
        .start();
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("api", "green")]).await;
    proxy.promote(&[("web", "blue"), ("api", "blue")]).await;
    let state = proxy.shut_down();
    let folder = state.path().display().to_string();
    let actions = |more: &[&str]| -> Vec<String> {
        let output = process::run(&[&["audit", &folder], more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let line = |it: &str| serde_json::from_str::<Value>(it).expect("JSON");
        text.lines().map(|it| line(it)["action"].as_str().expect("a text").to_owned()).collect()
    };
    let (both, api, web) = ("promote api=blue web=blue", "promote api=green", "promote web=green");
    assert_eq!(actions(&[]), ["apply configuration", web, api, both]);
    assert_eq!(actions(&["--service", "web"]), [web, both]);
    assert_eq!(actions(&["--service", "api", "--limit", "1"]), [both]);
    assert_eq!(actions(&["--service", "shop"]), [""; 0]);
    // A folder without a state has no lines, and nothing is wrong with it.
    let empty = tempfile::tempdir().expect("a folder");
    assert_eq!(super::verified(empty.path()).1, Some(0));
}
