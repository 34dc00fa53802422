//! Requests that the client abandons: what a drain waits for, and how many there may be.

use std::time::Duration;

use h2::Reason;
use socket2::SockRef;

use crate::support::{
    Client, Http2, Http2Upstream, Process, Scripted, TestProxy, Upstream,
    client::{self, PUBLIC},
    eventually,
    frames::{END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, fields, frame},
    http2,
};

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// The stream is reset.
    ResetStream,
    /// The connection of the stream is closed.
    CloseBelowStream,
}

/// A client that leaves before its response is complete.
enum DepartingClient {
    Http1(Client),
    Http2(Http2, http2::Call),
}

const WAYS: [Way; 4] = [Way::Close, Way::Reset, Way::ResetStream, Way::CloseBelowStream];

const POST: &str = "POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";

impl DepartingClient {
    /// A client that has sent `body`, which is all of it if it has four bytes.
    async fn post(proxy: &TestProxy, way: Way, path: &str, body: &str) -> Self {
        match way {
            Way::Close | Way::Reset => {
                let stream = client::connect(PUBLIC, proxy.public).await;
                let linger = matches!(way, Way::Reset).then_some(Duration::ZERO);
                SockRef::from(&stream).set_linger(linger).expect("a live socket");
                let mut client = Client::over(stream);
                client.send(format!("{}{body}", POST.replace("/wait", path))).await;
                Self::Http1(client)
            }
            Way::ResetStream | Way::CloseBelowStream => {
                let mut client = Http2::connect(PUBLIC, proxy.public).await;
                let mut call = client.ask("POST", path, "content-length: 4", false).await;
                call.push(body.as_bytes(), body.len() == 4).await;
                Self::Http2(client, call)
            }
        }
    }

    async fn until(&mut self, text: &str) {
        match self {
            Self::Http1(client) => drop(client.until(text).await),
            Self::Http2(_, call) => {
                call.head().await.expect("an answer");
                call.until(text).await;
            }
        }
    }

    /// Leaves. The caller keeps the returned connection open.
    fn leave(self, way: Way) -> Option<Http2> {
        match self {
            Self::Http2(client, mut call) if matches!(way, Way::ResetStream) => {
                call.sending.send_reset(Reason::CANCEL);
                Some(client)
            }
            _ => None,
        }
    }
}

fn proxy(blue: &Upstream, green: &Upstream, policy: &str) -> TestProxy {
    TestProxy::build().service("web", &[blue], &[green]).services(policy).start()
}

fn abandoned(policy: &str) -> String {
    format!("[service.web.drain]\nabandoned = {policy:?}\n")
}

/// Waits until so many requests were counted with this code: abandoned ones are as soon as that is known.
async fn counted(proxy: &TestProxy, code: u16, count: f64) {
    let series =
        format!("flipgate_requests_total{{code=\"{code}\",color=\"blue\",service=\"web\"}}");
    let what = format!("{count} with {code}");
    eventually(&what, async || proxy.metric(&series).await == count).await;
}

async fn drained(proxy: &TestProxy) {
    eventually("drained", async || proxy.drain("web").await["drained"] == true).await;
}

/// Nothing changes by itself: a request that is held is so however often that is asked.
async fn is_held(proxy: &TestProxy) {
    let drain = proxy.call("GET", "/v1/services/web/drain?wait=200ms", "", "").await.json();
    assert_eq!((&drain["drained"], &drain["in_flight"]), (&false.into(), &1.into()), "{drain}");
}

#[tokio::test]
async fn with_cut_a_request_ends_with_its_client() {
    for way in WAYS {
        for policy in ["", &abandoned("cut")] {
            let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
            let proxy = proxy(&blue, &green, policy);
            let asker = DepartingClient::post(&proxy, way, "/wait", "work").await;
            eventually("the request arrived", async || blue.whole_requests() == 1).await;
            let _kept = asker.leave(way);
            proxy.promote(&[("web", "green")]).await;
            // The application still works on it.
            drained(&proxy).await;
            counted(&proxy, 499, 1.0).await;
        }
    }
}

#[tokio::test]
async fn with_wait_a_request_ends_with_its_answer() {
    for way in WAYS {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let proxy = proxy(&blue, &green, &abandoned("wait"));
        let asker = DepartingClient::post(&proxy, way, "/wait", "work").await;
        eventually("the request arrived", async || blue.whole_requests() == 1).await;
        let _kept = asker.leave(way);
        counted(&proxy, 499, 1.0).await;
        proxy.promote(&[("web", "green")]).await;
        is_held(&proxy).await;
        blue.release();
        drained(&proxy).await;
        counted(&proxy, 499, 1.0).await;
        assert_eq!(blue.requests(), 1, "{way:?}");
    }
}

#[tokio::test]
async fn with_wait_an_answer_that_has_begun_is_awaited_to_its_end() {
    for way in WAYS {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let proxy = proxy(&blue, &green, &abandoned("wait"));
        let mut asker = DepartingClient::post(&proxy, way, "/hold", "work").await;
        asker.until("begins").await;
        let _kept = asker.leave(way);
        counted(&proxy, 200, 1.0).await;
        proxy.promote(&[("web", "green")]).await;
        is_held(&proxy).await;
        blue.release();
        drained(&proxy).await;
    }
}

#[tokio::test]
async fn with_wait_a_request_that_was_not_sent_as_a_whole_ends_with_its_client() {
    for way in WAYS {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let proxy = proxy(&blue, &green, &abandoned("wait"));
        let asker = DepartingClient::post(&proxy, way, "/wait", "wo").await;
        eventually("it begins", async || blue.requests() == 1).await;
        let _kept = asker.leave(way);
        proxy.promote(&[("web", "green")]).await;
        drained(&proxy).await;
        assert_eq!(blue.whole_requests(), 0, "{way:?}");
    }
}

#[tokio::test]
async fn the_wait_is_bounded_by_the_limits_for_a_response() {
    for (path, code, timeouts) in [
        ("/wait", 499, "upstream_response = \"3s\""),
        ("/wait", 499, "request = \"3s\""),
        ("/hold", 200, "upstream_stall = \"3s\""),
        ("/hold", 200, "request = \"3s\""),
    ] {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let policy = format!("{}[service.web.timeouts]\n{timeouts}\n", abandoned("wait"));
        let proxy = proxy(&blue, &green, &policy);
        let mut asker = DepartingClient::post(&proxy, Way::Reset, path, "work").await;
        eventually("the request arrived", async || blue.whole_requests() == 1).await;
        if path == "/hold" {
            asker.until("begins").await;
        }
        asker.leave(Way::Reset);
        counted(&proxy, code, 1.0).await;
        proxy.promote(&[("web", "green")]).await;
        // Never released.
        drained(&proxy).await;
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_awaited_for_ever() {
    // By its kind, at once; and by its bytes.
    let events =
        "HTTP/1.1 200 OK\r\nContent-Type: text/Event-Stream; charset=utf-8\r\n\r\ndata: begins\n\n";
    let events = Scripted::start(events).await;
    let endless = Upstream::start("endless").await;
    for (address, path, text) in
        [(events.address, "/wait", "begins"), (endless.address, "/endless", "xx")]
    {
        let proxy = TestProxy::build().service_of("web", "*", "/", &[address], &[address]);
        let proxy = proxy.services(&abandoned("wait")).start();
        let mut asker = DepartingClient::post(&proxy, Way::Reset, path, "work").await;
        asker.until(text).await;
        asker.leave(Way::Reset);
        proxy.promote(&[("web", "green")]).await;
        drained(&proxy).await;
    }
    events.left().await;
}

#[tokio::test]
async fn a_request_without_a_client_is_not_sent_again() {
    for stays in [false, true] {
        let mut blue = [Upstream::start("one").await, Upstream::start("two").await];
        let green = Upstream::start("green").await;
        let proxy = TestProxy::build().service("web", &blue.each_ref(), &[&green]);
        let proxy = proxy.services(&abandoned("wait")).start();
        let mut asking = proxy.public().await;
        asking.ask("/wait", "").await;
        let mut client = Some(asking);
        let whole = |blue: &[Upstream; 2]| blue.each_ref().map(Upstream::whole_requests);
        eventually("the requests arrived", async || whole(&blue) != [0, 0]).await;
        if whole(&blue) == [0, 1] {
            blue.reverse();
        }
        if !stays {
            client = None;
            counted(&proxy, 499, 1.0).await;
        }
        proxy.promote(&[("web", "green")]).await;
        is_held(&proxy).await;
        let [first, other] = &mut blue;
        first.kill().await;
        if stays {
            eventually("the other endpoint has it", async || other.whole_requests() == 1).await;
            other.release();
        }
        drained(&proxy).await;
        assert_eq!(other.requests(), usize::from(stays));
        drop(client);
    }
}

#[tokio::test]
async fn a_client_that_has_closed_its_sending_side_is_not_kept_waiting() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let proxy = proxy(&blue, &green, &abandoned("wait"));
    let mut client = proxy.public().await;
    client.ask("/wait", "").await;
    eventually("the requests arrived", async || blue.whole_requests() == 1).await;
    client.finish().await;
    assert_eq!(client.read_to_end().await, "");
    proxy.promote(&[("web", "green")]).await;
    is_held(&proxy).await;
    blue.release();
    drained(&proxy).await;
}

/// A client that takes nothing of its answer is given up, and the answer goes on.
#[tokio::test]
async fn with_wait_the_response_to_a_stalled_client_is_read() {
    for way in [Way::Reset, Way::ResetStream] {
        let blue = Upstream::start("blue").await;
        let proxy =
            TestProxy::build().with("timeouts.stall = \"1s\"").service("web", &[&blue], &[]);
        let proxy = proxy.services(&abandoned("wait")).start();
        let mut asker = DepartingClient::post(&proxy, way, "/endless", "work").await;
        asker.until("xx").await;
        // More than all buffers on the way take.
        eventually("it is read", async || blue.sent() >= 16 * 1024 * 1024).await;
        proxy.wait_for_in_flight("web", "blue", 0).await;
    }
}

#[tokio::test]
async fn a_request_without_a_client_counts_for_the_limits() {
    for (policy, status) in [("wait", 503), ("cut", 200)] {
        let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
        let limits = "[service.web.limits]\nin_flight = 1\n";
        let proxy = proxy(&blue, &green, &format!("{}{limits}", abandoned(policy)));
        let asker = DepartingClient::post(&proxy, Way::Reset, "/wait", "work").await;
        eventually("the request arrived", async || blue.whole_requests() == 1).await;
        asker.leave(Way::Reset);
        counted(&proxy, 499, 1.0).await;
        if policy == "cut" {
            proxy.wait_for_in_flight("web", "blue", 0).await;
        }
        assert_eq!(proxy.public().await.get("/", "").await.status, status);
        blue.release();
        proxy.wait_for_in_flight("web", "blue", 0).await;
        assert_eq!(proxy.public().await.get("/", "").await.status, 200);
    }
}

/// A client that opened a connection, asked, left, and did so again, once had as many requests in flight as there
/// may be of all clients.
#[tokio::test]
async fn abandoned_requests_of_one_client_have_a_limit() {
    let blue = Upstream::start("blue").await;
    let proxy =
        TestProxy::build().service("web", &[&blue], &[]).services(&abandoned("wait")).start();
    for round in 1..=3 {
        let mut client = Http2::connect(PUBLIC, proxy.public).await;
        let mut calls = Vec::new();
        for _ in 0..60 {
            let mut call = client.ask("POST", "/wait", "content-length: 4", false).await;
            call.push(b"work", true).await;
            calls.push(call);
        }
        eventually("the requests arrived", async || blue.whole_requests() == 60 * round).await;
        drop((client, calls));
        let left = f64::from(60 * u32::try_from(round).expect("a few"));
        counted(&proxy, 499, left).await;
    }
    proxy.wait_for_in_flight("web", "blue", 100).await;
    assert_eq!(proxy.get("/").await, "blue");
    blue.release();
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn resets_are_counted_when_they_come_whatever_is_awaited() {
    const CANCEL: u32 = 8;
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build().with("limits.h2_resets = 20").service("web", &[&blue], &[]);
    let proxy = proxy.services(&abandoned("wait")).start();
    let mut frames = Frames::connect(PUBLIC, proxy.public).await;
    let wait =
        [(":method", "GET"), (":scheme", "https"), (":path", "/wait"), (":authority", "localhost")];
    let mut turns = 0;
    for stream in (0..60).map(|it| 2 * it + 1) {
        frames.try_send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(&wait))).await;
        // One that was not sent to the endpoint would end at once.
        eventually("the requests arrived", async || {
            blue.whole_requests() > turns || !frames.is_alive().await
        })
        .await;
        if blue.whole_requests() == turns {
            break;
        }
        frames.try_send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())).await;
        turns += 1;
    }
    assert!((20..60).contains(&turns), "{turns}");
    // What it has asked for is in flight all the same.
    proxy.wait_for_in_flight("web", "blue", turns as u64).await;
    blue.release();
    proxy.wait_for_in_flight("web", "blue", 0).await;
}

#[tokio::test]
async fn an_application_that_speaks_http2_is_awaited_too() {
    let cases = ["wait", "cut"].map(|it| [(it, Way::Reset), (it, Way::ResetStream)]);
    for (policy, way) in cases.into_iter().flatten() {
        let (go, _) = tokio::sync::watch::channel(false);
        let (come, mut asked) = tokio::sync::watch::channel(false);
        let released = go.clone();
        let upstream = Http2Upstream::start(move |request, response| {
            let (mut released, come) = (released.subscribe(), come.clone());
            async move {
                http2::read(&mut request.into_body()).await;
                come.send_replace(true);
                if released.wait_for(|it| *it).await.is_ok() {
                    http2::say(response, "done");
                }
            }
        })
        .await;
        let pool = format!("{{ endpoints = [\"{}\"], protocol = \"h2\" }}", upstream.address);
        let proxy = TestProxy::build()
            .services(&format!(
                "[service.web]\nblue = {pool}\ngreen = {pool}\n{}",
                abandoned(policy)
            ))
            .start();
        let asker = DepartingClient::post(&proxy, way, "/wait", "work").await;
        asked.wait_for(|it| *it).await.expect("asked");
        let _kept = asker.leave(way);
        counted(&proxy, 499, 1.0).await;
        proxy.promote(&[("web", "green")]).await;
        if policy == "wait" {
            is_held(&proxy).await;
            go.send_replace(true);
        }
        drained(&proxy).await;
    }
}

#[tokio::test]
async fn a_stop_waits_no_longer_than_its_timeout() {
    let silent = Scripted::start("").await;
    let proxy =
        TestProxy::build().service_of("web", "*", "/", &[silent.address], &[silent.address]);
    let proxy = proxy.services(&abandoned("wait")).start();
    let asker = DepartingClient::post(&proxy, Way::Reset, "/wait", "work").await;
    eventually("the requests arrived", async || silent.connections() == 1).await;
    asker.leave(Way::Reset);
    counted(&proxy, 499, 1.0).await;
    drop(proxy.shut_down());
    silent.left().await;
}

#[tokio::test]
async fn a_reload_applies_it() {
    let (blue, green) = (Upstream::start("blue").await, Upstream::start("green").await);
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(&folder, &blue, &green).await;
    let path = folder.path().join("flipgate.toml");
    let text = std::fs::read_to_string(&path).expect("the configuration");
    let left = async |count: usize| {
        let stream = client::connect(PUBLIC, process.public).await;
        // It is reset when it is dropped.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a live socket");
        let mut client = Client::over(stream);
        client.ask("/wait", "").await;
        eventually("the requests arrived", async || blue.whole_requests() == count).await;
        drop(client);
        let series = format!("code=\"499\",color=\"blue\",service=\"web\"}} {count}");
        eventually("it has left", async || process.scrape().await.contains(&series)).await;
    };
    let in_flight = || process.status()["services"]["web"]["pools"]["blue"]["in_flight"].clone();
    left(1).await;
    eventually("no request is in flight", async || in_flight() == 0).await;
    std::fs::write(&path, format!("{text}{}", abandoned("wait"))).expect("written");
    process.caller().reload().await.expect("a good configuration");
    left(2).await;
    assert_eq!(in_flight(), 1);
    blue.release();
    eventually("no request is in flight", async || in_flight() == 0).await;
    // Given up before the answer, of which a limit is over, it is logged; when the answer came, it is not.
    let gave_up = || process.log().contains("gave up waiting for the response");
    assert!(!gave_up(), "{}", process.log());
    blue.hold_back();
    let limited = "timeouts.upstream_response = \"3s\"\n";
    std::fs::write(&path, format!("{limited}{text}{}", abandoned("wait"))).expect("written");
    process.caller().reload().await.expect("a good configuration");
    left(3).await;
    eventually("it is given up", async || in_flight() == 0).await;
    eventually("that is logged", async || gave_up()).await;
}
