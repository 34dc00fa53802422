//! Metrics and the log say what failed, and whether Flipgate or the application failed.

use serde_json::Value;

use crate::support::{
    Process, Scripted, TestProxy, Upstream, authority::Authority, client, client::PUBLIC,
    eventually, process,
};

async fn scrape(proxy: &TestProxy) -> String {
    proxy.call("GET", "/metrics", "", "").await.text()
}

/// Fifty previews raised green's counters by fifty, and spoiled the question whether green is worse.
#[tokio::test]
async fn previews_are_counted_apart_from_public_requests() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).start();
    let mut tester = proxy.internal().await;
    for _ in 0..3 {
        assert_eq!(tester.get("/", "Flipgate-Preview: green\r\n").await.text(), "green");
    }
    assert_eq!(tester.get("/", "").await.text(), "blue");
    assert_eq!(proxy.public().await.get("/", "").await.text(), "blue");
    for (series, value) in [
        ("preview_requests_total{code=\"200\",color=\"green\",service=\"web\"}", 3.0),
        ("requests_total{code=\"200\",color=\"green\",service=\"web\"}", 0.0),
        ("request_duration_seconds_count{color=\"green\",service=\"web\"}", 0.0),
        ("response_head_seconds_count{color=\"green\",service=\"web\"}", 0.0),
        ("requests_total{code=\"200\",color=\"blue\",service=\"web\"}", 2.0),
        ("preview_requests_total{code=\"200\",color=\"blue\",service=\"web\"}", 0.0),
        ("request_duration_seconds_count{color=\"blue\",service=\"web\"}", 2.0),
        ("response_head_seconds_count{color=\"blue\",service=\"web\"}", 2.0),
    ] {
        let what = format!("flipgate_{series} is {value}");
        eventually(&what, async || proxy.metric(&format!("flipgate_{series}")).await == value)
            .await;
    }
}

#[tokio::test]
async fn errors_of_flipgate_are_not_those_of_the_application() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let gone = Upstream::start("gone").await;
    let failing = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    let failing = Scripted::start(failing).await;
    let (broken, down) = (Scripted::start(b"nonsense\r\n\r\n").await, gone.address);
    drop(gone);
    let services = format!(
        "[service.broken]\npath = \"/broken\"\nblue = {{ endpoints = [\"{}\"] }}\n\
         [service.down]\npath = \"/down\"\nblue = {{ endpoints = [\"{down}\"] }}\n\
         [service.own]\npath = \"/own\"\nblue = {{ endpoints = [\"{}\"] }}\n\
         [service.empty]\npath = \"/empty\"\nblue = {{ endpoints = [] }}\ngreen = {{ endpoints = [\"{down}\"] }}\n",
        broken.address, failing.address
    );
    let proxy = TestProxy::build().services(&services).service("web", &[&blue], &[&green]).start();
    let mut client = proxy.public().await;
    for (path, status) in [("/own", 500), ("/broken", 502), ("/down", 502), ("/empty", 503)] {
        assert_eq!(client.get(path, "").await.status, status, "{path}");
    }
    for (service, reason, count) in [
        ("broken", "http_protocol_error", 1.0),
        ("down", "connection_refused", 1.0),
        ("empty", "destination_unavailable", 1.0),
        // The application's own 500 is not an error of Flipgate's, and its series is 0, not absent.
        ("own", "connection_refused", 0.0),
    ] {
        let series = format!(
            "flipgate_proxy_errors_total{{color=\"blue\",reason=\"{reason}\",service=\"{service}\"}}"
        );
        eventually(&series, async || scrape(&proxy).await.contains(&format!("{series} {count}\n")))
            .await;
    }
    let own = "flipgate_requests_total{code=\"500\",color=\"blue\",service=\"own\"} 1\n";
    assert!(scrape(&proxy).await.contains(own));
}

/// A ratio of errors was absent, not 0, for a service without errors.
#[tokio::test]
async fn a_service_without_errors_has_their_series() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).start();
    let series = "flipgate_requests_total{code=\"502\",color=\"blue\",service=\"web\"} 0\n";
    assert!(!scrape(&proxy).await.contains("flipgate_requests_total{code=\"502\""));
    assert_eq!(proxy.public().await.get("/", "").await.text(), "blue");
    eventually(series, async || scrape(&proxy).await.contains(series)).await;
}

#[tokio::test]
async fn versions_limits_promotions_and_the_process_are_there() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build().service("web", &[&blue], &[&green]).start();
    proxy.promote(&[("web", "green")]).await;
    let answer = proxy.call("POST", "/v1/rollback", "", "{}").await;
    assert_eq!(answer.status, 200);
    let text = scrape(&proxy).await;
    for line in [
        "flipgate_pool_info{color=\"blue\",service=\"web\",version=\"1\"} 1",
        "flipgate_pool_info{color=\"green\",service=\"web\",version=\"2\"} 1",
        "flipgate_promotions_total{kind=\"promote\",result=\"promoted\"} 1",
        "flipgate_promotions_total{kind=\"rollback\",result=\"promoted\"} 1",
        "flipgate_promotions_total{kind=\"automatic\",result=\"promoted\"} 0",
        "flipgate_limit{limit=\"in_flight\"} 100000",
        "flipgate_config_reload_success 1",
    ] {
        assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    for name in ["process_open_fds", "process_resident_memory_bytes", "process_start_time_seconds"]
    {
        let line = text.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        assert!(line.is_some_and(|it| it.parse::<f64>().is_ok_and(|it| it > 0.0)), "{name}");
    }
    assert!(!text.contains("flipgate_certificate_expiry"), "there is no certificate");
    let buckets =
        text.lines().filter(|it| it.starts_with("flipgate_drain_duration_seconds_bucket"));
    assert!(buckets.count() > 0);
}

#[tokio::test]
async fn a_reload_that_is_refused_is_seen() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let success = async || {
        let text = process.scrape().await;
        let found = text.lines().find_map(|it| it.strip_prefix("flipgate_config_reload_success "));
        found.expect("a gauge").to_owned()
    };
    assert_eq!(success().await, "1");
    let path = folder.path().join("flipgate.toml");
    let good = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(&path, format!("hots = 1\n{good}")).expect("written");
    let refused = process.cli(&["reload"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(success().await, "0");
    std::fs::write(&path, good).expect("written");
    assert_eq!(process.cli(&["reload"]).status.code(), Some(0));
    assert_eq!(success().await, "1");
}

/// Lines of a finished process's log with this message.
fn lines(process: &Process, message: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
    lines.filter(|it| it["message"].as_str().is_some_and(|it| it.starts_with(message))).collect()
}

#[tokio::test]
async fn the_log_says_who_changed_what_and_which_request_failed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123").expect("written");
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let tokens = "\n[[admin.token]]\nname = \"pipeline\"\nscope = \"promote\"\nfile = \"token\"\n[[listener]]";
    std::fs::write(&config, text.replacen("\n[[listener]]", tokens, 1)).expect("written");
    let mut process = Process::start_with(folder.path(), &config).await;
    let token = token.display().to_string();
    let address = green.address.to_string();
    let set =
        ["set", "web.green", "--version", "8.0", "--endpoint", &address, "--token-file", &token];
    assert_eq!(process.cli(&set).status.code(), Some(0));
    let promote = ["promote", "web=green", "--reason", "release", "--token-file", &token];
    assert_eq!(process.cli(&promote).status.code(), Some(0));
    drop(green);
    let mut client = process.public().await;
    assert_eq!(client.get("/cart?card=4111", "X-Request-Id: mine\r\n").await.status, 502);
    let refused = process.cli_command(&["status"]).env("FLIPGATE_TOKEN", "wrong").output();
    assert_eq!(refused.expect("it runs").status.code(), Some(1));
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));

    let changed = &lines(&process, "pool changed")[0];
    assert_eq!(
        (&changed["endpoints"], &changed["by"]),
        (&address.clone().into(), &"pipeline".into())
    );
    let promoted = &lines(&process, "promoted")[0];
    for (key, value) in [
        ("service", "web"),
        ("active", "green"),
        ("version", "8.0"),
        ("replaced", "blue"),
        ("reason", "release"),
        ("by", "pipeline"),
        ("from", "unix"),
    ] {
        assert_eq!(promoted[key], value, "{promoted}");
    }
    let errors = lines(&process, "error response");
    assert_eq!(errors.len(), 1, "{}", process.log());
    for (key, value) in [
        ("method", "GET"),
        ("path", "/cart"),
        ("client", PUBLIC),
        ("service", "web"),
        ("color", "green"),
        ("endpoint", &address),
    ] {
        assert_eq!(errors[0][key], value, "{}", errors[0]);
    }
    assert!(errors[0]["request_id"].as_str().is_some_and(|it| !it.is_empty()), "{}", errors[0]);
    assert!(
        errors[0]["details"].as_str().is_some_and(|it| it.starts_with("502 connection_refused"))
    );
    assert!(!process.log().contains("4111"), "queries may hold secrets");
    let refused = lines(&process, "admin call refused: unknown token");
    assert_eq!(
        (refused.len(), &refused[0]["path"]),
        (1, &"/v1/status".into()),
        "{}",
        process.log()
    );
    assert!(!process.log().contains("wrong"), "a token is never logged");
}

#[tokio::test]
async fn a_client_certificate_that_is_refused_is_logged_with_the_address() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let (authority, foreign) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().expect("a folder");
    let config = process::write_config(folder.path(), 0, &blue, &green);
    let text = std::fs::read_to_string(&config).expect("the configuration");
    let pair = authority.issue("server", &["localhost"]);
    let tls = format!(
        "[listener.tls]\n{}client = {{ ca = {:?}, required = true }}\n[service.web]",
        authority.listener(&pair),
        authority.file.display().to_string()
    );
    std::fs::write(&config, text.replacen("[service.web]", &tls, 1)).expect("written");
    let mut process = Process::start_with(folder.path(), &config).await;
    let shown = foreign.issue("tester", &["tester.test"]);
    let with_foreign = authority.client(&["http/1.1"], Some(&shown));
    if let Ok(stream) =
        client::connect_tls(PUBLIC, process.public, "localhost", &with_foreign).await
    {
        // In TLS 1.3, the client knows of the refusal when it reads.
        crate::support::Client::over(stream).read_to_end().await;
    }
    process.signal("TERM");
    assert_eq!(process.wait().await, Some(0));
    let refused = lines(&process, "client certificate refused");
    assert_eq!(refused.len(), 1, "{}", process.log());
    assert_eq!(
        (&refused[0]["peer"], &refused[0]["problem"]),
        (&PUBLIC.into(), &"not signed by tls.client.ca".into())
    );
}
