//! What other changes mean for a gradual promotion in progress.

use serde_json::json;

use super::{application, clients, get, of, percent, promote, share};
use crate::support::{Process, TestProxy, Upstream, eventually, process};

#[tokio::test]
async fn the_status_says_where_it_is_and_the_candidate_is_not_safe_to_stop() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[10, 50, 100], json!({})).await;
    let share = share(&proxy).await;
    assert_eq!(
        (&share["color"], &share["percent"], &share["step"], &share["steps"]),
        (&json!("green"), &json!(10), &json!(1), &json!([10, 50, 100]))
    );
    let drain = proxy.call("GET", "/v1/services/web/drain?color=green", "", "").await.json();
    assert_eq!(
        (&drain["drained"], &drain["safe_to_stop"], &drain["held_by"]),
        (&json!(false), &json!(false), &json!(["share"]))
    );
    let metric = "flipgate_share_percent{color=\"green\",service=\"web\"}";
    assert!((proxy.metric(metric).await - 10.0).abs() < 0.1);
}

#[tokio::test]
async fn a_rollback_takes_it_back_and_waits_for_its_requests() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[99, 100], json!({})).await;
    clients(&proxy, 5).await;
    let rolled = proxy.call("POST", "/v1/rollback", "", r#"{"services":["web"]}"#).await;
    assert_eq!(rolled.status, 200, "{}", rolled.text());
    assert_eq!(rolled.json()["services"]["web"]["active"], "blue");
    assert_eq!(share(&proxy).await, json!(null));
    let again = proxy.call("POST", "/v1/rollback", "", r#"{"services":["web"]}"#).await;
    assert_eq!(again.status, 409, "there is nothing to take back");
    let ended = proxy.status().await["services"]["web"]["share_ended"].clone();
    assert_eq!((&ended["color"], &ended["by"]), (&json!("green"), &json!("127.0.0.1")), "{ended}");
    assert!(clients(&proxy, 20).await.iter().all(|it| it.1 == "blue"));
}

#[tokio::test]
async fn the_events_name_the_caller_and_the_reasons() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[50, 100], json!({"reason": "try 8.0"})).await;
    let rollback = r#"{"services":["web"],"reason":"too slow"}"#;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", rollback).await.status, 200);
    let changed = &proxy.events("share_changed")[0];
    assert_eq!((&changed["reason"], &changed["by"]), (&json!("try 8.0"), &json!("local")));
    let ended = &proxy.events("share_ended")[0];
    assert_eq!((&ended["reason"], &ended["by"]), (&json!("too slow"), &json!("127.0.0.1")));
    // Another promotion is the newer news, and so are other endpoints.
    let share_ended = async || proxy.status().await["services"]["web"]["share_ended"].clone();
    assert_eq!(share_ended().await["reason"], "too slow");
    promote(&proxy, &[50, 100], json!({})).await;
    assert_eq!(share_ended().await, json!(null));
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    assert!(!share_ended().await.is_null());
    let put = json!({"endpoints": [blue.address.to_string()]}).to_string();
    let path = "/v1/services/web/pools/green";
    assert_eq!(proxy.call("PUT", path, "", &put).await.status, 200);
    assert_eq!(share_ended().await, json!(null));
}

#[tokio::test]
async fn the_candidate_keeps_its_endpoints_unless_it_is_forced() {
    let (blue, green, other) =
        (application("blue").await, application("green").await, application("other").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[99, 100], json!({})).await;
    let put = |force: bool| json!({"endpoints": [other.address.to_string()], "force": force});
    let path = "/v1/services/web/pools/green";
    let refused = proxy.call("PUT", path, "", &put(false).to_string()).await;
    assert_eq!(
        (refused.status, &refused.json()["reasons"][0]["code"]),
        (409, &json!("share_in_progress"))
    );
    assert_eq!(percent(&proxy).await, 99);
    assert_eq!(proxy.call("PUT", path, "", &put(true).to_string()).await.status, 200);
    assert_eq!(share(&proxy).await, json!(null), "clients have not moved to that");
    assert_eq!(get(&proxy, "/", "").await.text(), "blue");
}

#[tokio::test]
async fn a_restart_keeps_the_step_and_the_clients() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    promote(&proxy, &[50, 100], json!({})).await;
    let before = share(&proxy).await;
    let mut all = clients(&proxy, 20).await;
    let colors: Vec<_> = all.iter().map(|it| it.1.clone()).collect();
    let cookies: Vec<_> = all.drain(..).map(|it| it.0.cookies["flipgate_share"].clone()).collect();
    let state = proxy.shut_down();
    let proxy: TestProxy = of(&blue, &green, "").state(state).start();
    let after = share(&proxy).await;
    assert_eq!((&after["until"], &after["percent"]), (&before["until"], &json!(50)));
    for (cookie, color) in cookies.iter().zip(&colors) {
        let fields = format!("Cookie: flipgate_share={cookie}\r\n");
        assert_eq!(get(&proxy, "/", &fields).await.text(), *color);
    }
}

#[tokio::test]
async fn steps_that_make_no_sense_are_refused() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    for (body, status) in [
        (json!({"services": {"web": "green"}, "steps": [50]}), 400),
        (json!({"services": {"web": "green"}, "steps": [50, 10, 100]}), 400),
        (json!({"services": {"web": "green"}, "steps": [50, 100], "step_for": "0s"}), 400),
        (json!({"services": {"web": "green"}, "step_for": "1m"}), 400),
        (json!({"services": {"web": "green"}, "first": true}), 400),
        (json!({"services": {"web": "green"}, "steps": [50, 100], "confirm_within": "1m"}), 400),
        (json!({"services": {"web": "blue"}, "steps": [50, 100]}), 422),
        (json!({"services": {"api": "green"}, "steps": [50, 100]}), 422),
    ] {
        let answer = proxy.call("POST", "/v1/promote", "", &body.to_string()).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text());
    }
    assert_eq!(share(&proxy).await, json!(null));
    // All at once is an ordinary promotion.
    promote(&proxy, &[100], json!({"step_for": "1m"})).await;
    assert_eq!(proxy.status().await["services"]["web"]["active"], "green");
}

#[tokio::test]
async fn several_services_move_together() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .service_of("api", "web.test", "/api", &[blue.address], &[green.address])
        .start();
    let body =
        json!({"services": {"web": "green", "api": "green"}, "steps": [50, 100], "step_for": "1h"});
    let answer = proxy.call("POST", "/v1/promote", "", &body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    for _ in 0..20 {
        let mut client = proxy.public().await;
        let mut ask = async |path: &str, cookie: &str| {
            client.send(format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n{cookie}\r\n")).await;
            client.answer().await
        };
        let page = ask("/", "").await;
        let cookie = page.field("set-cookie").expect("a share").split(';').next().expect("a pair");
        let call = ask("/api", &format!("Cookie: {cookie}\r\n")).await;
        assert_eq!(call.text(), page.text(), "one cookie decides for both");
    }
    let back = proxy.call("POST", "/v1/rollback", "", "{}").await.json();
    assert_eq!(back["services"]["api"]["share"], json!(null));
    assert_eq!(back["services"]["web"]["share"], json!(null));
}

#[tokio::test]
async fn a_candidate_that_is_taken_back_is_drained_when_its_last_request_has_ended() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let share = "share = { by = \"header:X-User\" }";
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).services(share).start();
    promote(&proxy, &[99, 100], json!({})).await;
    let mut user = 0;
    while get(&proxy, "/", &format!("X-User: {user}\r\n")).await.text() != "green" {
        user += 1;
    }
    let mut client = proxy.public().await;
    client.ask("/hold", &format!("X-User: {user}\r\n")).await;
    client.until("begins").await;
    let drain = async || {
        let path = "/v1/services/web/drain?color=green";
        proxy.call("GET", path, "", "").await.json()
    };
    let during = drain().await;
    assert_eq!(
        (&during["shared"], &during["previews"], &during["held_by"]),
        (&json!(1), &json!(0), &json!(["share"]))
    );
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    let after = drain().await;
    assert_eq!(
        (&after["in_flight"], &after["drained"], &after["shared"]),
        (&json!(1), &json!(false), &json!(null))
    );
    assert_eq!(proxy.events("drained").len(), 0);
    green.release();
    client.until("0\r\n\r\n").await;
    let path = "/v1/services/web/drain?color=green&wait=60s";
    assert_eq!(proxy.call("GET", path, "", "").await.json()["drained"], true);
    eventually("the event", async || proxy.events("drained").len() == 1).await;
}

#[tokio::test]
async fn a_repeated_rollback_does_not_bring_back_the_candidate() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    // Green was active before, so that there is a way back to it.
    proxy.promote(&[("web", "green")]).await;
    proxy.promote(&[("web", "blue")]).await;
    promote(&proxy, &[50, 100], json!({})).await;
    let rollback = async || proxy.call("POST", "/v1/rollback", "", "{}").await.status;
    assert_eq!(rollback().await, 200);
    assert_eq!(rollback().await, 409, "there is nothing to take back");
    assert_eq!(proxy.status().await["services"]["web"]["active"], "blue");
    assert!(clients(&proxy, 5).await.iter().all(|it| it.1 == "blue"));
}

#[tokio::test]
async fn a_service_that_joins_a_promotion_in_progress_moves_the_same_clients() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .service_of("api", "web.test", "/api", &[blue.address], &[green.address])
        .start();
    promote(&proxy, &[50, 100], json!({})).await;
    let both = json!({"services": {"web": "green", "api": "green"}});
    promote(&proxy, &[50, 100], both).await;
    for client in 0..30 {
        let cookie = format!("Cookie: flipgate_share={client:016x}\r\n");
        let ask = async |path: &str| {
            let mut client = proxy.public().await;
            client.send(format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n{cookie}\r\n")).await;
            client.answer().await.text()
        };
        assert_eq!(ask("/").await, ask("/api").await, "{cookie}");
    }
}

/// The services of one command move together, also if each of them was on its way before.
#[tokio::test]
async fn promotions_that_are_joined_are_one() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .services("watch = { requests = 5, clients = 1 }\nshare = { by = \"header:X-User\" }")
        .service_of("api", "api.test", "/", &[blue.address], &[green.address])
        .start();
    promote(&proxy, &[50, 100], json!({})).await;
    promote(&proxy, &[50, 100], json!({"services": {"api": "green"}})).await;
    let both = json!({"services": {"web": "green", "api": "green"}, "step_for": "1s"});
    promote(&proxy, &[60, 100], both).await;
    // No request comes for `api`, so it waits, and web with it.
    let mut user = 0;
    eventually("api waits", async || {
        for _ in 0..10 {
            user += 1;
            get(&proxy, "/", &format!("X-User: {user}\r\n")).await;
        }
        proxy.events("share_waiting").iter().any(|it| it["service"] == "api")
    })
    .await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(2) {
        user += 1;
        get(&proxy, "/", &format!("X-User: {user}\r\n")).await;
    }
    assert_eq!(proxy.events("promoted").len(), 0, "web alone");
    assert_eq!(percent(&proxy).await, 60);
}

#[tokio::test]
async fn other_endpoints_of_one_candidate_take_all_services_of_the_promotion_back() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = TestProxy::build()
        .service_of("web", "web.test", "/", &[blue.address], &[green.address])
        .service_of("api", "api.test", "/", &[blue.address], &[green.address])
        .start();
    promote(&proxy, &[60, 100], json!({"services": {"web": "green", "api": "green"}})).await;
    let put = json!({"endpoints": [blue.address.to_string()], "force": true}).to_string();
    let path = "/v1/services/web/pools/green";
    assert_eq!(proxy.call("PUT", path, "", &put).await.status, 200);
    let status = proxy.status().await;
    for service in ["web", "api"] {
        assert_eq!(status["services"][service]["share"], json!(null), "{service}");
    }
    assert_eq!(proxy.events("share_ended").len(), 2);
}

#[tokio::test]
async fn a_promotion_that_waits_for_its_confirmation_is_taken_back_after_a_share_was() {
    let (blue, green) = (application("blue").await, application("green").await);
    let proxy = of(&blue, &green, "").start();
    let confirm = r#"{"services":{"web":"green"},"confirm_within":"2s"}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", confirm).await.status, 200);
    let back = json!({"services": {"web": "blue"}});
    promote(&proxy, &[50, 100], back).await;
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    eventually("blue", async || proxy.status().await["services"]["web"]["active"] == "blue").await;
    assert_eq!(proxy.events("confirm_expired")[0]["rollback"], true);
}

/// Found by an adversary: a `drained` of the time before the share told pipelines to stop it.
#[tokio::test]
async fn a_candidate_is_not_reported_as_drained_while_it_has_its_share() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let share = "share = { by = \"header:X-User\" }";
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).services(share).start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = proxy.public().await;
    client.ask("/hold", "").await;
    client.until("begins").await;
    proxy.promote(&[("web", "blue")]).await;
    promote(&proxy, &[50, 100], json!({})).await;
    green.release();
    client.until("0\r\n\r\n").await;
    let of_green = |it: &serde_json::Value| it["color"] == "green";
    eventually("the end of the request", async || proxy.events("released").iter().any(of_green))
        .await;
    assert!(!proxy.events("drained").iter().any(of_green));
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
    eventually("drained", async || proxy.events("drained").iter().any(of_green)).await;
}

#[tokio::test]
async fn a_service_that_a_reload_removes_does_not_stop_the_others() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let text = std::fs::read_to_string(&config).expect("it is readable");
    let settings = "watch = { requests = 5, clients = 1 }\nshare = { by = \"header:X-User\" }\n";
    let pools = format!(
        "blue = {{ endpoints = [\"{}\"] }}\ngreen = {{ endpoints = [\"{}\"] }}\n",
        blue.address, green.address
    );
    let api = format!("[service.api]\nhosts = [\"api.test\"]\n{pools}");
    std::fs::write(&config, format!("{text}{settings}{api}")).expect("it is writable");
    let process = Process::start_with(folder.path(), &config).await;
    let steps = ["promote", "web=green", "api=green", "--steps", "50,100", "--step-for", "1s"];
    assert_eq!(process.cli(&steps).status.code(), Some(0));
    std::fs::write(&config, format!("{text}{settings}")).expect("it is writable");
    assert_eq!(process.cli(&["reload"]).status.code(), Some(0));
    let mut client = process.public().await;
    let mut user = 0;
    eventually("web is green", async || {
        for _ in 0..10 {
            user += 1;
            client.ask("/", &format!("X-User: {user}\r\n")).await;
            client.answer().await;
        }
        process.status()["services"]["web"]["active"] == "green"
    })
    .await;
}
