//! Standard error that is not read holds up nothing.

use std::io::BufRead;

use flipgate_api::wire::PromoteRequest;
use serde_json::Value;

use crate::support::{
    Process, Upstream,
    client::PUBLIC,
    eventually,
    frames::{Frames, RST_STREAM, frame},
};

/// Promotes back and forth. Each promotion writes more than 1 KB to the log.
async fn promote(process: &Process, times: usize) {
    let caller = process.caller();
    for color in ["green", "blue"].into_iter().cycle().take(times) {
        let request = PromoteRequest {
            services: [("web".to_owned(), color.to_owned())].into(),
            reason: Some("x".repeat(1000)),
            ..PromoteRequest::default()
        };
        caller.promote(&request).await.expect("a promotion");
    }
}

/// The value of `flipgate_log_dropped_total`.
async fn dropped(process: &Process) -> u64 {
    let scrape = process.scrape().await;
    let value = scrape.lines().find_map(|it| it.strip_prefix("flipgate_log_dropped_total "));
    value.and_then(|it| it.parse().ok()).expect("a counter")
}

/// Once, the admin API hung at the 176th promotion if standard error was a pipe that was not read, and a
/// worker stopped serving: logging blocked on the full pipe.
#[tokio::test]
async fn a_pipe_that_is_not_read_holds_nothing_up() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, mut pipe) = Process::start_piped(&folder, &blue, &green).await;
    assert_eq!(dropped(&process).await, 0, "shown from the start");
    promote(&process, 2000).await;
    // Often enough to meet both workers.
    for _ in 0..20 {
        assert_eq!(process.get("/").await, "blue");
    }
    let expected = dropped(&process).await;
    assert!(expected > 0);

    let reading = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("\"dropped\":") {
            line.clear();
            assert!(pipe.read_line(&mut line).expect("UTF-8") > 0, "it does not end");
        }
        (line, pipe)
    });
    let (first, mut pipe) = reading.await.expect("it is read");
    let line: Value = serde_json::from_str(&first).expect("a line of JSON");
    assert_eq!((&line["level"], &line["target"]), (&"WARN".into(), &"flipgate::log".into()));
    // Later lines arrive again, up to the last one.
    process.signal("TERM");
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = first;
        while pipe.read_line(&mut all).expect("UTF-8") > 0 {}
        all
    });
    let all = reading.await.expect("it is read");
    assert!(all.lines().last().is_some_and(|it| it.contains("\"stopped\"")), "{all}");
    let reported: u64 = all
        .lines()
        .map(|it| serde_json::from_str::<Value>(it).expect("a line of JSON"))
        .filter_map(|it| it["dropped"].as_u64())
        .sum();
    assert!(reported >= expected, "{reported} of {expected} are reported");
    assert_eq!(process.wait().await, Some(0));
}

#[tokio::test]
async fn a_process_can_end_while_standard_error_is_not_read() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, pipe) = Process::start_piped(&folder, &blue, &green).await;
    // More than a pipe holds.
    promote(&process, 100).await;
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));
    drop(pipe);
}

#[tokio::test]
async fn a_process_goes_on_after_standard_error_is_closed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let (mut process, pipe) = Process::start_piped(&folder, &blue, &green).await;
    drop(pipe);
    promote(&process, 10).await;
    assert_eq!(process.get("/").await, "blue");
    eventually("lines are counted", async || dropped(&process).await >= 10).await;
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));
}

/// Once, the HTTP/2 library wrote a warning for each connection, without an address.
#[tokio::test]
async fn misuse_of_http2_is_logged_with_the_address_and_not_by_the_library() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&folder, &blue, &green).await;
    let burst: Vec<_> = (0..300_u32)
        .map(|it| 2 * it + 1)
        .flat_map(|it| {
            let cancel = frame(RST_STREAM, 0, it, &8_u32.to_be_bytes());
            [crate::http2_wire::get(it, &[]), cancel]
        })
        .collect();
    let burst = burst.concat();
    const CONNECTIONS: usize = 50;
    for _ in 0..CONNECTIONS {
        let mut frames = Frames::connect(PUBLIC, process.public).await;
        frames.try_send(&burst).await;
        while frames.next().await.is_some() {}
    }
    let counted = "flipgate_downstream_turned_away_total{reason=\"http2_abuse\"} 50";
    eventually(counted, async || process.scrape().await.lines().any(|it| it == counted)).await;
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));
    let log = process.log();
    let lines = log.lines().map(|it| serde_json::from_str::<Value>(it).expect("a line of JSON"));
    let lines: Vec<_> = lines.filter(|it| it["level"] == "WARN").collect();
    let of_library = |it: &&Value| it["target"].as_str().is_some_and(|it| it.starts_with("h2"));
    assert_eq!(lines.iter().find(of_library), None);
    let ours: Vec<_> = lines.iter().filter(|it| it["suppressed"].is_u64()).collect();
    assert!(!ours.is_empty() && ours.iter().all(|it| it["peer"] == PUBLIC), "{log}");
    let left_out: u64 = ours.iter().filter_map(|it| it["suppressed"].as_u64()).sum();
    assert!(ours.len() + usize::try_from(left_out).expect("few") <= CONNECTIONS, "{log}");
}

/// Once, a flip onto a pool that was down logged `promoted` and nothing else.
#[tokio::test]
async fn a_flip_to_a_color_without_an_endpoint_that_is_up_is_logged_as_an_error() {
    let (blue, mut green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let health = |color: &str| {
        let status = process.status();
        let endpoints = &status["services"]["web"]["pools"][color]["endpoints"];
        endpoints[0]["health"].as_str().map(str::to_owned)
    };
    let is = async |color: &str, expected: &str| {
        eventually(&format!("{color} {expected}"), async || {
            health(color).as_deref() == Some(expected)
        })
        .await;
    };
    let errors = || -> Vec<Value> {
        let log = process.log();
        let lines = log.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
        lines.filter(|it| it["level"] == "ERROR").collect()
    };
    is("blue", "up").await;
    is("green", "up").await;
    promote(&process, 2).await;
    assert_eq!(errors(), Vec::<Value>::new(), "both are up");
    green.kill().await;
    is("green", "down").await;
    let forced = process.cli(&["promote", "web=green", "--force", "--reason", "test"]);
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    eventually("the error is logged", async || errors().len() == 1).await;
    let error = &errors()[0];
    assert_eq!((&error["service"], &error["color"]), (&"web".into(), &"green".into()), "{error}");
    assert_eq!((&error["up"], &error["endpoints"]), (&0.into(), &1.into()), "{error}");
}
