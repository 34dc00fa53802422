//! More requests than the limits allow.

use std::time::Duration;

use crate::support::{
    Answer, Client, Http2Upstream, MisbehavingUpstream, Misbehavior, TestProxy, Upstream, client,
    eventually, http2,
};

fn proxy(blue: &Upstream, top: &str, policy: &str) -> TestProxy {
    let blue = blue.address;
    TestProxy::build()
        .with(top)
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"{blue}\"] }}\ngreen = {{ endpoints = [\"{blue}\"] }}\n{policy}\n"
        ))
        .start()
}

fn assert_overloaded(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=connection_limit_reached"));
}

/// Waits until so many wait for a place at an endpoint.
async fn wait_for_queued(proxy: &TestProxy, count: u64) {
    eventually(&format!("{count} wait"), async || {
        proxy.status().await["services"]["web"]["pools"]["blue"]["queued"] == count
    })
    .await;
}

async fn limited(proxy: &TestProxy, limit: &str) -> f64 {
    let labels = format!("color=\"blue\",limit=\"{limit}\",service=\"web\"");
    proxy.metric(&format!("flipgate_limited_total{{{labels}}}")).await
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_at_once() {
    for (top, policy, limit) in [
        ("limits.in_flight = 2", "", "in_flight"),
        ("", "limits.in_flight = 2", "service_in_flight"),
    ] {
        let upstream = Upstream::start("up").await;
        let proxy = proxy(&upstream, top, policy);
        let mut held = [proxy.public().await, proxy.public().await];
        for client in &mut held {
            client.ask("/hold", "").await;
            assert_eq!(client.head().await.status, 200);
        }
        let mut third = proxy.public().await;
        for _ in 0..2 {
            assert_overloaded(&third.get("/", "").await);
        }
        // The limit is of both colors together, and previews count, too.
        let mut tester = proxy.internal().await;
        assert_overloaded(&tester.get("/", "Flipgate-Preview: green\r\n").await);
        assert!((limited(&proxy, limit).await - 2.0).abs() < 0.1);
        let admin = proxy.call("GET", "/v1/status", "", "").await;
        assert_eq!(admin.status, 200);
        proxy.promote(&[("web", "green")]).await;
        upstream.release();
        eventually("there is room again", async || third.get("/", "").await.status == 200).await;
        eventually("the event is published", async || !proxy.events("limit_hit").is_empty()).await;
        let told = &proxy.events("limit_hit")[0];
        assert_eq!((&told["limit"], &told["service"]), (&limit.into(), &"web".into()));
    }
}

#[tokio::test]
async fn a_tunnel_is_no_request() {
    let upstream = Upstream::start("up").await;
    let proxy = proxy(&upstream, "limits.in_flight = 1", "limits.in_flight = 1");
    let mut tunnels = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.public().await;
        client.send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n").await;
        assert_eq!(client.head().await.status, 101);
        tunnels.push(client);
    }
    assert_eq!(proxy.get("/").await, "up");
}

#[tokio::test]
async fn a_client_over_its_rate_gets_retry_after() {
    let upstream = Upstream::start("up").await;
    let proxy = proxy(&upstream, "", "limits = { client_rate = \"1/s\", client_burst = 3 }");
    let mut client = proxy.public().await;
    let mut statuses = Vec::new();
    let mut last = Answer::default();
    for _ in 0..5 {
        last = client.get("/", "").await;
        statuses.push(last.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses.contains(&429), "{statuses:?}");
    if last.status == 429 {
        assert_eq!(last.field("retry-after"), Some("1"));
        assert_eq!(last.field("proxy-status"), Some("flipgate; error=http_request_denied"));
    }
    assert!(limited(&proxy, "client_rate").await > 0.9);
    let mut other = Client::connect("127.0.0.9", proxy.public).await;
    assert_eq!(other.get("/", "").await.status, 200, "others have their own");
    eventually("the rate allows a request again", async || client.get("/", "").await.status == 200)
        .await;
}

#[tokio::test]
async fn requests_wait_for_a_place_in_the_order_in_which_they_came() {
    let upstream = Upstream::start("up").await;
    let policy = "limits = { endpoint_requests = 1, queue = 2, queue_timeout = \"30s\" }";
    let proxy = proxy(&upstream, "", policy);
    let mut held = proxy.public().await;
    held.ask("/wait", "").await;
    eventually("one request is in flight", async || upstream.requests() == 1).await;
    let [mut one, mut two] = [proxy.public().await, proxy.public().await];
    one.ask("/one", "").await;
    wait_for_queued(&proxy, 1).await;
    two.ask("/two", "").await;
    wait_for_queued(&proxy, 2).await;
    assert_overloaded(&proxy.public().await.get("/three", "").await);
    assert!((limited(&proxy, "queue").await - 1.0).abs() < 0.1);
    assert_eq!(upstream.requests(), 1);
    upstream.release();
    for client in [&mut held, &mut one, &mut two] {
        assert_eq!(client.answer().await.text(), "up");
    }
    assert_eq!(upstream.paths(), ["/wait", "/one", "/two"]);
    wait_for_queued(&proxy, 0).await;
}

#[tokio::test]
async fn a_client_that_has_left_does_not_block_the_queue() {
    let upstream = Upstream::start("up").await;
    let policy = "limits = { endpoint_requests = 1, queue = 1, queue_timeout = \"30s\" }";
    let proxy = proxy(&upstream, "", policy);
    let mut held = proxy.public().await;
    held.ask("/wait", "").await;
    eventually("one request is in flight", async || upstream.requests() == 1).await;
    let mut leaving = proxy.public().await;
    leaving.ask("/leaving", "").await;
    wait_for_queued(&proxy, 1).await;
    drop(leaving);
    wait_for_queued(&proxy, 0).await;
    upstream.release();
    assert_eq!(held.answer().await.text(), "up");
    assert_eq!(proxy.get("/").await, "up");
    assert_eq!(upstream.paths(), ["/wait", "/"], "an abandoned request is not sent");
}

#[tokio::test]
async fn a_request_that_waited_too_long_gets_a_503() {
    let upstream = Upstream::start("up").await;
    let policy = "limits = { endpoint_requests = 1, queue_timeout = \"100ms\" }";
    let proxy = proxy(&upstream, "", policy);
    let mut held = proxy.public().await;
    held.ask("/wait", "").await;
    eventually("one request is in flight", async || upstream.requests() == 1).await;
    assert_overloaded(&proxy.public().await.get("/", "").await);
    assert!((limited(&proxy, "queue_timeout").await - 1.0).abs() < 0.1);
    upstream.release();
    assert_eq!(held.answer().await.text(), "up");
    assert_eq!(proxy.get("/").await, "up");
}

#[tokio::test]
async fn an_endpoint_has_at_most_its_limit_of_connections() {
    let upstream = Upstream::start("up").await;
    let policy = "limits = { endpoint_connections = 2, queue = 100, queue_timeout = \"30s\" }";
    let proxy = proxy(&upstream, "", policy);
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(proxy.public().await);
    }
    for client in &mut clients {
        client.ask("/wait", "").await;
    }
    eventually("two requests are in flight", async || upstream.requests() == 2).await;
    assert_eq!(proxy.endpoint("web", "blue", 0).await["connections"], 2);
    upstream.release();
    for client in &mut clients {
        assert_eq!(client.answer().await.text(), "up");
    }
    assert!(proxy.endpoint("web", "blue", 0).await["connections"].as_u64() <= Some(2));
}

#[tokio::test]
async fn a_request_that_needs_a_fresh_connection_has_one_that_waits_closed_for_it() {
    let bad = MisbehavingUpstream::start(Misbehavior::ClosesBehindSecondHead).await;
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"{}\"] }}\nhealth.interval = \"24h\"\n\
             limits = {{ endpoint_connections = 1, queue_timeout = \"30s\" }}\n",
            bad.address
        ))
        .start();
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(proxy.public().await);
    }
    for _ in 0..4 {
        for client in &mut clients {
            client.ask("/", "").await;
        }
        for client in &mut clients {
            assert_eq!(client.answer().await.text(), "faulty");
        }
    }
    assert!(proxy.endpoint("web", "blue", 0).await["connections"].as_u64() <= Some(1));
}

/// With fewer connections than workers, half of the requests waited for the next look at idle connections, up to
/// half a second, while another worker held one: here, for a minute and more in all.
#[tokio::test]
async fn an_idle_connection_of_another_worker_is_given_up_at_once() {
    let http1 = Upstream::start("up").await;
    let http2 = Http2Upstream::start(async |_, answer| http2::say(answer, "up")).await;
    for (address, protocol) in [(http1.address, "http1"), (http2.address, "h2")] {
        let proxy = TestProxy::build()
            .workers(4)
            .services(&format!(
                "[service.web]\nblue = {{ endpoints = [\"{address}\"], protocol = \"{protocol}\" }}\n\
                 health.interval = \"24h\"\n\
                 limits = {{ endpoint_connections = 1, queue_timeout = \"30s\" }}\n"
            ))
            .start();
        let mut clients = Vec::new();
        // All workers have some.
        for _ in 0..40 {
            clients.push(proxy.public().await);
        }
        let asking = async {
            for _ in 0..8 {
                for client in &mut clients {
                    assert_eq!(client.get("/", "").await.text(), "up");
                }
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(30), asking).await;
        assert!(asked.is_ok(), "{protocol}: requests wait for idle connections");
        assert!(proxy.endpoint("web", "blue", 0).await["connections"].as_u64() <= Some(1));
    }
    assert!(http1.connections() > 40, "several workers were met: {}", http1.connections());
}

#[tokio::test]
async fn a_tunnel_that_its_endpoint_does_not_read_blocks_no_other() {
    let upstream = Http2Upstream::without_tunnels(async |_, answer| http2::say(answer, "up")).await;
    let proxy = TestProxy::build()
        .with("timeouts.upstream_connect = \"500ms\"")
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"{}\"], protocol = \"h2\" }}\n\
             limits = {{ endpoint_connections = 2, queue_timeout = \"500ms\" }}\n",
            upstream.address
        ))
        .start();
    for _ in 0..4 {
        assert_eq!(proxy.get("/").await, "up");
        let mut client = proxy.public().await;
        client.send("GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n").await;
        let answer = client.answer().await;
        assert!(matches!(answer.status, 502 | 503), "{}", answer.text());
    }
    assert_eq!(proxy.get("/").await, "up");
    assert_eq!(proxy.endpoint("web", "blue", 0).await["health"], "up", "it answers all others");
}

#[tokio::test]
async fn a_request_queued_for_a_replaced_endpoint_blocks_no_other() {
    let (old, new) = (Upstream::start("old").await, Upstream::start("new").await);
    let policy = "limits = { endpoint_requests = 1, queue = 1, queue_timeout = \"30s\" }";
    let proxy = proxy(&old, "", policy);
    let mut held = proxy.public().await;
    held.ask("/wait", "").await;
    eventually("one request is in flight", async || old.requests() == 1).await;
    let mut waiting = proxy.public().await;
    waiting.ask("/waiting", "").await;
    wait_for_queued(&proxy, 1).await;
    let body = serde_json::json!({"endpoints": [new.address.to_string()], "force": true});
    let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body.to_string()).await;
    assert_eq!(set.status, 200, "{}", set.text());
    for _ in 0..3 {
        assert_eq!(proxy.get("/").await, "new");
    }
    old.release();
    assert_eq!(
        (held.answer().await.text(), waiting.answer().await.text()),
        ("old".into(), "old".into())
    );
}

/// Sets how many files a process may have open.
fn allow_files(pid: i32, count: u64) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(count), maximum: Some(4096) };
    prlimit(Pid::from_raw(pid), Resource::Nofile, limit).expect("a child of ours");
}

#[tokio::test]
async fn a_process_out_of_files_recovers_when_there_are_some() {
    use crate::support::Process;
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    assert_eq!(process.get("/").await, "blue");
    // Fewer than it has already, and none that a health check releases: no connection can be accepted any more.
    allow_files(process.pid(), 3);
    let mut waiting = process.public().await;
    waiting.ask("/", "").await;
    eventually("the failed accept is logged", async || process.log().contains("cannot accept"))
        .await;
    allow_files(process.pid(), 4096);
    assert_eq!(waiting.answer().await.text(), "blue");
    assert!(process.cli(&["status"]).status.success());
    let told = process.log().matches("cannot accept").count();
    assert!(told < 50, "{told} lines of the same");
}

#[tokio::test]
async fn client_connections_leave_descriptors_for_new_clients() {
    use crate::support::Process;
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start_limited(&folder, 256, &blue, &green, "").await;
    assert!(process.log().contains("the limit of open files allows fewer client connections"));
    let mut clients = Vec::new();
    for number in 0..200 {
        // One client alone does not get all that there is.
        let from = format!("127.0.2.{}", number % 20 + 1);
        let mut client = Client::connect(&from, process.public).await;
        client.ask("/hold", "").await;
        clients.push(client);
        // A connection without a request is idle, and may be closed for the next one. All that come later wait.
        if clients.len() == 80 {
            eventually("80 requests are in flight", async || blue.requests() >= 80).await;
        }
    }
    let status = process.status();
    // A listener of each worker may have one more in its hand.
    let held = status["services"]["web"]["pools"]["blue"]["in_flight"].as_u64();
    assert!(held.is_some_and(|it| (80..=82).contains(&it)), "{held:?}");
    let promoted = process.cli(&["promote", "web=green"]);
    assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    assert!(!process.log().contains("cannot accept"), "{}", process.log());
    blue.release();
    green.release();
    for client in &mut clients {
        let answer = client.answer().await;
        // What waits at blue holds files that green has need of, for a moment.
        match answer.status {
            200 => {}
            _ => assert_overloaded(&answer),
        }
        // It makes room for the next one.
        *client = Client::over(tokio::io::empty());
    }
    eventually("requests are answered again", async || {
        process.public().await.get("/", "").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn three_times_the_allowed_load_leaves_the_allowed_load_unharmed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = [\"{}\"] }}\ngreen = {{ endpoints = [\"{}\"] }}\n\
             limits.in_flight = 8\n",
            blue.address, green.address
        ))
        .start();
    let end = tokio::time::Instant::now() + Duration::from_secs(3);
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..24 {
        let public = proxy.public;
        load.spawn(async move {
            let mut client = Client::connect(client::PUBLIC, public).await;
            let (mut answered, mut refused) = (0_usize, 0_usize);
            while tokio::time::Instant::now() < end {
                let answer = client.get("/length", "").await;
                match answer.status {
                    200 => answered += 1,
                    _ => {
                        assert_overloaded(&answer);
                        refused += 1;
                    }
                }
            }
            (answered, refused)
        });
    }
    eventually("the limit was met", async || limited(&proxy, "service_in_flight").await > 0.5)
        .await;
    proxy.promote(&[("web", "green")]).await;
    let drain = proxy.call("GET", "/v1/services/web/drain?wait=30s", "", "").await.json();
    assert_eq!(drain["drained"], true);
    let (before, flipped) = (blue.requests(), green.requests());
    let sums = load.join_all().await.into_iter();
    let (answered, refused) = sums.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    assert!(refused > 0, "{answered} answered, {refused} refused");
    assert_eq!(
        answered,
        blue.requests() + green.requests(),
        "who is refused costs no endpoint anything"
    );
    assert_eq!(blue.requests(), before);
    assert!(green.requests() > flipped);
    assert_eq!(proxy.status().await["services"]["web"]["pools"]["green"]["in_flight"], 0);
}
