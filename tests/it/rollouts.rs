//! Rollouts: deployments in stages, and how they are undone.

mod changes;
mod commands;
mod crashes;
mod failures;
mod people;
mod requests;
mod several;
mod stages;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    Answer, Application, Reply, TestProxy, eventually, test_proxy::TestProxyBuilder,
};

/// What happens around Flipgate: workers that are paused and resumed, versions that are started and stopped.
struct Host {
    application: Application,
    /// The paths that are answered with 500.
    failing: Arc<Mutex<Vec<&'static str>>>,
}

impl Host {
    async fn start() -> Self {
        let failing: Arc<Mutex<Vec<&'static str>>> = Arc::default();
        let bad = Arc::clone(&failing);
        let application = Application::start(move |request| {
            let path = request.path.split('?').next().unwrap_or_default();
            match bad.lock().expect("no panic inside").contains(&path) {
                true => Reply::status(500, "it broke"),
                false if path == "/hang" => Reply::Hang,
                false => Reply::ok(r#"{"state": "ok", "token": "sesame-street", "count": 3}"#),
            }
        })
        .await;
        Self { application, failing }
    }

    fn fail(&self, path: &'static str) {
        self.failing.lock().expect("no panic inside").push(path);
    }

    fn recover(&self) {
        self.failing.lock().expect("no panic inside").clear();
    }

    /// The paths that were called, without health checks.
    fn calls(&self) -> Vec<String> {
        self.application.requests().into_iter().map(|it| it.path).collect()
    }
}

async fn application(name: &'static str) -> Application {
    Application::start(move |_| Reply::ok(name)).await
}

/// A service `web` with blue active and green empty, and a plan `story` with a host to pause, start, stop and resume.
fn story(blue: &Application, host: &Host, more: &str) -> TestProxyBuilder {
    let host = host.application.address;
    let call = |name: &str, path: &str, undo: &str| {
        format!(
            "[[rollout.story.stage]]\nname = {name:?}\nkind = \"call\"\nmethod = \"POST\"\nurl = \"http://{host}{path}\"\n\
             undo = {{ kind = \"call\", method = \"POST\", url = \"http://{host}{undo}\" }}\n"
        )
    };
    let stage = |name: &str, kind: &str, more: &str| {
        format!("[[rollout.story.stage]]\nname = {name:?}\nkind = {kind:?}\n{more}\n")
    };
    let plan = [
        call("pause", "/pause", "/resume"),
        call("start", "/start", "/stop"),
        stage("pool", "pool", "healthy_within = \"10s\""),
        stage("gates", "gate", ""),
        stage("promote", "promote", ""),
        stage("drain", "drain", "until = \"drained\""),
        call("stop old", "/stop-old", "/start-old"),
        call("resume", "/resume-new", "/pause-new"),
    ];
    TestProxy::build()
        .service_of("web", "*", "/", &[blue.address], &[])
        .services("health = { interval = \"100ms\", fall = 1, rise = 1 }")
        .services(more)
        .services(&plan.concat())
}

/// Begins a rollout of `web`, and returns its id.
async fn begin(proxy: &TestProxy, plan: &str, green: &Application, more: Value) -> String {
    let answer = try_begin(proxy, plan, green, more).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

async fn try_begin(proxy: &TestProxy, plan: &str, green: &Application, more: Value) -> Answer {
    let endpoints = [green.address.to_string()];
    let mut body =
        json!({"plan": plan, "services": {"web": {"version": "8.0", "endpoints": endpoints}}});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    proxy.call("POST", "/v1/rollouts", "", &body.to_string()).await
}

async fn show(proxy: &TestProxy, id: &str) -> Value {
    proxy.call("GET", &format!("/v1/rollouts/{id}"), "", "").await.json()
}

/// Waits until a rollout is over or needs a person.
async fn settled(proxy: &TestProxy, id: &str) -> Value {
    let path = format!("/v1/rollouts/{id}?wait=60s");
    proxy.call("GET", &path, "", "").await.json()
}

/// Waits until a rollout is over, also if it waits for a person meanwhile.
async fn settled_for_good(proxy: &TestProxy, id: &str) -> Value {
    eventually("it is over", async || show(proxy, id).await["over"] == true).await;
    show(proxy, id).await
}

async fn act(proxy: &TestProxy, id: &str, verb: &str) -> Answer {
    proxy.call("POST", &format!("/v1/rollouts/{id}/{verb}"), "", "{}").await
}

/// The state of each stage.
fn states(rollout: &Value) -> Vec<String> {
    let stages = rollout["stages"].as_array().expect("stages");
    stages.iter().map(|it| it["state"].as_str().expect("a text").to_owned()).collect()
}

/// Waits until a stage of a rollout is in a state.
async fn until_stage(proxy: &TestProxy, id: &str, stage: usize, state: &str) {
    eventually(&format!("stage {stage} is {state}"), async || {
        show(proxy, id).await["stages"][stage]["state"] == state
    })
    .await;
}

/// What a deployment changes of a service: active color, and the content of both pools.
async fn pools(proxy: &TestProxy) -> Value {
    let status = proxy.status().await;
    let web = &status["services"]["web"];
    let pool = |color: &str| {
        let pool = &web["pools"][color];
        let endpoints = pool["endpoints"].as_array().expect("a list").iter();
        let endpoints: Vec<_> = endpoints.map(|it| it["address"].clone()).collect();
        json!([pool["version"], pool["source"], endpoints])
    };
    json!({"active": web["active"], "blue": pool("blue"), "green": pool("green")})
}
