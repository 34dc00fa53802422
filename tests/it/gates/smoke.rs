//! `smoke`: requests to every endpoint of the candidate get the expected responses.

use std::time::Duration;

use super::{promote, reasons_of, refusal, service, verdicts};
use crate::support::{Application, Authority, Http2Upstream, Reply, TestProxy, Upstream, http2};

/// A step with these settings.
fn step(settings: &str) -> String {
    format!(
        "[[service.web.gate.smoke]]\nname = \"version page\"\npath = \"/api/version\"\n{settings}\n"
    )
}

/// The reasons of the smoke gate, for an application that gives this reply to a step.
async fn reasons(reply: Reply, settings: &str) -> Vec<String> {
    let blue = Upstream::start("blue").await;
    let green = Application::start(move |_| reply.clone()).await;
    let proxy = service(&[blue.address], &[green.address], &step(settings)).start();
    let report = verdicts(&proxy).await;
    assert_eq!(green.requests().len(), 1, "one request for one step and one endpoint");
    reasons_of(&report, "smoke")
}

#[tokio::test]
async fn a_response_as_expected_allows_the_promotion() {
    let json = r#"{"version": "8.0", "schema": 12}"#;
    let reply = Reply::Full(200, vec![("x-node", "green-1".to_owned())], json.to_owned());
    let expected = "expect = { status = [\"200\"], body = '\"8\\.\\d\"', text = \"schema\", within = \"10s\",\n\
                    headers = { x-node = \"^green-[0-9]$\" },\n\
                    json = 'body.version == \"8.0\" && body.schema + 1 == 13 && status == 200 && headers[\"x-node\"] == \"green-1\"' }";
    assert_eq!(reasons(reply.clone(), expected).await, [""; 0]);
    assert_eq!(reasons(reply, "").await, [""; 0], "any success is enough by default");
}

#[tokio::test]
async fn every_expectation_refuses_with_what_came() {
    let reply = || {
        Reply::Full(200, vec![("x-node", "blue-1".to_owned())], r#"{"version":"7.9"}"#.to_owned())
    };
    for (settings, what) in [
        (
            "expect.status = [\"204\"]",
            "expected status 204, got 200 with the body \"{\"version\":\"7.9\"}\"",
        ),
        (
            "expect.headers = { x-node = \"^green\" }",
            "expected a header x-node that matches `^green`, got \"blue-1\"",
        ),
        (
            "expect.headers = { x-none = \".\" }",
            "expected a header x-none that matches `.`, got none",
        ),
        (
            "expect.body = \"8[.]0\"",
            "expected a body that matches `8[.]0`, got \"{\"version\":\"7.9\"}\"",
        ),
        (
            "expect.text = \"8.0\"",
            "expected a body that contains \"8.0\", got \"{\"version\":\"7.9\"}\"",
        ),
        (
            "expect.json = 'body.version == \"8.0\"'",
            "expected `body.version == \"8.0\"`, got body.version = \"7.9\"",
        ),
        ("save = { id = \"body.id\" }", "cannot save id, `body.id`: "),
    ] {
        let reasons = reasons(reply(), settings).await;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        let address = reasons[0].strip_prefix("version page at 127.0.0.1:").expect(&reasons[0]);
        let (_, found) = address.split_once(": ").expect("a colon");
        assert!(found.starts_with(what), "{settings}: {found}");
    }
}

#[tokio::test]
async fn hanging_huge_slow_and_broken_responses_are_refused() {
    let short = "expect.within = \"100ms\"";
    let hangs = reasons(Reply::Hang, short).await;
    assert!(hangs[0].ends_with("no response within 100 ms"), "{hangs:?}");
    let huge = reasons(Reply::ok(&"x".repeat(2 << 20)), "expect.json = 'body.a == 1'").await;
    assert!(huge[0].ends_with("the body is longer than 1048576 bytes"), "{huge:?}");
    let text = reasons(Reply::ok("<html>"), "expect.json = 'body.a == 1'").await;
    assert!(text[0].contains("expected a JSON body, got \"<html>\""), "{text:?}");
    let twice = reasons(Reply::ok(r#"{"a":1,"a":2}"#), "expect.json = 'body.a == 1'").await;
    assert!(twice[0].contains("\"a\""), "{twice:?}");
    let control = reasons(Reply::status(500, "a\u{1b}[2J\r\nb"), "").await;
    assert!(control[0].contains("a\\u{1b}[2J\\r\\nb"), "{control:?}");
    let long = reasons(Reply::status(500, &"y".repeat(10_000)), "").await;
    assert!(long[0].len() < 500 && long[0].contains("y…"), "{long:?}");
}

#[tokio::test]
async fn every_endpoint_is_asked_and_every_failure_is_reported() {
    let blue = Upstream::start("blue").await;
    let good = Application::start(|_| Reply::ok("8.0")).await;
    let bad = Application::start(|_| Reply::status(500, "no database")).await;
    let gate = step("expect.text = \"8.0\"") + &step("method = \"HEAD\"");
    let proxy = service(&[blue.address], &[good.address, bad.address], &gate).start();
    let (code, detail) = refusal(&proxy).await;
    assert_eq!(code, "gate_smoke");
    assert!(
        detail.contains(&bad.address.to_string()) && detail.contains("no database"),
        "{detail}"
    );
    let reasons = reasons_of(&verdicts(&proxy).await, "smoke");
    assert_eq!(reasons.len(), 2, "two steps at one endpoint: {reasons:?}");
    assert!(reasons.iter().all(|it| !it.contains(&good.address.to_string())), "{reasons:?}");
    let ports = [good.requests().len(), bad.requests().len()];
    assert_eq!(ports, [4, 4], "two steps, twice");
}

#[tokio::test]
async fn later_steps_use_saved_values_and_no_message_shows_them() {
    let blue = Upstream::start("blue").await;
    let green = Application::start(|request| match &*request.path {
        "/log-in" => Reply::ok(r#"{"token": "sesame-4711", "user": 7}"#),
        _ => Reply::status(403, "sesame-4711 of swordfish is unknown"),
    })
    .await;
    let gate = "[[service.web.gate.smoke]]\npath = \"/log-in\"\nmethod = \"POST\"\n\
                headers = { x-api-key = \"swordfish\", content-type = \"application/json\" }\nbody = '{\"name\": \"ada\"}'\n\
                save = { token = \"body.token\", user = \"body.user\" }\n\
                [[service.web.gate.smoke]]\nname = \"profile\"\npath = \"/users/{user}?t={token}\"\n\
                headers = { authorization = \"Bearer {token}\" }\n";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    let reasons = reasons_of(&verdicts(&proxy).await, "smoke");
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].starts_with("profile at "), "{reasons:?}");
    assert!(reasons[0].ends_with("got 403 with the body \"*** of *** is unknown\""), "{reasons:?}");
    let [log_in, profile] = &*green.requests() else { panic!("two requests") };
    assert_eq!((&*log_in.method, &*log_in.body), ("POST", r#"{"name": "ada"}"#));
    assert_eq!(log_in.header("x-api-key"), "swordfish");
    assert_eq!(profile.path, "/users/7?t=sesame-4711");
    assert_eq!(profile.header("authorization"), "Bearer sesame-4711");
}

#[tokio::test]
async fn a_step_without_its_saved_value_is_not_sent() {
    let blue = Upstream::start("blue").await;
    let green = Application::start(|_| Reply::status(500, "")).await;
    let gate = "[[service.web.gate.smoke]]\npath = \"/log-in\"\nsave = { token = \"body.token\" }\n\
                [[service.web.gate.smoke]]\nname = \"profile\"\npath = \"/{token}\"\n";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    let reasons = reasons_of(&verdicts(&proxy).await, "smoke");
    assert!(reasons[1].ends_with("not sent, because no step has saved {token}"), "{reasons:?}");
    assert_eq!(green.requests().len(), 1);
}

#[tokio::test]
async fn the_application_gets_the_headers_of_a_forwarded_request() {
    let blue = Upstream::start("blue").await;
    let green = Application::start(|_| Reply::ok("")).await;
    let gate =
        step("") + &step("headers = { host = \"other.test\", x-forwarded-proto = \"https\" }");
    let services =
        TestProxy::build().service_of("web", "shop.test", "/", &[blue.address], &[green.address]);
    let proxy = services.services(&gate).start();
    assert_eq!(promote(&proxy).await.status, 200);
    let [first, second] = &*green.requests() else { panic!("two requests") };
    for (name, value) in [
        ("host", "shop.test"),
        ("x-forwarded-host", "shop.test"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=127.0.0.1;host=\"shop.test\";proto=http"),
    ] {
        assert_eq!(first.header(name), value, "{name}");
    }
    assert_eq!(first.header("x-request-id").len(), 32);
    assert!(first.header("user-agent").starts_with("flipgate/"));
    let changed = ["host", "x-forwarded-host", "x-forwarded-proto"].map(|it| second.header(it));
    assert_eq!(changed, ["other.test", "other.test", "https"]);
}

#[tokio::test]
async fn tls_and_http2_endpoints_are_asked_as_clients_are_served() {
    let blue = Upstream::start("blue").await;
    let green = Http2Upstream::start(async |request, response| {
        let (head, _) = request.into_parts();
        http2::say(
            response,
            &format!("{} {}", head.uri, head.headers["x-forwarded-host"].to_str().expect("text")),
        );
    })
    .await;
    let gate = "[service.web]\nhosts = [\"shop.test\"]\nblue.endpoints = [\"BLUE\"]\n\
                green = { endpoints = [\"GREEN\"], protocol = \"h2\" }\n"
        .replace("BLUE", &blue.address.to_string())
        .replace("GREEN", &green.address.to_string());
    let gate = gate + &step("expect.text = \"http://shop.test/api/version shop.test\"");
    let proxy = TestProxy::build().services(&gate).start();
    assert_eq!(reasons_of(&verdicts(&proxy).await, "smoke"), [""; 0]);

    let authority = Authority::new();
    let pair = authority.issue("app", &["app.test"]);
    let secure = Upstream::start("secure").await;
    let secure = TestProxy::build()
        .listener(&format!("[listener.tls]\n{}", authority.listener(&pair)))
        .service("web", &[&secure], &[])
        .start();
    for (name, passes) in [("app.test", true), ("other.test", false)] {
        let gate = format!(
            "[service.web]\nhosts = [\"app.test\"]\nblue.endpoints = [\"{}\"]\n[service.web.green]\nendpoints = [\"https://{}\"]\n\
             tls = {{ ca = {:?}, server_name = {name:?} }}\n",
            blue.address, secure.others[0], authority.file
        ) + &step("expect.text = \"secure\"")
            + "[service.web.gate]\nhealthy.endpoints = 1\n";
        let proxy = TestProxy::build().services(&gate).start();
        let report = verdicts(&proxy).await;
        assert_eq!(report["passed"], passes, "{name}: {report}");
    }
}

#[tokio::test]
async fn all_gates_together_have_a_deadline() {
    let blue = Upstream::start("blue").await;
    let green = Application::start(|_| Reply::Hang).await;
    let gate = step("expect.within = \"1h\"") + "[service.web.gate.warm_up]\nrequests = 1\n";
    let gate = format!("gate.deadline = \"200ms\"\n{gate}");
    let proxy = service(&[blue.address], &[green.address], &gate).start();
    let report =
        tokio::time::timeout(Duration::from_secs(20), verdicts(&proxy)).await.expect("in time");
    let reasons = reasons_of(&report, "smoke");
    assert_eq!(
        reasons,
        ["not finished within the deadline of 200 ms for all gates (gate.deadline)"]
    );
    assert_eq!(report["gates"][2]["not_run"], true, "{report}");
    assert_eq!(reasons_of(&report, "warm_up"), ["not run, because smoke refused"]);
}
