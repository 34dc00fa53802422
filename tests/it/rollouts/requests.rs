//! Requests of stages: where they must not go, and what is made of bad values.

use serde_json::json;

use super::{Host, application, begin, settled, story};
use crate::support::{Application, Reply};

#[tokio::test]
async fn a_call_never_goes_to_flipgate_itself() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    // The address of the admin API is known when it has started; an application sends it there by a value.
    let proxy = story(&blue, &host, "").start();
    let admin = proxy.admin;
    drop(proxy);
    let teller =
        Application::start(move |_| Reply::ok(&format!(r#"{{"where": "{admin}"}}"#))).await;
    let plan = format!(
        "[[rollout.own.stage]]\nname = \"ask\"\nkind = \"call\"\nurl = \"http://{}/\"\nsave = {{ place = \"body.where\" }}\n\
         [[rollout.own.stage]]\nname = \"call\"\nkind = \"call\"\nmethod = \"POST\"\nurl = \"http://{{place}}/v1/rollback\"\n",
        teller.address
    );
    let proxy = story(&blue, &host, &plan).admin_at(admin).start();
    assert_eq!(proxy.admin, admin);
    let undone = settled(&proxy, &begin(&proxy, "own", &green, json!({})).await).await;
    let error = undone["error"].as_str().expect("a text");
    assert!(error.contains("cannot connect") && error.contains("admin API"), "{error}");
}

#[tokio::test]
async fn a_value_stays_a_value_wherever_it_stands() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let evil = Application::start(|_| {
        Reply::ok(r#"{"path": "../../x?y#z", "quote": "a\", \"admin\": \"b", "line": "a\r\nX-Evil: 1", "host": "h/../x", "dash": "-rf"}"#)
    })
    .await;
    let address = host.application.address;
    let save = "save = { path = \"body.path\", quote = \"body.quote\", line = \"body.line\", place = \"body.host\", dash = \"body.dash\" }";
    let ask = |name: &str| {
        format!(
            "[[rollout.{name}.stage]]\nname = \"ask\"\nkind = \"call\"\nurl = \"http://{}/\"\n{save}\n",
            evil.address
        )
    };
    let stage = |name: &str, more: &str| {
        format!("{}[[rollout.{name}.stage]]\nname = \"use\"\n{more}\n", ask(name))
    };
    let plans = [
        "[rollouts]\nexec = true\n".to_owned(),
        stage(
            "good",
            &format!(
                "kind = \"call\"\nmethod = \"POST\"\nurl = \"http://{address}/a/{{path}}/b\"\nbody = '{{\"q\": \"{{quote}}\"}}'"
            ),
        ),
        stage(
            "header",
            &format!(
                "kind = \"call\"\nurl = \"http://{address}/\"\nheaders = {{ X-Line = \"{{line}}\" }}"
            ),
        ),
        stage("host", "kind = \"call\"\nurl = \"http://{place}/\""),
        stage("dash", "kind = \"exec\"\ncommand = [\"rm\", \"{dash}\", \"x\"]"),
    ];
    let proxy = story(&blue, &host, &plans.concat()).start();
    let end =
        async |name: &str| settled(&proxy, &begin(&proxy, name, &green, json!({})).await).await;
    let good = end("good").await;
    assert_eq!(good["state"], "done", "{good}");
    let request = &host.application.requests()[0];
    assert_eq!(request.path, "/a/..%2F..%2Fx%3Fy%23z/b");
    let body: serde_json::Value = serde_json::from_str(&request.body).expect("it is still JSON");
    assert_eq!(body, json!({"q": "a\", \"admin\": \"b"}));
    for (name, what) in [
        ("header", "control characters"),
        ("host", "no host and port"),
        ("dash", "begins with `-`"),
    ] {
        let undone = end(name).await;
        assert!(undone["error"].as_str().is_some_and(|it| it.contains(what)), "{undone}");
    }
    assert_eq!(host.calls().len(), 1, "nothing else was sent");
}

#[tokio::test]
async fn a_response_that_is_not_as_expected_says_what_came() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let text = Application::start(|_| Reply::ok("no JSON")).await;
    let (json_at, text_at) = (host.application.address, text.address);
    let stage = |name: &str, more: &str| {
        format!("[[rollout.{name}.stage]]\nname = \"call\"\nkind = \"call\"\n{more}\n")
    };
    let plans = [
        stage("false", &format!("url = \"http://{json_at}/\"\ncondition = \"body.count > 5\"")),
        stage("text", &format!("url = \"http://{text_at}/\"\ncondition = \"body.count > 5\"")),
        stage("number", &format!("url = \"http://{json_at}/\"\ncondition = \"body.count\"")),
        stage("list", &format!("url = \"http://{json_at}/\"\nsave = {{ all = \"body\" }}")),
        stage("status", &format!("url = \"http://{json_at}/\"\nstatus = [\"204\"]")),
    ];
    let proxy = story(&blue, &host, &plans.concat()).start();
    for (name, what) in [
        ("false", "`body.count > 5` is false"),
        ("text", "the body is no JSON"),
        ("number", "neither true nor false"),
        ("list", "is no text and no number"),
        ("status", "expected status 204, got 200"),
    ] {
        let undone = settled(&proxy, &begin(&proxy, name, &green, json!({})).await).await;
        assert!(undone["error"].as_str().is_some_and(|it| it.contains(what)), "{name}: {undone}");
        assert_eq!(undone["state"], "undone");
    }
}
