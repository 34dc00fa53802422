//! Start, reload and stop of the process.

use std::{fs, time::Duration};

use crate::support::{
    Client, Process, TestProxy, Upstream, eventually, process, process::write_config,
};

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_and_takes_nothing_new() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&folder, &blue, &green).await;
    let mut idle = process.public().await;
    idle.get("/", "").await;
    let mut early = process.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    process.signal("TERM");
    assert_eq!(idle.read_to_end().await, "", "an idle connection is closed");
    eventually("no new connections", async || {
        tokio::net::TcpStream::connect(process.public).await.is_err()
    })
    .await;
    blue.release();
    assert!(early.until("0\r\n\r\n").await.contains("blue ends"));
    assert_eq!(process.wait().await, Some(0));
    assert!(process.log().contains("stopped"));
}

#[tokio::test]
async fn a_stop_answers_requests_from_before_it() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&folder, &blue, &green).await;
    let mut client = process.public().await;
    client.ask("/hold", "").await;
    client.until("begins").await;
    client.ask("/", "").await;
    process.signal("TERM");
    eventually("stopping", async || process.log().contains("stopping")).await;
    blue.release();
    client.until("0\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "blue");
    assert_eq!(client.read_to_end().await, "", "and then the connection ends");
    drop(client);
    assert_eq!(process.wait().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&folder, &blue, &green).await;
    let mut early = process.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    process.signal("TERM");
    eventually("stopping", async || process.log().contains("stopping")).await;
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(1));
    assert!(!early.read_to_end().await.contains("ends"));
}

#[tokio::test]
async fn requests_that_outlast_the_shutdown_timeout_are_cut() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("timeouts.keep_alive = \"5s\"")
        .service("web", &[&blue], &[&green])
        .start();
    let mut early = proxy.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    // The shutdown timeout is two seconds.
    drop(proxy.shut_down());
    assert!(!early.read_to_end().await.contains("ends"));
}

#[tokio::test]
async fn a_reload_is_whole_or_not_at_all_and_changes_no_active_color() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let newer = Upstream::start("newer").await;
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    assert!(process.cli(&["promote", "web=green"]).status.success());
    let path = folder.path().join("flipgate.toml");
    let text = fs::read_to_string(&path).expect("the configuration");

    fs::write(&path, text.replace("[service.web]", "[service.web]\ntypo = 1\n")).expect("written");
    process.signal("HUP");
    eventually("refused", async || process.log().contains("not applied")).await;
    assert!(process.log().contains("typo"), "{}", process.log());
    assert_eq!(process.get("/").await, "green");

    let moved = text.replace("workers = 2", "workers = 1");
    fs::write(&path, moved).expect("written");
    process.signal("HUP");
    eventually("refused", async || process.log().contains("restart: workers")).await;

    let replaced = text.replace(&green.address.to_string(), &newer.address.to_string());
    let more = format!("active = \"blue\"\nhosts = [\"*\"]\n{}", "");
    fs::write(&path, replaced.replace("[service.web]\n", &format!("[service.web]\n{more}")))
        .expect("written");
    process.signal("HUP");
    eventually("applied", async || process.log().contains("configuration applied")).await;
    assert_eq!(process.status()["services"]["web"]["active"], "green");
    assert_eq!(process.get("/").await, "newer");
    let output = process.cli(&["status"]);
    assert!(output.status.success());
}

#[tokio::test]
async fn a_service_that_a_reload_removes_lets_its_requests_finish() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let mut early = process.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    let path = folder.path().join("flipgate.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    fs::write(&path, text.replace("service.web", "service.shop")).expect("written");
    process.signal("HUP");
    eventually("applied", async || process.log().contains("configuration applied")).await;
    assert!(process.status()["services"].get("web").is_none());
    blue.release();
    assert!(early.until("0\r\n\r\n").await.contains("blue ends"));
    eventually("drained", async || process.log().contains("drained")).await;
}

/// Once, the drain of a service was 404 from its removal on, while requests were still in flight, and 64 of its
/// series stayed for ever.
#[tokio::test]
async fn a_removed_service_reports_its_drain_and_then_its_series_are_removed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    assert_eq!(process.get("/").await, "blue");
    let mut preview = Client::connect("127.0.0.1", process.public).await;
    preview.ask("/hold", "Flipgate-Preview: green\r\n").await;
    preview.until("begins").await;
    let mut early = process.public().await;
    early.ask("/hold", "").await;
    early.until("begins").await;
    let path = folder.path().join("flipgate.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let without = text.replace("service.web", "service.shop");
    fs::write(&path, &without).expect("written");
    let caller = process.caller();
    caller.reload().await.expect("a configuration without web");
    let drain = async |color| caller.drain("web", color, Duration::ZERO).await;
    let is_shown = async || process.scrape().await.contains("service=\"web\"");

    let seen = drain(None).await.expect("it is known until it is drained");
    assert_eq!((&*seen.color, seen.in_flight, seen.drained), ("blue", 1, false));
    let seen = drain(Some("green")).await.expect("it is known");
    assert_eq!((seen.in_flight, seen.drained), (1, false));
    let inside = "flipgate_in_flight{color=\"blue\",service=\"web\"} 1";
    assert!(process.scrape().await.contains(inside));
    assert!(drain(Some("red")).await.is_err());

    // A wait without a color is for both.
    let wait = caller.drain("web", None, Duration::from_secs(60));
    let mut wait = std::pin::pin!(wait);
    blue.release();
    assert!(early.until("0\r\n\r\n").await.contains("blue ends"));
    eventually("blue is drained", async || {
        let blue = async { drain(Some("blue")).await.expect("it is known") };
        tokio::select! {
            early = &mut wait => panic!("green is not drained: {early:?}"),
            blue = blue => blue.drained,
        }
    })
    .await;
    let seen = drain(None).await.expect("it is known");
    assert_eq!((&*seen.color, seen.drained), ("green", false));
    green.release();
    preview.until("0\r\n\r\n").await;
    let seen = wait.await.expect("it is known");
    assert!(seen.drained, "{seen:?}");
    assert!(is_shown().await, "it is known for some seconds more");
    eventually("the series are gone", async || !is_shown().await).await;
    let error = drain(None).await.expect_err("it is forgotten").to_string();
    assert!(error.contains("`web` is not configured"), "{error}");

    // A service of the same name counts from the beginning.
    fs::write(&path, &text).expect("written");
    caller.reload().await.expect("the first configuration");
    assert_eq!(process.get("/").await, "blue");
    let counted = "flipgate_requests_total{code=\"200\",color=\"blue\",service=\"web\"} 1\n";
    assert!(process.scrape().await.contains(counted), "{}", process.scrape().await);
}

#[tokio::test]
async fn a_taken_port_and_a_taken_folder_are_named() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let running = Process::start(&folder, &blue, &green).await;
    let other = tempfile::tempdir().expect("a folder");
    let port = running.public.port();
    let config = write_config(other.path(), port, &blue, &green).display().to_string();
    let output = process::run(&["run", "--config", &config]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains(&format!("127.0.0.1:{port}")) && error.contains("ss -ltnp"), "{error}");

    let config = write_config(other.path(), 0, &blue, &green);
    let text = fs::read_to_string(&config).expect("the configuration");
    let shared = text.replace(
        &other.path().join("state").display().to_string(),
        &folder.path().join("state").display().to_string(),
    );
    fs::write(&config, shared).expect("written");
    let output = process::run(&["run", "--config", &config.display().to_string()]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("in use by another flipgate"), "{error}");
    assert_eq!(running.get("/").await, "blue", "the one that runs is not disturbed");
}

#[tokio::test]
async fn a_socket_of_a_killed_process_is_replaced() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let mut process = Process::start(&folder, &blue, &green).await;
    process.kill().await;
    assert!(folder.path().join("admin.sock").exists());
    let process = Process::start(&folder, &blue, &green).await;
    assert_eq!(process.get("/").await, "blue");
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_a_408() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[timeouts]\nhead = \"1s\"\nkeep_alive = \"1s\"")
        .service("web", &[&blue], &[&green])
        .start();
    let mut slow = proxy.public().await;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let mut silent = proxy.public().await;
    let mut busy = proxy.public().await;
    busy.ask("/hold", "").await;
    busy.until("begins").await;
    assert!(slow.read_to_end().await.starts_with("HTTP/1.1 408 "));
    assert_eq!(silent.read_to_end().await, "", "a connection without a request gets nothing");
    // A request under way is neither.
    blue.release();
    assert!(busy.until("0\r\n\r\n").await.contains("blue ends"));
}

#[tokio::test]
async fn a_connection_without_progress_is_cut() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .with("[timeouts]\nstall = \"1s\"\nupstream_stall = \"1s\"\nupstream_response = \"1s\"")
        .service("web", &[&blue], &[&green])
        .start();
    // A body that does not come.
    let mut sender = proxy.public().await;
    sender.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    let answer = sender.read_to_end().await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 504"), "{answer}");
    // An answer that is not taken.
    let mut reader = Client::connect_narrow("127.0.0.2", proxy.public).await;
    reader.ask("/endless", "").await;
    // An answer that does not go on, and one that does not begin.
    let mut waiting = proxy.public().await;
    waiting.ask("/hold", "").await;
    assert!(!waiting.read_to_end().await.contains("ends"));
    let answer = proxy.public().await.get("/wait", "").await;
    assert_eq!(answer.status, 504);
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=http_response_timeout"));
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

/// After SIGSTOP, or when a suspended machine went on, every stream and request was cut at once: the time in
/// which nothing could run was counted.
#[tokio::test]
async fn a_process_that_was_stopped_for_longer_than_a_timeout_cuts_no_request() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = write_config(folder.path(), 0, &blue, &green);
    let limits = "[timeouts]\nkeep_alive = \"4s\"\nstall = \"4s\"\nupstream_stall = \"4s\"\nrequest = \"4s\"\n";
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, format!("{text}{limits}")).expect("written");
    let process = Process::start_with(folder.path(), &config).await;
    let mut idle = process.public().await;
    assert_eq!(idle.get("/", "").await.text(), "blue");
    let mut busy = process.public().await;
    busy.ask("/hold", "").await;
    busy.until("begins").await;
    process.signal("STOP");
    // The test is about the passing of time: there is no event to wait for.
    tokio::time::sleep(Duration::from_secs(7)).await;
    process.signal("CONT");
    assert_eq!(idle.get("/", "").await.text(), "blue");
    blue.release();
    assert!(busy.until("0\r\n\r\n").await.contains("blue ends"));
    // The timeouts still apply.
    assert_eq!(idle.read_to_end().await, "");
}

#[tokio::test]
async fn a_process_that_gets_sigterm_is_not_ready_and_serves_for_the_delay() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    for has_second_signal in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = write_config(folder.path(), 0, &blue, &green);
        let text = fs::read_to_string(&config).expect("the configuration");
        let delay = if has_second_signal { "1h" } else { "2s" };
        let delay = format!("shutdown.delay = \"{delay}\"\n{text}");
        fs::write(&config, delay).expect("written");
        let mut process = Process::start_with(folder.path(), &config).await;
        eventually("it is ready", async || process.ready().await.starts_with("HTTP/1.1 200 "))
            .await;
        process.signal("TERM");
        eventually("it is not ready", async || process.ready().await.starts_with("HTTP/1.1 503 "))
            .await;
        // A new connection, while the load balancer has not noticed yet.
        assert_eq!(process.get("/").await, "blue");
        if has_second_signal {
            process.signal("TERM");
        }
        assert_eq!(process.wait().await, Some(i32::from(has_second_signal)), "{}", process.log());
        assert_eq!(process.log().contains("second signal: stopping at once"), has_second_signal);
    }
}
