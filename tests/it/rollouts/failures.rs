//! What fails, and that the world is as before then.

use serde_json::json;

use super::{Host, act, application, begin, pools, settled, settled_for_good, states, story};
use crate::support::Application;

/// The calls of the host that a failure at a stage leads to, after those of the stages before.
const UNDONE: [(&str, &[&str]); 4] = [
    // It may have been done, so it is undone.
    ("/pause", &["/pause", "/resume"]),
    ("/start", &["/pause", "/start", "/stop", "/resume"]),
    ("/stop-old", &["/pause", "/start", "/stop-old", "/start-old", "/stop", "/resume"]),
    (
        "/resume-new",
        &[
            "/pause",
            "/start",
            "/stop-old",
            "/resume-new",
            "/pause-new",
            "/start-old",
            "/stop",
            "/resume",
        ],
    ),
];

#[tokio::test]
async fn whichever_call_fails_everything_is_undone() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    let before = pools(&proxy).await;
    let mut seen = 0;
    for (failing, calls) in UNDONE {
        host.fail(failing);
        let undone = settled(&proxy, &begin(&proxy, "story", &green, json!({})).await).await;
        assert_eq!(
            (&undone["state"], &undone["cause"]),
            (&json!("undone"), &json!("failure")),
            "{undone}"
        );
        assert_eq!(undone.get("left_to_do"), None);
        let error = undone["error"].as_str().expect("a text");
        assert!(error.contains("expected status 200-299, got 500"), "{error}");
        let failed =
            undone["stages"].as_array().expect("stages").iter().find(|it| !it["error"].is_null());
        assert_eq!(failed.expect("one has failed")["output"], "it broke");
        assert_eq!(&host.calls()[seen..], calls, "{failing}");
        seen = host.calls().len();
        assert_eq!(pools(&proxy).await, before, "{failing}");
        assert_eq!(proxy.get("/").await, "blue");
        host.recover();
    }
}

#[tokio::test]
async fn a_gate_that_refuses_has_everything_undone() {
    let (blue, host) = (application("blue").await, Host::start().await);
    let green = Application::start(|request| match request.path.as_str() {
        "/smoke" => crate::support::Reply::status(500, "not yet"),
        _ => crate::support::Reply::ok("green"),
    })
    .await;
    let gate = "[[service.web.gate.smoke]]\npath = \"/smoke\"\n";
    let proxy = story(&blue, &host, gate).start();
    let before = pools(&proxy).await;
    let undone = settled(&proxy, &begin(&proxy, "story", &green, json!({})).await).await;
    assert_eq!(
        (&undone["state"], &undone["cause"]),
        (&json!("undone"), &json!("gate")),
        "{undone}"
    );
    assert_eq!(
        states(&undone),
        ["undone", "undone", "undone", "failed", "pending", "pending", "pending", "pending"]
    );
    assert!(undone["error"].as_str().is_some_and(|it| it.contains("gate smoke")), "{undone}");
    assert_eq!(host.calls(), ["/pause", "/start", "/stop", "/resume"]);
    assert_eq!(pools(&proxy).await, before);
    assert_eq!(proxy.events("promoted").len(), 0);
}

#[tokio::test]
async fn an_endpoint_that_does_not_come_up_has_everything_undone() {
    let (blue, host) = (application("blue").await, Host::start().await);
    // A port that is closed again.
    let green = application("green").await;
    let address = green.address;
    drop(green);
    let plan =
        "[[rollout.short.stage]]\nname = \"pool\"\nkind = \"pool\"\nhealthy_within = \"300ms\"\n";
    let proxy = story(&blue, &host, plan).start();
    let before = pools(&proxy).await;
    let body = json!({"plan": "short", "services": {"web": {"version": "8", "endpoints": [address.to_string()]}}});
    let begun = proxy.call("POST", "/v1/rollouts", "", &body.to_string()).await.json();
    let undone = settled(&proxy, begun["id"].as_str().expect("an id")).await;
    let error = undone["error"].as_str().expect("a text");
    assert!(error.contains("not healthy within 300 ms") && error.contains("refused"), "{error}");
    assert_eq!((&undone["state"], pools(&proxy).await), (&json!("undone"), before));
}

#[tokio::test]
async fn a_stage_that_takes_too_long_has_failed() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let undo = format!("undo = {{ kind = \"call\", url = \"http://{address}/undo\" }}\n");
    for (kind, what) in [
        (
            format!("kind = \"call\"\nurl = \"http://{address}/hang\"\ntimeout = \"100ms\"\n"),
            "no response within 100 ms",
        ),
        (
            format!("kind = \"call\"\nurl = \"http://{address}/hang\"\ndeadline = \"100ms\"\n"),
            "not done within 100 ms",
        ),
        (
            format!(
                "kind = \"until\"\nurl = \"http://{address}/x\"\ncondition = \"body.state == 'never'\"\ninterval = \"10ms\"\ndeadline = \"200ms\"\n"
            ),
            "not done within 200 ms",
        ),
        ("kind = \"approve\"\ndeadline = \"100ms\"\n".to_owned(), "not done within 100 ms"),
        (
            "kind = \"exec\"\ncommand = [\"sleep\", \"60\"]\ndeadline = \"100ms\"\n".to_owned(),
            "not done within 100 ms",
        ),
    ] {
        let plan = format!(
            "[[rollout.slow.stage]]\nname = \"slow\"\n{kind}{undo}[rollouts]\nexec = true\n"
        );
        let proxy = story(&blue, &host, &plan).start();
        let undone =
            settled_for_good(&proxy, &begin(&proxy, "slow", &green, json!({})).await).await;
        assert_eq!(
            (&undone["state"], states(&undone)),
            (&json!("undone"), vec!["undone".to_owned()]),
            "{kind}"
        );
        assert!(undone["error"].as_str().is_some_and(|it| it.contains(what)), "{undone}");
    }
    assert_eq!(host.calls().iter().filter(|it| *it == "/undo").count(), 5);
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_if_that_is_harmless() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let count = std::sync::atomic::AtomicUsize::new(0);
    let flaky = Application::start(move |_| {
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 | 1 => crate::support::Reply::status(503, "busy"),
            _ => crate::support::Reply::ok("{}"),
        }
    })
    .await;
    let retry = "retry = { attempts = 3, delay = \"10ms\" }\n";
    let stage = |name: &str, more: &str| {
        format!(
            "[[rollout.{name}.stage]]\nname = \"a\"\nkind = \"call\"\nmethod = \"POST\"\nurl = \"http://{}/{name}\"\n{retry}{more}\
             undo = {{ kind = \"call\", url = \"http://{address}/undo-{name}\" }}\n",
            flaky.address
        )
    };
    let plans = [stage("risky", ""), stage("harmless", "idempotent = true\n")].concat();
    let proxy = story(&blue, &host, &plans).start();
    // A POST may have been done.
    let undone = settled(&proxy, &begin(&proxy, "risky", &green, json!({})).await).await;
    assert_eq!(undone["state"], "undone", "{undone}");
    assert_eq!(flaky.requests().len(), 1);
    let done = settled(&proxy, &begin(&proxy, "harmless", &green, json!({})).await).await;
    assert_eq!(done["state"], "done", "{done}");
    let keys: Vec<_> = flaky
        .requests_for("/harmless")
        .iter()
        .map(|it| it.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1], "the same key for each attempt");
}

#[tokio::test]
async fn an_undo_that_fails_stops_the_others_until_a_person_has_decided() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    host.fail("/stop-old");
    host.fail("/stop");
    let id = begin(&proxy, "story", &green, json!({})).await;
    let stuck = settled(&proxy, &id).await;
    assert_eq!((&stuck["state"], &stuck["over"]), (&json!("stuck"), &json!(false)), "{stuck}");
    assert_eq!(
        host.calls().last().map(String::as_str),
        Some("/stop"),
        "the workers are not resumed"
    );
    let left = stuck["left_to_do"].as_array().expect("a list");
    assert_eq!(left.len(), 2, "{left:?}");
    let texts: Vec<_> = left.iter().map(|it| it.as_str().expect("a text")).collect();
    assert!(
        texts[0].contains("the undo of stage `start` has failed") && texts[0].contains("/stop"),
        "{texts:?}"
    );
    assert!(
        texts[1].contains("stage `pause` is not undone yet") && texts[1].contains("/resume"),
        "{texts:?}"
    );
    // It holds its service until then.
    assert_eq!(super::try_begin(&proxy, "story", &green, json!({})).await.status, 409);
    let needs = &proxy.events("rollout_needs_person")[0];
    assert_eq!((&needs["rollout"], &needs["state"]), (&json!(id), &json!("stuck")));
    host.recover();
    assert_eq!(act(&proxy, &id, "retry").await.status, 200);
    let undone = settled(&proxy, &id).await;
    assert_eq!((&undone["state"], undone.get("left_to_do")), (&json!("undone"), None), "{undone}");
    assert_eq!(host.calls().last().map(String::as_str), Some("/resume"));
    assert_eq!(act(&proxy, &id, "retry").await.status, 409);
}

#[tokio::test]
async fn a_stuck_rollout_can_be_given_up_and_says_what_is_left() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    host.fail("/start");
    host.fail("/stop");
    let id = begin(&proxy, "story", &green, json!({})).await;
    assert_eq!(settled(&proxy, &id).await["state"], "stuck");
    assert_eq!(act(&proxy, &id, "cancel").await.status, 200);
    let over = settled(&proxy, &id).await;
    assert_eq!((&over["state"], &over["over"]), (&json!("cancelled"), &json!(true)));
    assert_eq!(over["left_to_do"].as_array().map(Vec::len), Some(2), "{over}");
    host.recover();
    let next = begin(&proxy, "story", &green, json!({})).await;
    assert_eq!(settled(&proxy, &next).await["state"], "done");
}

#[tokio::test]
async fn a_plan_can_keep_the_promotion_whatever_fails_after_it() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let stage = |name: &str, kind: &str, more: &str| {
        format!("[[rollout.kept.stage]]\nname = {name:?}\nkind = {kind:?}\n{more}\n")
    };
    let plan = [
        "[rollout.kept]\nafter_promotion = \"keep\"\n".to_owned(),
        stage("pool", "pool", ""),
        stage("promote", "promote", ""),
        stage("after", "call", &format!("url = \"http://{address}/after\"")),
    ];
    let proxy = story(&blue, &host, &plan.concat()).start();
    host.fail("/after");
    let id = begin(&proxy, "kept", &green, json!({})).await;
    let stuck = settled(&proxy, &id).await;
    assert_eq!(stuck["state"], "stuck", "{stuck}");
    assert_eq!(proxy.get("/").await, "green");
    host.recover();
    assert_eq!(act(&proxy, &id, "retry").await.status, 200);
    assert_eq!(settled(&proxy, &id).await["state"], "done");
}

/// A later version has written the record: nothing is done with it, but it can be seen and ended.
#[tokio::test]
async fn a_rollout_that_cannot_be_read_is_shown_as_stuck_and_can_be_ended() {
    use flipgate::control::{Change, ChangeRequest, RolloutChange, RolloutStep};
    let (blue, host) = (application("blue").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    let id = "20990101-000000-abcd";
    let web = "web".parse().expect("a name");
    let change = Change::Rollout(RolloutChange::Begin { owner: "me".into(), services: vec![web] });
    let step = RolloutStep {
        id: id.parse().expect("an id"),
        expected: 0,
        record: r#"{"format":2,"later":true}"#.into(),
        is_over: false,
        pools: std::collections::BTreeMap::new(),
    };
    let call = ChangeRequest { rollout: Some(step), ..ChangeRequest::unconditional(change) };
    proxy.app().control().propose(call).await.expect("it is written");
    let list = proxy.call("GET", "/v1/rollouts", "", "").await.json();
    let shown = &list["rollouts"][0];
    assert_eq!((&shown["id"], &shown["state"]), (&json!(id), &json!("stuck")), "{list}");
    assert!(shown["error"].as_str().is_some_and(|it| it.contains("format 2")), "{shown}");
    assert_eq!(shown["started"], "2099-01-01T00:00:00Z");
    for verb in ["approve", "retry"] {
        assert_eq!(act(&proxy, id, verb).await.status, 409, "{verb}");
    }
    let promote = r#"{"services":{"web":"green"}}"#;
    assert!(proxy.call("POST", "/v1/promote", "", promote).await.text().contains("in_rollout"));
    let ended = act(&proxy, id, "cancel").await;
    assert_eq!((ended.status, &ended.json()["over"]), (200, &json!(true)), "{}", ended.text());
    assert_eq!(act(&proxy, id, "cancel").await.status, 409);
    assert!(!proxy.call("POST", "/v1/promote", "", promote).await.text().contains("in_rollout"));
}

/// Each try is kept, and a record has a limit.
#[tokio::test]
async fn a_rollout_is_not_tried_again_for_ever() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let plan = format!(
        "[[rollout.again.stage]]\nname = \"one\"\nkind = \"call\"\nurl = \"http://{address}/one\"\n\
         undo = {{ kind = \"call\", url = \"http://{address}/undo?{}\" }}\n\
         [[rollout.again.stage]]\nname = \"two\"\nkind = \"call\"\nurl = \"http://{address}/two\"\n",
        "x".repeat(4000)
    );
    let proxy = story(&blue, &host, &plan).start();
    host.fail("/two");
    host.fail("/undo");
    let id = begin(&proxy, "again", &green, json!({})).await;
    assert_eq!(settled(&proxy, &id).await["state"], "stuck");
    let record = || {
        let applied = proxy.app().control().applied();
        applied.state.rollouts.iter().next().expect("it is there").1.record.len()
    };
    let mut tries = 0;
    let refused = loop {
        let retried = act(&proxy, &id, "retry").await;
        if retried.status != 200 {
            break retried;
        }
        tries += 1;
        assert!(tries < 2000, "{} bytes", record());
        assert_eq!(settled(&proxy, &id).await["state"], "stuck");
    };
    assert!(refused.text().contains("too often"), "{}", refused.text());
    assert!(record() < 1024 * 1024, "{} bytes", record());
    host.recover();
    assert_eq!(act(&proxy, &id, "cancel").await.status, 200, "it can be ended");
}
