//! `shadow`: a candidate that responds otherwise than the active color to copies of live requests is refused.

mod copies;
mod ends;

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::Value;

use super::{promote, reasons_of, service, verdicts};
use crate::support::{AppRequest, Application, Client, Reply, TestProxy, client, eventually};

/// The gate with these keys. Few comparisons are enough for a verdict.
fn gate(more: &str) -> String {
    let known = [("share", "100"), ("requests", "5"), ("different", "50")];
    let missing = known.iter().filter(|(key, _)| !more.contains(&format!("{key} =")));
    let missing: String = missing.map(|(key, value)| format!("{key} = {value}\n")).collect();
    format!(
        "gate.preconnect.per_worker = 0\ngate.deadline = \"1h\"\n[service.web.gate.shadow]\n{missing}{more}\n"
    )
}

/// An application that responds to every path with this JSON.
async fn json(body: impl Fn() -> String + Send + Sync + 'static) -> Application {
    Application::start(move |_| {
        Reply::Full(200, vec![("content-type", "application/json".to_owned())], body())
    })
    .await
}

/// Does something while a client requests the paths in turn. The client finishes its last request.
async fn during_traffic<T>(
    proxy: &TestProxy,
    paths: &[&str],
    fields: &str,
    work: impl Future<Output = T>,
) -> T {
    let is_over = Cell::new(false);
    let traffic = async {
        let mut client = proxy.public().await;
        for path in paths.iter().cycle() {
            if is_over.get() {
                break;
            }
            client.get(path, fields).await;
        }
    };
    let work = async {
        let result = work.await;
        is_over.set(true);
        result
    };
    tokio::join!(work, traffic).0
}

/// Runs the gates while a client requests the paths in turn.
async fn with_traffic(proxy: &TestProxy, paths: &[&str], fields: &str) -> Value {
    during_traffic(proxy, paths, fields, verdicts(proxy)).await
}

/// The evidence of the gate in a report.
fn evidence(report: &Value) -> Vec<String> {
    let gates = report["gates"].as_array().expect("a list");
    let gate = gates.iter().find(|it| it["gate"] == "shadow").expect("the gate");
    let evidence = gate["evidence"].as_array().expect("a list").iter();
    evidence.map(|it| it.as_str().expect("a text").to_owned()).collect()
}

/// The copies among the requests that an application got for a path.
fn copies(application: &Application, path: &str) -> Vec<AppRequest> {
    let mut all = application.requests_for(path);
    all.retain(|it| it.headers.contains_key("flipgate-shadow"));
    all
}

#[tokio::test]
async fn an_equal_candidate_passes() {
    let [blue, green] = [
        json(|| r#"{"a": 1, "b": [1]}"#.to_owned()).await,
        json(|| r#"{"b":[1],"a":1}"#.to_owned()).await,
    ];
    let proxy = service(&[blue.address], &[green.address], &gate("for = \"2s\"")).start();
    let report = with_traffic(&proxy, &["/", "/a?b=c"], "").await;
    assert_eq!(report["passed"], true, "{report}");
    let evidence = evidence(&report);
    assert!(evidence[0].starts_with("0 of "), "{evidence:?}");
    assert!(evidence[0].ends_with(" compared requests differ, at most 50 % may"), "{evidence:?}");
    assert!(copies(&green, "/a?b=c").len() >= 2);
}

#[tokio::test]
async fn a_candidate_that_differs_is_refused_with_evidence() {
    let ok = || Reply::Full(200, vec![("content-type", "text/html".to_owned())], "<p>1".to_owned());
    let plain = |status| {
        Reply::Full(status, vec![("content-type", "text/plain".to_owned())], "<p>1".to_owned())
    };
    let other = Reply::Full(200, vec![("content-type", "text/html".to_owned())], "<p>2".to_owned());
    for (reply, what) in [
        (plain(500), ["status 200 at ", "500 at "]),
        (plain(200), ["header content-type \"text/html\" at ", "\"text/plain\" at "]),
        (other, ["line 1 \"<p>1\" at ", "\"<p>2\" at "]),
    ] {
        let blue = Application::start(move |_| ok()).await;
        let green = Application::start(move |_| reply.clone()).await;
        let proxy = service(&[blue.address], &[green.address], &gate("")).start();
        let report = with_traffic(&proxy, &["/item?key=sesame"], "").await;
        let reasons = reasons_of(&report, "shadow");
        assert!(reasons[0].ends_with("compared requests differ, at most 50 % may"), "{reasons:?}");
        let [old, new] = what;
        let expected = format!("GET /item?…: {old}{}, {new}{}", blue.address, green.address);
        assert_eq!(reasons[1], expected);
        assert_eq!(reasons.len(), 2, "one of a kind: {reasons:?}");
    }
}

#[tokio::test]
async fn a_refused_promotion_has_the_code_of_the_gate_and_changes_nothing() {
    let blue = Application::start(|_| Reply::ok("one")).await;
    let green = Application::start(|_| Reply::status(503, "")).await;
    let proxy = service(&[blue.address], &[green.address], &gate("")).start();
    let refused = super::refusal(&proxy);
    let (code, detail) = during_traffic(&proxy, &["/"], "", refused).await;
    assert_eq!(code, "gate_shadow");
    assert!(detail.contains("requests differ, at most 50 % may"), "{detail}");
}

#[tokio::test]
async fn what_differs_within_the_active_color_is_noise() {
    let counter = |body: fn(usize) -> String| {
        let count = AtomicUsize::new(0);
        json(move || body(count.fetch_add(1, SeqCst)))
    };
    let blue = counter(|it| format!(r#"{{"at": {it}, "a": 1}}"#)).await;
    let green = counter(|it| format!(r#"{{"at": "x{it}", "a": 1}}"#)).await;
    let bad = counter(|it| format!(r#"{{"at": {it}, "a": 2}}"#)).await;
    let proxy = service(&[blue.address], &[green.address], &gate("for = \"2s\"")).start();
    let report = with_traffic(&proxy, &["/"], "").await;
    assert_eq!(report["passed"], true, "{report}");
    let evidence = evidence(&report);
    let noise = "not judged, because two responses of the active color differ: ";
    let noise = evidence.iter().find(|it| it.starts_with(noise));
    assert!(noise.is_some_and(|it| it.ends_with(" parts of the body")), "{evidence:?}");
    let proxy = service(&[blue.address], &[bad.address], &gate("")).start();
    let report = with_traffic(&proxy, &["/"], "").await;
    let reasons = reasons_of(&report, "shadow");
    assert!(reasons[1].starts_with("GET /: JSON value \"/a\" 1 at "), "{reasons:?}");
}

#[tokio::test]
async fn declared_differences_are_ignored() {
    let blue = json(|| r#"{"build": {"id": 7}, "link": "/v7/a", "a": 1}"#.to_owned()).await;
    let green = json(|| r#"{"build": {"id": 8}, "link": "/v8/a", "a": 1}"#.to_owned()).await;
    let (pointer, regex) = ("ignore = [\"/build/id\"]", "ignore_text = [\"^/v[0-9]+\"]");
    let both = format!("for = \"2s\"\n{pointer}\n{regex}");
    for (more, place) in [(&*both, None), (pointer, Some("/link")), (regex, Some("/build/id"))] {
        let proxy = service(&[blue.address], &[green.address], &gate(more)).start();
        let report = with_traffic(&proxy, &["/"], "").await;
        assert_eq!(report["passed"], place.is_none(), "{more}: {report}");
        if let Some(place) = place {
            let reasons = reasons_of(&report, "shadow");
            assert!(
                reasons[1].starts_with(&format!("GET /: JSON value \"{place}\" ")),
                "{reasons:?}"
            );
        }
    }
}

#[tokio::test]
async fn chosen_headers_are_compared_and_others_are_not() {
    let with = |value: &'static str| {
        Application::start(move |_| {
            Reply::Full(200, vec![("x-price", value.to_owned())], "same".to_owned())
        })
    };
    let (blue, green) = (with("1").await, with("2").await);
    for (more, passes) in [("for = \"2s\"", true), ("headers = [\"X-Price\"]", false)] {
        let proxy = service(&[blue.address], &[green.address], &gate(more)).start();
        let report = with_traffic(&proxy, &["/"], "").await;
        assert_eq!(report["passed"], passes, "{more}: {report}");
    }
}

#[tokio::test]
async fn bodies_are_compared_as_they_are_decoded() {
    let packed = |body: &str| {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body.as_bytes()).expect("memory");
        encoder.finish().expect("memory")
    };
    let with = |coding: &'static str, body: Vec<u8>| {
        Application::start(move |_| {
            Reply::Bytes(200, vec![("content-encoding", coding.to_owned())], body.clone())
        })
    };
    let (blue, green) =
        (Application::start(|_| Reply::ok("one")).await, with("gzip", packed("one")).await);
    let bad = with("gzip", packed("two")).await;
    let accepts = "Accept-Encoding: br, gzip\r\n";
    let proxy = service(&[blue.address], &[green.address], &gate("for = \"2s\"")).start();
    let report = with_traffic(&proxy, &["/"], accepts).await;
    assert_eq!(report["passed"], true, "{report}");
    let copied = copies(&green, "/");
    assert!(copied.iter().all(|it| it.header("accept-encoding") == "gzip"), "only what is decoded");
    let proxy = service(&[blue.address], &[bad.address], &gate("")).start();
    let report = with_traffic(&proxy, &["/"], accepts).await;
    assert!(reasons_of(&report, "shadow")[1].contains("\"two\" at "), "{report}");
    // A coding that Flipgate does not decode: no verdict.
    let unknown = with("br", b"br".to_vec()).await;
    let proxy = service(&[blue.address], &[unknown.address], &gate("for = \"500ms\"")).start();
    let reasons = reasons_of(&with_traffic(&proxy, &["/"], accepts).await, "shadow");
    assert!(reasons[0].starts_with("inconclusive: 0 of 0 compared"), "{reasons:?}");
    assert!(reasons[0].contains(" with a content coding other than gzip"), "{reasons:?}");
}

#[tokio::test]
async fn a_candidate_that_responds_much_later_differs() {
    let blue = Application::start(|_| Reply::ok("a")).await;
    let green = Application::start(|_| Reply::Delayed(300, "a".to_owned())).await;
    for (more, passes) in [("for = \"3s\"", true), ("latency = \"200ms\"", false)] {
        let proxy = service(&[blue.address], &[green.address], &gate(more)).start();
        let report = with_traffic(&proxy, &["/"], "").await;
        assert_eq!(report["passed"], passes, "{more}: {report}");
        if !passes {
            let reasons = reasons_of(&report, "shadow");
            assert!(reasons[1].contains(": a response after "), "{reasons:?}");
        }
    }
}

#[tokio::test]
async fn too_few_comparisons_are_no_pass() {
    let (blue, green) =
        (Application::start(|_| Reply::ok("")).await, Application::start(|_| Reply::ok("")).await);
    let few = "[service.web.gate.shadow]\nfor = \"300ms\"\n";
    let proxy = service(&[blue.address], &[green.address], few).start();
    let (code, detail) = super::refusal(&proxy).await;
    assert_eq!(code, "gate_shadow");
    assert_eq!(
        detail,
        "inconclusive: 0 of 0 compared requests differ after 300 ms, at most 1 % may; 362 compared requests are needed; set a longer `for`, or a larger `share` or `different`; requests copied: 0"
    );
    let forced = r#"{"services":{"web":"green"},"force":true,"reason":"no traffic at night"}"#;
    assert_eq!(proxy.call("POST", "/v1/promote", "", forced).await.status, 200);
    // Not for rollbacks: the way back must not need traffic.
    assert_eq!(proxy.call("POST", "/v1/rollback", "", "{}").await.status, 200);
}

/// Begins to run the gates of `web`, and waits until requests are copied: an application gets a copy of `/first`.
async fn begin(proxy: &TestProxy, green: &Application) -> Client {
    let mut caller = Client::connect(client::INTERNAL, proxy.admin).await;
    let body = r#"{"color":"green"}"#;
    let head = format!(
        "POST /v1/services/web/gate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    caller.send(head).await;
    eventually("requests are copied", async || {
        proxy.get("/first").await;
        !copies(green, "/first").is_empty()
    })
    .await;
    caller
}

/// The gate for as long as the caller waits.
fn endless(more: &str) -> String {
    gate(&format!("for = \"50m\"\n{more}"))
}

#[tokio::test]
async fn a_good_candidate_is_promoted_with_its_evidence() {
    let (blue, green) =
        (Application::start(|_| Reply::ok("")).await, Application::start(|_| Reply::ok("")).await);
    let proxy = service(&[blue.address], &[green.address], &gate("for = \"2s\"")).start();
    let promoted = during_traffic(&proxy, &["/"], "", promote(&proxy)).await;
    assert_eq!(promoted.status, 200, "{}", promoted.text());
    let events = proxy.events("gate_passed");
    let gates: Vec<_> =
        events[0]["gates"].as_array().expect("a list").iter().map(|it| &it["gate"]).collect();
    assert_eq!(gates, ["healthy", "shadow"]);
}
