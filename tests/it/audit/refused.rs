//! Refused calls have a line, their reply does not wait for it, and a flood of them is counted.

use serde_json::json;

use super::{assert_good, line_where, lines};
use crate::support::{Fault, TestProxy, Upstream, client};

#[tokio::test]
async fn a_refused_call_has_a_line_with_status_and_code() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "token-of-eve-0123456789").expect("written");
    let token = format!("[[admin.token]]\nname = \"eve\"\nscope = \"read\"\nfile = {file:?}\n");
    let proxy = TestProxy::build()
        .admin(&token)
        .service("web", &[&blue], &[&green])
        .services("gate.approval = { expires = \"1h\" }")
        .start();
    let green = r#"{"services":{"web":"green"},"reason":"release"}"#;
    let blue = r#"{"services":{"web":"blue"}}"#;
    let promote = "/v1/promote";
    for (fields, path, body, status) in [
        ("Authorization: Bearer not-a-known-token-1\r\n", promote, green, 401),
        ("Authorization: Bearer token-of-eve-0123456789\r\n", promote, green, 403),
        ("", promote, green, 409),
        ("If-Match: \"77\"\r\n", promote, green, 412),
        ("", promote, blue, 422),
        ("", promote, "{\"secret\":\"in a body", 400),
        ("", "/v1/services/web/approve", r#"{"color":"gren"}"#, 404),
        // Calls that would change nothing.
        ("Authorization: Bearer not-a-known-token-1\r\n", "/v1/services/web/gate", "{}", 401),
        ("", "/v1/unknown", "{}", 404),
    ] {
        let answer = proxy.call("POST", path, fields, body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let generation = proxy.generation().await;
    let state = proxy.shut_down();
    assert_good(state.path());
    let lines = lines(state.path());
    let told: Vec<_> = lines[1..].iter().map(|it| (&it["action"], &it["result"])).collect();
    let promoted = "promote web=green";
    let expected = [
        ("promote", "refused 401 unauthorized"),
        ("promote", "refused 403 scope"),
        (promoted, "refused 409 refused-by-gate"),
        (promoted, "refused 412 stale-generation"),
        ("promote web=blue", "refused 422 unprocessable"),
        ("promote", "refused 400 malformed"),
        ("approve web", "refused 404 unknown-color"),
    ]
    .map(|(action, result)| (json!(action), json!(result)));
    assert_eq!(told, expected.iter().map(|it| (&it.0, &it.1)).collect::<Vec<_>>());
    let gates = &lines[3]["verdicts"];
    assert_eq!(gates[0]["result"], "passed");
    assert_eq!(gates[1], json!({"service": "web", "gate": "approval", "result": "refused"}));
    assert_eq!((&lines[3]["reason"], &lines[2]["actor"]), (&json!("release"), &json!("eve")));
    assert_eq!(lines[1]["actor"], client::INTERNAL, "an unknown token has no name");
    for line in &lines[1..] {
        assert_eq!((&line["before"], &line["after"]), (&json!(generation), &json!(generation)));
    }
    let text = std::fs::read_to_string(state.path().join("audit.jsonl")).expect("lines");
    for secret in ["not-a-known", "token-of", "in a body"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn the_reply_to_a_refused_call_does_not_wait_for_the_disk() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (proxy, faults) = TestProxy::build().service("web", &[&blue], &[&green]).start_faulty();
    let before = proxy.status().await;
    faults.next(Fault::Hold);
    let body = r#"{"services":{"web":"blue"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", body).await.status, 422);
    faults.held().await;
    // Its line waits for the disk; other refused calls are answered meanwhile.
    assert_eq!(proxy.call("POST", "/v1/promote", "", "{").await.status, 400);
    faults.release();
    line_where(proxy.state_folder(), "the line", |it| it["result"] == "refused 422 unprocessable")
        .await;
    let after = proxy.status().await;
    for number in ["generation", "revision"] {
        assert_eq!(before[number], after[number], "{number}: nothing has changed");
    }
}

#[tokio::test]
async fn a_flood_of_refused_calls_is_counted_and_hides_no_other() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let unknown = "Authorization: Bearer not-a-known-token-1\r\n";
    for _ in 0..60 {
        assert_eq!(proxy.call("POST", "/v1/rollback", unknown, "{}").await.status, 401);
    }
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 409);
    proxy.promote(&[("web", "green")]).await;
    let state = proxy.shut_down();
    assert_good(state.path());
    let lines = lines(state.path());
    let of = |result: &str| lines.iter().filter(|it| it["result"] == result).count();
    // A slow machine may admit one more while this runs.
    let admitted = of("refused 401 unauthorized");
    assert!((20..=25).contains(&admitted), "{admitted} lines");
    let counted = lines.iter().filter_map(|it| {
        let (count, _) = it["action"].as_str()?.split_once(" more refused calls")?;
        count.parse::<usize>().ok()
    });
    assert_eq!(counted.sum::<usize>() + admitted, 60);
    assert_eq!((of("refused 409 refused"), of("done")), (1, 2), "{lines:#?}");
}

#[tokio::test]
async fn a_change_that_could_not_be_written_has_one_line_as_soon_as_lines_can_be() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (proxy, faults) = TestProxy::build().service("web", &[&blue], &[&green]).start_faulty();
    faults.next(Fault::Refuse);
    let body = r#"{"services":{"web":"green"}}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", body).await.status, 500);
    let is_it = |it: &serde_json::Value| it["result"] == "refused 500 not-written";
    let line = line_where(proxy.state_folder(), "its line", is_it).await;
    assert_eq!(line["action"], "promote web=green");
    proxy.promote(&[("web", "green")]).await;
    drop(faults);
    let state = proxy.shut_down();
    assert_eq!(lines(state.path()).len(), 3, "the start, the refused call, the change");
    assert_good(state.path());
}
