//! Which connections close at the limit of connections.

use crate::support::{
    Authority, Client, TestProxy, Upstream,
    client::{INTERNAL, PUBLIC},
    eventually,
};

async fn proxy(workers: usize, top: &str) -> (Upstream, TestProxy) {
    let blue = Upstream::start("blue").await;
    let proxy = TestProxy::build().workers(workers).with(top).service("web", &[&blue], &[]).start();
    (blue, proxy)
}

async fn evicted(proxy: &TestProxy, limit: &str) -> f64 {
    proxy.metric(&format!("flipgate_downstream_evicted_total{{limit=\"{limit}\"}}")).await
}

/// What an idle client has sent, and never goes on with.
#[derive(Clone, Copy, Debug)]
enum Idle {
    Nothing,
    OneRequest,
    PartOfHead,
    Http2Preface,
    /// The connection is for TLS.
    NoHandshake,
}

impl Idle {
    const ALL: [Self; 5] =
        [Self::Nothing, Self::OneRequest, Self::PartOfHead, Self::Http2Preface, Self::NoHandshake];

    async fn open(self, proxy: &TestProxy) -> Client {
        let to = match self {
            Self::NoHandshake => proxy.others[0],
            _ => proxy.public,
        };
        let mut client = Client::connect(PUBLIC, to).await;
        // It may be the one that is closed for another, before it has sent anything.
        match self {
            Self::Nothing | Self::NoHandshake => {}
            Self::OneRequest => {
                client.try_send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
                client.has_come("blue").await;
            }
            Self::PartOfHead => client.try_send("GET / HTTP/1.1\r\nHost:").await,
            Self::Http2Preface => {
                let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
                client.try_send(preface).await;
            }
        }
        client
    }
}

/// 9,000 idle connections of one client took every place, and others waited for 75 s.
#[tokio::test]
async fn at_the_limit_idle_connections_are_closed_and_a_good_client_is_served() {
    for idle in Idle::ALL {
        let authority = Authority::new();
        let files = authority.listener(&authority.issue("server", &["localhost", "a.test"]));
        let trust = authority.client(&[], None);
        let blue = Upstream::start("blue").await;
        let proxy = TestProxy::build()
            // No limit of time comes to their help.
            .with("limits.connections = 40\ntimeouts = { handshake = \"1h\", head = \"1h\", keep_alive = \"1h\" }")
            .listener(&format!("[listener.tls]\n{files}"))
            .service("web", &[&blue], &[])
            .start();
        let mut busy = proxy.public().await;
        busy.ask("/hold", "").await;
        assert_eq!(busy.head().await.status, 200);
        let mut flood = Vec::new();
        for _ in 0..100 {
            flood.push(idle.open(&proxy).await);
        }
        // A worker that has no older one would close a good client's connection for what others have to accept yet.
        eventually("all of the flood was accepted", async || {
            evicted(&proxy, "connections").await >= 61.0
        })
        .await;
        for from in [PUBLIC, INTERNAL] {
            let mut good = Client::connect(from, proxy.public).await;
            assert_eq!(good.get("/", "").await.text(), "blue", "{idle:?}");
            let mut good = Client::connect_tls(from, proxy.others[0], &trust).await;
            assert_eq!(good.get("/", "").await.text(), "blue", "{idle:?}");
        }
        // One that is busy is none of these.
        blue.release();
        assert!(busy.until("0\r\n\r\n").await.contains("blue"), "{idle:?}");
    }
}

#[tokio::test]
async fn the_connection_that_has_been_idle_longest_is_closed() {
    let (_blue, proxy) = proxy(1, "limits.connections = 3").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.public().await;
        assert_eq!(client.get("/", "").await.text(), "blue");
        clients.push(client);
    }
    assert!(evicted(&proxy, "connections").await < 0.5, "there is a place for each");
    assert_eq!(proxy.get("/").await, "blue");
    assert_eq!(clients[0].read_to_end().await, "");
    for client in &mut clients[1..] {
        assert_eq!(client.get("/", "").await.text(), "blue");
    }
}

/// Each worker had a limit of its own: one that the kernel gave more clients than others left some in its
/// queue while there was room.
#[tokio::test]
async fn the_limit_is_of_all_workers_together() {
    let (blue, proxy) = proxy(8, "limits.connections = 64").await;
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut client = proxy.public().await;
        client.ask("/hold", "").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.head().await.status, 200);
    }
    // All are busy: the next one waits.
    let mut late = proxy.public().await;
    late.ask("/hold", "").await;
    eventually("it is noticed", async || {
        proxy.metric("flipgate_downstream_connections").await > 63.5
    })
    .await;
    assert_eq!(blue.requests(), 64);
    blue.release();
    assert_eq!(late.head().await.status, 200, "it has the place of one that is done");
}

#[tokio::test]
async fn a_first_request_has_the_head_timeout_and_a_second_one_the_keep_alive_timeout() {
    let (_blue, proxy) = proxy(2, "timeouts = { head = \"1s\", keep_alive = \"1h\" }").await;
    let mut second = proxy.public().await;
    assert_eq!(second.get("/", "").await.text(), "blue");
    for said in ["", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut first = proxy.public().await;
        first.send(said).await;
        let all = first.read_to_end().await;
        assert_eq!(all.is_empty(), said.is_empty(), "HTTP/2 sends GOAWAY: {all:?}");
    }
    assert_eq!(second.get("/", "").await.text(), "blue");
}

#[tokio::test]
async fn at_the_limit_of_its_client_a_connection_that_has_been_idle_for_a_while_is_closed() {
    let (_blue, proxy) = proxy(1, "limits.connections_per_client = 2").await;
    let [mut one, mut two] = [proxy.public().await, proxy.public().await];
    for client in [&mut one, &mut two] {
        assert_eq!(client.get("/", "").await.text(), "blue");
    }
    eventually("one that has been idle for a second makes room", async || {
        let mut late = proxy.public().await;
        late.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = late.read_until_quiet().await;
        assert!(answer.ends_with("blue") || answer.starts_with("HTTP/1.1 429 "), "{answer}");
        answer.ends_with("blue")
    })
    .await;
    assert_eq!(one.read_to_end().await, "");
    assert!(evicted(&proxy, "connections_per_client").await > 0.5);
    assert!(evicted(&proxy, "connections").await < 0.5);
}

#[tokio::test]
async fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    let top = "limits.connections_per_client = 1\n\
               clients = { internal = [\"127.0.0.1\"], trusted_proxies = [\"127.0.0.2\"] }";
    let (_blue, proxy) = proxy(1, top).await;
    let mut forwarder = [proxy.public().await, proxy.public().await, proxy.public().await];
    for client in &mut forwarder {
        assert_eq!(client.get("/", "").await.text(), "blue");
    }
    let mut other = [proxy.internal().await, proxy.internal().await];
    assert_eq!(other[0].get("/", "").await.text(), "blue");
    assert!(other[1].read_to_end().await.starts_with("HTTP/1.1 429 "));
}
