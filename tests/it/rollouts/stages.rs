//! What the stages do.

use serde_json::json;

use super::{Host, application, begin, pools, settled, show, states, story};
use crate::support::{Application, Reply, TestProxy};

#[tokio::test]
async fn a_deployment_goes_through_all_of_its_stages() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let proxy = story(&blue, &host, "").start();
    let id = begin(&proxy, "story", &green, json!({"reason": "release 8.0"})).await;
    let done = settled(&proxy, &id).await;
    assert_eq!((&done["state"], &done["over"]), (&json!("done"), &json!(true)), "{done}");
    assert_eq!(states(&done), ["done"; 8]);
    assert_eq!(host.calls(), ["/pause", "/start", "/stop-old", "/resume-new"]);
    assert_eq!(proxy.get("/").await, "green");
    let after = pools(&proxy).await;
    let address = green.address.to_string();
    assert_eq!(after["green"], json!(["8.0", "runtime", [address]]));
    assert_eq!(proxy.events("promoted").len(), 1);
    let ended = &proxy.events("rollout_ended")[0];
    assert_eq!((&ended["rollout"], &ended["state"]), (&json!(id), &json!("done")));
    assert!(
        (proxy.metric("flipgate_rollouts_total{plan=\"story\",result=\"done\"}").await - 1.0).abs()
            < 0.1
    );
    let list = proxy.call("GET", "/v1/rollouts", "", "").await.json();
    assert_eq!(list["rollouts"][0]["reason"], "release 8.0");
    assert_eq!(proxy.status().await["services"]["web"].get("rollout"), None);
}

#[tokio::test]
async fn without_a_plan_the_built_in_one_is_used() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[])
        .services("health = { interval = \"100ms\", rise = 1 }")
        .start();
    let body =
        json!({"services": {"web": {"version": "8.0", "endpoints": [green.address.to_string()]}}});
    let begun = proxy.call("POST", "/v1/rollouts", "", &body.to_string()).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let done = settled(&proxy, begun.json()["id"].as_str().expect("an id")).await;
    assert_eq!((&done["state"], &done["plan"]), (&json!("done"), &json!("default")));
    let kinds: Vec<_> =
        done["stages"].as_array().expect("stages").iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["pool", "gate", "promote", "drain", "watch"]);
    assert_eq!(proxy.get("/").await, "green");
}

#[tokio::test]
async fn several_services_flip_in_one_step() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[])
        .services("health = { interval = \"100ms\", rise = 1 }")
        .service_of("api", "api.test", "/", &[blue.address], &[])
        .services("health = { interval = \"100ms\", rise = 1 }")
        .start();
    let of = || json!({"version": "8.0", "endpoints": [green.address.to_string()]});
    let body = json!({"services": {"web": of(), "api": of()}});
    let begun = proxy.call("POST", "/v1/rollouts", "", &body.to_string()).await.json();
    let done = settled(&proxy, begun["id"].as_str().expect("an id")).await;
    assert_eq!(done["state"], "done", "{done}");
    let promoted = proxy.events("promoted");
    assert_eq!(promoted.len(), 1, "{promoted:?}");
    assert_eq!(promoted[0]["services"], json!({"web": "green", "api": "green"}));
}

/// A stage that uses a value of a service runs for each of them; another one runs once.
#[tokio::test]
async fn values_are_those_of_each_service() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let plan = format!(
        "[[rollout.two.stage]]\nname = \"each\"\nkind = \"call\"\n\
         url = \"http://{address}/each/{{service}}/{{candidate}}/{{active}}/{{version}}?e={{endpoint}}\"\n\
         headers = {{ X-Reason = \"{{reason}}\" }}\nsave = {{ token = \"body.token\", count = \"body.count\" }}\n\
         [[rollout.two.stage]]\nname = \"once\"\nkind = \"call\"\nmethod = \"POST\"\nurl = \"http://{address}/once\"\n\
         body = '{{\"why\": \"{{reason}}\"}}'\n\
         [[rollout.two.stage]]\nname = \"later\"\nkind = \"call\"\nservices = [\"api\"]\nmethod = \"POST\"\n\
         url = \"http://{address}/later/{{service}}/{{token}}-{{count}}\"\n"
    );
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .service_of("api", "api.test", "/", &[blue.address], &[green.address])
        .services(&plan)
        .start();
    let body = json!({
        "plan": "two", "reason": "a \"b\" c/d",
        "services": {"web": {"version": "8.0"}, "api": {"version": "9.1+x"}},
    });
    let begun = proxy.call("POST", "/v1/rollouts", "", &body.to_string()).await;
    assert_eq!(begun.status, 201, "{}", begun.text());
    let done = settled(&proxy, begun.json()["id"].as_str().expect("an id")).await;
    assert_eq!(done["state"], "done", "{done}");
    let endpoint = green.address.to_string().replace(':', "%3A");
    assert_eq!(
        host.calls(),
        [
            format!("/each/api/green/blue/9.1%2Bx?e={endpoint}"),
            format!("/each/web/green/blue/8.0?e={endpoint}"),
            "/once".to_owned(),
            "/later/api/sesame-street-3".to_owned(),
        ]
    );
    let once = &host.application.requests_for("/once")[0];
    assert_eq!(once.body, r#"{"why": "a \"b\" c/d"}"#);
    assert_eq!(once.header("content-type"), "application/json");
    let key = once.header("idempotency-key");
    let id = done["id"].as_str().expect("an id");
    assert_eq!(key, format!("{id}/once/do/0"));
    let of_each = host.application.requests()[1].header("idempotency-key").to_owned();
    assert_eq!(of_each, format!("{id}/each/do/web/0"));
}

#[tokio::test]
async fn a_stage_is_skipped_if_its_condition_does_not_hold() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let stage = |name: &str, condition: &str| {
        format!(
            "[[rollout.cond.stage]]\nname = {name:?}\nkind = \"call\"\nurl = \"http://{address}/{name}\"\nonly_if = {condition:?}\n"
        )
    };
    let plan = [stage("yes", "version == '8.0'"), stage("no", "active_version == '8.0'")].concat();
    let proxy = story(&blue, &host, &plan).start();
    let done = settled(&proxy, &begin(&proxy, "cond", &green, json!({})).await).await;
    assert_eq!(
        (done["state"].as_str(), states(&done)),
        (Some("done"), vec!["done".into(), "skipped".into()])
    );
    assert_eq!(host.calls(), ["/yes"]);
}

#[tokio::test]
async fn a_call_can_go_to_each_endpoint_of_a_pool() {
    let (one, two, green) =
        (application("one").await, application("two").await, application("green").await);
    let plan = "[[rollout.pools.stage]]\nname = \"pause\"\nkind = \"call\"\nmethod = \"POST\"\nat = \"active\"\npath = \"/api/ce/pause?v={version}\"\n\
                [[rollout.pools.stage]]\nname = \"set\"\nkind = \"pool\"\n\
                [[rollout.pools.stage]]\nname = \"warm\"\nkind = \"call\"\nat = \"candidate\"\npath = \"/warm\"\n";
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[one.address, two.address], &[])
        .services("health = { interval = \"100ms\", rise = 1 }")
        .services(plan)
        .start();
    let done = settled(&proxy, &begin(&proxy, "pools", &green, json!({})).await).await;
    assert_eq!(done["state"], "done", "{done}");
    for blue in [&one, &two] {
        assert_eq!(blue.requests_for("/api/ce/pause?v=8.0").len(), 1);
    }
    assert_eq!(green.requests_for("/warm").len(), 1);
}

#[tokio::test]
async fn until_asks_until_the_condition_holds() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let count = std::sync::atomic::AtomicUsize::new(0);
    let worker = Application::start(move |_| {
        let asked = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Reply::ok(if asked < 3 { r#"{"status": "pausing"}"# } else { r#"{"status": "paused"}"# })
    })
    .await;
    let plan = format!(
        "[[rollout.wait.stage]]\nname = \"paused\"\nkind = \"until\"\nurl = \"http://{}/status\"\ninterval = \"20ms\"\n\
         condition = \"body.status == 'paused'\"\n",
        worker.address
    );
    let proxy = story(&blue, &host, &plan).start();
    let done = settled(&proxy, &begin(&proxy, "wait", &green, json!({})).await).await;
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(worker.requests().len(), 4);
}

#[tokio::test]
async fn a_hold_ends_with_its_release_or_its_undo() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let address = host.application.address;
    let stages = format!(
        "[[rollout.NAME.stage]]\nname = \"hold\"\nkind = \"hold\"\nfor = \"1m\"\n\
         [[rollout.NAME.stage]]\nname = \"check\"\nkind = \"call\"\nurl = \"http://{address}/check\"\n\
         [[rollout.NAME.stage]]\nname = \"go\"\nkind = \"release\"\n"
    );
    let proxy = story(&blue, &host, &stages.replace("NAME", "held")).start();
    let done = settled(&proxy, &begin(&proxy, "held", &green, json!({})).await).await;
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(proxy.events("hold_started").len(), 1);
    assert_eq!(proxy.events("hold_released").len(), 1);
    host.fail("/check");
    let undone = settled(&proxy, &begin(&proxy, "held", &green, json!({})).await).await;
    assert_eq!(
        (&undone["state"], &undone["stages"][0]["state"]),
        (&json!("undone"), &json!("undone"))
    );
    assert_eq!(proxy.events("hold_released").len(), 2);
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn the_watch_is_waited_for() {
    let (blue, green, host) =
        (application("blue").await, application("green").await, Host::start().await);
    let plan = "[[rollout.watched.stage]]\nname = \"pool\"\nkind = \"pool\"\n\
                [[rollout.watched.stage]]\nname = \"promote\"\nkind = \"promote\"\n\
                [[rollout.watched.stage]]\nname = \"watch\"\nkind = \"watch\"\ninconclusive = \"fail\"\n";
    let settings = "watch = { for = \"1s\", requests = 1 }\n";
    let proxy = story(&blue, &host, &format!("{settings}{plan}")).start();
    // Without a request there is no verdict.
    let id = begin(&proxy, "watched", &green, json!({})).await;
    let undone = settled(&proxy, &id).await;
    assert_eq!(undone["state"], "undone", "{undone}");
    assert!(undone["error"].as_str().is_some_and(|it| it.contains("too few requests")), "{undone}");
    assert_eq!(proxy.get("/").await, "blue", "it was rolled back");
    let id = begin(&proxy, "watched", &green, json!({})).await;
    super::until_stage(&proxy, &id, 2, "running").await;
    assert_eq!(proxy.get("/").await, "green");
    let done = settled(&proxy, &id).await;
    assert_eq!(done["state"], "done", "{done}");
    assert_eq!(show(&proxy, &id).await["over"], true);
}
