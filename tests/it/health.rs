//! Health checks, ejection and panic mode: which endpoints get requests.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpSocket;

use crate::support::{
    Http2Upstream, MisbehavingUpstream, Misbehavior, TestProxy, Upstream, eventually, http2,
};

/// A proxy with one service, with these endpoints in blue and this policy.
fn proxy(blue: &[String], policy: &str) -> TestProxy {
    TestProxy::build()
        .services(&format!("[service.web]\nblue = {{ endpoints = {blue:?} }}\n{policy}\n"))
        .start()
}

fn at(upstreams: &[&Upstream]) -> Vec<String> {
    upstreams.iter().map(|it| it.address.to_string()).collect()
}

const CHECKED: &str = "health = { path = \"/health\", interval = \"100ms\", rise = 2, fall = 3 }";

async fn names(proxy: &TestProxy, requests: usize) -> Vec<String> {
    let mut client = proxy.public().await;
    let mut names = Vec::new();
    for _ in 0..requests {
        names.push(client.get("/", "").await.text());
    }
    names
}

#[tokio::test]
async fn an_endpoint_with_failing_checks_gets_no_requests_until_it_recovers() {
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let proxy = proxy(&at(&[&one, &two]), CHECKED);
    proxy.wait_for_health("blue", 0, "up").await;
    proxy.wait_for_health("blue", 1, "up").await;
    one.ail(true);
    proxy.wait_for_health("blue", 0, "down").await;
    let seen = proxy.endpoint("web", "blue", 0).await;
    assert_eq!(seen["reason"], "status 500, expected 200-399");
    assert_eq!(names(&proxy, 20).await, ["two"; 20]);
    let up = format!(
        "flipgate_endpoint_up{{color=\"blue\",endpoint=\"{}\",service=\"web\"}}",
        one.address
    );
    assert!(proxy.metric(&up).await.abs() < 0.5);
    one.ail(false);
    proxy.wait_for_health("blue", 0, "up").await;
    assert_eq!(proxy.endpoint("web", "blue", 0).await.get("reason"), None);
    assert!(names(&proxy, 100).await.contains(&"one".to_owned()));
    eventually("both events", async || proxy.events("health_changed").len() == 2).await;
    let told = proxy.events("health_changed");
    let address = one.address.to_string();
    assert_eq!((&told[0]["endpoint"], &told[0]["health"]), (&json!(address), &json!("down")));
    assert_eq!(told[0]["reason"], "status 500, expected 200-399");
    assert_eq!((&told[1]["health"], told[1].get("reason")), (&json!("up"), None));
}

#[tokio::test]
async fn endpoints_that_say_nothing_do_not_hold_up_the_checks_of_others() {
    let one = Upstream::start("one").await;
    // Accepts connections and never reads from them.
    let hole = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = hole.local_addr().expect("a bound socket").port();
    let silent = (0..600).map(|it| format!("127.9.{}.{}:{port}", it / 200, it % 200 + 1));
    let silent: Vec<_> = silent.collect();
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nhosts = [\"web.test\"]\nblue = {{ endpoints = [\"{}\"] }}\n{CHECKED}\n\
             [service.hole]\nhosts = [\"hole.test\"]\nblue = {{ endpoints = {silent:?} }}\n\
             health = {{ path = \"/\", interval = \"1s\", timeout = \"2s\", rise = 2, fall = 2 }}\n",
            one.address
        ))
        .start();
    proxy.wait_for_health("blue", 0, "up").await;
    eventually("all endpoints are down", async || {
        proxy.events("health_changed").len() == silent.len()
    })
    .await;
    let begun = Instant::now();
    one.ail(true);
    proxy.wait_for_health("blue", 0, "down").await;
    // Three checks within 100 ms. Behind those that are waited for, it took four seconds and more.
    assert!(begun.elapsed() < Duration::from_secs(2), "after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_good_answer_has_the_status_and_the_text_that_are_expected() {
    let upstream = Upstream::start("well and good").await;
    for (check, health, reason) in [
        ("path = \"/health\", body = \"and\"", "up", None),
        ("path = \"/health\", body = \"or\"", "down", Some("the response does not contain \"or\"")),
        ("path = \"/endless\", body = \"xxxx\"", "up", None),
        ("path = \"/hold\", body = \"begins\"", "up", None),
        ("path = \"/endless\", body = \"y\"", "down", Some("the response does not contain \"y\"")),
        ("path = \"/204\", status = [\"204\"]", "up", None),
        ("path = \"/health\", status = [\"204\"]", "down", Some("status 200, expected 204")),
        (
            "path = \"/close\"",
            "down",
            Some("no response: connection closed before message completed"),
        ),
        ("path = \"/wait\", timeout = \"100ms\"", "down", Some("no response within 100 ms")),
    ] {
        let proxy = proxy(&at(&[&upstream]), &format!("health = {{ {check} }}"));
        proxy.wait_for_health("blue", 0, health).await;
        let seen = proxy.endpoint("web", "blue", 0).await;
        assert_eq!(seen.get("reason").and_then(|it| it.as_str()), reason, "{check}");
    }
    let proxy = proxy(
        &at(&[&upstream]),
        "health = { path = \"/head\", host = \"app.test\", body = \"host: app.test\" }",
    );
    proxy.wait_for_health("blue", 0, "up").await;
    let none = crate::health::proxy(&["unix:/nowhere/app.sock".to_owned()], "");
    none.wait_for_health("blue", 0, "down").await;
    let reason = none.endpoint("web", "blue", 0).await["reason"].to_string();
    assert!(reason.contains("No such file"), "{reason}");
}

#[tokio::test]
async fn applications_of_http2_are_asked_in_http2() {
    let upstream = Http2Upstream::start(async |_, response| http2::say(response, "two")).await;
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nhealth.path = \"/\"\nhealth.body = \"two\"\n\
             blue = {{ endpoints = [\"{}\"], protocol = \"h2\" }}\n",
            upstream.address
        ))
        .start();
    proxy.wait_for_health("blue", 0, "up").await;
}

#[tokio::test]
async fn a_recovered_endpoint_is_found_by_its_checks() {
    let (mut one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let proxy = proxy(&at(&[&one, &two]), "health.interval = \"100ms\"");
    proxy.wait_for_health("blue", 0, "up").await;
    proxy.wait_for_health("blue", 1, "up").await;
    one.kill().await;
    assert_eq!(names(&proxy, 20).await, ["two"; 20]);
    proxy.wait_for_health("blue", 0, "down").await;
    assert!(proxy.events("pool_down").is_empty(), "one is up");
    let _again = Upstream::start_at("again", one.address).await;
    proxy.wait_for_health("blue", 0, "up").await;
    assert!(names(&proxy, 100).await.contains(&"again".to_owned()));
}

#[tokio::test]
async fn an_application_that_starts_after_flipgate_is_up_without_waiting_for_its_interval() {
    // The first check was refused, and the next ones came at `rise` times within an interval, each as
    // if the endpoint had been up before.
    // Bound and not listening: connections are refused, and the port is not given to another test.
    let held = TcpSocket::new_v4().expect("a socket");
    held.set_reuseaddr(true).expect("a socket");
    held.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let address = held.local_addr().expect("a bound socket");
    let policy = "health = { path = \"/health\", interval = \"1h\", rise = 2 }";
    let proxy = proxy(&[address.to_string()], policy);
    proxy.wait_for_health("blue", 0, "down").await;
    let _started = Upstream::start_at("started", address).await;
    proxy.wait_for_health("blue", 0, "up").await;
    assert_eq!(names(&proxy, 1).await, ["started"]);
}

#[tokio::test]
async fn an_unchecked_endpoint_gets_no_requests_while_there_are_others() {
    let one = Upstream::start("one").await;
    let silent = MisbehavingUpstream::start(Misbehavior::Silent).await;
    let proxy = proxy(&at(&[&one]), "health = { path = \"/health\", timeout = \"1h\" }");
    proxy.wait_for_health("blue", 0, "up").await;
    let endpoints = [one.address.to_string(), silent.address.to_string()];
    let body = json!({"endpoints": endpoints, "force": true}).to_string();
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
    assert_eq!(set.status, 200, "{}", set.text());
    assert_eq!(names(&proxy, 50).await, ["one"; 50]);
    assert_eq!(proxy.endpoint("web", "blue", 1).await["health"], "unknown");
}

#[tokio::test]
async fn an_endpoint_with_failed_requests_is_ejected() {
    let (one, bad) =
        (Upstream::start("one").await, MisbehavingUpstream::start(Misbehavior::Unavailable).await);
    let proxy = proxy(
        &[one.address.to_string(), bad.address.to_string()],
        "ejection = { failures = 3, base = \"1s\", longest = \"1s\" }",
    );
    // The first check that passes ends what was counted before it.
    for place in 0..2 {
        proxy.wait_for_health("blue", place, "up").await;
    }
    eventually("the bad one is ejected", async || {
        proxy.get("/").await;
        proxy.endpoint("web", "blue", 1).await.get("ejected").is_some()
    })
    .await;
    assert_eq!(bad.requests(), 3);
    let ejected = proxy.endpoint("web", "blue", 1).await["ejected"].clone();
    let reason = "3 consecutive requests failed; the last one: status 503";
    assert_eq!(ejected["reason"], reason);
    let series = "flipgate_ejections_total{color=\"blue\",service=\"web\"}";
    assert!((proxy.metric(series).await - 1.0).abs() < 0.1);
    eventually("it is back", async || {
        proxy.endpoint("web", "blue", 1).await.get("ejected").is_none()
    })
    .await;
    let told = [proxy.events("endpoint_ejected"), proxy.events("endpoint_returned")];
    assert_eq!(told.each_ref().map(Vec::len), [1, 1]);
    assert_eq!(told[0][0]["endpoint"], bad.address.to_string());
    assert_eq!(told[0][0]["reason"], reason);
}

#[tokio::test]
async fn in_panic_mode_unhealthy_endpoints_get_requests() {
    let all = [
        Upstream::start("one").await,
        Upstream::start("two").await,
        Upstream::start("three").await,
    ];
    let proxy = proxy(&at(&[&all[0], &all[1], &all[2]]), CHECKED);
    for place in 0..3 {
        proxy.wait_for_health("blue", place, "up").await;
    }
    all[0].ail(true);
    all[1].ail(true);
    eventually("panic", async || {
        proxy.status().await["services"]["web"]["pools"]["blue"]["panicking"] == true
    })
    .await;
    let names = names(&proxy, 200).await;
    for name in ["one", "two", "three"] {
        assert!(names.iter().any(|it| it == name), "{name}");
    }
    all[0].ail(false);
    eventually("the end of panic mode", async || proxy.events("panic_changed").len() == 2).await;
    let told: Vec<_> =
        proxy.events("panic_changed").iter().map(|it| it["panicking"].clone()).collect();
    assert_eq!(told, [json!(true), json!(false)]);
}

#[tokio::test]
async fn an_outage_of_a_whole_color_is_reported() {
    let mut one = Upstream::start("one").await;
    let proxy = proxy(&at(&[&one]), "health.interval = \"100ms\"");
    proxy.wait_for_health("blue", 0, "up").await;
    one.kill().await;
    eventually("down", async || proxy.events("pool_down").len() == 1).await;
    assert_eq!(proxy.public().await.get("/", "").await.status, 502);
    let _again = Upstream::start_at("again", one.address).await;
    eventually("up", async || proxy.events("pool_up").len() == 1).await;
    assert_eq!(proxy.get("/").await, "again");
}
