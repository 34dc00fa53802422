//! Which requests are retried, and which never.

use std::{collections::HashMap, net::SocketAddr};

use crate::support::{
    Answer, Client, MisbehavingUpstream, Misbehavior, TestProxy, Upstream, Walled, client,
    eventually,
};

fn proxy(blue: &[String], policy: &str) -> TestProxy {
    TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = {blue:?} }}\nhealth.interval = \"24h\"\n{policy}\n"
        ))
        .start()
}

async fn post(client: &mut Client, path: &str) -> Answer {
    client
        .send(format!("POST {path} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\nbody"))
        .await;
    client.answer().await
}

async fn retries(proxy: &TestProxy, reason: &str) -> f64 {
    let labels = format!("color=\"blue\",reason=\"{reason}\",service=\"web\"");
    proxy.metric(&format!("flipgate_retries_total{{{labels}}}")).await
}

#[tokio::test]
async fn an_endpoint_that_closes_idle_connections_causes_no_502() {
    let (mut one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    let proxy = proxy(&[one.address.to_string(), two.address.to_string()], "");
    // Many connections wait at both.
    let mut clients = Vec::new();
    for _ in 0..16 {
        clients.push(proxy.public().await);
    }
    for client in &mut clients {
        client.ask("/", "").await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    assert!(one.requests() > 0 && two.requests() > 0);
    one.kill().await;
    for client in &mut clients {
        let answer = post(client, "/").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "two"));
    }
}

#[tokio::test]
async fn a_pool_of_ten_of_which_three_misbehave_answers_every_get() {
    let manners = [
        Misbehavior::Refuses,
        Misbehavior::Silent,
        Misbehavior::ClosesBehindHead,
        Misbehavior::Resets,
        Misbehavior::Babbles,
        Misbehavior::Unavailable,
        Misbehavior::Slow,
        Misbehavior::AnswersTwice,
        Misbehavior::WrongLength,
    ];
    for manners in manners.chunks(3) {
        let mut good = Vec::new();
        for _ in 0..7 {
            good.push(Upstream::start("good").await);
        }
        let mut bad = Vec::new();
        for manner in manners {
            bad.push(MisbehavingUpstream::start(*manner).await);
        }
        let of_good = good.iter().map(|it| it.address.to_string());
        let all: Vec<_> = of_good.chain(bad.iter().map(|it| it.address.to_string())).collect();
        let proxy = proxy(
            &all,
            "retry = { on = [\"503\", \"closed\", \"502\"], try_timeout = \"500ms\", budget = 100, tries = 4 }",
        );
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut clients = Vec::new();
        for _ in 0..20 {
            clients.push(proxy.public().await);
        }
        for _ in 0..10 {
            for client in &mut clients {
                client.ask("/", "").await;
            }
            for client in &mut clients {
                let answer = client.answer().await;
                assert_eq!(answer.status, 200, "{manners:?}: {}", answer.text());
                *seen.entry(answer.text()).or_default() += 1;
            }
        }
        assert!(seen.keys().all(|it| it == "good" || it == "faulty"), "{manners:?}: {seen:?}");
        let last = [Misbehavior::Slow, Misbehavior::AnswersTwice, Misbehavior::WrongLength];
        assert_eq!(seen.contains_key("faulty"), *manners == last, "{seen:?}");
    }
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_begun_again() {
    let (bad, good) = (
        MisbehavingUpstream::start(Misbehavior::ClosesInBody).await,
        Upstream::start("good").await,
    );
    let all = [bad.address.to_string(), good.address.to_string()];
    let policy = "retry.on = [\"closed\", \"5xx\"]\nejection = { failures = 3, base = \"1h\", longest = \"1h\" }";
    let proxy = proxy(&all, policy);
    // Each one that breaks off is seen to, and after three of them there are no more.
    let mut broken = 0;
    while proxy.endpoint("web", "blue", 0).await.get("ejected").is_none() {
        let mut client = proxy.public().await;
        client.ask("/", "").await;
        let head = client.head().await;
        match head.field("content-length") {
            Some("9") => {
                assert_eq!(client.read_to_end().await, "half");
                broken += 1;
            }
            _ => assert_eq!(client.rest(head).await.text(), "good"),
        }
    }
    assert_eq!((broken, bad.requests()), (3, 3));
    let reason = proxy.endpoint("web", "blue", 0).await["ejected"]["reason"].to_string();
    assert!(reason.contains("incomplete response"), "{reason}");
}

#[tokio::test]
async fn an_unrequested_response_is_given_to_no_other_request() {
    for manner in [Misbehavior::AnswersTwice, Misbehavior::AnswersUnasked, Misbehavior::WrongLength]
    {
        let bad = MisbehavingUpstream::start(manner).await;
        let proxy = proxy(&[bad.address.to_string()], "");
        let mut client = proxy.public().await;
        for _ in 0..5 {
            let answer = client.get("/", "").await;
            assert_eq!((answer.status, answer.text().as_str()), (200, "faulty"));
        }
        // What was answered before it was asked may be read after its answer has arrived.
        let what = format!("{manner:?}: each has its own connection");
        eventually(&what, async || bad.requests() == 5).await;
    }
}

#[tokio::test]
async fn a_get_that_was_closed_on_goes_elsewhere_once() {
    for manner in [Misbehavior::ClosesBehindHead, Misbehavior::Resets] {
        let [one, two] =
            [MisbehavingUpstream::start(manner).await, MisbehavingUpstream::start(manner).await];
        let good = Upstream::start("good").await;
        let of = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
        let alone = proxy(&of(&[one.address]), "");
        assert_eq!(
            alone.public().await.get("/", "").await.status,
            502,
            "there is no other endpoint"
        );
        let policy = "ejection.failures = \"none\"\nbalance.policy = \"round_robin\"";
        let house_of_two = proxy(&of(&[one.address, good.address]), policy);
        for _ in 0..10 {
            assert_eq!(house_of_two.get("/").await, "good", "{manner:?}");
        }
        let before = one.requests() + two.requests();
        let both = proxy(&of(&[one.address, two.address]), policy);
        assert_eq!(both.public().await.get("/", "").await.status, 502);
        assert_eq!(
            one.requests() + two.requests(),
            before + 2,
            "{manner:?}: one more, and no more"
        );
    }
}

#[tokio::test]
async fn a_request_that_may_have_had_an_effect_is_never_retried() {
    for manner in [
        Misbehavior::ClosesBehindHead,
        Misbehavior::Resets,
        Misbehavior::Unavailable,
        Misbehavior::Silent,
    ] {
        let (bad, good) = (MisbehavingUpstream::start(manner).await, Upstream::start("good").await);
        let all = [bad.address.to_string(), good.address.to_string()];
        let retry = "retry = { on = [\"5xx\", \"closed\"], try_timeout = \"500ms\" }\nejection.failures = \"none\"";
        let proxy = TestProxy::build()
            .with("timeouts.upstream_response = \"1s\"")
            .services(&format!("[service.web]\nblue = {{ endpoints = {all:?} }}\n{retry}\n"))
            .start();
        let mut before = 0;
        // Until it has met the bad one.
        while bad.requests() == 0 {
            let answer = post(&mut proxy.public().await, "/").await;
            match bad.requests() {
                0 => assert_eq!(answer.text(), "good"),
                _ => assert!(matches!(answer.status, 502..=504), "{manner:?} {}", answer.status),
            }
            before += usize::from(bad.requests() == 0);
        }
        assert_eq!((good.requests(), bad.requests()), (before, 1), "{manner:?}");
    }
}

#[tokio::test]
async fn without_a_word_of_the_service_an_answer_is_an_answer() {
    let (bad, good) =
        (MisbehavingUpstream::start(Misbehavior::Unavailable).await, Upstream::start("good").await);
    let all = [bad.address.to_string(), good.address.to_string()];
    let proxy = proxy(&all, "");
    let mut statuses = Vec::new();
    while !statuses.contains(&503) {
        statuses.push(proxy.public().await.get("/", "").await.status);
    }
    assert_eq!(bad.requests(), 1);
    assert!(retries(&proxy, "status").await < 0.1);
}

#[tokio::test]
async fn no_more_is_tried_again_than_the_budget_has() {
    let (bad, good) =
        (MisbehavingUpstream::start(Misbehavior::Unavailable).await, Upstream::start("good").await);
    let all = [bad.address.to_string(), good.address.to_string()];
    let proxy = proxy(
        &all,
        "retry = { on = [\"503\"], budget = 10, budget_min = 0 }\nejection.failures = \"none\"",
    );
    let mut statuses: HashMap<u16, usize> = HashMap::new();
    let mut client = proxy.public().await;
    for _ in 0..400 {
        *statuses.entry(client.get("/", "").await.status).or_default() += 1;
    }
    // A tenth of 400 requests; what is not there yet cannot be spent.
    let tried_again = retries(&proxy, "status").await;
    assert!((20.0..=40.0).contains(&tried_again), "{tried_again}");
    assert!(statuses[&503] > 50, "{statuses:?}");
    let left = &proxy.status().await["services"]["web"]["pools"]["blue"]["retry_budget"];
    assert!(left.as_u64().expect("a number") <= 1, "{left}");
}

#[tokio::test]
async fn without_another_endpoint_the_original_response_is_sent() {
    let bad = MisbehavingUpstream::start(Misbehavior::Unavailable).await;
    let proxy = proxy(&[bad.address.to_string()], "retry.on = [\"503\"]");
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!((answer.status, answer.text().as_str(), bad.requests()), (503, "busy", 1));
    assert_eq!(answer.field("proxy-status"), None, "it is the application's own");
}

#[tokio::test]
async fn a_slow_endpoint_is_left_for_another_one() {
    let (bad, good) =
        (MisbehavingUpstream::start(Misbehavior::Silent).await, Upstream::start("good").await);
    let all = [bad.address.to_string(), good.address.to_string()];
    let proxy = proxy(&all, "retry.try_timeout = \"500ms\"");
    while bad.requests() == 0 {
        assert_eq!(proxy.get("/").await, "good");
    }
    assert!((retries(&proxy, "timeout").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_request_leaves_an_endpoint_of_which_nothing_is_heard() {
    let (mut walled, good) = (Walled::open(), Upstream::start("good").await);
    let all = [walled.address.to_string(), good.address.to_string()];
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = {all:?} }}\n\
             health = {{ interval = \"300ms\", timeout = \"200ms\" }}\n\
             balance.policy = \"round_robin\"\n"
        ))
        .start();
    let (mut gets, mut posts) = (Vec::new(), Vec::new());
    let (mut held, mut kinds) = (Vec::new(), Vec::new());
    // Some of both kinds are with the one that will not be heard of again.
    while !(kinds.contains(&'G') && kinds.contains(&'P')) {
        let mut get = proxy.public().await;
        get.ask("/", "").await;
        let mut post = proxy.public().await;
        post.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").await;
        gets.push(get);
        posts.push(post);
        let soon = std::time::Duration::from_millis(100);
        while let Ok((stream, head)) = tokio::time::timeout(soon, walled.accept()).await {
            kinds.push(head.chars().next().expect("a method"));
            held.push(stream);
        }
    }
    walled.shut().await;
    proxy.wait_for_health("blue", 0, "down").await;
    for mut get in gets {
        assert_eq!(get.answer().await.text(), "good");
    }
    assert!(retries(&proxy, "silent").await > 0.9);
    // What may have been acted on waits for its own answer.
    let waiting = proxy.endpoint("web", "blue", 0).await["in_flight"].as_u64();
    assert_eq!(waiting, Some(kinds.iter().filter(|it| **it == 'P').count() as u64));
    for mut stream in held {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
        drop(tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await);
    }
    for mut post in posts {
        assert!(matches!(post.answer().await.text().as_str(), "good" | "late"));
    }
}

#[tokio::test]
async fn each_of_ten_endpoints_is_replaced_under_load_and_nothing_is_lost() {
    let mut old = Vec::new();
    let mut new = Vec::new();
    for _ in 0..10 {
        old.push(Upstream::start("old").await);
        new.push(Upstream::start("new").await);
    }
    let mut endpoints: Vec<_> = old.iter().map(|it| it.address.to_string()).collect();
    let proxy = proxy(&endpoints, "");
    let (stop, _) = tokio::sync::watch::channel(false);
    let mut load = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (public, stop) = (proxy.public, stop.subscribe());
        load.spawn(async move {
            let mut client = Client::connect(client::PUBLIC, public).await;
            let mut answers = 0_usize;
            while !*stop.borrow() || answers == 0 {
                let answer = match (number + answers) % 2 {
                    0 => client.get("/", "").await,
                    _ => post(&mut client, "/").await,
                };
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert!(matches!(answer.text().as_str(), "old" | "new"));
                answers += 1;
            }
            answers
        });
    }
    for (place, old) in old.iter_mut().enumerate() {
        endpoints[place] = new[place].address.to_string();
        let body = serde_json::json!({"endpoints": endpoints, "force": true}).to_string();
        let set = proxy.call("PUT", "/v1/services/web/pools/blue", "", &body).await;
        assert_eq!(set.status, 200, "{}", set.text());
        // No request is left at the endpoint that goes.
        let drain = "/v1/services/web/drain?color=blue&wait=30s";
        let drained = proxy.call("GET", drain, "", "").await.json();
        assert_eq!((&drained["in_flight"], &drained["drained"]), (&0.into(), &false.into()));
        old.kill().await;
    }
    let before: usize = new.iter().map(Upstream::requests).sum();
    eventually("the new ones answer", async || {
        new.iter().map(Upstream::requests).sum::<usize>() > before + 100
    })
    .await;
    stop.send_replace(true);
    let answers = load.join_all().await;
    assert!(answers.iter().all(|it| *it > 0), "{answers:?}");
    assert!(new.iter().all(|it| it.requests() > 0));
}

#[tokio::test]
async fn a_retried_request_does_not_block_itself() {
    let bad = MisbehavingUpstream::start(Misbehavior::ClosesBehindSecondHead).await;
    let limits = "limits = { endpoint_requests = 1, queue = 0 }";
    let proxy = proxy(&[bad.address.to_string()], limits);
    let mut client = proxy.public().await;
    for count in 1..=3 {
        let answer = client.get("/", "").await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "faulty"), "{count}");
    }
    assert_eq!(bad.requests(), 5, "the second and the third were sent twice");
}

#[tokio::test]
async fn a_response_is_not_discarded_for_a_retry_without_a_permit() {
    let (bad, good) =
        (MisbehavingUpstream::start(Misbehavior::Unavailable).await, Upstream::start("good").await);
    let all = [bad.address.to_string(), good.address.to_string()];
    let policy = "retry.on = [\"503\"]\nejection.failures = \"none\"\n\
                  limits = { endpoint_requests = 1, queue = 0 }";
    let proxy = proxy(&all, policy);
    // Another request holds the only permit at the good endpoint.
    let mut holder = proxy.public().await;
    loop {
        holder.ask("/hold", "").await;
        let head = holder.head().await;
        if head.status == 200 {
            break;
        }
        holder.rest(head).await;
    }
    let answer = proxy.public().await.get("/", "").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    good.release();
}

#[tokio::test]
async fn a_response_is_not_given_up_for_an_unhealthy_endpoint() {
    let (bad, ill) = (
        MisbehavingUpstream::start(Misbehavior::Unavailable).await,
        MisbehavingUpstream::start(Misbehavior::Silent).await,
    );
    let all = [bad.address.to_string(), ill.address.to_string()];
    let proxy = TestProxy::build()
        .services(&format!(
            "[service.web]\nblue = {{ endpoints = {all:?} }}\nretry.on = [\"503\"]\nbalance.panic = 0\n\
             ejection.failures = \"none\"\n\
             health = {{ path = \"/\", status = [\"200-599\"], interval = \"200ms\", timeout = \"100ms\" }}\n"
        ))
        .start();
    proxy.wait_for_health("blue", 0, "up").await;
    proxy.wait_for_health("blue", 1, "down").await;
    for _ in 0..10 {
        let answer = proxy.public().await.get("/", "").await;
        assert_eq!((answer.status, answer.text().as_str()), (503, "busy"));
    }
    assert!(retries(&proxy, "status").await < 0.1);
}

#[tokio::test]
async fn a_slow_client_is_not_the_fault_of_the_endpoint() {
    let good = Upstream::start("good").await;
    let stalling = MisbehavingUpstream::start(Misbehavior::StallsInBody).await;
    for (address, is_blamed) in [(good.address, false), (stalling.address, true)] {
        let other = Upstream::start("other").await;
        let proxy = TestProxy::build()
            .with("timeouts = { request = \"1s\", upstream_stall = \"500ms\" }")
            .services(&format!(
                "[service.web]\nblue = {{ endpoints = [\"{address}\", \"{}\"] }}\n\
                 balance = {{ policy = \"round_robin\" }}\n\
                 ejection = {{ failures = 1, base = \"1h\", longest = \"1h\" }}\n",
                other.address
            ))
            .start();
        proxy.wait_for_health("blue", 0, "up").await;
        let mut clients = Vec::new();
        for _ in 0..4 {
            let mut client = proxy.public().await;
            match is_blamed {
                true => client.ask("/", "").await,
                // Its body never comes.
                false => {
                    let head =
                        "POST /echo HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\nhalf";
                    client.send(head).await;
                }
            }
            clients.push(client);
        }
        for mut client in clients {
            let head = client.head().await;
            assert_eq!(head.status, if is_blamed { 200 } else { 504 });
        }
        let is_ejected = async || proxy.endpoint("web", "blue", 0).await.get("ejected").is_some();
        match is_blamed {
            true => eventually("it is ejected", is_ejected).await,
            false => assert!(!is_ejected().await),
        }
    }
}
