//! The copies never hold up a request, and the copying ends with the gate.

use serde_json::json;

use super::{begin, copies, endless, evidence, gate};
use crate::{
    gates::{promote, reasons_of, service, verdicts},
    support::{Application, Reply, Upstream, eventually},
};

#[tokio::test]
async fn a_candidate_that_hangs_delays_no_request_and_is_refused() {
    let blue = Application::start(|_| Reply::ok("old")).await;
    let green = Application::start(|_| Reply::Hang).await;
    let more = gate("requests = 20\ntimeout = \"2s\"");
    let proxy = service(&[blue.address], &[green.address], &more).start();
    // Each request is answered while the copies of those before it hang.
    let report = super::with_traffic(&proxy, &["/"], "").await;
    assert!(blue.requests().len() > 100);
    let reasons = reasons_of(&report, "shadow");
    assert!(reasons[0].ends_with("compared requests differ, at most 50 % may"), "{reasons:?}");
    assert!(
        reasons[1].contains("status 200 at ") && reasons[1].contains("no response within 2 s at "),
        "{reasons:?}"
    );
    let evidence = evidence(&report);
    let is_full =
        |it: &String| it.starts_with("dropped: ") && it.ends_with(" because the queue was full");
    assert!(evidence.iter().any(is_full), "{evidence:?}");
    eventually("no copy is left", async || green.connections() == 0).await;
}

#[tokio::test]
async fn a_candidate_with_an_endless_body_is_refused() {
    let blue = Application::start(|_| Reply::ok("old")).await;
    let green = Upstream::start("green").await;
    let proxy = service(&[blue.address], &[green.address], &gate("")).start();
    let report = super::with_traffic(&proxy, &["/endless"], "").await;
    let reasons = reasons_of(&report, "shadow");
    let what = "a shorter body at ";
    assert!(
        reasons[1..].iter().any(|it| it.contains(what) || it.contains("header content-type")),
        "{reasons:?}"
    );
    assert!(reasons[0].ends_with("compared requests differ, at most 50 % may"), "{reasons:?}");
}

#[tokio::test]
async fn a_caller_that_disconnects_ends_the_copying() {
    let blue = Application::start(|_| Reply::ok("old")).await;
    let green = Application::start(|_| Reply::Hang).await;
    let proxy = service(&[blue.address], &[green.address], &endless("timeout = \"5m\"")).start();
    let caller = begin(&proxy, &green).await;
    assert!(green.connections() > 0);
    let busy = reasons_of(&verdicts(&proxy).await, "shadow");
    assert_eq!(
        busy,
        ["another call runs the gates of web and copies its requests; try again when it has ended"]
    );
    drop(caller);
    eventually("no copy is left", async || green.connections() == 0).await;
    proxy.get("/after").await;
    // Another gate can begin, and copies only what comes from then on.
    let _next = begin(&proxy, &green).await;
    assert!(copies(&green, "/after").is_empty());
}

#[tokio::test]
async fn a_promotion_that_was_overtaken_while_requests_are_copied_is_stale() {
    let blue = Application::start(|_| Reply::ok("same")).await;
    let green = Application::start(|_| Reply::ok("same")).await;
    let proxy = service(&[blue.address], &[green.address], &endless("")).start();
    let overtake = async {
        eventually("requests are copied", async || {
            proxy.get("/first").await;
            !copies(&green, "/first").is_empty()
        })
        .await;
        let forced = json!({"services": {"web": "green"}, "force": true, "reason": "faster"});
        let forced = proxy.call("POST", "/v1/promote", "", &forced.to_string()).await;
        assert_eq!(forced.status, 200, "{}", forced.text());
    };
    let (stale, ()) = tokio::join!(promote(&proxy), overtake);
    assert_eq!((stale.status, &stale.json()["generation"]), (412, &1.into()), "{}", stale.text());
    let before = green.requests().len();
    proxy.get("/after").await;
    assert!(copies(&green, "/after").is_empty() && green.requests().len() == before + 1);
}

#[tokio::test]
async fn a_change_of_the_pools_ends_the_gate() {
    let blue = Application::start(|_| Reply::ok("same")).await;
    let green = Application::start(|_| Reply::ok("same")).await;
    let proxy = service(&[blue.address], &[green.address], &endless("")).start();
    let change = async {
        eventually("requests are copied", async || {
            proxy.get("/first").await;
            !copies(&green, "/first").is_empty()
        })
        .await;
        let body = json!({"version": "3", "endpoints": [green.address.to_string()]}).to_string();
        let set = proxy.call("PUT", "/v1/services/web/pools/green", "", &body).await;
        assert_eq!(set.status, 200, "{}", set.text());
    };
    let (report, ()) = tokio::join!(verdicts(&proxy), change);
    assert_eq!(
        reasons_of(&report, "shadow"),
        ["the pools or the active color of web have changed meanwhile; try again"]
    );
    eventually("no copy is left", async || green.connections() == 0).await;
}

#[tokio::test]
async fn a_stop_of_flipgate_ends_the_gate() {
    let blue = Application::start(|_| Reply::ok("old")).await;
    let green = Application::start(|_| Reply::Hang).await;
    let proxy = service(&[blue.address], &[green.address], &endless("timeout = \"5m\"")).start();
    let _caller = begin(&proxy, &green).await;
    assert!(green.connections() > 0);
    let _state = proxy.shut_down();
    eventually("no copy is left", async || green.connections() == 0).await;
}
