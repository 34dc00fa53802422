//! `warm_up`: every endpoint of the candidate has served requests before the flip.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{promote, reasons_of, refusal, service, verdicts};
use crate::support::{Application, Reply, Upstream};

#[tokio::test]
async fn each_endpoint_answers_so_many_requests_for_all_paths() {
    let blue = Upstream::start("blue").await;
    let one = Application::start(|_| Reply::status(404, "")).await;
    let two = Application::start(|_| Reply::ok("")).await;
    let gate = "gate.warm_up = { paths = [\"/a\", \"/b\"], requests = 7 }";
    let proxy = service(&[blue.address], &[one.address, two.address], gate).start();
    assert_eq!(promote(&proxy).await.status, 200);
    for application in [&one, &two] {
        let counts = ["/a", "/b"].map(|it| application.requests_for(it).len());
        assert_eq!(counts, [4, 3]);
    }
    assert_eq!(blue.requests(), 0);
}

#[tokio::test]
async fn an_endpoint_that_only_fails_is_never_warm() {
    let blue = Upstream::start("blue").await;
    let good = Application::start(|_| Reply::ok("")).await;
    let bad = Application::start(|_| Reply::status(503, "")).await;
    let gate = "gate.warm_up = { requests = 1, within = \"300ms\" }";
    let proxy = service(&[blue.address], &[good.address, bad.address], gate).start();
    let (code, detail) = refusal(&proxy).await;
    assert_eq!(code, "gate_warm_up");
    assert!(detail.starts_with(&bad.address.to_string()), "{detail}");
    assert!(detail.contains("not warm within 300 ms: 0 of 1 requests answered"), "{detail}");
    assert!(detail.ends_with("the last one: /: status 503"), "{detail}");
    assert!(bad.requests().len() <= 3, "a failed request is not repeated at once");
}

#[tokio::test]
async fn an_endpoint_is_warm_when_its_last_responses_are_fast() {
    let blue = Upstream::start("blue").await;
    let asked = AtomicUsize::new(0);
    let green = Application::start(move |_| {
        // The first ones fill a cache.
        if asked.fetch_add(1, SeqCst) < 3 { Reply::status(500, "") } else { Reply::ok("") }
    })
    .await;
    let gate = "gate.warm_up = { p95 = \"5s\" }";
    let proxy = service(&[blue.address], &[green.address], gate).start();
    let report = verdicts(&proxy).await;
    assert_eq!(report["passed"], true, "{report}");
    assert_eq!(green.requests().len(), 3 + 20, "three failures, and a window of twenty");
    let never = "gate.warm_up = { p95 = \"1us\", within = \"300ms\" }";
    let proxy = service(&[blue.address], &[green.address], never).start();
    let reasons = reasons_of(&verdicts(&proxy).await, "warm_up");
    assert!(reasons[0].contains("p95 of the last 20 is"), "{reasons:?}");
}
