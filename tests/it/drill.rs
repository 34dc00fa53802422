//! Does the drill find what is wrong, and nothing where nothing is?

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::support::{
    planted::{Fault, Planted},
    process,
};

/// What a drill says of a proxy with two services and a fault, and its exit code.
async fn drill(fault: Fault) -> (Value, Option<i32>) {
    // All at once, or one could be given twice.
    let ports: [SocketAddr; 4] = {
        let held = [(); 4].map(|()| TcpListener::bind(("127.0.0.1", 0)).expect("a port"));
        held.map(|it| it.local_addr().expect("a bound socket"))
    };
    let planted = Planted::start(fault, vec![[ports[0], ports[1]], [ports[2], ports[3]]]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut arguments = vec![
        "drill".to_owned(),
        "--json".to_owned(),
        format!("--url=web=http://{}", planted.public[0]),
        format!("--url=api=http://{}", planted.public[1]),
        format!("--admin=http://{}", planted.admin),
        format!("--report={}", folder.path().join("report.html").display()),
    ];
    let places = ["web.blue", "web.green", "api.blue", "api.green"];
    arguments
        .extend(places.iter().zip(ports).map(|(place, at)| format!("--upstream={place}={at}")));
    let load = "--flip-every=100ms --duration=3s --warm-up=100ms --steady=0s --rate=150 \
                --stream-time=250ms --mix=short=60,pair=20,download=5,upload=5,ws=5,sse=5,wish=5";
    arguments.extend(load.split_whitespace().map(str::to_owned));
    let output = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        process::run(&arguments)
    })
    .await
    .expect("no panic inside");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{fault:?}: {error}\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (report, output.status.code())
}

/// The state of each promise.
fn state(report: &Value, promise: &str) -> String {
    let promises = report["promises"].as_array().expect("promises");
    let found = promises.iter().find(|it| it["name"] == promise).expect("a promise");
    found["state"].as_str().expect("a word").to_owned()
}

/// A planted fault is found, by the promise that it breaks.
async fn finds(fault: Fault, promise: &str) {
    let (report, code) = drill(fault).await;
    assert_eq!(code, Some(1), "{fault:?}: {report:#}");
    assert_eq!(report["clean"], false);
    assert_eq!(state(&report, promise), "broken", "{fault:?}: {report:#}");
    let violations = report["violations"].as_array().expect("violations");
    let named = violations.iter().find(|it| it["promise"] == promise).expect("it is listed");
    assert!(named["text"].as_str().is_some_and(|it| it.len() > 20), "{named}");
}

#[tokio::test]
async fn a_good_proxy_is_found_to_be_good_in_every_respect() {
    let (report, code) = drill(Fault::None).await;
    assert_eq!(code, Some(0), "{report:#}");
    for promise in [
        "answered",
        "register",
        "together",
        "once",
        "whole",
        "kept",
        "private",
        "drained",
        "acknowledged",
    ] {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    assert!(report["flips"]["count"].as_u64() > Some(10), "{report:#}");
}

#[tokio::test]
async fn a_flip_without_a_barrier_is_found() {
    finds(Fault::NoBarrier, "register").await;
}

#[tokio::test]
async fn a_request_that_is_counted_after_it_was_let_in_is_found() {
    finds(Fault::CountsLate, "drained").await;
}

#[tokio::test]
async fn a_download_that_is_cut_by_a_flip_is_found() {
    finds(Fault::Cuts, "kept").await;
}

#[tokio::test]
async fn a_public_client_who_sees_the_other_color_is_found() {
    // Between flips it is the color before; at the very first it has never been active.
    finds(Fault::Leaks, "register").await;
}

#[tokio::test]
async fn a_wish_of_the_public_that_is_granted_is_found() {
    finds(Fault::GrantsWishes, "private").await;
}

#[tokio::test]
async fn a_flip_of_two_services_in_two_steps_is_found() {
    finds(Fault::Halves, "together").await;
}

#[tokio::test]
async fn a_request_that_is_sent_twice_is_found() {
    finds(Fault::Doubles, "once").await;
}

#[tokio::test]
async fn a_byte_that_is_changed_is_found() {
    finds(Fault::Alters, "whole").await;
}

#[tokio::test]
async fn trailers_that_are_lost_are_found() {
    finds(Fault::Untrailed, "whole").await;
}

#[tokio::test]
async fn a_request_without_an_answer_is_found() {
    finds(Fault::Loses, "answered").await;
}

#[tokio::test]
async fn a_flip_that_fails_is_found() {
    finds(Fault::Refuses, "acknowledged").await;
}
