//! Messages arrive as they were sent.

use crate::support::{
    Client, TestProxy, Upstream,
    client::{INTERNAL, PUBLIC},
    eventually,
};

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    for _ in 0..20 {
        assert_eq!(client.get("/", "").await.text(), "blue");
    }
    assert_eq!((blue.requests(), blue.connections()), (20, 1));
    let last = client.get("/", "Connection: close\r\n").await;
    assert_eq!(last.field("connection"), Some("close"));
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let mut all = String::new();
    for number in 0..10 {
        all.push_str(&format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n{number}"
        ));
    }
    client.send(all).await;
    for number in 0..10 {
        assert_eq!(client.answer().await.text(), number.to_string());
    }
}

#[tokio::test]
async fn bodies_come_through_sized_and_chunked_and_with_trailers() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let long: String = (0..50_000).map(|it| format!("{it:06}")).collect();
    let length = long.len();
    client
        .send(format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{long}"))
        .await;
    assert!(client.answer().await.text() == long);

    client
        .send("POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: x-sum\r\n\
               Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\nx-sum: 11\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.text(), "hello world");
    assert_eq!(answer.trailers, "x-sum: 11\r\n");

    let answer = client.get("/trailers", "TE: trailers\r\n").await;
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("body", "x-sum: 10\r\n"));
    // A client that did not ask for trailers gets none.
    let answer = client.get("/trailers", "").await;
    assert_eq!((answer.text().as_str(), answer.trailers.as_str()), ("body", ""));
}

#[tokio::test]
async fn a_body_is_passed_on_whatever_the_method() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "PURGE"] {
        let head = format!("{method} /echo HTTP/1.1\r\nHost: a\r\n");
        client
            .send(format!("{head}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"))
            .await;
        assert_eq!(client.answer().await.text(), "body", "{method} chunked");
        client.send(format!("{head}Content-Length: 4\r\n\r\nbody")).await;
        assert_eq!(client.answer().await.text(), "body", "{method} sized");
    }
    assert_eq!(blue.connections(), 1);
}

#[tokio::test]
async fn an_answer_with_trailers_leaves_its_connection_to_the_next_request() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    for _ in 0..3 {
        let answer = client.get("/trailers", "TE: trailers\r\n").await;
        assert_eq!(answer.trailers, "x-sum: 10\r\n");
    }
    assert_eq!(blue.connections(), 1);
}

#[tokio::test]
async fn a_response_with_length_and_coding_is_read_by_the_coding() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let answer = client.get("/both", "").await;
    assert_eq!((answer.text().as_str(), answer.field("content-length")), ("whole", None));
    assert_eq!(client.get("/", "").await.text(), "blue");
}

#[tokio::test]
async fn an_unrequested_tunnel_is_a_502() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let answer = proxy.public().await.get("/switch", "").await;
    assert_eq!(answer.status, 502, "{}", answer.head);
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_whole_request_keeps_its_claim_for_the_rest() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    // Answered from the head alone, while the body is still to come.
    client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf").await;
    assert_eq!(client.answer().await.status, 417);
    drop(client);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let answer = client.get("/204", "").await;
    assert_eq!((answer.status, answer.field("content-length")), (204, None));
    let answer = client.get("/304", "").await;
    assert_eq!((answer.status, answer.field("etag")), (304, Some("\"1\"")));
    client.send("HEAD /length HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer_to_head().await;
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("12345")));
    // The connection is where it should be after each of them.
    assert_eq!(client.get("/", "").await.text(), "blue");
    proxy.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(blue.connections(), 3, "two answers have told of content that does not come");
}

#[tokio::test]
async fn a_request_that_expects_to_continue_is_answered_by_its_upstream() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    client.send(head("/echo")).await;
    assert_eq!(client.head().await.status, 100);
    client.send("body").await;
    assert_eq!(client.answer().await.text(), "body");
    // An upstream that does not want the body says so before a byte of it was sent.
    let mut client = proxy.public().await;
    client.send(head("/refuse")).await;
    let refused = client.answer().await;
    assert_eq!((refused.status, refused.text().as_str()), (417, "no"));
    proxy.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_upstream_down() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut slow = Client::connect_narrow("127.0.0.2", proxy.public).await;
    slow.ask("/endless", "").await;
    slow.until("\r\n\r\n").await;
    // Socket buffers take some megabytes; then the response stalls.
    let mut before = 0;
    eventually("the upstream stands still", async || {
        let standing = std::mem::replace(&mut before, blue.sent());
        tokio::time::timeout(std::time::Duration::from_millis(300), std::future::pending::<()>())
            .await
            .expect_err("only time passes");
        standing > 0 && standing == blue.sent()
    })
    .await;
    let standing = blue.sent();
    assert!(standing < 64 * 1024 * 1024, "{standing} bytes are in memory somewhere");
    // And goes on when the client does.
    slow.exactly(16 * 1024 * 1024).await;
    eventually("the upstream goes on", async || blue.sent() > standing).await;
    drop(slow);
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    client.ask("/cut", "").await;
    let head = client.head().await;
    assert_eq!((head.status, head.field("content-length")), (200, Some("100")));
    assert_eq!(client.read_to_end().await, "half", "the connection ends with what there was");
    proxy.wait_for_in_flight("web", "blue", 0).await;
    assert_eq!(proxy.get("/").await, "blue");
}

#[tokio::test]
async fn an_upstream_that_closes_without_an_answer_is_a_502() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let answer = proxy.public().await.get("/close", "").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=connection_terminated"));
    assert_eq!(blue.requests(), 1, "on a fresh connection nothing is asked twice");
}

#[tokio::test]
async fn a_connection_that_ended_while_idle_costs_no_request() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    for round in 1..=10 {
        // The upstream closes right behind its answer.
        assert_eq!(client.get("/last", "").await.text(), "blue");
        assert_eq!(blue.requests(), round);
    }
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_not_sent_twice() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    // Makes the next requests find a connection that was used before.
    assert_eq!(client.get("/", "").await.text(), "blue");
    client.send("POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(blue.requests(), 2, "a POST is sent once");
    assert_eq!(client.get("/", "").await.text(), "blue");
    client.ask("/close", "").await;
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(blue.requests(), 5, "a GET on a used connection is tried on a fresh one, once");
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let (mut dead, live) = (Upstream::start("dead").await, Upstream::start("live").await);
    let green = Upstream::start("green").await;
    dead.kill().await;
    let proxy = TestProxy::build().service("web", &[&dead, &live], &[&green]).start();
    for _ in 0..20 {
        assert_eq!(proxy.get("/").await, "live");
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nyes";
        let mut client = proxy.public().await;
        client.send(post).await;
        assert_eq!(client.answer().await.text(), "yes");
    }
    let status = proxy.status().await;
    let endpoints = &status["services"]["web"]["pools"]["blue"]["endpoints"];
    assert_eq!(endpoints[0]["health"], "down");
    assert_eq!(endpoints[1]["health"], "up");
}

#[tokio::test]
async fn a_pool_without_a_responding_endpoint_is_a_502() {
    let (mut dead, green) = (Upstream::start("dead").await, Upstream::start("green").await);
    dead.kill().await;
    let proxy = TestProxy::of(&dead, &green);
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("proxy-status"), Some("flipgate; error=connection_refused"));
    assert!(!answer.text().contains("127.0.0.1"), "the public learns no address");
    let metrics = proxy.call("GET", "/metrics", "", "").await.text();
    assert!(
        metrics
            .contains("flipgate_upstream_connect_errors_total{color=\"blue\",reason=\"refused\"")
    );
}

#[tokio::test]
async fn host_and_the_longest_path_prefix_choose_the_service() {
    let names = ["any", "exact", "suffix", "api", "deep"];
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(Upstream::start(name).await);
    }
    let [any, exact, suffix, api, deep] = &*upstreams else { panic!("five") };
    let proxy = TestProxy::build()
        .service_at("any", "*", "/", &[any], &[])
        .service_at("exact", "www.a.test", "/", &[exact], &[])
        .service_at("suffix", "*.a.test", "/", &[suffix], &[])
        .service_at("api", "www.a.test", "/api", &[api], &[])
        .service_at("deep", "www.a.test", "/api/v2", &[deep], &[])
        .start();
    let mut client = proxy.public().await;
    for (host, path, name) in [
        ("b.test", "/", "any"),
        ("a.test", "/api", "any"),
        ("x.a.test", "/api", "suffix"),
        ("y.x.A.test:8080", "/", "suffix"),
        ("www.a.test", "/apis", "exact"),
        ("www.a.test", "/api", "api"),
        ("WWW.A.TEST.", "/api/?q=/api/v2", "api"),
        ("www.a.test", "/api/v2/x", "deep"),
        ("www.a.test", "/x/../api/v2", "deep"),
        ("www.a.test", "/%61pi/%762", "deep"),
        ("www.a.test", "/api%2fv2", "exact"),
    ] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(client.answer().await.text(), name, "{host}{path}");
    }
    // The path is forwarded as the client sent it.
    assert!(deep.paths().contains(&"/x/../api/v2".to_owned()), "{:?}", deep.paths());
}

#[tokio::test]
async fn an_absolute_target_is_forwarded_in_origin_form() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    client.send("GET http://a.test/head?q=1 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    let head = client.answer().await.text();
    assert!(head.starts_with("GET /head?q=1 HTTP/1.1\r\n"), "{head}");
    client.send("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert_eq!(client.answer().await.text(), "blue");
    assert_eq!(blue.paths().last().map(String::as_str), Some("*"));
}

/// `http://a.test:80/` with `Host: a.test` was refused as a request for two hosts.
#[tokio::test]
async fn a_target_and_a_host_that_differ_by_the_default_port_are_the_same_authority() {
    let upstream = Upstream::start("blue").await;
    let proxy = TestProxy::build().service_at("web", "a.test", "/", &[&upstream], &[]).start();
    let mut client = proxy.public().await;
    for (target, host, told) in [
        ("http://a.test:80", "a.test", "a.test:80"),
        ("http://a.test", "a.test:80", "a.test"),
        ("http://a.test:", "A.TEST", "a.test:"),
        ("http://a.test", "a.test:", "a.test"),
        ("https://a.test:443", "a.test", "a.test:443"),
        ("https://a.test", "a.test:443", "a.test"),
    ] {
        client.send(format!("GET {target}/head HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{target} {host}");
        let seen = answer.text();
        // One Host, which is that of the target: RFC 9112, section 3.2.2.
        let hosts: Vec<_> = seen.lines().filter(|it| it.starts_with("Host: ")).collect();
        assert_eq!(hosts, [format!("Host: {told}")], "{target} {host}");
    }
    let requests = upstream.requests();
    for (target, host) in [
        ("http://a.test:443", "a.test"),
        ("https://a.test:80", "a.test"),
        ("http://a.test", "a.test:8080"),
        ("http://a.test:80", "b.test:80"),
    ] {
        let mut client = proxy.public().await;
        client.send(format!("GET {target}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let answer = client.read_to_end().await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{target} {host}: {answer}");
    }
    assert_eq!(upstream.requests(), requests);
}

#[tokio::test]
async fn an_old_client_gets_an_answer_that_it_can_read() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    client.send("POST /echo HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nold").await;
    let answer = client.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nold") && !answer.contains("chunked"), "{answer}");
}

#[tokio::test]
async fn client_fields_are_added_and_hop_by_hop_fields_removed() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut client = proxy.public().await;
    let fields = "Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\n\
                  X-Forwarded-For: 10.0.0.1\r\nX-Request-Id: mine\r\nAuthorization: Bearer jwt\r\n\
                  Cookie: session=1\r\n";
    let head = client.get("/head", fields).await.text().to_ascii_lowercase();
    for gone in ["x-hop", "keep-alive", "upgrade", "10.0.0.1", "mine"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    for there in [
        "\r\nhost: a.test\r\n",
        "\r\nx-forwarded-for: 127.0.0.2\r\n",
        "\r\nx-forwarded-host: a.test\r\n",
        "\r\nx-forwarded-proto: http\r\n",
        "\r\nforwarded: for=127.0.0.2;host=a.test;proto=http\r\n",
        "\r\nauthorization: bearer jwt\r\n",
        "\r\ncookie: session=1\r\n",
        "\r\nx-request-id: ",
        "\r\ntraceparent: 00-",
    ] {
        assert!(head.contains(there), "{there:?} not in {head}");
    }
    let answer = client.get("/hop", "").await;
    assert_eq!(answer.fields("set-cookie").collect::<Vec<_>>(), ["a=b", "c=d"]);
    for gone in ["x-secret", "keep-alive", "flipgate-color", "proxy-status"] {
        assert_eq!(answer.field(gone), None);
    }
}

/// Every request of the public was marked as sampled, so that whatever stands behind kept a trace of each.
#[tokio::test]
async fn a_trace_continues_behind_a_trusted_proxy_and_begins_unsampled_otherwise() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let blue = Upstream::start("blue").await;
    let start = |more: &str| {
        let trusted = "trusted_proxies = [\"127.0.0.3/32\"]";
        let with = format!("[clients]\ninternal = [\"127.0.0.1/32\"]\n{trusted}\n{more}");
        TestProxy::build().with(&with).service("web", &[&blue], &[]).start()
    };
    let ask = async |proxy: &TestProxy, from: &str, fields: &str| {
        let head = Client::connect(from, proxy.public).await.get("/head", fields).await.text();
        let told = |name: &str| -> Vec<String> {
            let lines = head.lines().filter_map(|it| it.split_once(": "));
            let named = lines.filter(|it| it.0.eq_ignore_ascii_case(name));
            named.map(|it| it.1.to_owned()).collect()
        };
        (told("traceparent"), told("tracestate"))
    };
    let both = format!("traceparent: {PARENT}\r\ntracestate: a=1,b=2\r\n");
    let (replaced, kept) = (start(""), start("trace_context = \"keep\""));
    let is_new = |parents: &[String]| {
        let [parent] = parents else { panic!("one: {parents:?}") };
        assert!(parent.len() == 55 && parent.starts_with("00-"), "{parent}");
        assert!(parent.ends_with("-00") && !parent.contains("0af7651916cd"), "{parent}");
    };
    for from in [PUBLIC, INTERNAL] {
        let (parents, states) = ask(&replaced, from, &both).await;
        is_new(&parents);
        assert!(states.is_empty(), "{states:?}");
        is_new(&ask(&replaced, from, "").await.0);
        let unchanged = (vec![PARENT.to_owned()], vec!["a=1,b=2".to_owned()]);
        assert_eq!(ask(&kept, from, &both).await, unchanged);
        // An invalid `Traceparent` is not forwarded, and neither is its `Tracestate`.
        for odd in [
            "tracestate: a=1\r\n".to_owned(),
            "traceparent: 00-0-0-01\r\ntracestate: a=1\r\n".to_owned(),
            format!("traceparent: {}\r\ntracestate: a=1\r\n", PARENT.replace('f', "F")),
            format!("{both}traceparent: {PARENT}\r\n"),
            format!("traceparent: 00-{}-b7ad6b7169203331-01\r\n", "0".repeat(32)),
            format!("traceparent: {}\r\n", PARENT.replace("00-", "ff-")),
            format!("traceparent: {PARENT}-x\r\n"),
        ] {
            let (parents, states) = ask(&kept, from, &odd).await;
            is_new(&parents);
            assert!(states.is_empty(), "{odd}: {states:?}");
        }
    }
    for proxy in [&replaced, &kept] {
        let unchanged = (vec![PARENT.to_owned()], vec!["a=1,b=2".to_owned()]);
        assert_eq!(ask(proxy, "127.0.0.3", &both).await, unchanged);
        let (parents, states) = ask(proxy, "127.0.0.3", "tracestate: a=1\r\n").await;
        is_new(&parents);
        assert!(states.is_empty(), "{states:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = TestProxy::of(&blue, &green);
    let mut before = proxy.public().await;
    before.ask("/wait", "").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    drop(before);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    let mut in_between = proxy.public().await;
    in_between.ask("/hold", "").await;
    in_between.until("begins").await;
    drop(in_between);
    proxy.wait_for_in_flight("web", "blue", 0).await;
    let metrics = proxy.call("GET", "/metrics", "", "").await.text();
    assert!(
        metrics.contains("flipgate_requests_total{code=\"499\",color=\"blue\",service=\"web\"} 1"),
        "{metrics}"
    );
}
